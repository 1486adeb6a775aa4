"""The README.md beside a trained reader: what it is, how good it is, what it was made with, how to ask it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa.files import write_text
from qa.results import RunRecord, public_command

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

STAGES = {"before": "validation, before training", "eval": "validation", "predict": "test"}
SCORES = {
    "exact_match": "exact match",
    "f1": "F1",
    "HasAns_f1": "F1, answerable",
    "NoAns_f1": "F1, unanswerable",
    "cross_fitted_f1": "F1, threshold not tuned on these",
}
SETTINGS = (
    *("max_seq_length", "doc_stride", "stride_meaning", "max_question_length", "segments", "gold"),
    *("negative_share", "loss", "batching", "learning_rate", "head_learning_rate", "layerwise_lr_decay"),
    *("lr_scheduler_type", "warmup_steps", "weight_decay", "optim", "label_smoothing_factor"),
    *("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("bf16", "fp16", "seed", "n_best_size", "max_answer_length", "max_context", "duplicates"),
)
"""What the card shows of a run's settings, a line of related ones each."""


def write_model_card(
    folder: Path,
    record: RunRecord,
    *,
    evaluations: Sequence[RunRecord] = (),
    about: str = "",
    place: str = "THIS_FOLDER",
) -> Path:
    """Write a model card that the hub can read, scores included (Trainer's own card has empty results).

    Local models and files are called by their names, so that it names no folder of this machine.
    evaluations: records of later evaluations of the same reader. about: paragraphs after the introduction.
    place: what the reader is called where it is used. Returns: the file.
    """
    from huggingface_hub import ModelCardData

    hub_data = {report["source"]: None for report in record.data.values() if report.get("form") == "hub"}
    metadata = ModelCardData(
        model_name=_name(record),
        base_model=_hub_name(record.model),
        datasets=list(hub_data) or None,
        library_name="peft" if (folder / "adapter_config.json").is_file() else "transformers",
        pipeline_tag="question-answering",
        tags=["extractive-question-answering", record.strategy],
        eval_results=[result for one in (record, *evaluations) for result in _eval_results(one)] or None,
    )
    scores, data = _scores(record, evaluations), _data(record, evaluations)
    sections = (_introduction(record), about.strip(), scores, data, _settings(record), _use(place))
    body = "\n\n".join(section for section in sections if section)
    path = folder / "README.md"
    write_text(path, f"---\n{metadata.to_yaml().strip()}\n---\n\n{body}\n")
    return path


def _name(record: RunRecord) -> str:
    return record.name or "reader"


def _hub_name(model: str) -> str | None:
    """A model's name on the hub; None for a packaged encoder and for a folder of somebody's machine."""
    is_local = model.startswith((".", "/", "~", "packaged:")) or Path(model).exists()
    return None if is_local else model


def _eval_results(record: RunRecord) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="question-answering",
            task_name="Extractive question answering",
            dataset_type=_source(record.data[split]),
            dataset_name=_source(record.data[split]),
            dataset_split=split,
            metric_type=key,
            metric_name=label,
            metric_value=round(record.scores[stage].metrics[key], 2),
        )
        for stage, split in (("eval", "validation"), ("predict", "test"))
        if stage in record.scores and split in record.data
        for key, label in SCORES.items()
        if key in record.scores[stage].metrics
    ]


def _source(report: dict[str, Any]) -> str:
    """A hub data set's name, or a file's without its folder."""
    source = str(report["source"])
    return source if report.get("form") == "hub" else Path(source).name


def _introduction(record: RunRecord) -> str:
    encoder = record.model if _hub_name(record.model) or ":" in record.model else Path(record.model).name
    trainable, total = record.parameters["trainable"], record.parameters["total"]
    text = _paragraph(
        "A span reader: it answers a question with a piece of the passage it is given, or says that the "
        f"passage does not tell. Encoder `{encoder}`, strategy `{record.strategy}`: {trainable:,} of "
        f"{total:,} parameters were trained ({trainable / max(1, total):.1%})."
    )
    return f"# {_name(record)}\n\n{text}"


def _scores(record: RunRecord, evaluations: Sequence[RunRecord]) -> str:
    scored = [
        (_label(one, stage, named=bool(evaluations)), scores, public_command(one.command, Path.cwd()))
        for one in (record, *evaluations)
        for stage, scores in one.scores.items()
        if "f1" in scores.metrics
    ]
    if not scored:
        return ""
    keys = [key for key in SCORES if any(key in scores.metrics for _, scores, _ in scored)]
    rows = []
    for label, scores, _ in scored:
        cells = []
        for key in keys:
            cell = f"{scores.metrics[key]:.2f}" if key in scores.metrics else ""
            if key in scores.intervals:
                low, high = scores.intervals[key]
                cell += f" ({low:.1f} to {high:.1f})"
            cells.append(cell)
        rows.append([label, *cells])
    table = _table(["questions", *(SCORES[key] for key in keys)], rows)
    note = _paragraph(
        "Official SQuAD scores in percent, with a 95 % bootstrap interval in parentheses. How each was made:"
    )
    made = "\n".join(f"{label}\n  {scores.signature}\n  {command}" for label, scores, command in scored)
    return f"## Scores\n\n{table}\n\n{note}\n\n```text\n{made}\n```"


def _label(record: RunRecord, stage: str, *, named: bool) -> str:
    """What a stage's questions are called; named: by their source, because there are several."""
    split = "test" if stage == "predict" else "validation"
    source = f"{_source(record.data[split])}, " if named and split in record.data else ""
    return source + STAGES.get(stage, stage)


def _data(record: RunRecord, evaluations: Sequence[RunRecord]) -> str:
    reports = [pair for one in (record, *evaluations) for pair in one.data.items()]
    rows = [
        [
            split,
            f"`{_source(report)}`",
            f"{report['questions']:,}",
            "unknown" if report.get("unlabelled") else f"{report['unanswerable']:,}",
            f"`{report['fingerprint'][:16]}`",
        ]
        for split, report in reports
    ]
    return f"## Data\n\n{_table(['split', 'source', 'questions', 'unanswerable', 'fingerprint'], rows)}"


def _settings(record: RunRecord) -> str:
    unset = {"max_steps": -1}
    shown = [
        f"{key}: {json.dumps(value) if isinstance(value, bool) else value}"
        for key in SETTINGS
        if (value := record.settings.get(key)) is not None and value != unset.get(key)
    ]
    packages = ", ".join(f"{name} {version}" for name, version in record.environment["packages"].items())
    seconds = record.training.get("seconds")
    hardware = record.environment["hardware"]
    device = hardware.get("gpu") or f"{hardware['cores']} cores of {hardware['cpu']}"
    steps = f"{record.training['steps']:,} steps in {seconds:,.0f} seconds" if seconds is not None else "Run"
    made_with = _paragraph(
        f"{steps} on {device}, with {packages}. `run.json` beside this file holds every setting and the loss "
        "curve; `calibration.json` the no-answer threshold and the temperatures."
    )
    return "## Settings\n\n```yaml\n" + "\n".join(shown) + f"\n```\n\n{made_with}"


def _use(place: str) -> str:
    python = f"""from qa import QuestionAnswerer

reader = QuestionAnswerer("{place}")
reader(question="Who lit it?", context="The lamp was lit by Karen Toft.")"""
    command = f"python run_qa.py --model_name_or_path {place} --do_predict \\\n"
    command += "  --test_file QUESTIONS --output_dir ANSWERS"
    first = _paragraph("Windows, decoding, temperature and threshold are those of this reader. In Python:")
    second = _paragraph(
        "From a checkout of the project, with questions in any form of SQuAD or as flat records (`id`, "
        "`question`, `context`):"
    )
    return f"## Use\n\n{first}\n\n```python\n{python}\n```\n\n{second}\n\n```bash\n{command}\n```"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned in the source, too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]

    def lines() -> Iterator[str]:
        for number, row in enumerate(cells):
            yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            if number == 0:
                yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"

    return "\n".join(lines())

"""Whole runs of `run_qa.main` on a tiny reader: training, evaluation, resume, and what they leave behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import run_qa
from qa.arguments import parse_settings
from qa.checkpoints import MANIFEST, SET_ASIDE_SUFFIX, find_fault
from qa.errors import InputError, NotFiniteError
from qa.evaluation import METRIC_NAMES
from qa.results import RunRecord, read_record
from qa.session import Session
from qa.trainer import QATrainer

QUESTIONS = ["--dataset_name", "sample", "--max_train_samples", "21", "--max_eval_samples", "11"]
# Equal batches make equal padding and so equal rounding: what is compared exactly is evaluated in these.
BATCH = ["--per_device_eval_batch_size", "3"]
TRAINING = [
    *("--do_train", "--do_eval", "--num_train_epochs", "2", "--per_device_train_batch_size", "4"),
    *(*BATCH, "--learning_rate", "1e-3", "--logging_steps", "1", "--use_cpu", "--seed", "7"),
    *(
        "--max_seq_length",
        "96",
        "--doc_stride",
        "32",
        "--max_question_length",
        "32",
        "--bootstrap_samples",
        "0",
        "--disable_tqdm",
        "true",
    ),
]

Run = Callable[..., RunRecord]


@pytest.fixture
def run(tiny_reader: Path, tmp_path: Path) -> Run:
    """Run `run_qa.main` into a folder under `tmp_path`; returns the record."""

    def go(name: str, *more: str, base: list[str] = TRAINING, model: Path | None = tiny_reader) -> RunRecord:
        folder = tmp_path / name
        words = [
            *base,
            *QUESTIONS,
            "--output_dir",
            str(folder),
            "--cache_dir",
            str(tmp_path / "cache"),
            *more,
        ]
        run_qa.main(words if model is None else [*words, "--model_name_or_path", str(model)])
        return read_record(folder / ("run.json" if "--do_train" in base else "evaluation-run.json"))

    return go


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def predictions(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_a_run_leaves_reader_answers_and_record(run: Run, tmp_path: Path) -> None:
    record = run("a", "--eval_before_training")
    folder = tmp_path / "a"
    assert {path.name for path in folder.iterdir()} >= {
        *("model.safetensors", "config.json", "tokenizer.json", "calibration.json", "settings.yaml"),
        *("README.md", "run.json", "data_report.json", "eval"),
    }
    assert {path.name for path in (folder / "eval").iterdir()} == {
        *(
            "predictions.jsonl",
            "predictions.json",
            "nbest_predictions.json",
            "null_odds.json",
            "metrics.json",
        ),
    }
    assert set(record.scores) == {"before", "eval"}
    assert record.data["train"]["questions"] == 21
    assert record.data["validation"]["questions"] == 11
    # Windows of 96 tokens: every one trains once an epoch, in batches of 4.
    windows = record.data["train"]["windows"]
    assert windows > 21
    assert record.training["steps"] == 2 * -(-windows // 4)
    assert len(record.training["loss_curve"]) == record.training["steps"]
    assert record.training["tokens"] == pytest.approx(
        2 * windows * record.data["train"]["window_tokens"]["mean"], rel=1e-3
    )


def test_training_lowers_the_loss_of_what_it_trains_on(run: Run) -> None:
    record = run("a", "--num_train_epochs", "6", "--learning_rate", "3e-3")
    curve = [loss for _, loss in record.training["loss_curve"]]
    steps = len(curve) // 6
    assert sum(curve[-steps:]) / steps < 0.8 * sum(curve[:steps]) / steps


def test_answers_are_pieces_of_the_passage_with_offsets(run: Run, tmp_path: Path) -> None:
    run("a")
    dev = json.loads(
        (Path(run_qa.__file__).parent / "qa/datasets/sample/dev.json").read_text(encoding="utf-8")
    )
    passages = {q["id"]: p["context"] for a in dev["data"] for p in a["paragraphs"] for q in p["qas"]}
    rows = predictions(tmp_path / "a" / "eval")
    assert [row["id"] for row in rows] == list(passages)[:11]
    for row in rows:
        assert sum(span["probability"] for span in row["n_best"]) + row[
            "no_answer_probability"
        ] == pytest.approx(1)
        for span in row["n_best"]:
            assert passages[row["id"]][span["start"] : span["end"]] == span["text"]
        if row["answer"]:
            assert passages[row["id"]][row["start"] : row["end"]] == row["answer"]


def test_the_same_command_gives_the_same_weights(run: Run, tmp_path: Path) -> None:
    first, second = run("a"), run("b")
    assert first.training["loss_curve"] == second.training["loss_curve"]
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_finished_run_is_evaluated_from_its_folder_alone(run: Run, tmp_path: Path) -> None:
    trained = run("a")
    answered = predictions(tmp_path / "a" / "eval")
    again = run("a", base=["--do_eval", "--use_cpu", "--bootstrap_samples", "0", *BATCH], model=None)
    assert predictions(tmp_path / "a" / "eval") == answered
    assert again.scores["eval"].metrics["f1"] == trained.scores["eval"].metrics["f1"]
    # Windows and decoding come from the run; the threshold is the saved one, no longer an oracle.
    assert again.settings["max_seq_length"] == 96
    assert "fit:oracle" in trained.scores["eval"].signature
    assert "fit:dev" in again.scores["eval"].signature


def test_questions_without_answers_are_predicted_and_not_scored(run: Run, tmp_path: Path) -> None:
    run("a")
    file = tmp_path / "new.jsonl"
    file.write_text(
        '{"id": "q1", "question": "What is red?", "context": "The door is red. The wall is blue."}\n'
    )
    base = [
        "--do_predict",
        "--use_cpu",
        "--test_file",
        str(file),
        "--model_name_or_path",
        str(tmp_path / "a"),
    ]
    record = run("b", base=base, model=None)
    assert [row["id"] for row in predictions(tmp_path / "b" / "predict")] == ["q1"]
    assert not {"f1", "loss"} & set(record.scores["predict"].metrics)


def test_micro_batches_add_up_to_the_gradient_of_one_batch(tiny_reader: Path, tmp_path: Path) -> None:
    """Nine windows as one batch, or as 4 + 2 + 3 with other neighbours and paddings: one gradient."""
    where = ["--model_name_or_path", str(tiny_reader), "--output_dir", str(tmp_path / "a")]
    more = ["--cache_dir", str(tmp_path / "cache"), "--dropout", "0"]
    session = Session(parse_settings([*TRAINING, *QUESTIONS, *where, *more]))
    session.load_questions()
    session.load_reader()
    session.report_data()
    trainer = session.make_trainer()
    rows = trainer.train_dataset.__getitems__(list(range(9)))

    def gradients(*batches: list[Any]) -> dict[str, torch.Tensor]:
        session.model.zero_grad()
        for batch in batches:
            inputs = trainer.data_collator(batch)
            trainer.compute_loss(session.model, inputs, num_items_in_batch=torch.tensor(9.0)).backward()
        return {name: p.grad.clone() for name, p in session.model.named_parameters() if p.grad is not None}

    whole, parts = gradients(rows), gradients(rows[:4], rows[4:6], rows[6:])
    lengths = {len(row["input_ids"]) for row in rows}
    assert len(lengths) > 2
    assert whole.keys() == parts.keys()
    assert all(torch.allclose(whole[name], parts[name], rtol=1e-4, atol=1e-7) for name in whole)


def test_resume_goes_on_with_the_same_losses(run: Run, tmp_path: Path) -> None:
    saving = ["--save_strategy", "steps", "--save_steps", "5", "--gold", "random"]
    whole = run("whole", *saving)
    for step in (5, 10):
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", tmp_path / "cut" / f"checkpoint-{step}")
    resumed = run("cut", *saving, "--resume_from_checkpoint")
    assert resumed.training["resumed_from"] == "checkpoint-10"
    assert resumed.training["loss_curve"] == whole.training["loss_curve"]
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_truncated_checkpoint_is_named_and_passed_over(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saving = ["--save_strategy", "steps", "--save_steps", "5"]
    whole = run("whole", *saving)
    for step in (5, 10):
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", tmp_path / "cut" / f"checkpoint-{step}")
    optimizer = tmp_path / "cut" / "checkpoint-10" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-1])
    resumed = run("cut", *saving, "--resume_from_checkpoint")
    assert "checkpoint-10 is passed over: optimizer.pt has" in capsys.readouterr().out
    assert (tmp_path / "cut" / f"checkpoint-10{SET_ASIDE_SUFFIX}").is_dir()
    assert resumed.training["resumed_from"] == "checkpoint-5"
    assert resumed.training["loss_curve"] == whole.training["loss_curve"]


def test_packed_trains_and_answers_as_padded_does(run: Run, tmp_path: Path) -> None:
    """The same random batches, without the padding: losses, weights, scores and answers within rounding."""
    plain = [
        "--dropout",
        "0",
        "--num_train_epochs",
        "1",
        "--gradient_accumulation_steps",
        "2",
        "--label_smoothing_factor",
        "0.1",
    ]
    padded = run("padded", *plain, "--batching", "padded")
    packed = run("packed", *plain, "--batching", "packed")
    steps, losses = zip(*packed.training["loss_curve"], strict=True)
    assert steps == tuple(step for step, _ in padded.training["loss_curve"])
    assert losses == pytest.approx([loss for _, loss in padded.training["loss_curve"]], rel=1e-4)
    assert packed.training["tokens"] == padded.training["tokens"]
    one, other = weights(tmp_path / "packed"), weights(tmp_path / "padded")
    # Adam's first steps are the gradient's sign: where that is rounding alone, weights may differ by a step.
    differences = torch.cat([(one[name] - other[name]).abs().flatten() for name in other])
    assert differences.median() < 1e-6
    assert differences.quantile(0.99) < 1e-4
    for metric in ("loss", "f1", "exact_match"):
        found, expected = (record.scores["eval"].metrics[metric] for record in (packed, padded))
        assert found == pytest.approx(expected, rel=1e-3), metric
    for row, same in zip(
        predictions(tmp_path / "packed" / "eval"), predictions(tmp_path / "padded" / "eval"), strict=True
    ):
        assert (row["id"], row["answer"], row["start"]) == (same["id"], same["answer"], same["start"])


def test_what_packed_batches_cannot_be_is_refused(run: Run) -> None:
    with pytest.raises(InputError, match="loss: bert takes its softmax over padding too"):
        run("a", "--batching", "packed", "--loss", "bert")
    with pytest.raises(
        InputError, match="attn_implementation: packed batches have an attention of their own"
    ):
        run("a", "--batching", "packed", "--attn_implementation", "eager")


def test_best_checkpoint_is_kept_and_its_score_comes_back(run: Run, tmp_path: Path) -> None:
    best = [
        "--eval_strategy",
        "epoch",
        "--save_strategy",
        "epoch",
        "--load_best_model_at_end",
        "--save_total_limit",
        "1",
    ]
    record = run(
        "a",
        *best,
        "--num_train_epochs",
        "3",
        "--metric_for_best_model",
        "loss",
        "--greater_is_better",
        "false",
    )
    losses = [row["eval_loss"] for row in record.training["evaluations"]]
    assert record.training["best_metric"] == min(losses)
    assert record.scores["eval"].metrics["loss"] == pytest.approx(min(losses), rel=1e-6)
    left = sorted(path for path in (tmp_path / "a").glob("checkpoint-*"))
    assert 1 <= len(left) <= 2
    assert all(find_fault(path) is None and (path / MANIFEST).is_file() for path in left)


def test_a_loss_that_is_not_finite_stops_the_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = QATrainer.window_losses

    def poisoned(self: QATrainer, model: Any, batch: Any) -> Any:
        losses, output = healthy(self, model, batch)
        return (losses * float("nan") if self.state.global_step == 2 else losses), output

    monkeypatch.setattr(QATrainer, "window_losses", poisoned)
    with pytest.raises(NotFiniteError, match="step 3: the gradients are no longer finite"):
        run("a", "--save_strategy", "steps", "--save_steps", "1")
    assert {path.name for path in (tmp_path / "a").glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    assert not (tmp_path / "a" / "model.safetensors").exists()
    # Where nothing is logged, scored or saved in between, the next step looks, or the run's end.
    quiet = ["--save_strategy", "no", "--logging_steps", "500"]
    with pytest.raises(NotFiniteError, match="step 3: the gradients are no longer finite"):
        run("b", *quiet)
    with pytest.raises(NotFiniteError, match="step 3: the gradients are no longer finite"):
        run("c", *quiet, "--max_steps", "3")
    assert not list(tmp_path.glob("[bc]/model.safetensors"))


def test_an_earlier_run_is_not_overwritten_unasked(run: Run, tmp_path: Path) -> None:
    run("a", "--num_train_epochs", "1")
    kept = (tmp_path / "a" / "run.json").read_bytes()
    with pytest.raises(InputError, match="holds an earlier run"):
        run("a", "--num_train_epochs", "1")
    assert (tmp_path / "a" / "run.json").read_bytes() == kept
    run("a", "--num_train_epochs", "1", "--overwrite_output_dir", "true")


def test_a_threshold_given_decides(run: Run, tmp_path: Path) -> None:
    """Null odds never exceed 1e9 and always exceed -1e9: every question is answered, or none."""
    run("a", "--null_score_diff_threshold", "1e9")
    assert all(row["answer"] for row in predictions(tmp_path / "a" / "eval"))
    base = ["--do_eval", "--use_cpu", "--bootstrap_samples", "0"]
    record = run("a", "--null_score_diff_threshold", "-1e9", base=base, model=None)
    assert not any(row["answer"] for row in predictions(tmp_path / "a" / "eval"))
    assert "fit:given" in record.scores["eval"].signature


def test_an_unknown_metric_is_refused_before_training(run: Run) -> None:
    with pytest.raises(
        InputError, match=r"metric_for_best_model: exact: no such metric; did you mean top5_exact"
    ):
        run("a", "--metric_for_best_model", "exact")


def test_metric_names_are_what_evaluations_give(run: Run) -> None:
    found = set(run("a").scores["eval"].metrics)
    speed = {"runtime", "samples_per_second", "steps_per_second", "epoch", "model_preparation_time"}
    assert found - speed == set(METRIC_NAMES)


OPTIONS = [
    "--loss bert",
    "--gold all",
    "--gold random",
    "--batching sorted",
    "--batching padded",
    "--segments zeros",
    "--stride_meaning step",
    "--negative_share 0.3",
    "--layerwise_lr_decay 0.5",
    "--head_learning_rate 1e-2",
    "--label_smoothing_factor 0.2",
    "--dropout 0.4",
    "--optim sgd",
    "--lr_scheduler_type cosine",
    "--strategy head",
    "--strategy top_layers --trained_layers 1",
]


def test_every_option_of_training_does_something(run: Run) -> None:
    """One step into the second epoch, no two of them train alike: none is parsed and then forgotten."""
    short = ["--max_steps", "22"]
    curves = {"(none)": run("base", *short).training["loss_curve"]}
    for number, option in enumerate(OPTIONS):
        curves[option] = run(f"option-{number}", *short, *option.split()).training["loss_curve"]
    assert all(len(curve) == 22 for curve in curves.values())
    seen = {str(curve): option for option, curve in curves.items()}
    assert len(seen) == len(curves), f"alike: {sorted(set(curves) - set(seen.values()))}"


def test_windows_longer_than_the_encoder_reads_are_refused(run: Run) -> None:
    with pytest.raises(InputError, match=r"max_seq_length: 600, but .* reads at most 512 tokens"):
        run("a", "--max_seq_length", "600")


def test_segments_that_the_encoder_does_not_know_are_refused(
    run: Run, tmp_path: Path, tiny_reader: Path
) -> None:
    shutil.copytree(tiny_reader, tmp_path / "single")
    config = json.loads((tmp_path / "single" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "single" / "config.json").write_text(json.dumps(config | {"type_vocab_size": 1}))
    weight = "bert.embeddings.token_type_embeddings.weight"
    tensors = weights(tiny_reader)
    save_file(tensors | {weight: tensors[weight][:1].clone()}, tmp_path / "single" / "model.safetensors")
    with pytest.raises(InputError, match=r"segments: .* knows a single one; add --segments zeros"):
        run("a", model=tmp_path / "single")
    run("a", "--segments", "zeros", "--max_steps", "1", model=tmp_path / "single")


def test_dry_run_prints_and_writes_nothing(
    run: Run, tmp_path: Path, tiny_reader: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        *TRAINING,
        *QUESTIONS,
        "--output_dir",
        str(tmp_path / "dry"),
        "--cache_dir",
        str(tmp_path / "cache"),
    ]
    run_qa.main([*words, "--model_name_or_path", str(tiny_reader), "--dry_run"])
    printed = capsys.readouterr().out
    assert printed.count("label ") == 3
    assert "learning_rate: 0.001" in printed
    assert "parameters train (100.0%)" in printed
    assert not (tmp_path / "dry").exists()

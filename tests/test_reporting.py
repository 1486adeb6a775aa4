"""What is left behind: prediction files to the last character, a card that the hub reads, the data report."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from qa.confidence.final_answers import Calibration, FinalAnswer, choose
from qa.datasets import LoadedExamples, RecordProblem, table_from_examples
from qa.evaluation import Evaluation
from qa.questions import QuestionSet
from qa.records import Answer, Example, Prediction, Span
from qa.reporting import data_report
from qa.reporting.model_card import write_model_card
from qa.reporting.predictions import SHOWN_CHARACTERS, show_answer, write_predictions
from qa.results import RunRecord, Scores
from qa.windows import WindowSettings, build_windows

# Three spans whose scores are logarithms: shares 4/8, 1/8, 1/8 beside the null answer's 2/8 at threshold 0.
SPANS = (
    Span(4, 9, "Rømer", math.log(4)),
    Span(0, 9, "Ole Rømer", 0.0),
    Span(4, 5, "R", 0.0),
)
FOUND = Prediction("q1", SPANS, math.log(2))
UNANSWERED = Prediction("q2", SPANS[1:], math.log(6))  # 6/8 against 1/8 and 1/8
NOTHING_FOUND = Prediction("q3", (), math.inf)
NO_WINDOW_FITS = Prediction("q4", (), -3.5)


def evaluate(
    predictions: Sequence[Prediction], threshold: float | None, metrics: dict[str, float] | None = None
) -> Evaluation:
    calibration = Calibration(threshold, 1.0, "dev", 4)
    answers = [choose(prediction, calibration) for prediction in predictions]
    metrics = {"exact_match": 50.0, "f1": 62.5} if metrics is None else metrics
    return Evaluation(predictions, answers, metrics, calibration, "squad2|n:4", {"f1": (40.0, 80.0)})


def read_all(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in folder.iterdir():
        text = path.read_text("utf-8")
        found[path.name] = (
            [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        )
    return found


def n_best(spans: Sequence[Span], probabilities: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {
            "text": span.text,
            "start": span.start,
            "end": span.end,
            "score": span.score,
            "probability": pytest.approx(share),
        }
        for span, share in zip(spans, probabilities, strict=True)
    ]


def test_the_files_of_a_reader_that_may_give_no_answer(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "eval"
    written = write_predictions(folder, evaluate([FOUND, UNANSWERED, NOTHING_FOUND, NO_WINDOW_FITS], 0.0))
    names = [
        "predictions.jsonl",
        "predictions.json",
        "nbest_predictions.json",
        "null_odds.json",
        "metrics.json",
    ]
    assert written == [folder / name for name in names]
    found = read_all(folder)
    assert set(found) == set(names)

    first, second = n_best(SPANS, [4 / 8, 1 / 8, 1 / 8]), n_best(SPANS[1:], [1 / 8, 1 / 8])
    assert found["predictions.json"] == {"q1": "Rømer", "q2": "", "q3": "", "q4": ""}
    assert found["nbest_predictions.json"] == {"q1": first, "q2": second, "q3": [], "q4": []}
    # The largest finite one, of q2, is ln 6 - 0; infinite ones stand one above it.
    odds = {"q1": math.log(2) - math.log(4), "q2": math.log(6), "q3": math.log(6) + 1, "q4": math.log(6) + 1}
    assert found["null_odds.json"] == pytest.approx(odds)
    assert found["metrics.json"] == {
        "exact_match": 50.0,
        "f1": 62.5,
        "signature": "squad2|n:4",
        "intervals": {"f1": [40.0, 80.0]},
    }
    nothing = {"answer": "", "start": None, "end": None, "probability": 1.0, "no_answer_probability": 1.0}
    assert found["predictions.jsonl"] == [
        {
            "id": "q1",
            "answer": "Rømer",
            "start": 4,
            "end": 9,
            "probability": pytest.approx(4 / 8),
            "no_answer_probability": pytest.approx(2 / 8),
            "null_score": math.log(2),
            "n_best": first,
        },
        {
            "id": "q2",
            "answer": "",
            "start": None,
            "end": None,
            "probability": pytest.approx(6 / 8),
            "no_answer_probability": pytest.approx(6 / 8),
            "null_score": math.log(6),
            "n_best": second,
        },
        {"id": "q3", **nothing, "null_score": None, "n_best": []},
        {"id": "q4", **nothing, "null_score": -3.5, "n_best": []},
    ]


def test_the_files_of_a_reader_that_always_answers(tmp_path: Path) -> None:
    write_predictions(tmp_path, evaluate([FOUND, NOTHING_FOUND], None))
    found = read_all(tmp_path)
    assert found["predictions.json"] == {"q1": "Rømer", "q3": ""}
    first, second = found["predictions.jsonl"]
    assert (first["probability"], first["no_answer_probability"]) == (pytest.approx(4 / 6), 0.0)
    assert [span["probability"] for span in first["n_best"]] == pytest.approx([4 / 6, 1 / 6, 1 / 6])
    assert (second["answer"], second["probability"], second["no_answer_probability"]) == ("", 0.0, 0.0)
    assert found["null_odds.json"] == pytest.approx({"q1": -math.log(2), "q3": 1 - math.log(2)})


@pytest.mark.parametrize("threshold", [-1.5, 0.0, 0.4, 2.0])
def test_the_answers_probability_is_the_one_in_its_n_best(tmp_path: Path, threshold: float) -> None:
    write_predictions(tmp_path, evaluate([FOUND, UNANSWERED], threshold))
    for row in read_all(tmp_path)["predictions.jsonl"]:
        total = row["no_answer_probability"] + sum(span["probability"] for span in row["n_best"])
        assert total == pytest.approx(1.0)
        expected = row["n_best"][0]["probability"] if row["answer"] else row["no_answer_probability"]
        assert row["probability"] == expected


def test_questions_without_golds_have_no_metrics(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"f1": 3}')  # of an earlier run
    write_predictions(tmp_path, evaluate([FOUND], 0.0, metrics={}))
    assert read_all(tmp_path)["metrics.json"] == {}


def test_no_questions_at_all(tmp_path: Path) -> None:
    write_predictions(tmp_path, evaluate([], 0.0))
    found = read_all(tmp_path)
    assert found["predictions.jsonl"] == []
    assert found["predictions.json"] == found["nbest_predictions.json"] == found["null_odds.json"] == {}


def test_metrics_that_json_cannot_hold_are_left_out(tmp_path: Path) -> None:
    write_predictions(
        tmp_path, evaluate([FOUND], 0.0, metrics={"f1": 1.0, "threshold": math.inf, "x": math.nan})
    )
    assert set(read_all(tmp_path)["metrics.json"]) == {"f1", "signature", "intervals"}


EXAMPLE = Example(
    "q1", "Who?", "Ole Rømer timed Io.", (Answer("Ole Rømer", 0), Answer("Rømer", 4), Answer("Rømer", 4))
)


def test_an_answer_as_a_person_reads_it() -> None:
    answer = FinalAnswer("q1", "Rømer", Span(4, 9, "Rømer", 1.0), 0.876, 0.1)
    assert show_answer(EXAMPLE, answer) == (
        "Passage:  Ole [[Rømer]] timed Io.\n"
        "Question: Who?\n"
        'Answer:   "Rømer" (88%)\n'
        "Gold:     Ole Rømer | Rømer"
    )
    assert show_answer(replace(EXAMPLE, answers=()), FinalAnswer("q1", "", None, 0.6, 0.6)) == (
        "Passage:  Ole Rømer timed Io.\n"
        "Question: Who?\n"
        "Answer:   the passage does not tell (60%)\n"
        "Gold:     the passage does not tell"
    )


def test_a_long_passage_is_shown_around_the_answer_in_lines_of_one_width() -> None:
    context = "Before it. " * 500 + "HERE" + " After it." * 500
    start = context.index("HERE")
    answer = FinalAnswer("q", "HERE", Span(start, start + 4, "HERE", 1.0), 1.0, 0.0)
    shown = show_answer(replace(EXAMPLE, context=context), answer, width=80)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("Passage:  ... ")
    assert all(line.startswith(" " * 10) for line in lines[1 : lines.index("Question: Who?")])
    passage = shown[: shown.index("Question:")]
    assert "[[HERE]]" in passage
    assert passage.rstrip().endswith(" ...")
    words = passage.split()
    assert set(words[2:-1]) == {"Before", "After", "it.", "[[HERE]]"}  # no word is cut
    assert 2 * SHOWN_CHARACTERS - 50 < len(" ".join(words)) < 2 * SHOWN_CHARACTERS + 50
    nowhere = show_answer(replace(EXAMPLE, context=context), FinalAnswer("q", "", None, 1.0, 1.0))
    assert nowhere.startswith("Passage:  Before it. ")


def make_record(**changes: Any) -> RunRecord:
    report = {"questions": 1200, "unanswerable": 250, "fingerprint": "0123456789abcdef" * 4}
    record = RunRecord(
        name="quickstart",
        strategy="full",
        model="packaged:all-MiniLM-L6-v2",
        command="run_qa.py --cache_dir /secret/ada/cache/qa",
        settings={
            "seed": 42,
            "learning_rate": 3e-5,
            "max_seq_length": 384,
            "head_learning_rate": None,
            "hidden": 1,
            "max_steps": -1,
            "bf16": False,
        },
        data={
            "train": {**report, "source": "/secret/ada/squad/train.json", "form": "squad-2.0"},
            "validation": {**report, "source": "/secret/ada/squad/dev.json", "form": "squad-2.0"},
            "test": {**report, "source": "rajpurkar/squad", "form": "hub", "unlabelled": 1200},
        },
        scores={
            "before": Scores({"exact_match": 1.0, "f1": 4.444}, "squad2|n:3|before"),
            "eval": Scores(
                {"exact_match": 50.126, "f1": 61.5, "HasAns_f1": 70.0, "loss": 2.5},
                "squad2|n:3|eval",
                {"f1": (55.04, 66.06)},
            ),
            "predict": Scores({"loss": 0.5}, ""),
        },
        training={"steps": 1234, "seconds": 567.8},
        parameters={"total": 1_000_000, "trainable": 250_000},
        environment={"packages": {"torch": "2.13.0"}, "hardware": {"cpu": "Some CPU", "cores": 2}},
    )
    return replace(record, **changes)


def test_the_card_carries_its_scores_where_the_hub_reads_them(tmp_path: Path) -> None:
    path = write_model_card(tmp_path, make_record())
    assert path == tmp_path / "README.md"
    card = ModelCard.load(path)
    results = {
        (result.dataset_name, result.dataset_split, result.metric_type): result.metric_value
        for result in card.data.eval_results
    }
    assert results == {
        ("dev.json", "validation", "exact_match"): 50.13,
        ("dev.json", "validation", "f1"): 61.5,
        ("dev.json", "validation", "HasAns_f1"): 70.0,
    }
    assert card.data.model_name == "quickstart"
    assert card.data.pipeline_tag == "question-answering"
    assert card.data.library_name == "transformers"
    assert card.data.tags == ["extractive-question-answering", "full"]
    assert card.data.datasets == ["rajpurkar/squad"]
    assert card.data.base_model is None


def test_the_card_reads_well(tmp_path: Path) -> None:
    text = write_model_card(tmp_path, make_record()).read_text("utf-8")
    body = ModelCard(text).text
    assert [line for line in body.splitlines() if line.startswith("#")] == [
        "# quickstart",
        "## Scores",
        "## Data",
        "## Settings",
        "## Use",
    ]
    table = body[body.index("| questions") : body.index("Official SQuAD")].strip().splitlines()
    assert table == [
        "| questions                   | exact match | F1                   | F1, answerable |",
        "|-----------------------------|-------------|----------------------|----------------|",
        "| validation, before training | 1.00        | 4.44                 |                |",
        "| validation                  | 50.13       | 61.50 (55.0 to 66.1) | 70.00          |",
    ]
    assert "validation\n  squad2|n:3|eval\n  run_qa.py --cache_dir .../cache/qa\n" in body
    assert "| test       | `rajpurkar/squad` | 1,200     | unknown      | `0123456789abcdef` |" in body
    assert "| train      | `train.json`      | 1,200     | 250          | `0123456789abcdef` |" in body
    assert "```yaml\nmax_seq_length: 384\nlearning_rate: 3e-05\nbf16: false\nseed: 42\n```" in body
    unwrapped = " ".join(body.split())
    assert "strategy `full`: 250,000 of 1,000,000 parameters were trained (25.0%)." in unwrapped
    assert "1,234 steps in 568 seconds on 2 cores of Some CPU, with torch 2.13.0." in unwrapped
    assert max(len(line) for line in body.splitlines()) <= 110
    assert "secret" not in text
    assert "\n\n\n" not in text
    assert text.endswith("```\n")


def test_the_card_names_later_evaluations_by_their_questions(tmp_path: Path) -> None:
    report = {"questions": 7, "unanswerable": 0, "fingerprint": "f" * 64, "source": "squad/dev-v1.1.json"}
    later = make_record(
        command="run_qa.py --do_eval",
        data={"validation": report},
        scores={"eval": Scores({"exact_match": 70.0, "f1": 80.0}, "squad1|n:7")},
    )
    path = write_model_card(
        tmp_path, make_record(), evaluations=[later], about="For everyone.", place="packaged:some"
    )
    card = ModelCard.load(path)
    assert [(r.dataset_name, r.metric_value) for r in card.data.eval_results if r.metric_type == "f1"] == [
        ("dev.json", 61.5),
        ("dev-v1.1.json", 80.0),
    ]
    assert "\n\nFor everyone.\n\n## Scores" in card.text
    assert "dev-v1.1.json, validation\n  squad1|n:7\n  run_qa.py --do_eval\n```" in card.text
    assert "dev.json, validation, before training\n  squad2|n:3|before" in card.text
    assert "| `dev-v1.1.json`   | 7         | 0 " in card.text
    assert 'QuestionAnswerer("packaged:some")' in card.text


@pytest.mark.parametrize(
    ("model", "base", "encoder"),
    [
        ("SpanBERT/spanbert-base-cased", "SpanBERT/spanbert-base-cased", "`SpanBERT/spanbert-base-cased`"),
        ("/secret/models/bert", None, "`bert`"),
        ("./models/bert", None, "`bert`"),
        ("packaged:all-MiniLM-L6-v2", None, "`packaged:all-MiniLM-L6-v2`"),
    ],
)
def test_only_a_hub_name_becomes_the_base_model(
    tmp_path: Path, model: str, base: str | None, encoder: str
) -> None:
    path = write_model_card(tmp_path, make_record(model=model))
    card = ModelCard.load(path)
    assert card.data.base_model == base
    assert f"Encoder {encoder}," in " ".join(card.text.split())
    assert "secret" not in path.read_text("utf-8")


def test_a_folder_that_looks_like_a_hub_name_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "run").mkdir(parents=True)
    assert (
        ModelCard.load(write_model_card(tmp_path, make_record(model="outputs/run"))).data.base_model is None
    )


def test_a_card_without_scores(tmp_path: Path) -> None:
    record = make_record(scores={}, data={"train": make_record().data["train"]}, training={})
    card = ModelCard.load(write_model_card(tmp_path, record))
    assert card.data.eval_results is None
    assert "## Scores" not in card.text
    assert "## Data" in card.text


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """One token per letter that it knows, one for every other word: lengths can be counted by eye."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: number for number, word in enumerate([*special, *"abcdefghij"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad_token", "unk_token", "cls_token", "sep_token")
    return PreTrainedTokenizerFast(tokenizer_object=backend, **dict(zip(names, special, strict=True)))


EXAMPLES = [
    Example("1", "a b", "a b c d e f g h i j", (Answer("c d", 4),)),
    Example("2", "a b c d e", "a b c", (Answer("b", 2), Answer("b c", 2))),
    Example("3", "j", "a b c d e f"),
    Example("4", "a", "a b c d e f g h", (Answer("a b c d e f g", 0),)),
]


def question_set(examples: Sequence[Example], tokenizer: Any, **changes: Any) -> QuestionSet:
    table = table_from_examples(examples)
    # Room for 3 question tokens, 3 special ones and at least 4 of the passage; neighbours share 1.
    settings = WindowSettings(max_seq_length=10, doc_stride=1, max_question_length=3)
    found: dict[str, Any] = {
        "source": "/data/squad/dev.json",
        "form": "squad-2.0",
        "fingerprint": "ab",
        "problems": (),
        "total": 9,
        "dropped": 2,
        "repaired": 1,
        "unanswerable": sum(not example.answers for example in examples),
        "content_sha256": "cd",
    }
    loaded = LoadedExamples(table=table, **(found | changes))
    return QuestionSet("validation", loaded, build_windows(table, tokenizer, settings, cache_dir=None))


def test_the_data_report_counted_by_hand(tokenizer: Any) -> None:
    report = data_report.describe(question_set(EXAMPLES, tokenizer, notes=("3 titles missing",)))
    # Windows of 5, 4, 6 and 6 passage tokens: [0:5], [4:9], [8:10]; [0:3]; [0:6]; [0:6], [5:8].
    assert report == {
        "source": "/data/squad/dev.json",
        "form": "squad-2.0",
        "fingerprint": "ab",
        "content_sha256": "cd",
        "records": 9,
        "dropped": 2,
        "repaired": 1,
        "unlabelled": 0,
        "notes": ["3 titles missing"],
        "questions": 4,
        "unanswerable": 1,
        "question_tokens": {"mean": 1.75, "median": 1.5, "p95": 3, "max": 3},  # 2, 5 cut to 3, 1, 1
        "passage_tokens": {"mean": 6.75, "median": 7.0, "p95": 10, "max": 10},  # 10, 3, 6, 8
        "window_tokens": {"mean": 9.0, "median": 10.0, "p95": 10, "max": 10},  # 10, 10, 7; 9; 10; 10, 7
        "windows_per_question": {"mean": 1.75, "median": 1.5, "p95": 3, "max": 3},  # 3, 1, 1, 2
        "windows": 7,
        "windows_without_answer": 5,
        "truncated_questions": 1,
        "answers_in_no_window": 1,  # seven tokens, windows of six
        "answers_without_tokens": 0,
        "empty_passages": 0,
    }
    assert json.loads(json.dumps(report)) == report


def test_the_data_report_as_a_table(tokenizer: Any) -> None:
    report = data_report.describe(question_set(EXAMPLES, tokenizer, notes=("3 titles missing",)))
    whole = report | {
        "source": "sample",
        "form": "sample",
        "records": 4_000,
        "dropped": 0,
        "unlabelled": 7,
        "notes": [],
    }
    whole["questions"] = 4_000
    whole["passage_tokens"] = {"mean": 1_234_567.5, "median": 2.0, "p95": 2.0, "max": 2_000}
    assert data_report.render({"train": report, "test": whole}).splitlines() == [
        "data                            train                 test",
        "source                          dev.json (squad-2.0)  sample (sample)",
        "questions                       4 of 7                4,000",
        "  unanswerable                  1 (25.0%)             unknown: 7 have no answers field",
        "  records dropped / repaired    2 / 1 of 9            0 / 1 of 4,000",
        "  cut to max_question_length    1                     1",
        "windows                         7                     7",
        "  without an answer             5 (71.4%)             5 (71.4%)",
        "answers in no window            1                     1",
        "mean / median / 95 % / longest",
        "  question, in tokens           1.75 / 1.5 / 3 / 3    1.75 / 1.5 / 3 / 3",
        "  passage, in tokens            6.75 / 7 / 10 / 10    1,234,567.5 / 2 / 2 / 2,000",
        "  window, in tokens             9 / 10 / 10 / 10      9 / 10 / 10 / 10",
        "  windows per question          1.75 / 1.5 / 3 / 3    1.75 / 1.5 / 3 / 3",
        "train: 3 titles missing",
    ]
    rendered = data_report.render({"train": report | {"answers_without_tokens": 1_000}})
    assert rendered.splitlines()[-2:] == ["answers without a token         1,000", "train: 3 titles missing"]


def test_the_data_report_of_no_questions(tokenizer: Any) -> None:
    report = data_report.describe(question_set([], tokenizer, total=0, dropped=0, repaired=0))
    nothing = {"mean": 0.0, "median": 0.0, "p95": 0, "max": 0}
    for name in ("question_tokens", "passage_tokens", "window_tokens", "windows_per_question"):
        assert report[name] == nothing
    assert (report["questions"], report["windows"], report["windows_without_answer"]) == (0, 0, 0)
    assert "0 (0.0%)" in data_report.render({"train": report})


def test_the_data_report_counts_the_rows_that_are_left(tokenizer: Any) -> None:
    """A data set that remembers a selection as indices is not read past them."""
    whole = question_set(EXAMPLES, tokenizer)
    table = whole.windows.table.select([5, 6])  # the two windows of question 4
    part = replace(whole, windows=replace(whole.windows, table=table))
    report = data_report.describe(part)
    assert report["windows"] == 2
    assert report["passage_tokens"] == {"mean": 8.0, "median": 8.0, "p95": 8, "max": 8}
    assert report["windows_per_question"]["max"] == 2


def test_special_tokens_of_another_template_are_not_counted_as_question() -> None:
    """RoBERTa: `<s> question </s></s> passage </s>`, whose segment borders tell nothing."""
    from datasets import Dataset

    rows = {"input_ids": [[0, 7, 8, 2, 2, 9, 2], [0, 7, 2, 2, 9, 9, 2]], "passage_start": [5, 4]}
    assert data_report._tokens_before_passage(SimpleNamespace(table=Dataset.from_dict(rows))) == 3  # type: ignore[arg-type]


def test_the_data_report_is_saved_with_what_was_dropped(tmp_path: Path, tokenizer: Any) -> None:
    clean = question_set(EXAMPLES, tokenizer)
    reports = {"validation": data_report.describe(clean)}
    assert data_report.save(tmp_path, reports, [clean]) == [tmp_path / "data_report.json"]
    assert json.loads((tmp_path / "data_report.json").read_text("utf-8")) == reports
    assert [path.name for path in tmp_path.iterdir()] == ["data_report.json"]

    problem = RecordProblem(
        "dev.json: data[0]", "9", "the question is empty", "dropped", "fill it in", "question"
    )
    dirty = question_set(EXAMPLES, tokenizer, problems=(problem,))
    written = data_report.save(tmp_path, reports, [dirty])
    assert written == [tmp_path / "data_report.json", tmp_path / "record_problems.json"]
    listed = json.loads((tmp_path / "record_problems.json").read_text("utf-8"))
    assert listed["validation"]["dropped"] == 2
    assert [one["problem"] for one in listed["validation"]["problems"]] == ["the question is empty"]


def test_spread() -> None:
    assert data_report.spread(np.arange(101)) == {"mean": 50.0, "median": 50.0, "p95": 95, "max": 100}
    assert data_report.spread(np.array([], dtype=np.int32))["max"] == 0

"""`python -m qa.metrics` and the `evaluate` module: official files in, official keys out."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qa.metrics.__main__ import main

ROOT = Path(__file__).resolve().parent.parent

ANSWERS_1: dict[str, list[str]] = {"h1": ["x y", "x"], "h2": ["u v"]}
ANSWERS_2: dict[str, list[str]] = {"n1": [], **ANSWERS_1, "n2": []}
PREDICTIONS = {"h1": "X", "h2": "u", "n1": "", "n2": "q"}
NULL_ODDS = {"n1": 0.9, "h1": 0.1, "h2": 0.2, "n2": 0.5}
SCORES_2 = {
    "exact": 50.0,
    "f1": 100 * (1 + 1 + 2 / 3) / 4,
    "total": 4,
    "HasAns_exact": 50.0,
    "HasAns_f1": 100 * (1 + 2 / 3) / 2,
    "HasAns_total": 2,
    "NoAns_exact": 50.0,
    "NoAns_f1": 50.0,
    "NoAns_total": 2,
}


def nested(answers: dict[str, list[str]], **fields: Any) -> dict[str, Any]:
    """Official nested data, one paragraph per question."""
    paragraphs = [
        {
            "context": "-",
            "qas": [{"id": id_, "question": "?", "answers": [{"text": t} for t in texts], **fields}],
        }
        for id_, texts in answers.items()
    ]
    return {"version": "any", "data": [{"title": "-", "paragraphs": paragraphs}]}


class Files:
    """Writes files into one folder and runs the command on them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def write(self, name: str, content: object) -> str:
        path = self.folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """(exit status, standard output, standard error)"""
        status = main(arguments)
        captured = self.capsys.readouterr()
        return status, captured.out, captured.err

    def error(self, *arguments: str) -> str:
        """The one line that the command ends with."""
        status, out, err = self.run(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err


@pytest.fixture
def files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Files:
    return Files(tmp_path, capsys)


@pytest.fixture
def squad2(files: Files) -> tuple[str, str]:
    return files.write("dev.json", nested(ANSWERS_2)), files.write("predictions.json", PREDICTIONS)


def test_squad1_prints_the_official_keys_only(files: Files) -> None:
    data = files.write("dev.json", nested(ANSWERS_1))
    predictions = files.write("predictions.json", {"h1": "X", "h2": "u"})
    status, out, err = files.run(data, predictions)
    assert status == 0
    assert list(json.loads(out).items()) == [("exact_match", 50.0), ("f1", 100 * (1 + 2 / 3) / 2)]
    assert err.startswith("signature: squad1|n:2|noans:0|golds:")


def test_squad2_is_noticed_by_an_unanswerable_question(files: Files, squad2: tuple[str, str]) -> None:
    status, out, err = files.run(*squad2)
    assert status == 0
    assert list(json.loads(out).items()) == list(SCORES_2.items())
    assert "|missing:0|thresh:none|boot:none|" in err


def test_squad2_is_noticed_by_is_impossible(files: Files) -> None:
    data = files.write("dev.json", nested(ANSWERS_1, is_impossible=False))
    predictions = files.write("predictions.json", {"h1": "X", "h2": "u"})
    assert list(json.loads(files.run(data, predictions)[1])) == list(SCORES_2)[:6]
    assert list(json.loads(files.run(data, predictions, "--version", "1.1")[1])) == ["exact_match", "f1"]


def test_gzip_byte_order_mark_and_line_ends(files: Files, squad2: tuple[str, str]) -> None:
    data = files.write("dev.json.gz", gzip.compress(json.dumps(nested(ANSWERS_2)).encode()))
    text = json.dumps(PREDICTIONS, indent=1).replace("\n", "\r\n")
    predictions = files.write("with-mark.json", b"\xef\xbb\xbf" + text.encode())
    assert files.run(data, predictions)[:2] == files.run(*squad2)[:2]


def test_null_odds_and_threshold(files: Files, squad2: tuple[str, str]) -> None:
    null_odds = files.write("null_odds.json", NULL_ODDS)
    _, out, err = files.run(*squad2, "--null-odds", null_odds)
    best = {
        "best_exact": 75.0,
        "best_exact_thresh": 0.1,
        "best_f1": pytest.approx(100 * (1 + 2 / 3 + 2) / 4),
        "best_f1_thresh": 0.2,
    }
    scores = json.loads(out)
    assert list(scores) == [*SCORES_2, *best]
    assert scores == SCORES_2 | best
    assert "note" not in err
    # The official script's own names for the same options; n1 and n2 are above 0.4 and become right.
    _, out, err = files.run(*squad2, "--na-prob-file", null_odds, "-t", "0.4")
    assert json.loads(out)["exact"] == 75.0
    assert "|thresh:0.4|fit:given|ties:grouped|" in err


def test_null_odds_that_are_no_probabilities_deserve_a_threshold(
    files: Files, squad2: tuple[str, str]
) -> None:
    null_odds = files.write("null_odds.json", {id_: 10 * odds - 5 for id_, odds in NULL_ODDS.items()})
    assert "note: the null odds are not probabilities" in files.run(*squad2, "-n", null_odds)[2]
    assert "note" not in files.run(*squad2, "-n", null_odds, "-t", "0")[2]


def test_missing_predictions(files: Files, squad2: tuple[str, str]) -> None:
    fewer = files.write("fewer.json", {"h1": "X", "n2": ""})
    text = files.error(squad2[0], fewer)
    assert "2 of 4 questions have no prediction, the first is 'n1'" in text
    assert "--allow-missing" in text
    status, out, err = files.run(squad2[0], fewer, "--allow-missing")
    assert status == 0
    assert json.loads(out)["exact"] == json.loads(out)["NoAns_f1"] == 50.0
    assert "note: 2 of 4 questions have no prediction, the first is 'n1'; they count as 0.\n" in err
    assert "|missing:2|" in err
    # Under 1.1 a missing prediction counts 0, as in the official script.
    status, out, err = files.run(
        files.write("one.json", nested(ANSWERS_1)), files.write("p.json", {"h1": "x"})
    )
    assert (status, json.loads(out)) == (0, {"exact_match": 50.0, "f1": 50.0})
    assert "note: 1 of 2 questions have no prediction, the first is 'h2'" in err


def test_extra_ids(files: Files, squad2: tuple[str, str]) -> None:
    more = files.write("more.json", {**PREDICTIONS, "z": "x"})
    assert "more.json: 1 ids are not in" in files.error(squad2[0], more)
    status, out, err = files.run(squad2[0], more, "--allow-extra")
    assert (status, json.loads(out)) == (0, SCORES_2)
    assert "note: 1 predictions have no question and are left out, first 'z'." in err
    odds = files.write("odds.json", {**NULL_ODDS, "z": 0.1})
    assert "odds.json: 1 ids are not in" in files.error(*squad2, "-n", odds)


def test_report_holds_everything(files: Files, squad2: tuple[str, str]) -> None:
    n_best = {"h1": [{"text": "z"}, {"text": "x"}], "h2": ["u v"], "n1": [], "n2": ["q", ""]}
    out_file, report_file = files.folder / "scores.json", files.folder / "report.json"
    _, out, err = files.run(
        *squad2,
        *("--n-best", files.write("n_best.json", n_best)),
        *("--bootstrap", "200", "--confidence", "0.9", "--seed", "5"),
        *("--out", str(out_file), "--report", str(report_file)),
    )
    assert json.loads(out) == json.loads(out_file.read_text()) == SCORES_2
    report = json.loads(report_file.read_text())
    assert list(report) == ["scores", "missing", "intervals", "oracle", "signature", "notes"]
    assert report["oracle"]["top1_exact"] == 50.0
    assert report["oracle"]["top5_exact"] == 100.0
    low, high = report["intervals"]["exact"]
    assert 0 <= low < 50 < high <= 100
    assert report["signature"].endswith("|boot:200|conf:0.9|seed:5|version:1")
    assert err.splitlines() == report["notes"]
    assert f"exact: 50.00, 0.9 interval {low:.2f} to {high:.2f}" in err
    assert sorted(path.name for path in files.folder.iterdir()) == [
        "dev.json",
        "n_best.json",
        "predictions.json",
        "report.json",
        "scores.json",
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"{", "is not JSON: .* in line 1, column 2"),
        (b"id\ttext\n", "is not JSON"),
        (b"\xff\xfe{}", "is not UTF-8 text"),
        (gzip.compress(b'{"h1": "x", "h2": "y"}')[:-9], "broken or truncated gzip"),
        (b"\x1f\x8b\x08", "broken or truncated gzip"),
        (b"[" * 200_000, "nested too deeply"),
        ([], "must hold one JSON object"),
        ({"h1": 5}, "prediction of 'h1' must be a text"),
        ({"h1": None}, "prediction of 'h1' must be a text"),
        (b'{"h1": "x", "h1": "y"}', "the key 'h1' stands twice"),
    ],
)
def test_malformed_predictions(files: Files, squad2: tuple[str, str], content: object, sentence: str) -> None:
    text = files.error(squad2[0], files.write("bad.json", content))
    assert "bad.json" in text
    assert re.search(sentence, text)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], 'the file has no list "data"'),
        ({"data": [{}]}, 'data[0] has no list "paragraphs"'),
        ({"data": [{"paragraphs": [{"context": "-"}]}]}, 'data[0].paragraphs[0] has no list "qas"'),
        ({"data": [{"paragraphs": [{"qas": ["?"]}]}]}, "data[0].paragraphs[0].qas[0] must be an object"),
        ({"data": [{"paragraphs": [{"qas": [{"id": 1, "answers": []}]}]}]}, 'needs an "id" (text)'),
        ({"data": [{"paragraphs": [{"qas": [{"id": "a"}]}]}]}, '"answers" (list)'),
        (nested({"a": ["x"]}) | {"data": []}, "holds no question"),
        (
            {"data": [{"paragraphs": [{"qas": [{"id": "a", "answers": ["x"]}]}]}]},
            "question 'a' has an answer",
        ),
        (
            {"data": [*nested({"a": []})["data"], *nested({"a": ["x"]})["data"]]},
            "two questions have the id 'a'",
        ),
    ],
)
def test_malformed_data(files: Files, content: object, sentence: str) -> None:
    text = files.error(files.write("bad.json", content), files.write("predictions.json", {}))
    assert "bad.json" in text
    assert sentence in text


def test_other_mistakes(files: Files, squad2: tuple[str, str]) -> None:
    data, predictions = squad2
    assert "Cannot read" in files.error(data, str(files.folder / "absent.json"))
    assert "Cannot read" in files.error(data, str(files.folder))
    assert "--threshold has nothing to compare with" in files.error(data, predictions, "--threshold", "0.5")
    assert "question 'n1' has no answers" in files.error(data, predictions, "--version", "1.1")
    assert "positive number" in files.error(data, predictions, "--bootstrap", "-1")
    assert "got 95.0" in files.error(data, predictions, "--bootstrap", "9", "--confidence", "95")
    assert "Cannot write" in files.error(
        data, predictions, "--out", str(files.folder / "absent" / "scores.json")
    )
    assert "not a file" in files.error(data, predictions, "--out", str(files.folder))
    odds = files.write("odds.json", NULL_ODDS)
    assert "not a number" in files.error(data, predictions, "-n", odds, "-t", "nan")
    for value in ("0.5", None, True, float("nan")):
        bad = files.write("bad-odds.json", {**NULL_ODDS, "h1": value})
        assert "null odds of 'h1' must be a number" in files.error(data, predictions, "-n", bad)
    some = files.write("some-odds.json", {"h1": 0.5})
    assert "missing for 3 questions, the first is 'n1'" in files.error(data, predictions, "-n", some)
    for content in ("x", [5], [{"probability": 1.0}]):
        bad = files.write("bad-n-best.json", dict.fromkeys(ANSWERS_2, content))
        assert "n-best list of 'n1' must hold texts" in files.error(data, predictions, "--n-best", bad)
    one = files.write("one.json", nested(ANSWERS_1))
    two = files.write("two.json", {"h1": "x", "h2": "u"})
    assert "knows no null odds" in files.error(one, two, "-n", odds)


def test_module_runs_as_a_command(files: Files, squad2: tuple[str, str]) -> None:
    command = [sys.executable, "-m", "qa.metrics"]
    done = subprocess.run([*command, *squad2], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)) == (0, SCORES_2)
    done = subprocess.run(
        [*command, squad2[1], squad2[0]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_official_files(files: Files, real_data: Path) -> None:
    data = real_data / "squad" / "dev-v2.0.json.gz"
    with gzip.open(data, "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    questions = [q for article in articles for paragraph in article["paragraphs"] for q in paragraph["qas"]]
    wrong = {q["id"] for q in questions if q["answers"]} & {q["id"] for q in questions[::10]}
    predictions = {
        q["id"]: "" if q["id"] in wrong or not q["answers"] else q["answers"][0]["text"] for q in questions
    }
    status, out, err = files.run(str(data), files.write("predictions.json", predictions))
    scores = json.loads(out)
    assert status == 0
    assert scores["f1"] == scores["exact"] == 100 * (11_873 - len(wrong)) / 11_873
    assert scores["HasAns_exact"] == 100 * (5_928 - len(wrong)) / 5_928
    assert (scores["NoAns_exact"], scores["NoAns_total"]) == (100.0, 5_945)
    assert "squad2|n:11873|noans:5945|golds:27e5fad3|" in err


EVALUATE_SCRIPT = """
import json, sys

# evaluate looks for transformers only to offer its evaluators: several seconds of imports.
sys.modules["transformers"] = None
import evaluate
del sys.modules["transformers"]

path = sys.argv[1]
golds = {"n1": [], "h1": ["x y", "x"], "h2": ["u v"], "n2": []}
references = [{"id": i, "answers": {"text": t, "answer_start": [0] * len(t)}} for i, t in golds.items()]
texts = {"h1": "X", "h2": "u", "n1": "", "n2": "q"}
odds = {"n1": 0.9, "h1": 0.1, "h2": 0.2, "n2": 0.5}
predictions = [
    {"id": i, "prediction_text": t, "no_answer_probability": odds[i]} for i, t in texts.items()
]
squad2 = evaluate.load(path)
results = [
    squad2.compute(predictions=predictions, references=references),
    squad2.compute(predictions=predictions, references=references, no_answer_threshold=0.4),
]
squad1 = evaluate.load(path, "squad")
for prediction, reference in zip(predictions[:2], references[1:3]):
    del prediction["no_answer_probability"]
    squad1.add(prediction=prediction, reference=reference)
results.append(squad1.compute())
for bad in (predictions[:1] * 2, predictions[:2]):
    try:
        squad1.compute(predictions=bad, references=references[:2])
    except ValueError as error:
        results.append(str(error))
print(json.dumps(results))
"""


def test_evaluate_module_loads_without_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("evaluate")
    module = ROOT / "qa" / "metrics" / "evaluate_module.py"
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EVALUATE_SCRIPT, str(module)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    default, with_threshold, squad1, same_id, no_gold = json.loads(done.stdout)
    best_f1 = pytest.approx(100 * (1 + 2 / 3 + 2) / 4)
    best = {"best_exact": 75.0, "best_exact_thresh": 0.1, "best_f1": best_f1, "best_f1_thresh": 0.2}
    assert default == SCORES_2 | best
    assert list(default) == [*SCORES_2, *best]
    assert with_threshold["exact"] == 75.0
    assert with_threshold["best_exact"] == 75.0
    assert squad1 == {"exact_match": 50.0, "f1": 100 * (1 + 2 / 3) / 2}
    assert "same id" in same_id
    assert "no gold answer" in no_gold

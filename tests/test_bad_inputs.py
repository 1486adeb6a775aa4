"""Bad inputs through the command: one sentence, a non-zero exit, nothing written. And odd but good ones."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_qa
from qa.errors import InputError

ROOT = Path(run_qa.__file__).parent
Make = Callable[..., Path]


def squad(*questions: dict[str, Any], context: str = "The door is red. The wall is blue.") -> str:
    return json.dumps(
        {
            "version": "1.1",
            "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}],
        }
    )


def asked(
    question: str = "What is red?", text: str = "door", start: int = 4, key: str = "q1"
) -> dict[str, Any]:
    return {"id": key, "question": question, "answers": [{"text": text, "answer_start": start}]}


BAD_FILES = {
    "empty file": (b"", "is empty"),
    "truncated gzip": (gzip.compress(squad(asked()).encode() * 50)[:-20], "gzip"),
    "not JSON": (b"<html>no questions here</html>", "train.json"),
    "wrong columns": (b'{"query": "What is red?", "text": "The door is red."}\n', "question"),
    "offset off by one": (squad(asked(start=5)).encode(), "door"),
    "duplicate ids": (squad(asked(), asked(question="What is blue?", text="wall", start=21)).encode(), "q1"),
    "empty question": (squad(asked(question=" ")).encode(), "question"),
    "answer not there": (squad(asked(text="roof")).encode(), "roof"),
}


@pytest.fixture
def words(tiny_reader: Path, tmp_path: Path) -> list[str]:
    return [
        *(
            "--do_train",
            "--do_eval",
            "--use_cpu",
            "--model_name_or_path",
            str(tiny_reader),
            "--num_train_epochs",
            "1",
        ),
        *(
            "--output_dir",
            str(tmp_path / "out"),
            "--cache_dir",
            str(tmp_path / "cache"),
            "--bootstrap_samples",
            "0",
        ),
        *("--disable_tqdm", "true"),
    ]


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_ends_in_one_sentence_and_writes_nothing(
    name: str, words: list[str], tmp_path: Path
) -> None:
    content, phrase = BAD_FILES[name]
    file = tmp_path / "train.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        run_qa.main([*words, "--train_file", str(file), "--validation_file", str(file)])
    message = str(caught.value)
    assert "train.json" in message
    assert phrase in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


def test_the_command_prints_one_line_and_fails(words: list[str], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "run_qa.py",
        *words,
        "--train_file",
        str(tmp_path / "no.json"),
        "--validation_file",
        "sample",
    ]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if "run_qa.py:" in line and "no.json" in line]


ODD_BUT_GOOD = {
    "emoji before the answer": ("\U0001f6aa\U0001f44d\U0001f3fd The door is red.", "door"),
    "combining characters": ("Cafe\u0301 Zoe\u0308 serves the best coffee in town.", "Zoe\u0308"),
    "right-to-left text": (
        "\u05d4\u05d3\u05dc\u05ea \u05d0\u05d3\u05d5\u05de\u05d4 "
        "\u05d5\u05d4\u05e7\u05d9\u05e8 \u05db\u05d7\u05d5\u05dc",
        "\u05d0\u05d3\u05d5\u05de\u05d4",
    ),
    "CRLF": ("The door is red.\r\nThe wall is blue.\r\n", "blue"),
    "60,000 words": ("one two three four five six " * 10_000 + "The door is red.", "red"),
}


@pytest.mark.parametrize("name", ODD_BUT_GOOD)
def test_odd_text_keeps_its_labels(
    name: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `--dry_run` marks as the gold is the answer, character for character."""
    context, text = ODD_BUT_GOOD[name]
    file = tmp_path / "train.json"
    file.write_text(squad(asked(text=text, start=context.rindex(text)), context=context), encoding="utf-8")
    more = ["--train_file", str(file), "--validation_file", str(file), "--negative_share", "0.01"]
    run_qa.main([*words, *more, "--max_steps", "1"])
    rows = [
        json.loads(line)
        for line in (tmp_path / "out" / "eval" / "predictions.jsonl").read_text("utf-8").splitlines()
    ]
    assert [row["id"] for row in rows] == ["q1"]
    for span in rows[0]["n_best"]:
        assert context[span["start"] : span["end"]] == span["text"]
    report = json.loads((tmp_path / "out" / "data_report.json").read_text("utf-8"))
    assert report["train"]["windows"] - report["train"]["windows_without_answer"] >= 1


def test_a_question_of_3000_words_is_cut_and_counted(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "train.json"
    file.write_text(squad(asked(question="why " * 3000 + "?")), encoding="utf-8")
    run_qa.main([*words, "--train_file", str(file), "--validation_file", str(file), "--max_steps", "1"])
    report = json.loads((tmp_path / "out" / "data_report.json").read_text("utf-8"))
    assert report["train"]["truncated_questions"] == 1
    assert json.loads((tmp_path / "out" / "eval" / "predictions.json").read_text("utf-8")).keys() == {"q1"}

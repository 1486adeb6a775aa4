"""Train and test files without an article in both."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from qa.datasets import load_examples
from qa.datasets.splitting import main, split_articles
from qa.errors import InputError


def article(title: str, questions: int) -> dict[str, Any]:
    qas = [
        {"id": f"{title}/{n}", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]}
        for n in range(questions)
    ]
    return {"title": title, "paragraphs": [{"context": "Ada did.", "qas": qas}]}


ARTICLES = [article(f"w:{number // 2}:{number}", 1 + number % 3) for number in range(12)]


def test_articles_stay_whole_and_nothing_is_lost() -> None:
    train, test = split_articles(ARTICLES, 0.3, seed=1, article=r"^w:\d+")
    assert sorted(one["title"] for one in train + test) == sorted(one["title"] for one in ARTICLES)
    assert [one["title"] for one in train] == [one["title"] for one in ARTICLES if one in train]
    names = [{one["title"].rsplit(":", 1)[0] for one in part} for part in (train, test)]
    assert names[0].isdisjoint(names[1])
    held = sum(len(one["paragraphs"][0]["qas"]) for one in test)
    assert 0.3 * 24 <= held <= 0.3 * 24 + 6
    assert split_articles(ARTICLES, 0.3, seed=1, article=r"^w:\d+") == (train, test)
    assert split_articles(ARTICLES, 0.3, seed=2, article=r"^w:\d+") != (train, test)


def test_impossible_splits_are_refused() -> None:
    with pytest.raises(InputError, match="leaves one part empty"):
        split_articles(ARTICLES, 1.0, seed=1)
    with pytest.raises(InputError, match="article: x: is not in the title 'w:0:0'"):
        split_articles(ARTICLES, 0.3, seed=1, article="x:")


def test_the_files_are_read_as_any_other(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = empty_folder / "data"
    data.mkdir()
    (data / "all.json.gz").write_bytes(gzip.compress(json.dumps({"data": ARTICLES}).encode()))
    monkeypatch.setenv("QA_DATA_DIR", str(data))
    main(["all.json.gz", "--output_dir", "out"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["out/train.json", "out/test.json"]
    loaded = [
        load_examples(f"out/{part}.json", cache_dir=empty_folder / "cache") for part in ("train", "test")
    ]
    assert sum(len(one.table) for one in loaded) == 24
    with pytest.raises(InputError, match=r"nothing\.json: there is no such file here or in QA_DATA_DIR"):
        main(["nothing.json", "--output_dir", "out"])

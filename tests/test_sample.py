"""The sample questions: every offset proven, nothing in two splits, nothing copied."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from qa.datasets import content_digest, load_examples
from qa.datasets.sample import sample_path
from qa.errors import InputError

SPLITS = ("train", "dev", "test")
DOMAINS = {"history of science", "medicine leaflets", "rules and policies", "travel and sport"}
LONGEST_SHARED_RUN = 10
"""Words: a run of so many is shared with a published passage only where one was copied."""


@pytest.fixture(scope="module")
def files() -> dict[str, Any]:
    """Split -> the file's content."""
    return {split: json.loads(sample_path(split).read_text("utf-8")) for split in SPLITS}


def paragraphs(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return chain.from_iterable(article["paragraphs"] for article in content["data"])


def questions(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(context, question) pairs."""
    return ((paragraph["context"], qa) for paragraph in paragraphs(content) for qa in paragraph["qas"])


def plain(text: str) -> str:
    """Words only, in lower case: what two texts have in common whatever their punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_the_files_say_what_they_are(files: dict[str, Any]) -> None:
    for content in files.values():
        assert content["version"] == "v2.0"
        assert content["license"] == "CC0-1.0"


def test_there_is_enough_of_everything(files: dict[str, Any]) -> None:
    assert sum(1 for content in files.values() for _ in paragraphs(content)) >= 60
    everything = [qa for content in files.values() for _, qa in questions(content)]
    assert len(everything) >= 420
    shares = {split: [qa["is_impossible"] for _, qa in questions(files[split])] for split in SPLITS}
    for split, flags in shares.items():
        assert 0.15 <= sum(flags) / len(flags) <= 0.25, split
    several = sum(len({answer["text"] for answer in qa["answers"]}) > 1 for qa in everything)
    assert several >= 0.1 * len(everything)


@pytest.mark.parametrize("split", SPLITS)
def test_every_passage_is_of_ordinary_length(files: dict[str, Any], split: str) -> None:
    for paragraph in paragraphs(files[split]):
        assert 80 <= len(paragraph["context"].split()) <= 200, paragraph["context"][:60]
        assert len(paragraph["qas"]) >= 3


@pytest.mark.parametrize("split", SPLITS)
def test_all_domains_are_in_every_split(files: dict[str, Any], split: str) -> None:
    assert {article["domain"] for article in files[split]["data"]} == DOMAINS


@pytest.mark.parametrize("split", SPLITS)
def test_every_offset_gives_its_answer_whole_words_and_all(files: dict[str, Any], split: str) -> None:
    for context, qa in questions(files[split]):
        assert bool(qa["answers"]) is not qa["is_impossible"], qa["id"]
        for answer in (*qa["answers"], *qa.get("plausible_answers", ())):
            text, start = answer["text"], answer["answer_start"]
            end = start + len(text)
            assert start >= 0, qa["id"]
            assert context[start:end] == text, qa["id"]
            assert text.strip() == text != "", qa["id"]
            assert not re.match(r"\w\w", context[max(0, start - 1) : start + 1]), qa["id"]
            assert not re.match(r"\w\w", context[end - 1 : end + 1]), qa["id"]


@pytest.mark.parametrize("split", SPLITS)
def test_every_unanswerable_question_has_a_distractor(files: dict[str, Any], split: str) -> None:
    for _, qa in questions(files[split]):
        assert bool(qa.get("plausible_answers")) is qa["is_impossible"], qa["id"]


@pytest.mark.parametrize("split", SPLITS)
def test_golds_of_a_question_differ(files: dict[str, Any], split: str) -> None:
    for _, qa in questions(files[split]):
        golds = [(answer["text"], answer["answer_start"]) for answer in qa["answers"]]
        assert len(set(golds)) == len(golds), qa["id"]


def test_nothing_is_there_twice(files: dict[str, Any]) -> None:
    """Within a split or in two: passages, questions, ids, and titles over splits."""
    found: dict[str, list[str]] = {
        "id": [qa["id"] for content in files.values() for _, qa in questions(content)],
        "question": [plain(qa["question"]) for content in files.values() for _, qa in questions(content)],
        "passage": [plain(one["context"]) for content in files.values() for one in paragraphs(content)],
        "title": [
            title for content in files.values() for title in {plain(one["title"]) for one in content["data"]}
        ],
    }
    for kind, values in found.items():
        repeated = [value for value, count in Counter(values).items() if count > 1]
        assert repeated == [], kind


def test_no_two_passages_share_a_sentence(files: dict[str, Any]) -> None:
    seen: dict[str, str] = {}
    for content in files.values():
        for paragraph in paragraphs(content):
            for run in runs(paragraph["context"]):
                assert seen.setdefault(run, paragraph["context"]) == paragraph["context"], run


@pytest.mark.parametrize("split", SPLITS)
def test_questions_read_like_questions(files: dict[str, Any], split: str) -> None:
    for _, qa in questions(files[split]):
        assert qa["question"].endswith("?"), qa["id"]
        assert qa["question"] == " ".join(qa["question"].split()), qa["id"]
        assert 3 <= len(qa["question"].split()) <= 40, qa["id"]


@pytest.mark.parametrize("split", SPLITS)
def test_the_reader_takes_every_record_as_it_stands(
    files: dict[str, Any], split: str, tmp_path: Path
) -> None:
    loaded = load_examples("sample", split=split, cache_dir=tmp_path)
    expected = [qa for _, qa in questions(files[split])]
    assert loaded.table["id"][:] == [qa["id"] for qa in expected]
    assert loaded.unanswerable == sum(qa["is_impossible"] for qa in expected)
    assert (loaded.dropped, loaded.repaired, loaded.problems) == (0, 0, ())


def runs(text: str, length: int = LONGEST_SHARED_RUN) -> Iterator[str]:
    """All runs of so many words."""
    words = plain(text).split()
    return (" ".join(words[at : at + length]) for at in range(len(words) - length + 1))


def test_no_passage_is_taken_from_squad(files: dict[str, Any], real_data: Path) -> None:
    ours = {
        run: one["context"]
        for content in files.values()
        for one in paragraphs(content)
        for run in runs(one["context"])
    }
    published = [
        real_data / "squad" / name for name in ("train-v1.1.json.gz", "dev-v1.1.json.gz", "dev-v2.0.json.gz")
    ]
    contexts: set[str] = set()
    for path in published:
        contexts.update(one["context"] for one in paragraphs(json.loads(gzip.decompress(path.read_bytes()))))
    assert len(contexts) > 20_000
    for context in contexts:
        shared = ours.keys() & set(runs(context))
        assert shared == set(), context[:80]


@pytest.mark.parametrize("split", SPLITS)
def test_one_domain_can_be_taken_by_name(files: dict[str, Any], split: str, tmp_path: Path) -> None:
    found = {}
    for domain in sorted(DOMAINS):
        loaded = load_examples(f"sample:{domain}", split=split, cache_dir=tmp_path)
        assert loaded.form == "sample"
        assert loaded.content_sha256 == content_digest(f"sample:{domain}", split)
        found[domain] = loaded.table["id"][:]
        inside = {"data": [one for one in files[split]["data"] if one["domain"] == domain]}
        assert found[domain] == [qa["id"] for _, qa in questions(inside)]
    assert sum(map(len, found.values())) == sum(1 for _ in questions(files[split]))
    digests = {content_digest(f"sample:{domain}", split) for domain in DOMAINS}
    assert len(digests | {content_digest("sample", split)}) == len(DOMAINS) + 1


def test_an_unknown_domain_is_refused_with_the_names_of_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^sample:cooking: there is no such domain; choose one of history"):
        load_examples("sample:cooking", cache_dir=tmp_path)

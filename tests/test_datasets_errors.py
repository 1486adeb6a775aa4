"""A page of bad inputs: each ends in one clear sentence or, under drop and repair, in a right table."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path
from typing import Any, Literal

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_datasets import FORMS

from qa.datasets import LoadedExamples, load_examples, write_problem_report
from qa.datasets.answers import occurrences, place_answer
from qa.datasets.checking import BadRecordError, RawRecord, check_record
from qa.errors import InputError
from qa.records import Answer, Example

#          0         1         2         3         4
#          01234567890123456789012345678901234567890123456789
CONTEXT = "Ada met Bob in Rome. Later Bob left Rome for Oslo."
GOOD: dict[str, Any] = {
    "id": "q1",
    "question": "Where did Ada meet Bob?",
    "context": CONTEXT,
    "answers": {"text": ["Ada"], "answer_start": [0]},
}


def golds(text: Any, start: Any) -> dict[str, Any]:
    return {"answers": {"text": [text], "answer_start": [start]}}


def lines(*records: Any) -> bytes:
    return "\n".join(json.dumps(record) for record in records).encode()


def squad(*records: dict[str, Any], context: Any = CONTEXT) -> bytes:
    return json.dumps(
        {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(records)}]}]}
    ).encode()


def parquet(path: Path, **columns: Any) -> bytes:
    pq.write_table(pa.table(columns), path)
    return path.read_bytes()


def sentence(source: str | Path, tmp_path: Path, **settings: Any) -> str:
    """The one sentence with which the source is refused, without the source's name."""
    cached = list(tmp_path.glob("cache/*"))
    with pytest.raises(InputError) as raised:
        load_examples(str(source), cache_dir=tmp_path / "cache", **settings)
    text = str(raised.value)
    assert text.startswith((f"{source}: ", f"{source}["))
    assert "\n" not in text
    assert text.endswith(".")
    text.encode()  # printable anywhere: no lone surrogate in it
    assert cached == list(tmp_path.glob("cache/*"))
    return text.removeprefix(f"{source}: ")


def refused(content: bytes, tmp_path: Path, **settings: Any) -> str:
    (tmp_path / "data").write_bytes(content)
    return sentence(tmp_path / "data", tmp_path, **settings)


def loaded(content: bytes, tmp_path: Path, how: Literal["drop", "repair"]) -> LoadedExamples:
    (tmp_path / "data").write_bytes(content)
    return load_examples(str(tmp_path / "data"), on_bad_record=how, cache_dir=tmp_path / "cache")


# Sources that cannot be read at all.


def test_a_missing_file_suggests_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train-v1.1.json").touch()
    text = sentence(tmp_path / "train_v1.1.json", tmp_path)
    assert text == f"there is no such file; did you mean {tmp_path / 'train-v1.1.json'}."
    text = sentence(tmp_path / "dat" / "train.json", tmp_path)
    assert text == f"there is no such file; there is no folder {tmp_path / 'dat'}."
    text = sentence(tmp_path / "zzz.csv", tmp_path)
    assert text == "there is no such file; check the path."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", None)  # none of these may go to the hub
    for source in (
        "train.jsonl",
        "./train",
        "../train",
        "~/no-such-folder/train",
        "cache dir/train",
        "x/y/z",
        "dev.gz",
    ):
        assert "there is no such file" in sentence(source, tmp_path)
    (tmp_path / "data").mkdir()
    assert sentence("data/train", tmp_path) == "there is no such file; check the path."


def test_folders_pipes_and_addresses(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert sentence(folder, tmp_path) == "this is a folder; name a file, or a hub data set as owner/name."
    (folder / "dev.json").touch()
    assert "this is a folder; name one of its files (dev.json)" in sentence(folder, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in sentence(tmp_path / "pipe", tmp_path)
    assert "download the file" in sentence("https://example.org/train.json", tmp_path)
    with pytest.raises(InputError, match="the data source is empty"):
        load_examples(" ", cache_dir=tmp_path)
    with pytest.raises(InputError, match="cannot be looked up"):
        load_examples("x" * 5_000 + ".json", cache_dir=tmp_path)


def test_settings_out_of_range(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(lines(GOOD))
    with pytest.raises(InputError, match="on_bad_record: 'fix' is no choice; use fail, drop or repair"):
        load_examples(str(tmp_path / "data"), on_bad_record="fix")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_samples: 0 keeps no example"):
        load_examples(str(tmp_path / "data"), max_samples=0)
    (tmp_path / "occupied").touch()
    with pytest.raises(InputError, match="occupied: the examples cannot be cached there"):
        load_examples(str(tmp_path / "data"), cache_dir=tmp_path / "occupied")


def test_the_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "squad.json").touch()
    text = sentence("squad", tmp_path, split="validation")  # really asked, offline
    assert text.startswith(
        "there is no such file (did you mean squad.json?), and split validation of the hub"
    )
    assert text.endswith("); check the name, the split and the network, or name a local file.")

    def no_such_split(*_: Any, **__: Any) -> None:
        raise ValueError("Unknown split \"dev\". Should be one of ['train'].\nmore")

    monkeypatch.setattr(datasets, "load_dataset", no_such_split)
    assert "(ValueError: Unknown split \"dev\". Should be one of ['train'])" in sentence(
        "a/b", tmp_path, split="dev"
    )
    texts = datasets.Dataset.from_dict({"text": ["a"], "label": [1]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: texts)
    with pytest.raises(
        InputError,
        match=r"a/b\[train\]: the columns are text, label, but .*; add question, rename text to context",
    ):
        load_examples("a/b", cache_dir=tmp_path)


UNREADABLE = {
    "empty": (b"", "the file is empty; name one with questions in it."),
    "blank": (b"\xef\xbb\xbf \n\r\n\t\n", "the file is empty; name one with questions in it."),
    "empty gzip": (gzip.compress(b""), "the file is empty; name one with questions in it."),
    "cut gzip": (gzip.compress(lines(GOOD))[:-12], "the gzip data is truncated or damaged"),
    "cut gzip header": (b"\x1f\x8b\x08", "the gzip data is truncated or damaged"),
    "wrong gzip sum": (gzip.compress(lines(GOOD))[:-8] + b"\0" * 8, "the gzip data is truncated or damaged"),
    "gzip twice": (gzip.compress(gzip.compress(b"{}")), "this is gzip data inside gzip data"),
    "zip": (b"PK\x03\x04" + b"\0" * 40, "this is a zip archive"),
    "UTF-16": ("\ufeff".encode("utf-16-le") + "{}".encode("utf-16-le"), "this is UTF-16 text"),
    "prose": (
        b"Once upon a time\nthere was",
        "not JSON, JSON lines, CSV with a header, or Parquet (it begins with 'Once",
    ),
    "binary": (b"\x80\x81\x00\xff" * 20, "line 1 is not UTF-8 text"),
    "half a byte-order mark": (b"\xef\xbb", "line 1 is not UTF-8 text"),
    "blank cell": (b'""\n', "CSV with a header, or Parquet (it begins with '')"),
    "cut JSON": (squad(GOOD)[:-30], "the document is cut off, so fetch the file again."),
    "cut JSON in a string": (squad(GOOD)[:70], "the document is cut off, so fetch the file again."),
    "broken JSON": (b'{"data": [\n  {"title" 1}]}', "not valid JSON at line 2, column 12"),
    "JSON and more": (squad(GOOD) + b"\n{}", "not valid JSON at line 2, column 1 (Extra data)"),
    "Latin-1 JSON": (b'{"data": [\n"caf\xe9"]}', "line 2 is not UTF-8 text; save the file as UTF-8."),
    "deep JSON": (b"[" * 200_000, "nested too deeply"),
    "JSON number list": (b"[1, 2]", "this JSON is a list that begins with 1, none of the known forms"),
    "other JSON": (
        b'{\n"model": 1,\n"rows": []}',
        "this JSON is an object with model, rows, none of the known forms",
    ),
    "no question": (b'{"data": []}', "it holds no question"),
    "no paragraph": (b'{"data": [{"paragraphs": []}]}', "it holds no question"),
    "MRQA header alone": (b'{"header": {"dataset": "x"}}\n', "it holds no question"),
    "CSV header alone": (b"id,question,context,answers\n", "it holds no question"),
    "doubled column": (b"id,question,context,question\n", "the header names question twice"),
    "open quote": (b'question,context,answers\na,"b,c\nd,e,f\n', "the row that begins at line 2 is broken"),
    "Latin-1 CSV": (b"question,context,answers\na,b,[]\ncaf\xe9,b,[]\n", "line 3 is not UTF-8 text"),
    "cut Parquet": (b"PAR1" + b"\0" * 50, "the Parquet data is truncated or damaged"),
    "cut packed Parquet": (gzip.compress(b"PAR1" + b"\0" * 50), "the Parquet data is truncated or damaged"),
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("how", ["fail", "drop", "repair"])
def test_unreadable_content(name: str, how: str, tmp_path: Path) -> None:
    content, phrase = UNREADABLE[name]
    assert phrase in refused(content, tmp_path, on_bad_record=how)


def test_wrong_columns_are_named_with_the_nearest(tmp_path: Path) -> None:
    needed = "but flat records need question, context and answers (or answer_text and answer_start)"
    assert refused(b"qid,Question,passage,label\n1,a,b,c\n", tmp_path) == (
        f"the columns are qid, Question, passage, label, {needed}; rename Question to question, "
        "rename passage to context."
    )
    assert refused(lines({"questions": "a", "context": "b"}), tmp_path) == (
        f"the columns are questions, context, {needed}; rename questions to question."
    )
    assert refused(json.dumps([{"premise": "a", "query": "b"}], indent=1).encode(), tmp_path) == (
        f"the columns are premise, query, {needed}; rename query to question, add context."
    )
    content = parquet(tmp_path / "p", text=["a"], **{"con\x00text": ["b"]})
    assert "the columns are text, 'con\\x00text', but" in refused(content, tmp_path)


def test_what_was_left_after_dropping_everything(tmp_path: Path) -> None:
    content = lines({**GOOD, "question": ""}, {**GOOD, "context": ""})
    assert refused(content, tmp_path, on_bad_record="drop") == (
        "none of its 2 records can be used (line 1: the question is empty); name a source with questions."
    )


# Bad records: change to a good one -> phrase of the sentence, kind, the gold after repair (None: dropped).

Change = dict[str, Any]
KEPT = Answer("Ada", 0)
BAD: dict[str, tuple[Change, str, str, Any]] = {
    "no id": ({"id": None}, "the record has no id", "id", None),
    "empty id": ({"id": ""}, "the record has no id", "id", None),
    "blank id": ({"id": " \t"}, "is blank or holds control characters", "id", None),
    "control id": ({"id": "a\x00"}, "is blank or holds control characters", "id", None),
    "surrogate id": ({"id": "a\ud83d"}, r"the id 'a\ud83d' is blank or holds control characters", "id", None),
    "list id": ({"id": ["a"]}, "the id is ['a'], not text", "id", None),
    "true id": ({"id": True}, "the id is True, not text", "id", None),
    "no question": ({"question": None}, "the record has no question", "question", None),
    "empty question": ({"question": ""}, "the question is empty", "question", None),
    "blank question": ({"question": " \u00a0\u200b\n"}, "the question is empty", "question", None),
    "number question": ({"question": 5}, "the question is 5, not text", "question", None),
    "NaN question": ({"question": float("nan")}, "the record has no question", "question", None),
    "no context": ({"context": None}, "the record has no context", "context", None),
    "empty context": ({"context": "\r\n"}, "the context is empty", "context", None),
    "list context": ({"context": ["a"]}, "the context is ['a'], not text", "context", None),
    "no answers": ({"answers": None}, "the record has no answers", "answers", None),
    "NaN answers": ({"answers": float("nan")}, "the record has no answers", "answers", None),
    "number answers": ({"answers": 5}, "the answers are 5, not an object", "answers", None),
    "text answers": ({"answers": "Ada"}, "the answers 'Ada' are not JSON", "answers", None),
    "list of texts": ({"answers": ["Ada"]}, "an answer is not an object", "answers", None),
    "one list": ({"answers": {"text": ["Ada"]}}, "the answers need two lists", "answers", None),
    "uneven lists": (
        {"answers": {"text": ["Ada", "Bob"], "answer_start": [0]}},
        "the answers have 2 texts, but 1 answer_starts",
        "answers",
        None,
    ),
    "null text": (golds(None, 0), "an answer text is None, not text", "answers", None),
    "number text": (golds(1999, 0), "an answer text is 1999, not text", "answers", None),
    "empty gold": (golds("", 0), "the gold text is empty", "empty gold", None),
    "blank gold": (golds(" \u200f", 3), "the gold text is empty", "empty gold", None),
    "one empty gold": (
        {"answers": {"text": ["Ada", ""], "answer_start": [0, 0]}},
        "a gold text is empty",
        "empty gold",
        None,
    ),
    "impossible with answers": (
        {"is_impossible": True},
        "is_impossible is true, but there are answers",
        "is_impossible",
        None,
    ),
    "possible without answers": (
        {"is_impossible": False, "answers": []},
        "is_impossible is false, but there is no answer",
        "is_impossible",
        None,
    ),
    "impossible perhaps": (
        {"is_impossible": "perhaps"},
        "is_impossible is 'perhaps', neither",
        "is_impossible",
        None,
    ),
    "multi-span": (
        {"answer_type": "multi-span", "answers": {"text": ["Ada", "Bob"], "answer_start": [0, 8]}},
        "the question has 2 answers that belong together",
        "multi-span",
        None,
    ),
    "not in context": (
        golds("Paris", 0),
        "the answer text 'Paris' is not in the context (and",
        "not in context",
        None,
    ),
    "other capitals": (
        golds("ada", 0),
        "is not in the context (only with other capitals)",
        "not in context",
        None,
    ),
    "other spaces": (
        golds("Ada  met", 0),
        "is not in the context (only with other spaces)",
        "not in context",
        None,
    ),
    "decomposed": (
        {"context": "Caf\u00e9 Oslo", **golds("Cafe\u0301", 0)},
        "is not in the context (only in another Unicode form)",
        "not in context",
        None,
    ),
    "longer": (golds(CONTEXT + "!", 0), "is longer than the context", "not in context", None),
    "off by one": (
        golds("Ada", 1),
        "answer_start 1 gives 'da ', not the answer text 'Ada'",
        "offset",
        Answer("Ada", 0),
    ),
    "far off": (golds("Oslo", 3), "answer_start 3 gives ' met', not", "offset", Answer("Oslo", 45)),
    "beyond": (
        golds("Oslo", 50),
        "answer_start 50 of the answer 'Oslo' lies beyond",
        "offset",
        Answer("Oslo", 45),
    ),
    "negative": (
        golds("Oslo", -5),
        "answer_start -5 of the answer 'Oslo' is negative",
        "offset",
        Answer("Oslo", 45),
    ),
    "negative, twice": (golds("Bob", -1), "is negative, which occurs 2 times", "offset", None),
    "no start": (
        golds("Oslo", None),
        "answer_start is None, not a whole number",
        "offset",
        Answer("Oslo", 45),
    ),
    "half a start": (
        golds("Oslo", 45.5),
        "answer_start is 45.5, not a whole number",
        "offset",
        Answer("Oslo", 45),
    ),
    "true start": (golds("da", True), "answer_start is True, not a whole number", "offset", Answer("da", 1)),
    "near one of two": (golds("Bob", 9), "answer_start 9 gives 'ob ', not", "offset", Answer("Bob", 8)),
    "near the other": (golds("Rome", 31), "answer_start 31 gives 'left', not", "offset", Answer("Rome", 36)),
    "near none of two": (
        golds("Bob", 18),
        "answer_start 18 gives 'e. ', not the answer text 'Bob', which",
        "offset",
        None,
    ),
    "control in question": (
        {"question": "Who\x00?"},
        "the question holds the control character U+0000 at character 3",
        "control character",
        KEPT,
    ),
    "next line": ({"question": "Who\x85?"}, "the control character U+0085", "control character", KEPT),
    "control in context": (
        {"context": CONTEXT.replace(" ", "\x0b", 1), **golds("Ada\x0bmet", 0)},
        "the context holds the control character U+000B at character 3",
        "control character",
        Answer("Ada met", 0),
    ),
    "surrogate": (
        {"context": CONTEXT + "\ud83d"},
        "the context holds half of a surrogate pair, U+D83D, at character 50",
        "surrogate",
        KEPT,
    ),
    "surrogate in a gold": (golds("Ada\udc00", 0), "is not in the context", "not in context", None),
    "surrogate in a title": (
        {"title": "\udfff"},
        "the title holds half of a surrogate pair",
        "surrogate",
        KEPT,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_records(name: str, tmp_path: Path) -> None:
    change, phrase, kind, repaired = BAD[name]
    second = {**GOOD, "id": "q2", **change}
    content = lines(GOOD, second, {**GOOD, "id": "q3"}, {**second, "id": "q4"} if kind != "id" else second)

    text = refused(content, tmp_path)
    assert text.startswith("line 2")
    assert phrase in text
    assert " (and 1 more like it); " in text
    assert "--on_bad_record " + ("drop" if repaired is None else "repair") in text

    dropping = loaded(content, tmp_path, "drop")
    assert dropping.table["id"][:] == ["q1", "q3"]
    assert (dropping.total, dropping.dropped, dropping.repaired) == (4, 2, 0)
    assert [(one.location, one.action, one.kind) for one in dropping.problems] == [
        (f"{tmp_path / 'data'}: line 2", "dropped", kind),
        (f"{tmp_path / 'data'}: line 4", "dropped", kind),
    ]
    write_problem_report(tmp_path / "report.json", {"train": dropping})

    repairing = loaded(content, tmp_path, "repair")
    if repaired is None:
        assert list(repairing.examples()) == list(dropping.examples())
        assert (repairing.dropped, repairing.repaired) == (2, 0)
        return
    assert repairing.table["id"][:] == ["q1", "q2", "q3", "q4"]
    assert (repairing.dropped, repairing.repaired) == (0, 2)
    assert {one.action for one in repairing.problems} == {"repaired"}
    example = list(repairing.examples())[1]
    assert example.answers == (repaired,)
    assert example.context[repaired.start : repaired.end] == repaired.text
    assert len(example.context) == len(second["context"])


def test_several_faults_are_one_record(tmp_path: Path) -> None:
    content = lines({**GOOD, "question": "Who\x01?", **golds("Oslo", 44)})
    repairing = loaded(content, tmp_path, "repair")
    (problem,) = repairing.problems
    assert "U+0001" in problem.problem
    assert problem.problem.endswith("answer_start 44 gives ' Osl', not the answer text 'Oslo'")
    assert next(repairing.examples()).question == "Who ?"
    assert (repairing.dropped, repairing.repaired) == (0, 1)


def test_one_gold_that_cannot_be_repaired_costs_the_record(tmp_path: Path) -> None:
    both = {"answers": {"text": ["Ada", "Bob"], "answer_start": [1, 18]}}
    repairing = loaded(lines(GOOD, {**GOOD, "id": "q2", **both}), tmp_path, "repair")
    assert repairing.table["id"][:] == ["q1"]
    assert (repairing.dropped, repairing.repaired) == (1, 0)


def test_unanswerable_is_noticed_with_and_without_a_flag(tmp_path: Path) -> None:
    empty: Change = {"text": [], "answer_start": []}
    blank = {"text": [""], "answer_start": [0]}
    records: list[Change] = [
        {"answers": empty},
        {"answers": []},
        {"answers": empty, "is_impossible": True},
        {"answers": blank, "is_impossible": True},
        {"answers": None, "is_impossible": "True"},
        {"answers": empty, "is_impossible": float("nan")},
    ]
    numbered = [{**GOOD, "id": str(number), **record} for number, record in enumerate(records)]
    (tmp_path / "data").write_bytes(lines(*numbered))
    result = load_examples(str(tmp_path / "data"), cache_dir=tmp_path / "cache")
    assert (len(result.table), result.unanswerable, result.unlabelled) == (6, 6, 0)


def test_repeated_ids(tmp_path: Path) -> None:
    other = {**GOOD, "question": "Who else?"}
    text = refused(lines(GOOD, other, GOOD), tmp_path)
    assert text == (
        "line 2 (id 'q1'): another record before it has the same id (and 1 more like it); "
        "give it an id of its own, or use --on_bad_record drop, which keeps the first."
    )
    assert "line 2 (id 'q1'): an identical record before it" in refused(lines(GOOD, GOOD), tmp_path)
    for how in ("drop", "repair"):
        result = loaded(lines({**GOOD, "context": ""}, other, GOOD), tmp_path, how)  # type: ignore[arg-type]
        assert result.table["question"][:] == ["Who else?"]  # an id is taken by the first record that is kept
        assert result.dropped == 2


def test_records_of_another_shape(tmp_path: Path) -> None:
    broken = lines(GOOD) + b'\n{"id": "q2", "question"\n[1]\n\xff\n' + lines({**GOOD, "id": "q5"})
    assert refused(broken, tmp_path).startswith("line 2: the line is not valid JSON (column 24: ")
    assert [one.problem[:30] for one in loaded(broken, tmp_path, "drop").problems] == [
        "the line is not valid JSON (co",
        "the record is not an object",
        "the line is not UTF-8 text",
    ]
    ragged = b"id,question,context,answers\nq1,a,b\nq2,Who?,Ada,\"{'text': ['Ada'], 'answer_start': [0]}\"\n"
    assert refused(ragged, tmp_path).startswith("line 2: the row has 3 cells, but the header 4; quote cells")
    assert loaded(ragged, tmp_path, "drop").table["id"][:] == ["q2"]
    document = {
        "data": [{"title": "x"}, {"paragraphs": [{"qas": [5, GOOD], "context": CONTEXT}, {"context": "c"}]}]
    }
    content = json.dumps(document).encode()
    assert refused(content, tmp_path).startswith(
        "data[0]: the article has no list of paragraphs (and 2 more like it);"
    )
    assert [one.location.split(": ")[1] for one in loaded(content, tmp_path, "drop").problems] == [
        "data[0]",
        "data[1].paragraphs[0].qas[0]",
        "data[1].paragraphs[1]",
    ]


def test_locations(tmp_path: Path) -> None:
    bad = {**GOOD, "answers": [{"text": "Ada", "answer_start": 1}]}
    assert refused(squad(bad), tmp_path).startswith(
        "data[0].paragraphs[0].qas[0] (id 'q1'): answer_start 1 gives"
    )
    assert refused(json.dumps([bad]).encode(), tmp_path).startswith("[0] (id 'q1'): ")
    assert refused(json.dumps({"data": [bad]}).encode(), tmp_path).startswith("data[0] (id 'q1'): ")
    answers = '"{""text"": [""Ada""], ""answer_start"": [1]}"'
    text = f'id,question,context,answers\nq0,"two\nlines",Ada,[]\n\nq1,Who?,"{CONTEXT}",{answers}\n'
    assert refused(text.encode(), tmp_path).startswith("line 5 (id 'q1'): answer_start 1 gives")
    content = parquet(
        tmp_path / "p", id=["q1"], question=["Who?"], context=[CONTEXT], answers=[bad["answers"]]
    )
    assert refused(content, tmp_path).startswith("row 1 (id 'q1'): answer_start 1 gives")


def test_null_answers_in_tables(tmp_path: Path) -> None:
    for cell in ("", '""', "NaN", "nan", "None", "null"):
        content = f"id,question,context,answers\nq1,Who?,{CONTEXT},{cell}\n".encode()
        phrase = "the record has no answers" if cell in ("", '""') else "the answers "
        assert phrase in refused(content, tmp_path)
    for answers in ([None], [{"text": None, "answer_start": None}]):
        rows = pa.array(
            answers, pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))])
        )
        content = parquet(tmp_path / "p", id=["q1"], question=["Who?"], context=[CONTEXT], answers=rows)
        assert "the record has no answers" in refused(content, tmp_path) or answers[0]
        assert refused(content, tmp_path).startswith("row 1 (id 'q1'): the ")


def test_mrqa_spans(tmp_path: Path) -> None:
    def content(text: Any, *spans: Any) -> bytes:
        detected = [{"text": text, "char_spans": list(spans)}]
        record = {"qid": "m", "question": "Who?", "answers": [text], "detected_answers": detected}
        return lines({"header": {}}, {"context": CONTEXT, "qas": [record]})

    text = refused(content("Ada", [0, 3]), tmp_path)
    assert text == (
        "line 2, qas[0] (id 'm'): the char_span [0, 3] gives 'Ada ', not 'Ada' (ends are inclusive); "
        "set it to [0, 2], or use --on_bad_record repair."
    )
    assert next(loaded(content("Ada", [0, 3]), tmp_path, "repair").examples()).answers == (Answer("Ada", 0),)
    assert "answer_start 14 gives ' Rom', not the answer text 'Rome'" in refused(
        content("Rome", [14, 18]), tmp_path
    )
    repairing = loaded(content("Rome", [14, 18]), tmp_path, "repair")
    assert next(repairing.examples()).answers == (Answer("Rome", 15),)
    assert "the char_span [48, 50] does not lie in the context" in refused(content("lo.", [48, 50]), tmp_path)
    assert "the char_span [3, 1] does not lie" in refused(content("Ada", [3, 1]), tmp_path)
    assert "the char_span 'x' is not a pair" in refused(content("Ada", "x"), tmp_path)
    assert "a detected answer has no char_spans" in refused(content("Ada"), tmp_path)
    assert "the answer text '?' is not in the context" in refused(content("?", [19, 19]), tmp_path)
    (tmp_path / "data").write_bytes(content("oslo", [45, 49]))
    (example,) = load_examples(str(tmp_path / "data"), cache_dir=tmp_path / "cache").examples()
    assert example.answers == (Answer("Oslo.", 45),)


# The rule that moves an answer.


def test_offsets_counted_in_other_units_are_understood() -> None:
    context = "🗼🗼🗼 né à Paris, et mort à Paris."
    first, second = context.index("Paris"), context.rindex("Paris")
    assert (first, second) == (9, 26)
    in_utf16 = [len(context[:place].encode("utf-16-le")) // 2 for place in (first, second)]
    in_utf8 = [len(context[:place].encode()) for place in (first, second)]
    assert (in_utf16, in_utf8) == ([12, 29], [20, 38])
    assert place_answer("Paris", 9, context) == (9, None)
    for start, found in ((12, 9), (29, 26), (20, 9), (38, 26), (14, 9), (21, 26), (31, 26)):
        assert place_answer("Paris", start, context)[0] == found
    for start in (15, 19, 33, 40):
        with pytest.raises(ValueError, match="which occurs 2 times"):
            place_answer("Paris", start, context)


def test_equal_distance_settles_nothing() -> None:
    with pytest.raises(ValueError, match="which occurs 2 times"):
        place_answer("ab", 3, "ab..ab")
    with pytest.raises(ValueError, match="which occurs 3 times"):
        place_answer("aa", 3, "aaaa")
    assert occurrences("aa", "aaaa") == [0, 1, 2]


def test_repair_never_labels_another_text() -> None:
    """Random contexts of few letters: a gold that comes back is read at its place; one that was moved is the
    only one in the context, or the only one within five characters."""
    draw = random.Random(0)
    outcomes = {"right": 0, "moved": 0, "dropped": 0}
    for _ in range(3_000):
        context = "".join(draw.choice("ab c") for _ in range(draw.randint(4, 24))) + "."
        text, start = "".join(draw.choice("abc") for _ in range(draw.randint(1, 4))), draw.randint(-2, 26)
        places = [place for place in range(len(context)) if context[place : place + len(text)] == text]
        record = RawRecord("x", "q", "Which?", context, {"text": [text], "answer_start": [start]})
        near = [place for place in places if abs(place - start) <= 5 and start >= 0]
        if start not in places and len(places) != 1 and len(near) != 1:
            with pytest.raises(BadRecordError):
                check_record(record)
            outcomes["dropped"] += 1
            continue
        example, findings = check_record(record)
        (gold,) = example.answers
        assert gold.text == text
        assert gold.start == (start if start in places else places[0] if len(places) == 1 else near[0])
        assert bool(findings) == (start not in places)
        outcomes["moved" if findings else "right"] += 1
    assert min(outcomes.values()) > 100


# Harmless content.


def test_harmless_characters_pass_untouched(tmp_path: Path) -> None:
    context = "\ufeffe\u0301 🏳️‍🌈 \u202eאבג\u202c\u2028tab\there\r\nline\u2029\u00ad end \ufffd"
    record = {**GOOD, "context": context, "question": "מה\u200f?\t" + "why " * 3_000}
    record |= golds("end", context.index("end"))
    (tmp_path / "data").write_bytes(lines(record))
    (example,) = load_examples(str(tmp_path / "data"), cache_dir=tmp_path / "cache").examples()
    assert example == Example("q1", record["question"], context, (Answer("end", context.index("end")),))


def test_any_damage_ends_in_a_sentence_or_a_right_table(tmp_path: Path) -> None:
    """Every form cut short and with bytes changed, plain and gzipped: no other exception, no wrong label."""
    draw = random.Random(0)
    sentences: list[str] = []
    tables = 0
    for number, (_, write) in enumerate(FORMS.values()):
        whole = write(tmp_path / "written")
        for trial in range(24):
            content = gzip.compress(whole) if trial % 4 == 3 else whole
            damaged = bytearray(content[: draw.randrange(len(content))] if trial % 2 else content)
            for _ in range(0 if trial % 2 else draw.randint(1, 4)):
                damaged[draw.randrange(len(damaged))] = draw.choice(
                    [0, 0x22, 0x2C, 0x5B, 0x7D, 0x80, draw.randrange(256)]
                )
            path = tmp_path / f"{number}-{trial}"
            path.write_bytes(damaged)
            how: Any = ("fail", "drop", "repair")[trial % 3]
            try:
                result = load_examples(str(path), on_bad_record=how, cache_dir=tmp_path / "cache")
            except InputError as error:
                sentences.append(str(error).removeprefix(f"{path}: "))
                continue
            tables += 1
            assert len(result.table) == result.total - result.dropped
            for example in result.examples():
                for gold in example.answers:
                    assert gold.text
                    assert example.context[gold.start : gold.end] == gold.text
    assert tables > 50
    assert len(sentences) > 50
    assert all("\n" not in one and one.endswith(".") and str(tmp_path) not in one for one in sentences)

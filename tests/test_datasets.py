"""Every form gives the same examples; the cache follows the content; cuts, hub, sample, real files."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import qa.datasets
from qa.datasets import (
    DATASETS,
    example_from_row,
    examples_features,
    load_examples,
    problem_report,
    summary,
    table_from_examples,
    write_problem_report,
)
from qa.datasets import load as load_module
from qa.datasets import sample as sample_module
from qa.datasets.cache import read_or_build
from qa.datasets.content import Content, content_of
from qa.errors import InputError
from qa.records import Answer, Example

# Emoji (two UTF-16 units), CRLF, quotes, a combining accent, a line separator, right-to-left text and marks.
TOWER = (
    'The tower 🗼, 330 m tall, is in Paris.\r\nIt opened in "1889", say the re\u0301cits.'
    "\u2028\u200fמגדל אייפל\u200f"
)
RIVER = "The Seine flows through Paris."
EXAMPLES = [
    Example("a1", "How tall is the tower?", TOWER, (Answer("330 m", 13), Answer("330 m tall", 13)), "Tower"),
    Example("a2", "When did it open, “say”?", TOWER, (Answer("1889", 53),), "Tower"),
    Example("a3", "מה זה?", TOWER, (Answer("מגדל אייפל", 78),), "Tower"),
    Example("b1", "Where does the Rhine flow?", RIVER, (), "River"),
]


def test_the_fixture_is_right() -> None:
    for example in EXAMPLES:
        for gold in example.answers:
            assert example.context[gold.start : gold.end] == gold.text


def flat_row(example: Example) -> dict[str, Any]:
    answers = {"text": [g.text for g in example.answers], "answer_start": [g.start for g in example.answers]}
    row = {"id": example.id, "title": example.title, "question": example.question, "context": example.context}
    return {**row, "answers": answers, "annotator": 7}


def nested(examples: Iterable[Example], flags: bool = True) -> dict[str, Any]:
    articles: dict[str, dict[str, list[Any]]] = {}
    for example in examples:
        qa_record: dict[str, Any] = {
            "id": example.id,
            "question": example.question,
            "answers": [{"text": gold.text, "answer_start": gold.start} for gold in example.answers],
        }
        if flags:
            qa_record |= {"is_impossible": not example.answers}
            qa_record |= {"plausible_answers": [{"text": "Seine", "answer_start": 4}]}
        articles.setdefault(example.title, {}).setdefault(example.context, []).append(qa_record)
    data = [
        {
            "title": title,
            "paragraphs": [{"context": context, "qas": qas} for context, qas in paragraphs.items()],
        }
        for title, paragraphs in articles.items()
    ]
    return {"version": "v2.0", "data": data}


def mrqa_lines(examples: Iterable[Example]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [{"header": {"dataset": "own", "split": "train"}}]
    for example in examples:
        detected = [{"text": g.text, "char_spans": [[g.start, g.end - 1]]} for g in reversed(example.answers)]
        answers = [gold.text for gold in example.answers]
        qa_record = {
            "qid": example.id,
            "question": example.question,
            "answers": answers,
            "detected_answers": detected,
        }
        lines.append({"id": "", "context": example.context, "qas": [qa_record]})
    return lines


def json_text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def json_line_text(values: Iterable[Any], end: str = "\n") -> bytes:
    return end.join(json.dumps(value, ensure_ascii=False) for value in values).encode()


def csv_text(rows: list[dict[str, Any]], path: Path, delimiter: str = ",") -> bytes:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path.read_bytes()


def csv_with(answers: Callable[[dict[str, Any]], Any], path: Path, delimiter: str = ",") -> bytes:
    rows = [flat_row(example) for example in EXAMPLES]
    return csv_text([{**row, "answers": answers(row["answers"])} for row in rows], path, delimiter)


def parquet_bytes(rows: list[dict[str, Any]], path: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    return path.read_bytes()


def as_dicts(answers: dict[str, list[Any]]) -> list[dict[str, Any]]:
    pairs = zip(answers["text"], answers["answer_start"], strict=True)
    return [{"text": text, "answer_start": start} for text, start in pairs]


def hub_csv(path: Path) -> bytes:
    """As `Dataset.to_csv` writes it: answers as NumPy arrays' repr."""
    datasets.Dataset.from_list([flat_row(example) for example in EXAMPLES]).to_csv(path)
    return path.read_bytes()


ROWS = [flat_row(example) for example in EXAMPLES]
FORMS: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "squad 2.0": ("squad-2.0", lambda _: json_text(nested(EXAMPLES))),
    "squad without flags": ("squad-2.0", lambda _: json_text(nested(EXAMPLES, flags=False))),
    "squad 1.1": ("squad-1.1", lambda _: json_text(nested(EXAMPLES[:3], flags=False))),
    "squad indented, BOM, CRLF": (
        "squad-2.0",
        lambda _: b"\xef\xbb\xbf" + json.dumps(nested(EXAMPLES), indent=1).replace("\n", "\r\n").encode(),
    ),
    "squad, data only": ("squad-2.0", lambda _: json_text(nested(EXAMPLES)["data"])),
    "mrqa": ("mrqa", lambda _: json_line_text(mrqa_lines(EXAMPLES))),
    "mrqa without header": ("mrqa", lambda _: json_line_text(mrqa_lines(EXAMPLES)[1:])),
    "json list": ("flat-json", lambda _: json.dumps(ROWS, indent=1).encode()),
    "json under data": ("flat-json", lambda _: json_text({"version": 1, "data": ROWS})),
    "json lines": ("flat-jsonl", lambda _: json_line_text(ROWS) + b"\n"),
    "json lines, BOM, CRLF, blank lines": (
        "flat-jsonl",
        lambda _: b"\xef\xbb\xbf" + json_line_text(ROWS, "\r\n\r\n"),
    ),
    "json lines, answers as objects": (
        "flat-jsonl",
        lambda _: json_line_text({**row, "answers": as_dicts(row["answers"])} for row in ROWS),
    ),
    "csv, json cells": ("flat-csv", lambda path: csv_with(json.dumps, path)),
    "csv, python cells": ("flat-csv", lambda path: csv_with(repr, path)),
    "csv, array cells": ("flat-csv", hub_csv),
    "csv, semicolons, BOM": ("flat-csv", lambda path: b"\xef\xbb\xbf" + csv_with(json.dumps, path, ";")),
    "tsv": ("flat-csv", lambda path: csv_with(json.dumps, path, "\t")),
    "parquet": ("flat-parquet", lambda path: parquet_bytes(ROWS, path)),
    "parquet, answers as objects": (
        "flat-parquet",
        lambda path: parquet_bytes([{**row, "answers": as_dicts(row["answers"])} for row in ROWS], path),
    ),
}


def answers_sorted(example: Example) -> Example:
    """MRQA knows no titles and orders golds by place."""
    golds = sorted(example.answers, key=lambda gold: (gold.start, gold.end))
    return dataclasses.replace(example, title="", answers=tuple(golds))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_examples(name: str, packed: bool, tmp_path: Path) -> None:
    form, write = FORMS[name]
    content = write(tmp_path / "written")
    path = tmp_path / "questions"  # a name that says nothing
    path.write_bytes(gzip.compress(content) if packed else content)
    loaded = load_examples(str(path), cache_dir=tmp_path / "cache")
    expected = EXAMPLES[:3] if name == "squad 1.1" else EXAMPLES
    if form == "mrqa":
        expected = [answers_sorted(example) for example in expected]
    assert list(loaded.examples()) == expected
    assert [example_from_row(row) for row in loaded.table] == expected
    assert loaded.form == form
    assert (loaded.total, loaded.dropped, loaded.repaired) == (len(expected), 0, 0)
    assert loaded.unanswerable == len(expected) - 3
    assert loaded.problems == ()
    assert loaded.notes == ()
    assert loaded.content_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_reader_is_tried() -> None:
    forms = {form.removesuffix("-1.1").removesuffix("-2.0") for form, _ in FORMS.values()}
    assert forms == set(DATASETS)


def test_columns_and_types_are_the_same_without_any_answer(tmp_path: Path) -> None:
    for number, examples in enumerate((EXAMPLES, EXAMPLES[3:])):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(json_line_text(flat_row(example) for example in examples))
        table = load_examples(str(path), cache_dir=tmp_path).table
        assert table.features == examples_features()
        assert table.data.schema.field("answers").type == pa.struct(
            [("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int32()))]
        )
        assert table.column_names == ["id", "question", "context", "title", "answers"]


def test_the_table_is_mapped_from_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json_line_text(ROWS))
    loaded = load_examples(str(path), cache_dir=tmp_path / "cache")
    (file,) = loaded.table.cache_files
    assert Path(file["filename"]).parent == tmp_path / "cache" / loaded.fingerprint
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == [loaded.fingerprint]


def test_examples_to_table_and_back() -> None:
    table = table_from_examples(iter(EXAMPLES))
    assert [example_from_row(row) for row in table] == EXAMPLES
    assert table.features == examples_features()
    assert len(table_from_examples([])) == 0


def test_import_is_light() -> None:
    heavy = {"datasets", "pyarrow", "torch", "transformers", "numpy"}
    code = f"import sys, qa.datasets; print({heavy} & set(sys.modules))"
    root = Path(qa.datasets.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "set()"


# Flat records: ids and the two-column form.


def test_answer_columns(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "question": "Which river?", "context": RIVER, "answer_text": "Seine", "answer_start": "4"},
        {
            "id": 8,
            "question": "Which city?",
            "context": RIVER,
            "answer_text": "Paris",
            "answer_start": "24.0",
        },
        {"id": 9, "question": "Which sea?", "context": RIVER, "answer_text": "", "answer_start": ""},
        {"id": 10, "question": "Which lake?", "context": RIVER, "answer_text": "", "answer_start": "-1"},
    ]
    (tmp_path / "q.csv").write_bytes(csv_text(rows, tmp_path / "written"))
    loaded = load_examples(str(tmp_path / "q.csv"), cache_dir=tmp_path)
    golds = [(example.id, example.answers) for example in loaded.examples()]
    assert golds == [("7", (Answer("Seine", 4),)), ("8", (Answer("Paris", 24),)), ("9", ()), ("10", ())]
    assert loaded.unanswerable == 2


def test_answer_columns_in_parquet_with_nulls(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": "x",
            "question": "Which river?",
            "context": RIVER,
            "answer_text": "Seine",
            "answer_start": 4.0,
        },
        {
            "id": "y",
            "question": "Which sea?",
            "context": RIVER,
            "answer_text": None,
            "answer_start": float("nan"),
        },
    ]
    (tmp_path / "q").write_bytes(parquet_bytes(rows, tmp_path / "written"))
    loaded = load_examples(str(tmp_path / "q"), cache_dir=tmp_path)
    assert [example.answers for example in loaded.examples()] == [(Answer("Seine", 4),), ()]


def test_missing_ids_are_given_and_counted(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "id"} for row in ROWS]
    (tmp_path / "q.jsonl").write_bytes(json_line_text(rows))
    loaded = load_examples(str(tmp_path / "q.jsonl"), cache_dir=tmp_path)
    assert [example.id for example in loaded.examples()] == ["row-1", "row-2", "row-3", "row-4"]
    assert loaded.notes == ("4 questions came without an id and are called row-1, row-2, ...",)


def test_questions_only_to_predict(tmp_path: Path) -> None:
    rows = [{"id": "p", "question": "Which river?", "context": RIVER}]
    rows.append({**rows[0], "id": "i", "is_impossible": True})  # type: ignore[dict-item]
    (tmp_path / "q.jsonl").write_bytes(json_line_text(rows))
    loaded = load_examples(str(tmp_path / "q.jsonl"), cache_dir=tmp_path, require_answers=False)
    assert [example.answers for example in loaded.examples()] == [(), ()]
    assert (loaded.unlabelled, loaded.unanswerable) == (1, 2)
    with pytest.raises(InputError, match=r"line 1 \(id 'p'\): the record has no answers"):
        load_examples(str(tmp_path / "q.jsonl"), cache_dir=tmp_path)


def test_a_cell_longer_than_the_csv_default(tmp_path: Path) -> None:
    context = "word " * 60_000 + "Seine."
    answers = json.dumps({"text": ["Seine"], "answer_start": [300_000]})
    rows = [{"id": "long", "question": "why " * 3_000, "context": context, "answers": answers}]
    (tmp_path / "q.csv").write_bytes(csv_text(rows, tmp_path / "written"))
    (example,) = load_examples(str(tmp_path / "q.csv"), cache_dir=tmp_path).examples()
    assert example.context == context
    assert example.answers == (Answer("Seine", 300_000),)


# MRQA's own rules.


def mrqa_file(path: Path, context: str, detected: list[dict[str, Any]], answers: list[str]) -> str:
    qa_record = {"qid": "m", "question": "Which?", "answers": answers, "detected_answers": detected}
    path.write_bytes(json_line_text([{"header": {}}, {"context": context, "qas": [qa_record]}]))
    return str(path)


def test_mrqa_spans_are_inclusive_and_sorted_and_markers_stay(tmp_path: Path) -> None:
    context = "[TLE] Rhine [PAR] The Rhine, a river."
    detected = [
        {"text": "a river", "char_spans": [[29, 35]]},
        {"text": "Rhine", "char_spans": [[22, 26], [6, 10], [22, 26]]},
    ]
    source = mrqa_file(tmp_path / "q", context, detected, ["Rhine", "river"])
    loaded = load_examples(source, cache_dir=tmp_path)
    (example,) = loaded.examples()
    assert example.context == context
    assert example.answers == (Answer("Rhine", 6), Answer("Rhine", 22), Answer("a river", 29))
    assert loaded.notes == ()


def test_mrqa_takes_the_passages_spelling_and_tells(tmp_path: Path) -> None:
    detected = [{"text": "The seine", "char_spans": [[4, 8]]}]
    loaded = load_examples(
        mrqa_file(tmp_path / "q", RIVER, detected, ["Seine", "Sequana"]), cache_dir=tmp_path
    )
    (example,) = loaded.examples()
    assert example.answers == (Answer("Seine", 4),)
    assert loaded.notes == (
        "1 gold texts were taken from the passage, whose spelling differs",
        "1 questions have answers that were not detected in the passage and are left out",
    )


# The cache.


def test_content_counts_and_not_path_or_time(tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "other" / "second.jsonl"
    second.parent.mkdir()
    first.write_bytes(json_line_text(ROWS))
    loaded = load_examples(str(first), cache_dir=tmp_path / "cache")
    second.write_bytes(first.read_bytes())
    os.utime(second, (1_000_000_000, 1_000_000_000))
    again = load_examples(str(second), cache_dir=tmp_path / "cache")
    assert again.fingerprint == loaded.fingerprint == again.table._fingerprint
    assert list(again.examples()) == EXAMPLES

    stamp = first.stat()
    changed = first.read_bytes().replace(b"How tall", b"How high")
    assert len(changed) == stamp.st_size
    first.write_bytes(changed)
    os.utime(first, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    fresh = load_examples(str(first), cache_dir=tmp_path / "cache")
    assert fresh.fingerprint != loaded.fingerprint
    assert fresh.table._fingerprint != loaded.table._fingerprint
    assert next(fresh.examples()).question == "How high is the tower?"


def test_every_setting_changes_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json_line_text(ROWS))
    settings: list[dict[str, Any]] = [
        {},
        {"on_bad_record": "drop"},
        {"on_bad_record": "repair"},
        {"require_answers": False},
        {"max_samples": 2},
        {"max_samples": 3},
        {"max_samples": 2, "shuffle_seed": 0},
        {"max_samples": 2, "shuffle_seed": 1},
    ]
    prints = {load_examples(str(path), cache_dir=tmp_path / "c", **one).fingerprint for one in settings}
    assert len(prints) == len(settings)


def test_a_cached_load_reports_the_same_and_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*ROWS, {**ROWS[3], "id": "b2", "question": " "}, {**ROWS[0], "id": "a9"}]
    rows[-1] = {**rows[-1], "answers": {"text": ["330 m"], "answer_start": [12]}}
    path, moved = tmp_path / "q.jsonl", tmp_path / "moved.jsonl"
    path.write_bytes(json_line_text(rows))
    loaded = load_examples(str(path), on_bad_record="repair", cache_dir=tmp_path / "c")
    assert (loaded.total, loaded.dropped, loaded.repaired, len(loaded.table)) == (6, 1, 1, 5)
    assert [(one.location, one.id, one.action) for one in loaded.problems] == [
        (f"{path}: line 5", "b2", "dropped"),
        (f"{path}: line 6", "a9", "repaired"),
    ]
    moved.write_bytes(path.read_bytes())
    monkeypatch.setattr(load_module, "content_of", None)  # a second reading would crash
    again = load_examples(str(moved), on_bad_record="repair", cache_dir=tmp_path / "c")
    assert [one.location for one in again.problems] == [f"{moved}: line 5", f"{moved}: line 6"]
    strip = [dataclasses.replace(one, location="") for one in loaded.problems]
    assert [dataclasses.replace(one, location="") for one in again.problems] == strip
    for name in (
        "form",
        "fingerprint",
        "total",
        "dropped",
        "repaired",
        "unanswerable",
        "notes",
        "content_sha256",
    ):
        assert getattr(again, name) == getattr(loaded, name)
    assert list(again.examples()) == list(loaded.examples())


def test_a_damaged_cache_is_built_anew(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json_line_text(ROWS))
    for damage in ("truncate", "no manifest"):
        folder = tmp_path / "c" / load_examples(str(path), cache_dir=tmp_path / "c").fingerprint
        if damage == "truncate":
            with (folder / "examples.arrow").open("r+b") as file:
                file.truncate(100)
        else:
            (folder / "manifest.json").unlink()
        assert list(load_examples(str(path), cache_dir=tmp_path / "c").examples()) == EXAMPLES
        assert [child.name for child in (tmp_path / "c").iterdir()] == [folder.name]


def test_a_failed_reading_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json_line_text([*ROWS, {**ROWS[0], "id": ""}]))
    with pytest.raises(InputError, match="has no id"):
        load_examples(str(path), cache_dir=tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_the_slower_of_two_builders_takes_the_others_result(tmp_path: Path) -> None:
    def write(path: Path, who: str) -> dict[str, Any]:
        path.write_text(who)
        return {"who": who}

    def slow(path: Path) -> dict[str, Any]:
        read_or_build(tmp_path, "print", lambda other: write(other, "fast"))
        return write(path, "slow")

    table, _ = read_or_build(tmp_path, "print", slow)
    assert table.read_text() == "fast"
    assert read_or_build(tmp_path, "print", slow)[1]["who"] == "fast"
    assert [child.name for child in tmp_path.iterdir()] == ["print"]


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json_line_text(ROWS[:2]) + b"\n")

    def still_written(file: Path, name: str) -> Content:
        with file.open("ab") as end:
            end.write(json_line_text(ROWS[2:]))
        return content_of(file, name)

    monkeypatch.setattr(load_module, "content_of", still_written)
    with pytest.raises(InputError, match="the file changed while it was read"):
        load_examples(str(path), cache_dir=tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_builders_at_once_share_one_result(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    rows = [{**flat_row(EXAMPLES[0]), "id": str(number)} for number in range(3_000)]
    path.write_bytes(json_line_text(rows))
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(load_examples, str(path), cache_dir=tmp_path / "c") for _ in range(4)]
        loaded = [run.result() for run in runs]
    assert {one.fingerprint for one in loaded} == {child.name for child in (tmp_path / "c").iterdir()}
    assert [len(one.table) for one in loaded] == [3_000] * 4
    assert [row["id"] for row in loaded[3].table.select(range(2_998, 3_000))] == ["2998", "2999"]


def test_two_processes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json_line_text({**flat_row(EXAMPLES[0]), "id": str(number)} for number in range(2_000)))
    code = (
        "import sys, pathlib; from qa.datasets import load_examples\n"
        "loaded = load_examples(sys.argv[1], cache_dir=pathlib.Path(sys.argv[2]))\n"
        "print(loaded.fingerprint, len(loaded.table), sum(len(e.answers) for e in loaded.examples()))"
    )
    root = Path(qa.datasets.__file__).parents[2]
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "c")]
    running = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0].split() for process in running]
    (folder,) = (tmp_path / "c").iterdir()
    assert outputs == [[folder.name, "2000", "4000"]] * 2


# Cutting.


def test_max_samples_cuts_examples_after_the_checks(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    rows = [
        {"id": f"q{number}", "question": "Which?", "context": RIVER, "answers": []} for number in range(40)
    ]
    rows[1]["question"] = ""
    path.write_bytes(json_line_text(rows))

    def ids(**settings: Any) -> list[str]:
        loaded = load_examples(str(path), on_bad_record="drop", cache_dir=tmp_path / "c", **settings)
        assert (loaded.total, loaded.dropped, loaded.unanswerable) == (40, 1, len(loaded.table))
        return loaded.table["id"][:]

    assert ids(max_samples=3) == ["q0", "q2", "q3"]
    assert len(ids(max_samples=1_000)) == 39
    small, large = ids(max_samples=5, shuffle_seed=1), ids(max_samples=20, shuffle_seed=1)
    assert (len(small), len(large)) == (5, 20)
    assert set(small) < set(large)
    assert large == sorted(large, key=lambda one: int(one[1:]))
    assert large != ids(max_samples=20, shuffle_seed=2)
    assert large != ids(max_samples=20)
    assert large == ids(max_samples=20, shuffle_seed=1)
    assert ids(max_samples=39, shuffle_seed=1) == ids()


# Hub and sample.


def test_hub_rows_are_read_like_flat_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
        calls.append((name, config, split, revision))
        return datasets.Dataset.from_list([flat_row(example) for example in EXAMPLES])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    loaded = load_examples(
        "someone/questions", config_name="plain", split="validation", revision="abc", cache_dir=tmp_path
    )
    assert list(loaded.examples()) == EXAMPLES
    assert calls == [("someone/questions", "plain", "validation", "abc")]
    assert loaded.form == "hub"
    again = load_examples("someone/questions", cache_dir=tmp_path)
    assert again.fingerprint == loaded.fingerprint  # the same rows


def test_sample_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_module, "FOLDER", tmp_path)
    for split, examples in (("train", EXAMPLES[:2]), ("dev", EXAMPLES[2:]), ("test", EXAMPLES)):
        (tmp_path / f"{split}.json").write_bytes(json_text(nested(examples)))
    for split, count in (("train", 2), ("dev", 2), ("validation", 2), ("test", 4)):
        loaded = load_examples("sample", split=split, cache_dir=tmp_path / "c")
        assert (loaded.form, loaded.source, len(loaded.table)) == ("sample", "sample", count)
    with pytest.raises(InputError, match="no split evaluation; choose one of train, dev, validation, test"):
        load_examples("sample", split="evaluation", cache_dir=tmp_path / "c")


# The report.


def test_report_lists_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json_line_text([*ROWS, {**ROWS[0], "id": "n", "context": ""}, ROWS[1]]))
    loaded = load_examples(str(path), on_bad_record="drop", max_samples=2, cache_dir=tmp_path / "c")
    assert summary(loaded) == (
        f"{path}: 2 examples (flat-jsonl), 0 unanswerable, cut from 4, 2 dropped (1 context, 1 duplicate id)"
    )
    write_problem_report(tmp_path / "report.json", {"train": loaded})
    assert json.loads((tmp_path / "report.json").read_text()) == problem_report({"train": loaded})
    report = problem_report({"train": loaded})["train"]
    assert (report["records"], report["examples"], report["dropped"], report["repaired"]) == (6, 2, 2, 0)
    assert report["problems"][0] == {
        "location": f"{path}: line 5",
        "id": "n",
        "problem": "the context is empty",
        "action": "dropped",
        "remedy": "fill in the context, or use --on_bad_record drop",
        "kind": "context",
    }
    assert [one["id"] for one in report["problems"]] == ["n", "a2"]
    with pytest.raises(InputError, match="report cannot be written"):
        write_problem_report(tmp_path / "nowhere" / "report.json", {"train": loaded})
    assert sorted(child.name for child in tmp_path.iterdir()) == ["c", "q.jsonl", "report.json"]


# Real files: path, form, examples, unanswerable.
REAL = [
    pytest.param("squad/dev-v1.1.json.gz", "squad-1.1", 10_570, 0, marks=pytest.mark.slow),
    ("squad/dev-v2.0.json.gz", "squad-2.0", 11_873, 5_945),
    ("policyqa/dev.json.gz", "squad-1.1", 3_809, 0),
    pytest.param("qamr/dev.json.gz", "squad-1.1", 18_863, 0, marks=pytest.mark.slow),
    pytest.param("squad/train-v1.1.json.gz", "squad-1.1", 87_599, 0, marks=pytest.mark.slow),
    ("mrqa/squad-seed-42-256.jsonl.gz", "mrqa", 256, 0),
    ("fewshot/squad-train-seed-42-num-examples-16.json.gz", "squad-1.1", 16, 0),
]


@pytest.mark.parametrize(("name", "form", "count", "unanswerable"), REAL)
def test_real_files_load_without_a_problem(
    name: str, form: str, count: int, unanswerable: int, real_data: Path, tmp_path: Path
) -> None:
    loaded = load_examples(str(real_data / name), cache_dir=tmp_path)
    assert (loaded.form, len(loaded.table), loaded.unanswerable) == (form, count, unanswerable)
    for example in loaded.examples():
        for gold in example.answers:
            assert example.context[gold.start : gold.end] == gold.text


def test_real_squad_dev_is_what_json_says(real_data: Path, tmp_path: Path) -> None:
    with gzip.open(real_data / "squad/dev-v2.0.json.gz") as file:
        document = json.load(file)
    expected = [
        (
            record["id"],
            record["question"],
            [(gold["text"], gold["answer_start"]) for gold in record["answers"]],
        )
        for article in document["data"]
        for paragraph in article["paragraphs"]
        for record in paragraph["qas"]
    ]
    loaded = load_examples(str(real_data / "squad/dev-v2.0.json.gz"), cache_dir=tmp_path)
    found = [
        (one.id, one.question, [(gold.text, gold.start) for gold in one.answers]) for one in loaded.examples()
    ]
    assert found == expected


def test_real_repeated_record_is_named_and_dropped(real_data: Path, tmp_path: Path) -> None:
    source = str(real_data / "fewshot/squad-train-seed-44-num-examples-512.json.gz")
    with pytest.raises(InputError, match="an identical record before it has the same id"):
        load_examples(source, cache_dir=tmp_path)
    loaded = load_examples(source, on_bad_record="drop", cache_dir=tmp_path)
    assert (len(loaded.table), loaded.dropped) == (511, 1)


def test_real_multi_span_questions_are_not_taken_for_alternatives(real_data: Path, tmp_path: Path) -> None:
    source = str(real_data / "torque/dev.multispan.json.gz")
    with pytest.raises(InputError, match=r"4 answers that belong together .* \(and 835 more like it\)"):
        load_examples(source, cache_dir=tmp_path)
    loaded = load_examples(source, on_bad_record="drop", cache_dir=tmp_path)
    assert (loaded.total, loaded.dropped, loaded.unanswerable) == (1_483, 836, 323)
    assert max(len(example.answers) for example in loaded.examples()) == 1

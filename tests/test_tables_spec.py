"""What a table's YAML may say, how its runs follow from it, and by what a run is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from table_cases import YAML, record_of, table_of

from qa.errors import InputError
from qa.tables.identity import finished_reader
from qa.tables.plan import Planner
from qa.tables.record import Marks, marks_of, read_table_record, write_table_record
from qa.tables.spec import Table
from qa.tables.store import stale_reasons


def hashes(table: Table) -> dict[tuple[str, str, int], str]:
    plan = Planner(table).plan({})
    return {place: run.asked.settings_sha256 for place, run in plan.cells.items()}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows:", "raws:", r"raws: no such key; did you mean rows\?"),
        ("value: f1,", "valeu: f1,", r"columns: travel: valeu: no such key; did you mean value\?"),
        ("a: {label: A}", "a: {label: A, reader: c}", "rows: a: reader: c; there is a, b"),
        ("a: {label: A}", "a/b: {label: A}", "a/b: names become files"),
        (
            "a: {label: A}",
            "a: {finished: some/reader, reader: b}",
            "rows: a: finished: such a row trains nothing",
        ),
        ("label: B & C,", "finished: some/reader,", "rows: b: finished: such a row trains nothing"),
        ("seeds: [1, 2]", "seeds: [1, x]", "give whole numbers in a list"),
        ("seeds: [1, 2]", "seeds: [1, 1]", "give different whole numbers"),
        ("[1x, 3x]", "[1x, 1x]", "give different values in a list"),
        ("evaluates: true", "evaluates: maybe", "evaluates: maybe: say true or false"),
        ("smoke:", "large:", r"large: no such key; there is paper, small, smoke"),
    ],
)
def test_mistakes_are_told_with_their_place(empty_folder: Path, old: str, new: str, message: str) -> None:
    assert old in YAML
    with pytest.raises(InputError, match=message):
        table_of(empty_folder, YAML.replace(old, new))


def test_unknown_settings_are_refused_before_anything_runs(empty_folder: Path) -> None:
    with pytest.raises(InputError, match=r"weight_deca: no such setting"):
        hashes(table_of(empty_folder, YAML.replace("weight_decay", "weight_deca")))


def test_a_run_is_known_by_what_it_is_asked_and_not_by_where_or_how_fast(empty_folder: Path) -> None:
    before = hashes(table_of(empty_folder))
    same = YAML.replace("use_cpu:", "per_device_eval_batch_size: '3', cache_dir: elsewhere, use_cpu:")
    assert hashes(table_of(empty_folder, same)) == before
    spelled = YAML.replace("learning_rate: 1e-4}", "learning_rate: '0.0001', weight_decay: '0.0'}")
    assert hashes(table_of(empty_folder, spelled)) == before
    other = hashes(table_of(empty_folder, YAML.replace("learning_rate: 1e-4}", "learning_rate: 2e-4}")))
    assert not set(other.values()) & set(before.values())
    assert len(set(before.values())) == 4, "two seeds, trained and evaluated elsewhere"


def test_an_evaluation_is_known_by_its_reader(empty_folder: Path) -> None:
    cells = Planner(table_of(empty_folder)).plan({}).cells
    here, there = cells["a", "f1", 1], cells["a", "travel", 1]
    assert there.reader == here
    assert there.asked.chosen["reader"] == here.asked.settings_sha256
    assert "learning_rate" not in there.asked.chosen
    words = there.words(Path("runs/x"), Path("runs"))
    assert words[words.index("--model_name_or_path") + 1] == f"runs/{here.identity}"
    assert words[words.index("--do_train") + 1] == "false"
    assert "--resume_from_checkpoint" not in words


def test_files_are_named_by_seed_and_column(empty_folder: Path) -> None:
    text = YAML.replace(
        'evaluates: true, settings: {dataset_name: "sample:travel and sport"}',
        'settings: {train_file: "s{seed}-{column}.json"}',
    ).replace("travel:", '"16":')
    cells = Planner(table_of(empty_folder, text)).plan({}).cells
    assert cells["a", "16", 2].settings["train_file"] == "s2-16.json"
    assert cells["a", "16", 2].file_name == "a-16-seed2.json"
    assert cells["a", "f1", 2].file_name == "a-seed2.json"


def test_multiples_need_something_to_multiply(empty_folder: Path) -> None:
    text = YAML.replace("grid: {learning_rate: [1x, 3x]}", "grid: {head_learning_rate: [1x, 3x]}")
    with pytest.raises(InputError, match="multiples of None, which is no number"):
        Planner(table_of(empty_folder, text)).plan({})


def test_a_record_comes_back_as_it_was_and_says_when_it_is_stale(empty_folder: Path) -> None:
    from dataclasses import replace

    run = Planner(table_of(empty_folder)).plan({}).cells["a", "f1", 1]
    record = record_of(run.asked, [100.0, 66.67, 0.0], [1, 0, 0])
    path = empty_folder / "record.json"
    write_table_record(path, record)
    assert read_table_record(path) == record
    assert '"f1": "100 66.67 0"' in path.read_text()
    assert '"exact_match": "100"' in path.read_text()
    assert stale_reasons(run, record) == []
    assert stale_reasons(run, None) == ["there is none"]
    changed = replace(record, chosen={**record.chosen, "seed": 3})
    assert stale_reasons(run, changed) == ["seed was 3, is 1"]
    moved = replace(record, run=replace(record.run, settings={"max_answer_length": 15}))
    assert stale_reasons(run, moved) == ["the default of max_answer_length was 15, is 30"]
    others = replace(record, data_sha256={**record.data_sha256, "train": "0"})
    assert stale_reasons(run, others) == ["the train questions are others"]


def test_broken_records_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a-seed1.json"
    path.write_text('{"schema": 1}', encoding="utf-8")
    with pytest.raises(InputError, match=r"a-seed1\.json: not a record of a table"):
        read_table_record(path)
    path.write_text('{"schema": 0}', encoding="utf-8")
    with pytest.raises(InputError, match="a record of schema 0, not 1; run it again"):
        read_table_record(path)


def test_marks_are_read_from_predictions(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    assert marks_of(path) is None
    path.write_text(
        '{"id": "x", "exact_match": 1.0, "f1": 1.0}\n{"id": "y", "exact_match": 0, "f1": 0.66666}\n'
    )
    found = marks_of(path)
    assert found is not None
    assert (found.exact_match, found.f1) == ((1, 0), (100.0, 66.67))
    assert found.of("f1") == (100.0, 66.67)
    assert found.of("exact_match") == (100.0, 0.0)
    assert Marks("", (1,), (100.0,)).of("seconds") is None
    path.write_text('{"id": "x"}\n')
    assert marks_of(path) is None


def test_a_finished_reader_is_known_by_its_weights(empty_folder: Path) -> None:
    assert finished_reader("owner/reader") == "owner/reader", "of the hub, nothing is here to be read"
    (empty_folder / "reader").mkdir()
    seen = set()
    for content in (b"one", b"other"):
        (empty_folder / "reader" / "model.safetensors").write_bytes(content)
        seen.add(finished_reader(str(empty_folder / "reader")))
    assert len(seen) == 2

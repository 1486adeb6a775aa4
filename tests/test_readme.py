"""What the README says is what the records and the Makefile hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qa.arguments import parse_settings
from qa.reporting.result_table import result_table
from qa.results import read_record

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDS = [
    *sorted(ROOT.glob("experiments/results/*.json")),
    ROOT / "qa/readers/default/run.json",
    *sorted(ROOT.glob("qa/readers/default/evaluation-*.json")),
]
RECIPES = [ROOT / "experiments/quickstart.yaml", *sorted(ROOT.glob("experiments/recipes/*.yaml"))]


def test_the_table_of_results_is_made_of_the_records() -> None:
    table = result_table([(path.relative_to(ROOT).as_posix(), read_record(path)) for path in RECORDS])
    assert table in README


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_committed_record_names_no_folder_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r'"(?:/|\.\./)[^"]*"', text) == []
    assert read_record(path).scores["eval"].signature


def test_make_targets_that_the_readme_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z0-9-]+)", README))
    assert named
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


def test_files_that_the_readme_names_exist() -> None:
    map_rows = README[README.index("## File map") :]
    named = [word for word in re.findall(r"`([\w/.-]+)`", map_rows) if "/" in word or word.endswith(".py")]
    assert len(named) > 20
    missing = [word for word in named if not (ROOT / word).exists() and not (ROOT / "qa" / word).exists()]
    assert missing == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert parse_settings(["--config", str(path), "--dataset_name", "squad"]).training.do_train


@pytest.mark.parametrize("kind", ["datasets", "strategies"])
def test_every_part_of_an_experiment_merges_with_the_base(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    parts = sorted((ROOT / "experiments" / kind).glob("*.yaml"))
    assert parts
    for path in parts:
        words = ["--config", "experiments/base.yaml", str(path), "--dataset_name", "squad"]
        assert parse_settings(words).training.do_train


@pytest.mark.parametrize("name", re.findall(r"\(experiments/tables/out/([\w-]+)\.md\)", README))
def test_a_table_that_the_readme_links_stands_there_as_it_was_printed(name: str) -> None:
    printed = (ROOT / "experiments" / "tables" / "out" / f"{name}.md").read_text(encoding="utf-8")
    # Published rows, in italics, may be left to the file.
    rows = [line for line in printed.splitlines() if line.startswith("|") and not line.startswith("| *")]
    assert len(rows) > 2
    assert "\n".join(rows) in README

"""Where the files are that a run is told to read."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_words import TRAIN, refused, train

from qa.run_settings import DATA_DIR_VARIABLE, DataArguments

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_relative_files_are_found_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here.json", tmp_path / "data/squad/there.json"
    there.parent.mkdir(parents=True)
    here.touch()
    there.touch()
    (tmp_path / "data/here.json").touch()
    data = DataArguments(
        train_file="here.json", validation_file="squad/there.json", test_file=str(here), data_dir="data"
    )
    assert data.source("train") == "here.json"
    assert data.source("validation") == "data/squad/there.json"
    assert data.source("test") == str(here)
    assert DataArguments(dataset_name="squad", data_dir="data").source("train") == "squad"
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "data"))
    assert DataArguments(validation_file="squad/there.json").source("validation") == str(there)
    monkeypatch.setenv(DATA_DIR_VARIABLE, "nowhere")
    assert (
        DataArguments(validation_file="squad/there.json", data_dir="data").source("validation")
        == "data/squad/there.json"
    )


def test_a_file_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a data folder, whoever reads the file says what is wrong with its name.
    assert DataArguments(train_file="no.json").source("train") == "no.json"
    monkeypatch.setenv(DATA_DIR_VARIABLE, "data")
    assert refused(*TRAIN, "--train_file", "no.json") == (
        f"train_file: no.json is neither in the current folder ({tmp_path}) nor in data, which QA_DATA_DIR "
        "names; check the path"
    )
    assert "nor in other, which data_dir names" in refused(
        *TRAIN, "--train_file", "no.json", "--data_dir", "other"
    )
    # A split that is not read may be absent.
    assert train("--test_file", "no.json").data.test_file == "no.json"

"""`transformers.pipeline("question-answering")` after one call of `register`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, pipelines

import qa.pipeline
from qa import QuestionAnswerer
from qa.confidence import Calibration

ASKED = {"question": "Who came?", "context": "Ole Rømer came to Paris in 1672. Cassini doubted him."}


@pytest.fixture
def unregistered() -> Iterator[None]:
    """transformers as it was, before and after."""
    removed, tasks = dict(pipelines.REMOVED_TASKS), dict(pipelines.SUPPORTED_TASKS)
    former = transformers.pipeline
    yield
    transformers.pipeline = pipelines.pipeline = former
    for now, before in ((pipelines.REMOVED_TASKS, removed), (pipelines.SUPPORTED_TASKS, tasks)):
        now.clear()
        now.update(before)


@pytest.fixture
def registered(unregistered: None) -> None:
    qa.pipeline.register()


def test_one_call_brings_the_task_back(unregistered: None, vivid_reader: Path) -> None:
    with pytest.raises(KeyError, match="removed"):
        transformers.pipeline("question-answering", model=str(vivid_reader))
    qa.pipeline.register()
    qa.pipeline.register()
    answers = transformers.pipeline("question-answering", model=str(vivid_reader), device=-1)
    assert isinstance(answers, transformers.Pipeline)
    assert answers.task == "question-answering"
    assert answers(**ASKED) == QuestionAnswerer(vivid_reader, device="cpu")(**ASKED)
    assert "question-answering" in pipelines.get_supported_tasks()


def test_forms_and_parameters_go_through(registered: None, vivid_reader: Path) -> None:
    answers = transformers.pipeline("question-answering", model=str(vivid_reader), device="cpu", top_k=2)
    expected = QuestionAnswerer(vivid_reader, device="cpu")
    assert answers([ASKED, ASKED], top_k=3) == expected([ASKED, ASKED], top_k=3)
    assert answers(ASKED) == expected(ASKED, top_k=2)
    assert len(list(answers(item for item in [ASKED] * 3))) == 3
    assert answers.rank(ASKED["question"], [ASKED["context"]])[0]["context"] == 0
    assert answers.explain(**ASKED, steps=2).answer == expected(ASKED)
    assert answers.create_sample(**ASKED) == expected.create_sample(**ASKED)
    # transformers' own stages lead to the same.
    assert answers.run_single(ASKED, {}, {}, {}) == expected(ASKED, top_k=2)


def test_loaded_models_and_tokenizers(registered: None, vivid_reader: Path) -> None:
    model = AutoModelForQuestionAnswering.from_pretrained(vivid_reader)
    tokenizer = AutoTokenizer.from_pretrained(vivid_reader)
    expected = QuestionAnswerer(vivid_reader, device="cpu")(ASKED)
    told: dict[str, Any] = {"tokenizer": tokenizer, "device": -1}
    assert transformers.pipeline("question-answering", model=model, **told)(ASKED) == expected
    assert qa.pipeline.QuestionAnsweringPipeline(model=model, framework="pt", **told)(ASKED) == expected
    assert transformers.pipeline("question-answering", model=model, device=-1)(ASKED) == expected


def test_a_finished_runs_threshold_comes_along(registered: None, vivid_reader: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(vivid_reader, run)
    never = Calibration(-1000.0, 1.0, "dev", 5, 0.1, 0.1)
    (run / "calibration.json").write_text(json.dumps(never.to_dict()), encoding="utf-8")
    (run / "settings.yaml").write_text("max_seq_length: 128\ndoc_stride: 32\n", encoding="utf-8")
    answers = transformers.pipeline("question-answering", model=str(run), device=-1)
    assert answers(ASKED)["answer"]
    assert answers(ASKED, handle_impossible_answer=True)["answer"] == ""
    answers.save_pretrained(tmp_path / "copy")
    again = QuestionAnswerer(tmp_path / "copy", device="cpu")
    assert again(ASKED, handle_impossible_answer=True)["answer"] == ""
    assert again.reader.windows.max_seq_length == 128


def test_the_import_is_all_that_changes(unregistered: None, vivid_reader: Path) -> None:
    answers = qa.pipeline.pipeline("question-answering", model=str(vivid_reader), device=-1)
    assert answers(ASKED) == QuestionAnswerer(vivid_reader, device="cpu")(ASKED)

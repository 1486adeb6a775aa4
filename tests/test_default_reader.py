"""The reader in the box: what it can, and that its files, record and card belong together."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from reader_cases import FILES, wrong_sums

from qa import QuestionAnswerer
from qa.models import DEFAULT_ENCODER, DEFAULT_READER, local_folder
from qa.readers import pack
from qa.results import read_record

BOX = local_folder(DEFAULT_READER)
LIGHT = """\
The first light on Skarvholm was a coal fire, lit in 1748 by Karen Toft, whose husband had drowned on the
reef. It burned for 61 years. In 1809 the parish replaced it with an oil lamp of eleven wicks, which
could be seen fourteen miles out to sea. The present tower, 32 metres of grey granite, was designed by
Elise Brandt and finished in 1881. It cost 46,300 crowns, twice what the council had set aside. Until
1967 two keepers and their families lived on the island. Since then the lamp has been switched on and off
from Aalborg."""
BREAD = """\
Rye dough is left to rise twice. The first rise takes about nine hours in a cool larder; the baker Ines
Moura adds the caraway only after it, because salt and spices slow the yeast. Loaves are baked for 55
minutes at 210 degrees on a stone floor, and rest under a linen cloth until the next morning."""
ANSWERS = [
    (LIGHT, "Who lit the first light on Skarvholm?", "Karen Toft"),
    (LIGHT, "When was the present tower finished?", "1881"),
    (LIGHT, "Who designed the present tower?", "Elise Brandt"),
    (LIGHT, "How much did the tower cost?", "46,300 crowns"),
    (LIGHT, "From where is the lamp switched on today?", "Aalborg"),
    (BREAD, "Who adds the caraway?", "Ines Moura"),
    (BREAD, "How long are the loaves baked?", "55 minutes"),
    (BREAD, "What do the loaves rest under?", "linen cloth"),
]
UNRELATED = [
    (BREAD, "Who was the first president of Finland?"),
    (BREAD, "How many people live in Nairobi?"),
    (LIGHT, "What is the boiling point of nitrogen?"),
    (LIGHT, "Which river flows through Vienna?"),
]


@pytest.fixture(scope="module")
def box() -> Path:
    assert BOX.is_dir()
    return BOX


@pytest.fixture(scope="module")
def default_reader(box: Path) -> QuestionAnswerer:
    return QuestionAnswerer(device="cpu")


def test_it_answers_what_a_passage_tells(default_reader: QuestionAnswerer) -> None:
    asked = [{"question": question, "context": passage} for passage, question, _ in ANSWERS]
    for told in ({}, {"handle_impossible_answer": True}):
        texts = [" ".join(found["answer"].split()) for found in default_reader(asked, **told)]
        wrong = [
            (question, text)
            for (_, question, expected), text in zip(ANSWERS, texts, strict=True)
            if expected not in text or len(text) > len(expected) + 10
        ]
        assert wrong == []


def test_it_says_so_where_a_passage_does_not_tell(default_reader: QuestionAnswerer) -> None:
    asked = [{"question": question, "context": passage} for passage, question in UNRELATED]
    assert [a["answer"] for a in default_reader(asked, handle_impossible_answer=True)] == [""] * len(asked)
    assert all(found["answer"] for found in default_reader(asked))


def test_it_picks_the_document_that_tells(default_reader: QuestionAnswerer) -> None:
    (best,) = default_reader.rank("Who designed the tower?", [BREAD, LIGHT], top_k=1)
    assert (best["context"], best["answer"]) == (1, "Elise Brandt")


def test_its_files_are_the_ones_that_were_packed(box: Path) -> None:
    names = {path.name for path in box.iterdir()}
    assert names >= FILES
    assert all(re.fullmatch(r"evaluation-[\w.-]+\.json", name) for name in names - FILES)
    assert wrong_sums(box) == []
    assert (box / pack.WEIGHTS).stat().st_size <= 3_000_000
    assert sum(path.stat().st_size for path in box.iterdir()) <= 3_200_000


def test_its_record_is_that_of_its_adapter(box: Path, default_reader: QuestionAnswerer) -> None:
    record = pack.checked_record(box)  # settings, strategy and number of parameters agree
    config = json.loads((box / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"]) == (
        record.settings["lora_rank"],
        record.settings["lora_alpha"],
    )
    assert config["base_model_name_or_path"] == record.model == DEFAULT_ENCODER
    counted = sum(parameter.numel() for parameter in default_reader.model.parameters())
    assert counted == record.parameters["total"]
    sizes = [
        p.numel()
        for n, p in default_reader.model.named_parameters()
        if "lora_" in n or "modules_to_save" in n
    ]
    assert sum(sizes) == record.parameters["trainable"]
    windows = default_reader.reader.windows
    assert windows.max_seq_length == record.settings["max_seq_length"]
    assert default_reader.calibration.questions == record.data["validation"]["questions"]


def test_its_calibration_is_that_of_its_evaluation(box: Path, default_reader: QuestionAnswerer) -> None:
    record = read_record(box / "evaluation-dev-v2.0.json")
    assert record.settings["fit_calibration"] is True
    fitted, saved = record.scores["eval"].metrics, default_reader.calibration
    assert (saved.threshold, saved.temperature, saved.null_temperature) == pytest.approx(
        (fitted["threshold"], fitted["temperature"], fitted["null_temperature"])
    )
    assert saved.expected_calibration_error == pytest.approx(fitted["expected_calibration_error"])
    again = read_record(box / "evaluation-dev-v1.1.json").scores["eval"].metrics
    assert again["temperature"] == pytest.approx(saved.temperature)


def test_its_data_are_named_as_everybody_knows_them(box: Path) -> None:
    record = read_record(box / "run.json")
    assert {split: report["source"] for split, report in record.data.items()} == {
        "train": "squad/train-v2.0-partial.json.gz",
        "validation": "squad/dev-v2.0.json.gz",
    }
    card = (box / "README.md").read_text(encoding="utf-8")
    for name in ("SQuAD 1.1", "SQuAD 2.0", "arXiv:1606.05250", "arXiv:1806.03822", "CC BY-SA 4.0"):
        assert name in " ".join(card.split())
    assert f"{record.scores['eval'].metrics['f1']:.2f}" in card

"""Integrated gradients against their axioms, against a function known in closed form, and against captum."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from qa import QuestionAnswerer
from qa.confidence import Calibration
from qa.explanations import Explanation, integrated_gradients
from qa.predicting.reading import WindowMaker, collate

Q = "Who measured <b>it</b> & when?"
C = 'Ole Rømer measured the speed of light in 1676. <script>alert("x")</script> Cassini & others doubted it.'


@pytest.fixture(scope="module")
def reader(vivid_reader: Path) -> QuestionAnswerer:
    return QuestionAnswerer(vivid_reader, device="cpu")


@pytest.fixture(scope="module")
def explanation(reader: QuestionAnswerer) -> Explanation:
    return reader.explain(Q, C, top_k=4, steps=300, align_to_words=False)


def window(reader: QuestionAnswerer) -> dict[str, torch.Tensor]:
    """The one window of question and passage."""
    options = reader._options({})
    windows = WindowMaker(reader.reader, options, reader._columns)([reader.create_sample(Q, C)])  # type: ignore[list-item]
    assert len(windows.table) == 1
    return collate(reader.reader, windows, [0], options)


def test_attributions_add_up_to_what_the_words_add_to_the_logits(explanation: Explanation) -> None:
    """Completeness (section 3 of the paper)."""
    for name in ("start", "end"):
        total = sum(getattr(token, f"for_{name}") for token in explanation.tokens)
        rise = getattr(explanation, f"{name}_logit") - getattr(explanation, f"baseline_{name}_logit")
        assert abs(rise) > 0.1
        assert total == pytest.approx(rise, rel=0.01)


def test_logits_are_those_of_the_answer(reader: QuestionAnswerer, explanation: Explanation) -> None:
    encoded = reader.tokenizer(Q, C, return_tensors="pt", return_offsets_mapping=True)
    offsets, parts = encoded.pop("offset_mapping")[0].tolist(), encoded.sequence_ids()
    with torch.no_grad():
        output = reader.model(**encoded)
    answer = explanation.answer
    (first,) = (at for at, part in enumerate(parts) if part == 1 and offsets[at][0] == answer["start"])
    (last,) = (at for at, part in enumerate(parts) if part == 1 and offsets[at][1] == answer["end"])
    assert explanation.start_logit == pytest.approx(float(output.start_logits[0, first]), abs=1e-4)
    assert explanation.end_logit == pytest.approx(float(output.end_logits[0, last]), abs=1e-4)


def test_answer_and_runners_up_are_those_of_a_call(
    reader: QuestionAnswerer, explanation: Explanation
) -> None:
    called = reader(question=Q, context=C, top_k=4, align_to_words=False)
    assert [explanation.answer, *explanation.runners_up] == called


def test_every_token_stands_where_it_says(reader: QuestionAnswerer, explanation: Explanation) -> None:
    assert len(explanation.tokens) == len(reader.tokenizer(Q, C)["input_ids"])
    assert [token.text for token in explanation.tokens if token.part == "special"] == [
        "[CLS]",
        "[SEP]",
        "[SEP]",
    ]
    for part, text in (("question", Q), ("passage", C)):
        tokens = [token for token in explanation.tokens if token.part == part]
        assert [text[token.start : token.end] for token in tokens] == [token.text for token in tokens]
        assert "".join(token.text for token in tokens) == text.replace(" ", "")
    assert all(
        token.for_start == token.for_end == 0 for token in explanation.tokens if token.part == "special"
    )


def test_a_linear_reader_is_attributed_exactly(reader: QuestionAnswerer) -> None:
    """With start and end logits linear in the embeddings, one point of the integral is the whole truth."""

    class Linear(torch.nn.Module):
        base_model_prefix = "bert"

        def __init__(self) -> None:
            super().__init__()
            self.bert = torch.nn.Module()
            self.words = torch.nn.Embedding(30522, 4)
            self.config = reader.model.config

        def get_input_embeddings(self) -> torch.nn.Module:
            return self.words

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            vectors = self.words(input_ids)
            return SimpleNamespace(start_logits=vectors.sum(-1).cumsum(-1), end_logits=3 * vectors[..., 0])

    torch.manual_seed(0)
    linear = Linear().eval()
    batch = window(reader)
    changed = dataclasses.replace(reader.reader, model=linear)
    values, logits, baseline = integrated_gradients(changed, batch, (6, 5), steps=1)
    ids, rows = batch["input_ids"][0], linear.words.weight.detach()
    special = np.isin(ids.numpy(), reader.tokenizer.all_special_ids)
    difference = (rows[ids] - rows[reader.tokenizer.pad_token_id]).numpy()
    expected = np.where(special, 0, difference.sum(-1))
    assert values[0] == pytest.approx(np.where(np.arange(len(ids)) <= 6, expected, 0), abs=1e-5)
    assert values[1] == pytest.approx(np.where(np.arange(len(ids)) == 5, 3 * difference[:, 0], 0), abs=1e-5)
    assert logits[1] == pytest.approx(3 * float(rows[ids[5], 0]), abs=1e-5)
    assert baseline[1] == pytest.approx(3 * float(rows[reader.tokenizer.pad_token_id, 0]), abs=1e-5)


def test_captum_agrees(reader: QuestionAnswerer) -> None:
    captum = pytest.importorskip("captum.attr", reason="captum is a check of development only")
    batch, model, tokenizer = window(reader), reader.model, reader.tokenizer
    ids = batch["input_ids"]
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    empty = torch.where(special, ids, tokenizer.pad_token_id)
    ours, _, _ = integrated_gradients(reader.reader, batch, (20, 22), steps=50)

    def start(ids: torch.Tensor, types: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return model(input_ids=ids, token_type_ids=types, attention_mask=mask).start_logits[:, 20]

    theirs = captum.LayerIntegratedGradients(start, model.get_input_embeddings()).attribute(
        ids,
        empty,
        additional_forward_args=(batch["token_type_ids"], batch["attention_mask"]),
        n_steps=50,
        method="gausslegendre",
    )
    assert ours[0] == pytest.approx(theirs.sum(-1)[0].detach().numpy(), abs=2e-4)


def test_no_answer_is_explained_by_its_own_logits(reader: QuestionAnswerer, monkeypatch: Any) -> None:
    certain = dataclasses.replace(reader.reader, calibration=Calibration(-1000.0, 1.0, "dev", 1, 0.1, 0.1))
    monkeypatch.setattr(reader, "reader", certain)
    assert reader.explain(Q, C, steps=5).answer["answer"]
    found = reader.explain(Q, C, steps=5, handle_impossible_answer=True)
    assert found.answer["answer"] == ""
    with torch.no_grad():
        output = reader.model(**reader.tokenizer(Q, C, return_tensors="pt"))
    assert found.start_logit == pytest.approx(float(output.start_logits[0, 0]), abs=1e-4)
    assert found.end_logit == pytest.approx(float(output.end_logits[0, 0]), abs=1e-4)
    assert "the passage does not tell" in found.to_html()


def test_the_window_that_holds_the_answer_is_explained(reader: QuestionAnswerer) -> None:
    long = "Nothing happened here. " * 60 + C + " Nothing happened there." * 60
    found = reader.explain(Q, long, steps=4, max_seq_len=96, doc_stride=32, top_k=2, align_to_words=False)
    passage = [token for token in found.tokens if token.part == "passage"]
    assert passage[0].start <= found.answer["start"] < found.answer["end"] <= passage[-1].end
    assert len(found.tokens) <= 96
    assert [long[token.start : token.end] for token in passage] == [token.text for token in passage]
    expected = reader(question=Q, context=long, max_seq_len=96, doc_stride=32, align_to_words=False)
    assert found.answer == expected


class Page(HTMLParser):
    """The tags of a page and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_by_itself_and_everything_is_escaped(explanation: Explanation) -> None:
    page = explanation.to_html()
    parsed = Page(page)
    known = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "b", "i", "span", "small"}
    assert {tag for tag, _ in parsed.tags} <= known | {"table", "tr", "td"}
    assert not any({"src", "href", "onload", "onclick"} & attributes.keys() for _, attributes in parsed.tags)
    assert "<script" not in page
    assert "://" not in page
    text = "".join(parsed.text)
    assert C in text
    assert text.count(Q) == 2
    underlined = re.findall(r'<span class="answer"[^>]*>(.*?)</span>', page)
    assert "".join(Page("".join(underlined)).text) == explanation.answer["answer"]
    for result in explanation.runners_up:
        assert result["answer"] in text


def test_an_explanation_is_json(explanation: Explanation) -> None:
    content = json.loads(json.dumps(explanation.to_dict()))
    assert content["answer"] == explanation.answer
    assert content["tokens"][0].keys() == {"text", "part", "start", "end", "for_start", "for_end"}

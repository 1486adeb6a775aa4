"""A long text tokenized in slices has the tokens of the whole text, whatever stands at the cuts."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from qa.models import DEFAULT_ENCODER, resolve_checkpoint
from qa.tokenizers import load_tokenizer
from qa.windows import slices

PIECES = [
    *("a", "Z", "1681", "word", "##ing", "[SEP]", "[MASK]", "Rømer", "e\u0301", "\u0301\u0327", "Σ", "ΟΔΟΣ"),
    *("巴黎", "é", "😀", "\u200b", "\u0000", "\ufffd", "\u00ad", "ﬁ", "İ", "ß", "x" * 120, ".", "-", "'"),
    *(" ", " ", " ", " ", "\n", "\n\n", "\t", "\r", "\r\n", "  ", "\x0b", "\x1c", "\x85", "\xa0", "\u2028"),
]


@pytest.fixture(scope="module")
def backend() -> Tokenizer:
    """The packaged encoder's, which lower-cases and strips accents."""
    backend: Tokenizer = load_tokenizer(resolve_checkpoint(DEFAULT_ENCODER)).backend_tokenizer
    return backend


@pytest.fixture(scope="module")
def cased(backend: Tokenizer) -> Tokenizer:
    other = Tokenizer.from_str(backend.to_str())
    other.normalizer = normalizers.BertNormalizer(lowercase=False)
    return other


@pytest.mark.parametrize("name", ["backend", "cased"])
def test_slices_give_the_tokens_of_the_whole(name: str, request: Any, monkeypatch: Any) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    monkeypatch.setattr(slices, "SLICE_CHARACTERS", 7)
    monkeypatch.setattr(slices, "SLICES_AT_ONCE", 3)
    draw = random.Random(0)
    texts = ["".join(draw.choices(PIECES, k=draw.randrange(60))) for _ in range(400)]
    assert sum(len(slices.cuts(text, 7)) for text in texts) > 2000
    for text, (ids, offsets) in zip(texts, slices.tokenize(tokenizer, texts), strict=True):
        whole = tokenizer.encode(text, add_special_tokens=False)
        assert ids.tolist() == whole.ids
        assert offsets.tolist() == [list(place) for place in whole.offsets]
        assert ids.dtype == offsets.dtype == np.int32


def test_slices_end_before_a_space_or_a_line_and_leave_nothing_out() -> None:
    text = "one two\nthree four-and-a-half five"
    bounds = slices.cuts(text, 5)
    assert [text[a:b] for a, b in itertools.pairwise(bounds)] == [
        "one two",
        "\nthree",
        " four-and-a-half",
        " five",
    ]
    assert slices.cuts("", 5) == [0, 0]
    assert slices.cuts("x" * 40, 5) == [0, 40]
    assert slices.cuts("x" * 40 + " y", 5) == [0, 40, 42]


def test_only_tokenizers_that_split_at_spaces_are_cut(backend: Tokenizer, cased: Tokenizer) -> None:
    assert slices.splits_at_spaces(backend)
    assert slices.splits_at_spaces(cased)
    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel()
    metaspace = Tokenizer(models.Unigram())
    metaspace.pre_tokenizer = pre_tokenizers.Metaspace()
    others = [Tokenizer.from_str(backend.to_str()) for _ in range(3)]
    others[0].normalizer = normalizers.NFKC()
    others[1].add_tokens([AddedToken("New York")])
    others[2].add_special_tokens([AddedToken("<mask>", lstrip=True)])
    assert not any(map(slices.splits_at_spaces, [byte_level, metaspace, Tokenizer(models.BPE()), *others]))


def test_a_text_that_must_not_be_cut_is_tokenized_whole(monkeypatch: Any) -> None:
    """Byte-level: a space belongs to the word behind it, and a piece of its own begins with one."""
    vocabulary = {token: at for at, token in enumerate(["a", "Ġ", "Ġa", "aa"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "a"), ("a", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    monkeypatch.setattr(slices, "SLICE_CHARACTERS", 3)
    text = "a  a aa   a"
    whole = tokenizer.encode(text, add_special_tokens=False)
    ((ids, offsets),) = slices.tokenize(tokenizer, [text])
    assert ids.tolist() == whole.ids
    assert offsets.tolist() == [list(place) for place in whole.offsets]

"""Token ids and offsets of passages of any length: a long one is tokenized in slices, in bounded memory.

A tokenizer keeps some 500 bytes for each token of a text while it works; an array keeps 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

SLICE_CHARACTERS = 1 << 15
SLICES_AT_ONCE = 8

Tokens = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
"""ids (tokens,) and offsets (tokens, 2) in characters, end exclusive."""


def tokenize(backend: Tokenizer, texts: Sequence[str]) -> list[Tokens]:
    """Tokens of each text, without special ones, as `backend.encode_batch` gives them."""
    short = [text for text in texts if len(text) <= SLICE_CHARACTERS]
    encoded = iter(backend.encode_batch(short, add_special_tokens=False))
    return [
        _tokens(next(encoded)) if len(text) <= SLICE_CHARACTERS else _long(backend, text) for text in texts
    ]


def _long(backend: Tokenizer, text: str) -> Tokens:
    """The tokens of one text, slice by slice where words do not depend on what stands around them."""
    bounds = cuts(text, SLICE_CHARACTERS) if splits_at_spaces(backend) else [0, len(text)]
    places = list(pairwise(bounds))
    ids, offsets = [], []
    for at in range(0, len(places), SLICES_AT_ONCE):
        part = places[at : at + SLICES_AT_ONCE]
        encodings = backend.encode_batch([text[start:stop] for start, stop in part], add_special_tokens=False)
        for (start, _), encoding in zip(part, encodings, strict=True):
            own_ids, own_offsets = _tokens(encoding)
            ids.append(own_ids)
            offsets.append(own_offsets + np.int32(start))
    return np.concatenate(ids), np.concatenate(offsets)


def cuts(text: str, size: int) -> list[int]:
    """Bounds of slices: 0, the first space or line end `size` characters on, ..., the text's length."""
    bounds = [0]
    while (goal := bounds[-1] + size) < len(text):
        found = [place for mark in " \n" if (place := text.find(mark, goal, goal + size)) >= 0]
        if not found:  # few spaces, as in Chinese: look as far as it takes
            found = [place for mark in " \n" if (place := text.find(mark, goal + size)) >= 0]
        if not found:
            break
        bounds.append(min(found))
    return [*bounds, len(text)]


def splits_at_spaces(backend: Tokenizer) -> bool:
    """Whether a text may be cut before any space without its tokens changing.

    So it is with BERT's own steps: the normaliser looks at one character (and its combining marks) at a time,
    words end at white space. Byte-level and SentencePiece tokenizers see the space, and are not cut; nor are
    texts of tokenizers with added tokens that take white space in.
    """
    kinds = type(backend.normalizer).__name__, type(backend.pre_tokenizer).__name__
    added = backend.get_added_tokens_decoder().values()
    takes_space = any(token.lstrip or token.rstrip or set(token.content) & set(" \n") for token in added)
    return (
        kinds in (("BertNormalizer", "BertPreTokenizer"), ("NoneType", "BertPreTokenizer"))
        and not takes_space
    )


def _tokens(encoding: Encoding) -> Tokens:
    ids = np.array(encoding.ids, dtype=np.int32)
    flat = np.fromiter(chain.from_iterable(encoding.offsets), dtype=np.int32, count=2 * len(ids))
    return ids, flat.reshape(-1, 2)

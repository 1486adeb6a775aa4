"""Tokenizers that a span reader can trust: fast, unpadded, and cased where the vocabulary is cased."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

CASED_SHARE = 0.01
"""A vocabulary is cased where more than this share of its word pieces holds an upper-case letter.

`bert-base-cased` has about a third; an uncased vocabulary has none but special tokens.
"""


def load_tokenizer(
    name_or_path: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerFast:
    """Load a fast tokenizer without preset truncation or padding that keeps upper case if the model knows it.

    Args:
        name_or_path: a directory, or a name on the hub.
        revision: branch, tag or commit on the hub.
        trust_remote_code: run the tokenizer's own Python code if it ships any.

    Raises:
        InputError: nothing loadable there, no fast tokenizer, or a tokenizer without a vocabulary.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    path = Path(name_or_path)
    if (path.is_absolute() or name_or_path.startswith(".")) and not path.is_dir():
        raise InputError(f"{name_or_path}: no such directory; give the directory that holds the model.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name_or_path, revision=revision or "main", trust_remote_code=trust_remote_code
        )
    except Exception as error:  # the Rust backend raises bare Exception for a damaged tokenizer.json
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"{name_or_path}: no tokenizer could be loaded ({reason}); give a directory that holds"
            " tokenizer.json or vocab.txt beside config.json, or a hub name that can be reached from here."
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            f"{name_or_path}: {type(tokenizer).__name__} is not a fast tokenizer, and only fast ones give"
            " character offsets; choose a checkpoint that ships tokenizer.json."
        )
    backend = tokenizer.backend_tokenizer
    if not _word_pieces(backend):
        # transformers 5 builds a BERT tokenizer of five special tokens where vocab.txt is missing, and says
        # nothing.
        raise InputError(
            f"{name_or_path}: the tokenizer knows special tokens only; put the model's vocab.txt or"
            " tokenizer.json into the directory."
        )
    _clear_presets(tokenizer)
    if lower_cases(backend) and is_cased_vocabulary(backend):
        _keep_case(tokenizer, name_or_path)
    return tokenizer


def lower_cases(backend: Tokenizer) -> bool:
    """Whether the normaliser turns upper case into lower case."""
    return backend.normalizer is not None and backend.normalizer.normalize_str("Paris") == "paris"


def is_cased_vocabulary(backend: Tokenizer) -> bool:
    """Whether many word pieces hold an upper-case letter, and so cannot be reached from lower-cased text.

    Special tokens and single characters do not count: byte-level alphabets hold A to Z in uncased
    vocabularies too.
    """
    pieces = _word_pieces(backend)
    # A byte-level alphabet writes bytes as letters such as U+0120 (a space), whose case means nothing: ASCII
    # alone does.
    byte_level = '"ByteLevel"' in json.dumps(_without_vocabulary(backend))
    upper = re.compile("[A-Z]") if byte_level else None
    cased = sum(bool(upper.search(piece)) if upper else piece != piece.lower() for piece in pieces)
    return cased > CASED_SHARE * len(pieces)


def _word_pieces(backend: Tokenizer) -> list[str]:
    """Vocabulary entries of two characters or more, without continuation marks and special tokens."""
    special = {token.content for token in backend.get_added_tokens_decoder().values()}
    reserved = re.compile(r"\[[^\]]*\]|<[^>]*>")
    pieces = (
        re.sub("^(##|\u2581|\u0120)", "", piece)
        for piece in backend.get_vocab(with_added_tokens=False)
        if piece not in special and not reserved.fullmatch(piece)
    )
    return [piece for piece in pieces if len(piece) > 1]


def _without_vocabulary(backend: Tokenizer) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(backend.to_str())
    return {name: state[name] for name in ("normalizer", "pre_tokenizer", "decoder")}


def _clear_presets(tokenizer: PreTrainedTokenizerFast) -> None:
    """Forget truncation and padding written into tokenizer.json.

    Sentence encoders ship with both (the packaged MiniLM: cut and padded to 128), and direct calls of the
    backend obey them in silence.
    """
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    for preset in ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of"):
        tokenizer.init_kwargs.pop(preset, None)


def _keep_case(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    """Take lower-casing, and nothing else, out of the normaliser.

    transformers 5 lower-cases by default for a directory of config, weights and vocab.txt, which is the shape
    of the SpanBERT download: "Paris" becomes `p ##a ##r ##i ##s`.
    """
    from tokenizers import Tokenizer

    backend = tokenizer.backend_tokenizer
    # Normalisers cannot be edited in place, nor built from their own JSON: they travel in an otherwise empty
    # tokenizer.
    carrier: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": _without_lowercase(_without_vocabulary(backend)["normalizer"]),
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {}, "unk_token": ""},
    }
    backend.normalizer = Tokenizer.from_str(json.dumps(carrier)).normalizer
    if lower_cases(backend):
        raise InputError(
            f"{name}: the vocabulary is cased but the tokenizer lower-cases in a step that cannot be"
            " taken out; put a tokenizer.json that keeps upper case into the directory."
        )
    if hasattr(tokenizer, "do_lower_case"):
        # Saved with the tokenizer: BERT's class builds its normaliser from this flag when loaded again.
        tokenizer.do_lower_case = False
    warnings.warn(
        f"{name}: the vocabulary is cased but its tokenizer would lower-case; lower-casing is switched off.",
        stacklevel=3,
    )


def _without_lowercase(normalizer: dict[str, Any] | None) -> dict[str, Any] | None:
    if normalizer is None or normalizer["type"] == "Lowercase":
        return None
    if normalizer["type"] == "Sequence":
        steps = [_without_lowercase(step) for step in normalizer["normalizers"]]
        return normalizer | {"normalizers": [step for step in steps if step is not None]}
    return normalizer | {"lowercase": False} if "lowercase" in normalizer else normalizer


@dataclass(frozen=True)
class PairTemplate:
    """What a tokenizer writes around a question and its passage: `prefix question middle passage suffix`.

    BERT: `[CLS]`, `[SEP]`, `[SEP]`; RoBERTa: `<s>`, `</s></s>`, `</s>`. Each `*_types` holds the segment of
    every token of its part; the question and the passage have one segment each.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    prefix_types: tuple[int, ...]
    question_type: int
    middle_types: tuple[int, ...]
    passage_type: int
    suffix_types: tuple[int, ...]

    @property
    def special_tokens(self) -> int:
        """Number of tokens that are neither question nor passage."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    def without_segments(self) -> PairTemplate:
        """The same tokens, all in segment 0."""
        return PairTemplate(
            prefix=self.prefix,
            middle=self.middle,
            suffix=self.suffix,
            prefix_types=(0,) * len(self.prefix),
            question_type=0,
            middle_types=(0,) * len(self.middle),
            passage_type=0,
            suffix_types=(0,) * len(self.suffix),
        )


def pair_template(tokenizer: PreTrainedTokenizerFast) -> PairTemplate:
    """Read the template off one encoded pair. Segments are 0 where the model takes no `token_type_ids`.

    Raises:
        InputError: nothing stands before the question (no `[CLS]` for "the answer is not here"), or the
            passage does not come after the question.
    """
    probe = tokenizer("a", "a", truncation=False, padding=False, return_token_type_ids=True)
    ids, types, parts = probe["input_ids"], probe["token_type_ids"], probe.sequence_ids()
    question = [place for place, part in enumerate(parts) if part == 0]
    passage = [place for place, part in enumerate(parts) if part == 1]
    if not question or not passage or not 0 < question[0] <= question[-1] < passage[0]:
        raise InputError(
            f"{tokenizer.name_or_path or type(tokenizer).__name__}: a span reader needs a tokenizer that"
            " writes [CLS] question [SEP] passage [SEP] for a pair; choose an encoder of the BERT family."
        )
    before, between, after = (
        slice(question[0]),
        slice(question[-1] + 1, passage[0]),
        slice(passage[-1] + 1, None),
    )
    template = PairTemplate(
        prefix=tuple(ids[before]),
        middle=tuple(ids[between]),
        suffix=tuple(ids[after]),
        prefix_types=tuple(types[before]),
        question_type=types[question[0]],
        middle_types=tuple(types[between]),
        passage_type=types[passage[0]],
        suffix_types=tuple(types[after]),
    )
    return template if "token_type_ids" in tokenizer.model_input_names else template.without_segments()

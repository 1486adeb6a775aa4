"""How one call wants its questions answered: the removed pipeline's parameters -> this project's settings."""

from __future__ import annotations

import difflib
import operator
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from qa.confidence.final_answers import Calibration, FloatArray, withheld
from qa.decoding import DecodingSettings
from qa.errors import InputError
from qa.predicting.loading import Reader
from qa.records import Prediction
from qa.windows import WindowSettings

NAMES = (
    *("top_k", "topk", "doc_stride", "max_answer_len", "max_seq_len", "max_question_len"),
    *("handle_impossible_answer", "align_to_words", "batch_size", "padding", "num_workers"),
    *("duplicates", "progress"),
)
"""What a call may set; num_workers is accepted and does nothing."""

LEAST_QUESTION = 8
"""Tokens of a question that window and stride must leave room for, where max_question_len is not set."""

PADDINGS = {"do_not_pad": False, "longest": False, "max_length": True, "True": False, "False": False}


@dataclass(frozen=True)
class Options:
    """One call's settings, checked against the reader.

    top_k: answers to a question. calibration: the reader's.
    may_be_empty: whether "no answer" may be an answer; the calibration's threshold then decides.
    align_to_words: answers are stretched to whole words.
    batch_size: windows in a batch; None: as many as a budget of tokens allows.
    pad_to: tokens that every window is padded to; None: the longest of its batch.
    progress: whether a bar shows; None: on a terminal, for what is streamed.
    """

    windows: WindowSettings
    decoding: DecodingSettings
    calibration: Calibration
    may_be_empty: bool
    top_k: int
    align_to_words: bool
    batch_size: int | None
    pad_to: int | None
    progress: bool | None

    def probabilities(self, prediction: Prediction) -> tuple[FloatArray, float]:
        """Probability of each n-best span, (n_best,), and of "no answer".

        "No answer" takes its share also where it may not be given, so that a passage that does not tell gives
        no certain answer, and passages compare. Only temperatures fitted without it are used without it.
        """
        with_null = self.may_be_empty or not self.calibration.fitted_on
        return (self._with_null if with_null else self.calibration).probabilities(prediction)

    def withholds(self, prediction: Prediction) -> bool:
        """Whether "no answer" comes before the best span: it may, and the threshold, saved or 0, says so."""
        return self.may_be_empty and withheld(prediction, self._with_null.threshold)

    @property
    def _with_null(self) -> Calibration:
        saved = self.calibration
        return saved if saved.threshold is not None else replace(saved, threshold=0.0)


def refuse_unknown(told: Mapping[str, Any]) -> None:
    """Raises InputError for a parameter that does not exist, naming the nearest that does."""
    for name in told:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, 2)
            remedy = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(NAMES)}"
            raise InputError(f"{name}: no such parameter; {remedy}")


def resolve(reader: Reader, told: Mapping[str, Any]) -> Options:
    """Settings of a call. Absent or None: the reader's own, and where it has none the removed pipeline's.

    Other than in the removed pipeline: `max_question_len` is obeyed; `handle_impossible_answer` decides by
    the threshold saved with the reader, and by 0 where none was; `align_to_words` is on by itself only for
    readers that bring no settings, because others were evaluated without.
    Raises InputError, a ValueError, for what is unknown or cannot be.
    """
    refuse_unknown(told)
    told = {name: value for name, value in told.items() if value is not None}
    if "topk" in told:
        warnings.warn("topk is deprecated; use top_k", UserWarning, stacklevel=3)
        told.setdefault("top_k", told["topk"])
    top_k = _number(told, "top_k", 1)
    windows = _windows(reader, told)
    decoding = _decoding(reader, told, top_k, windows)
    padding = str(told.get("padding", "do_not_pad"))
    if padding not in PADDINGS:
        raise InputError(f"padding: {padding!r}: no such choice; give do_not_pad, longest or max_length")
    return Options(
        windows=windows,
        decoding=decoding,
        calibration=reader.calibration,
        may_be_empty=bool(told.get("handle_impossible_answer", False)),
        top_k=top_k,
        align_to_words=bool(told.get("align_to_words", not reader.evaluated)),
        batch_size=_number(told, "batch_size", 1) if "batch_size" in told else None,
        pad_to=windows.max_seq_length if PADDINGS[padding] else None,
        progress=told.get("progress"),
    )


def _number(told: Mapping[str, Any], name: str, default: int, least: int = 1) -> int:
    try:
        value = operator.index(told.get(name, default))
    except TypeError:
        raise InputError(f"{name}: {told[name]!r} is not a whole number") from None
    if value < least:
        raise InputError(f"{name} parameter should be >= {least} (got {value})")
    return value


def _windows(reader: Reader, told: Mapping[str, Any]) -> WindowSettings:
    """Windows of this call; a stride or question length that nobody asked for gives way to what was."""
    base = reader.windows
    length = _number(told, "max_seq_len", base.max_seq_length)
    if reader.longest is not None and length > reader.longest:
        raise InputError(f"max_seq_len: {length}, but {reader.name} reads at most {reader.longest} tokens")
    overlap = base.stride_meaning == "overlap"
    free = length - reader.special_tokens - 1
    stride = min(base.doc_stride, max(min(length // 2, free - LEAST_QUESTION), int(not overlap)))
    if "doc_stride" in told:
        stride = _number(told, "doc_stride", stride, least=0 if overlap else 1)
    if stride > length:
        raise InputError(f"doc_stride ({stride}) is larger than max_seq_len ({length}); lower it")
    question = base.max_question_length
    if {"max_seq_len", "doc_stride"} & told.keys() or not reader.evaluated:
        room = free - (stride if overlap else 0)
        if "max_question_len" not in told and room < LEAST_QUESTION:
            raise InputError(
                f"doc_stride: {stride} of {length} tokens (max_seq_len) leaves {max(room, 0)} for a "
                "question; lower it, or raise max_seq_len"
            )
        question = min(question, room)
    question = _number(told, "max_question_len", question)
    changed = replace(base, max_seq_length=length, doc_stride=stride, max_question_length=question)
    changed.validate(reader.special_tokens)
    return changed


def _decoding(
    reader: Reader, told: Mapping[str, Any], top_k: int, windows: WindowSettings
) -> DecodingSettings:
    """Decoding of this call: equal texts at different places stay apart unless `duplicates` says otherwise.

    A reader that brings no settings is searched whole, every start with every end, as the removed pipeline
    did; others as they were evaluated, so that no `top_k` changes their best answer or its score.
    """
    base = reader.decoding
    return replace(
        base,
        n_best_size=base.n_best_size if reader.evaluated else max(windows.max_seq_length, top_k),
        max_answer_length=_number(told, "max_answer_len", base.max_answer_length),
        duplicates=told.get("duplicates", "keep"),
    )

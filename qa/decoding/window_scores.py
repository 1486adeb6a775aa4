"""Windows as the decoder sees them: where their tokens lie, and the best k start and end logits of each.

`WindowScores` is what evaluation keeps of the logits; `top_k` makes it from full logits in NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qa.errors import InputError

IntArray = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class WindowTable:
    """What decoding needs to know about the windows.

    example_index: (windows,) ascending; the windows of one example are adjacent and in document order.
    passage_start: (windows,) token index of the first passage token.
    passage_end: (windows,) one past the last passage token; equal to `passage_start` where there is none.
    document_start: (windows,) index of the first passage token among the tokens of the whole passage.
    offsets: (total_tokens, 2) every token's first character in its example's context and one past its last,
        in code points; all windows one after another.
    row_splits: (windows + 1,) window w's tokens are `offsets[row_splits[w] : row_splits[w + 1]]`.
    """

    example_index: IntArray
    passage_start: IntArray
    passage_end: IntArray
    document_start: IntArray
    offsets: IntArray
    row_splits: IntArray

    def __post_init__(self) -> None:
        windows = len(self.example_index)
        for name in ("example_index", "passage_start", "passage_end", "document_start"):
            if getattr(self, name).shape != (windows,):
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected ({windows},)")
        if self.row_splits.shape != (windows + 1,) or self.row_splits[0] != 0:
            raise ValueError(f"row_splits must have shape ({windows + 1},) and begin with 0")
        if self.offsets.shape != (self.row_splits[-1], 2):
            raise ValueError(f"offsets has shape {self.offsets.shape}, expected ({self.row_splits[-1]}, 2)")
        inside = (self.passage_start >= 0) & (self.passage_start <= self.passage_end)
        if not np.all(inside & (self.passage_end <= self.lengths)):
            raise ValueError("a window must have 0 <= passage_start <= passage_end <= its length")
        if np.any(self.example_index < 0) or np.any(np.diff(self.example_index) < 0):
            raise ValueError("example_index must be ascending and not negative")
        backwards = np.diff(self.document_start) < 0
        if np.any(backwards & (np.diff(self.example_index) == 0)):
            raise ValueError("document_start must ascend within the windows of an example")

    @classmethod
    def from_columns(
        cls,
        *,
        example_index: IntArray,
        passage_start: IntArray,
        passage_end: IntArray,
        document_start: IntArray,
        offsets: IntArray,
        length: IntArray,
    ) -> WindowTable:
        """A table from the windows data set's columns of the same names, without copying `offsets`.

        offsets: all rows joined: (total_tokens, 2), or flattened as the column holds it, (2 * total_tokens,).
        length: (windows,) tokens of each window.
        Raises ValueError where the shapes do not fit together.
        """
        if offsets.ndim == 1 and offsets.size % 2 == 0:
            offsets = offsets.reshape(-1, 2)
        row_splits = np.concatenate(([0], np.cumsum(length, dtype=np.int64)))
        return cls(example_index, passage_start, passage_end, document_start, offsets, row_splits)

    @property
    def lengths(self) -> IntArray:
        """(windows,) number of tokens."""
        return np.diff(self.row_splits)

    def __len__(self) -> int:
        return len(self.example_index)


@dataclass(frozen=True, eq=False)
class WindowScores:
    """Logits reduced to the best k of each window, so that memory does not grow with the window length.

    start_logits, end_logits: (windows, k) descending; equal logits are in ascending order of their tokens.
    start_tokens, end_tokens: (windows, k) token indices in the window.
    null_scores: (windows,) start + end logit of `[CLS]`, added in float64.
    A missing entry (a window shorter than k, a token masked by a logit of -inf): token -1 and logit -inf.
    Raises InputError for logits that are not numbers, or infinite.
    """

    start_logits: FloatArray
    start_tokens: IntArray
    end_logits: FloatArray
    end_tokens: IntArray
    null_scores: FloatArray

    def __post_init__(self) -> None:
        shape = self.start_logits.shape
        if len(shape) != 2 or self.null_scores.shape != shape[:1]:
            raise ValueError(f"scores must be (windows, k) and (windows,): {shape}, {self.null_scores.shape}")
        if not (self.start_tokens.shape == self.end_logits.shape == self.end_tokens.shape == shape):
            raise ValueError(f"start and end logits and tokens must all have shape {shape}")
        for logits in (self.start_logits, self.end_logits, self.null_scores[:, None]):
            _refuse_broken(logits)
        for logits, tokens in ((self.start_logits, self.start_tokens), (self.end_logits, self.end_tokens)):
            if np.any(logits[:, :-1] < logits[:, 1:]):
                raise ValueError("the logits of a window must descend")
            if not np.array_equal(tokens < 0, np.isneginf(logits)):
                raise ValueError("token -1 and logit -inf must come together: they mark a missing entry")

    def __len__(self) -> int:
        return len(self.null_scores)


def _refuse_broken(logits: FloatArray) -> None:
    broken = np.isnan(logits) | np.isposinf(logits)
    if broken.any():
        window = int(np.argmax(broken.any(axis=1)))
        raise InputError(
            f"the reader's logits are not finite in window {window}: its weights are damaged or training "
            "diverged; use an earlier checkpoint, a smaller learning rate, or full precision"
        )


def top_k(
    start_logits: FloatArray, end_logits: FloatArray, k: int, lengths: IntArray | None = None
) -> WindowScores:
    """The best k starts and ends of every window. Equal logits: the lower token index first, as in BERT.

    start_logits, end_logits: (windows, seq_len); `[CLS]` is token 0. A token with logit -inf is never
        returned: mask so what must not take up one of the k places. (BERT's procedure masks nothing, so that
        question tokens take up places; with a loss that never trains their logits, mask them.)
    k: width of the result, also where a window has fewer tokens (see `WindowScores` for missing entries).
    lengths: (windows,) tokens of each window; what lies behind is padding. None: all of seq_len.
    """
    if start_logits.ndim != 2 or start_logits.shape != end_logits.shape or start_logits.shape[1] == 0:
        raise ValueError(
            f"start and end logits must be (windows, seq_len): {start_logits.shape}, {end_logits.shape}"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1: {k}")
    windows, seq_len = start_logits.shape
    padding = np.zeros((windows, seq_len), bool)
    if lengths is not None:
        padding = np.arange(seq_len) >= np.asarray(lengths)[:, None]
    null_scores = start_logits[:, 0].astype(np.float64) + end_logits[:, 0].astype(np.float64)
    start, end = (_best(logits, k, padding) for logits in (start_logits, end_logits))
    return WindowScores(*start, *end, null_scores)


def _best(logits: FloatArray, k: int, padding: BoolArray) -> tuple[FloatArray, IntArray]:
    """(windows, seq_len) logits -> their best k and the tokens, both (windows, k)."""
    logits = np.where(padding, -np.inf, logits).astype(logits.dtype)
    _refuse_broken(logits)
    tokens = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    best = np.take_along_axis(logits, tokens, axis=1)
    missing = ((0, 0), (0, k - tokens.shape[1]))
    best = np.pad(best, missing, constant_values=-np.inf)
    tokens = np.pad(tokens, missing, constant_values=-1)
    return best, np.where(np.isneginf(best), -1, tokens).astype(np.int32)

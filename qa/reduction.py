"""From logits to the best k starts and ends of each window, on the device that computed them.

Keeping k numbers a window instead of `seq_len` makes evaluation memory independent of the window length.
`qa.decoding.top_k` is the same reduction in NumPy; equal logits keep the lower token index in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad


def best_positions(logits: Tensor, mask: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest logits of each row and their token indices, descending; of equal ones the lower index
    first.

    logits, mask: (batch, seq_len); positions where the mask is false, or the logit minus infinity, are no
    candidates. Returns: values (batch, k) float32 and token indices (batch, k) int64; where a row has fewer
    than k candidates the rest is (-inf, -1).
    """
    logits = logits.float().masked_fill(~mask, float("-inf"))
    # torch.topk leaves the order of equal values open; a stable sort keeps the lower index first.
    values, tokens = logits.sort(dim=-1, descending=True, stable=True)
    values, tokens = values[:, :k], tokens[:, :k]
    tokens = tokens.masked_fill(values == float("-inf"), -1)
    missing = k - values.size(1)
    return pad(values, (0, missing), value=float("-inf")), pad(tokens, (0, missing), value=-1)


def reduce_logits(start_logits: Tensor, end_logits: Tensor, mask: Tensor, k: int) -> tuple[Tensor, ...]:
    """The fields of `qa.decoding.window_scores.WindowScores`, in their order.

    start_logits, end_logits, mask: (batch, seq_len).
    Returns: `(start_logits, start_tokens, end_logits, end_tokens)`, each (batch, k), and `null_scores`,
    (batch,) float64: start + end logit of `[CLS]`, whether or not the mask holds it.
    """
    # The decoder adds span scores in float64, where they are exact; a null score rounded to float32 would be
    # compared with them. Apple's GPUs know no float64.
    wide = torch.float32 if start_logits.device.type == "mps" else torch.float64
    null_scores = start_logits[:, 0].to(wide) + end_logits[:, 0].to(wide)
    return *best_positions(start_logits, mask, k), *best_positions(end_logits, mask, k), null_scores


def in_window_order(gathered: Sequence[Any], count: int, name: str) -> list[np.ndarray]:
    """What all ranks computed, without fillers, window by window.

    gathered: first the windows' indices, -1 for a filler, then arrays with the same rows. count: windows of
    the question set `name`. Returns: those arrays, each (count, ...).
    Raises: RuntimeError where a window is missing or came twice.
    """
    index, *arrays = (np.asarray(array) for array in gathered)
    rows = np.argsort(index, kind="stable")[np.count_nonzero(index < 0) :]
    if not np.array_equal(index[rows], np.arange(count)):
        raise RuntimeError(f"{name}: {len(rows)} windows came back for {count}: lost or doubled")
    return [array[rows] for array in arrays]

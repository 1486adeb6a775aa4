"""The loss of a span reader, the same for a window whatever stands beside it in the batch.

BERT's own question-answering loss (transformers: `BertForQuestionAnswering.forward`) takes its softmax over
every column of the padded batch, so the loss of a window grows with the length of its neighbours. Here the
softmax runs over the positions a window can answer with, `[CLS]` and its passage, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def answer_mask(passage_mask: Tensor) -> Tensor:
    """Positions an answer may point at: the passage and `[CLS]` (position 0), which means "not here".

    passage_mask: (batch, seq_len) bool. Returns: (batch, seq_len) bool.
    """
    mask = passage_mask.clone()
    mask[:, 0] = True
    return mask


def softmax_mask(batch: Mapping[str, Tensor], loss: str) -> Tensor | None:
    """Positions of the softmax by the setting `loss`: (batch, seq_len) bool; None, `bert`: every column."""
    return None if loss == "bert" else answer_mask(batch["passage_mask"])


def candidate_mask(batch: Mapping[str, Tensor], loss: str) -> Tensor:
    """Positions that may be among a window's best: those of the softmax, but padding is nothing to answer
    with. Returns: (batch, seq_len) bool.
    """
    mask = softmax_mask(batch, loss)
    return batch["attention_mask"].bool() if mask is None else mask


def mask_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits in float32, whatever they come in, with minus infinity where `mask` is false. Both (batch,
    seq_len).
    """
    return logits.float().masked_fill(~mask, float("-inf"))


def span_loss(
    start_logits: Tensor,
    end_logits: Tensor,
    start_positions: Tensor,
    end_positions: Tensor,
    mask: Tensor | None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean of the start and the end cross-entropy of each window (Devlin et al. 2019, section 4.2).

    Several golds: half the negative log-likelihood of the answer being any one of them, each with its own
    start and end (maximum marginal likelihood, as in Min et al. 2019, section 3). Clark and Gardner (2018,
    section 2.2) add up starts and ends apart, which rewards the start of one gold with another's end, too.

    start_logits, end_logits: (batch, seq_len).
    start_positions, end_positions: (batch, golds) int64 token indices, ends inclusive; (0, 0) = not in this
        window; -1 pads windows with fewer golds. `[CLS]` counts only where no gold lies in the window, and
        equal spans count once. A position outside the mask makes the loss infinite.
    mask: (batch, seq_len) bool, the positions of the softmax (`answer_mask`); None: every column, padding
        included, as BERT's own loss does. Kept for replication only.
    label_smoothing: share of the target spread evenly over the positions of the softmax (Szegedy et al. 2016,
        section 7); the golds, however many, share the rest.

    Returns: (batch,) float32, one loss per window, so that the caller weighs and averages.
    """
    if mask is None:
        mask = torch.ones_like(start_logits, dtype=torch.bool)
    start_log_probs = mask_logits(start_logits, mask).log_softmax(dim=-1)
    end_log_probs = mask_logits(end_logits, mask).log_softmax(dim=-1)
    joint = _gather(start_log_probs, start_positions) + _gather(end_log_probs, end_positions)
    counted = _counted(start_positions, end_positions)
    loss = -0.5 * torch.logsumexp(joint.masked_fill(~counted, float("-inf")), dim=-1)
    if label_smoothing:
        uniform = -0.5 * (_mean_over(start_log_probs, mask) + _mean_over(end_log_probs, mask))
        loss = (1 - label_smoothing) * loss + label_smoothing * uniform
    return loss


def _gather(log_probs: Tensor, positions: Tensor) -> Tensor:
    return log_probs.gather(dim=-1, index=positions.clamp(min=0))


def _counted(start_positions: Tensor, end_positions: Tensor) -> Tensor:
    """Which golds enter the likelihood: every span in the window once, or `[CLS]` where there is none.

    All (batch, golds). A window without a gold, filler rows included, counts its first column, which
    `_gather` reads at `[CLS]`.
    """
    golds = start_positions.size(1)
    inside = start_positions > 0
    same = (start_positions[:, :, None] == start_positions[:, None, :]) & (
        end_positions[:, :, None] == end_positions[:, None, :]
    )
    earlier = torch.ones(golds, golds, dtype=torch.bool, device=same.device).tril(diagonal=-1)
    inside = inside & ~(same & earlier).any(dim=-1)
    first = torch.arange(golds, device=inside.device) == 0
    return inside | (first & ~inside.any(dim=-1, keepdim=True))


def _mean_over(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Mean over the positions of the softmax: (batch, seq_len) -> (batch,)."""
    return log_probs.masked_fill(~mask, 0.0).sum(dim=-1) / mask.sum(dim=-1)

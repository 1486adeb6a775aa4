"""What batches are packed by, worked out apart from the collator that makes them."""

from __future__ import annotations

from torch import Tensor


def token_places(attention_mask: Tensor) -> Tensor:
    """The column `PLACES` of a batch, row by row. attention_mask: (batch, seq_len), 1 on real tokens."""
    return attention_mask.flatten().nonzero().flatten()

"""A batch without its padding: all windows in a single sequence, and their logits back in rows.

Everything else, labels, masks, loss, decoding, stays (batch, seq_len): the model alone sees the packed form.
Which model can: `qa.attention`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

PLACES = "token_places"
"""Column of a batch that is to be packed: (tokens,) long, places of real tokens in the flattened batch."""


def read_batch(
    model: nn.Module, batch: Mapping[str, Tensor], keys: frozenset[str], position_padding: int | None
) -> Any:
    """The model's output for a batch, packed where the batch has `PLACES`, else as it is.

    keys: the batch columns that the model takes. position_padding: `position_padding(model)`.
    Returns: its output, with start_logits and end_logits (batch, seq_len) either way.
    """
    if PLACES not in batch:
        return model(**{key: batch[key] for key in keys})
    output = model(**packed_inputs(batch, keys, position_padding))
    output.start_logits = in_rows(output.start_logits, batch)
    output.end_logits = in_rows(output.end_logits, batch)
    return output


def packed_inputs(
    batch: Mapping[str, Tensor], keys: frozenset[str], position_padding: int | None
) -> dict[str, Any]:
    """What the model is called with, for a batch that has `PLACES`. Waits for no device.

    Returns:
        input_ids, token_type_ids (where taken), position_ids: (1, tokens) long; each token keeps the position
            it has in its padded row.
        cu_seq_lens_q, cu_seq_lens_k: (batch + 1,) int32, where each window begins, and the end of the last.
        max_length_q, max_length_k: seq_len of the batch.
    """
    ids, places = batch["input_ids"], batch[PLACES]
    positions = positions_of(ids, position_padding).expand(ids.shape)
    columns = {key: batch[key] for key in keys & {"input_ids", "token_type_ids"}} | {
        "position_ids": positions
    }
    ends = batch["attention_mask"].sum(dim=1).cumsum(dim=0)
    begins = pad(ends, (1, 0)).to(torch.int32)
    return {
        **{key: column.take(places).unsqueeze(0) for key, column in columns.items()},
        "cu_seq_lens_q": begins,
        "cu_seq_lens_k": begins,
        "max_length_q": ids.shape[1],
        "max_length_k": ids.shape[1],
    }


def in_rows(packed: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Values of the tokens, (1, tokens), in the rows of their windows: (batch, seq_len), 0 on padding."""
    shape = batch["input_ids"].shape
    return packed.new_zeros(shape.numel()).index_copy(0, batch[PLACES], packed[0]).view(shape)


def position_padding(model: nn.Module) -> int | None:
    """The row of the position table that is kept for padding (RoBERTa), None where there is none (BERT)."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings"):
            return getattr(module, "padding_idx", None)
    return None


def positions_of(input_ids: Tensor, padding: int | None) -> Tensor:
    """Positions as the bare encoder numbers them: (batch or 1, seq_len). input_ids: (batch, seq_len).

    BERT counts from 0. RoBERTa's position table reserves a row for padding: it counts from one past it, and
    leaves padding tokens on it (transformers: `create_position_ids_from_input_ids`).
    """
    if padding is None:
        return torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
    real = input_ids.ne(padding).long()
    return real.cumsum(dim=1) * real + padding


@dataclass(frozen=True)
class Spread:
    """The same further tokens in front of every window of a pack.

    source: (tokens + windows * count,) long; where each token of the longer pack comes from, in the further
        tokens followed by those of the pack.
    places: (tokens,) long; where the pack's own tokens lie in the longer one.
    begins: (windows + 1,) int32; the longer pack's boundaries.
    """

    source: Tensor
    places: Tensor
    begins: Tensor

    @classmethod
    def before_each(cls, begins: Tensor, tokens: int, count: int) -> Spread:
        """begins: (windows + 1,) int32 boundaries of a pack of `tokens`. count: of the further tokens."""
        windows, begins = len(begins) - 1, begins.long()
        longer = begins + count * torch.arange(windows + 1, device=begins.device)
        place = torch.arange(tokens + windows * count, device=begins.device)
        window = torch.searchsorted(longer, place, right=True) - 1
        inside = place - longer[window]
        source = torch.where(inside < count, inside, inside + begins[window])
        own = torch.arange(tokens, device=begins.device)
        places = own + count * torch.searchsorted(begins, own, right=True)
        return cls(source, places, longer.to(torch.int32))

    def apply(self, further: Tensor, pack: Tensor, dim: int) -> Tensor:
        """`further` before every window of `pack`; tokens lie along `dim` in all three."""
        return torch.cat([further, pack], dim=dim).index_select(dim, self.source)

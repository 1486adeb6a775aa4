"""Attention in a packed batch: windows stand one after another in a sequence, and each sees only itself.

Registered with transformers as `packed`. The boundaries come as the keyword arguments that its models hand
down to attention functions of variable length (`cu_seq_lens_q`, `cu_seq_lens_k`, `max_length_q`,
`max_length_k`). A call without them is transformers' own `sdpa`, mask and all, so that a model set to
`packed` reads padded batches as before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from qa.cpu.dropout import dropout as cpu_dropout
from qa.errors import InputError

NAME = "packed"

PACKABLE = ("albert", "bert", "camembert", "distilbert", "electra", "ernie", "roberta", "xlm-roberta")
"""Model types whose layers hand the boundaries on, and know positions from `position_ids` alone."""

MAX_HEAD_WIDTH = 256
"""Of torch's flash attention, which also wants a multiple of 8."""


class Boundaries(NamedTuple):
    """Where the windows of a pack begin, and the end of the last, for queries and for keys.

    begins_q, begins_k: (windows + 1,) int32. longest_q, longest_k: at least the longest window's tokens.
    """

    begins_q: Tensor
    begins_k: Tensor
    longest_q: int
    longest_k: int


def install() -> None:
    """Make the name known to transformers. Calling it again changes nothing.

    The mask of `sdpa` is the counterpart: without an `attention_mask` it makes none, hence no
    (tokens, tokens) tensor for a packed batch.
    """
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def is_packable(model: PreTrainedModel) -> bool:
    """Whether packed batches are known to be right for a bare reader, and nobody chose its attention."""
    kind, chosen = model.config.model_type, model.config._attn_implementation
    return kind in PACKABLE and chosen in ("sdpa", NAME)


def enable(model: PreTrainedModel) -> None:
    """Set a bare reader (no wrapper around it) to `packed`, for good; padded batches still work.

    Raises: InputError for encoders that packed batches are not known to be right for.
    """
    kind = model.config.model_type
    if kind not in PACKABLE:
        raise InputError(
            f"batching: packed works with {', '.join(PACKABLE)}, not with {kind}; use --batching grouped"
        )
    install()
    model.set_attn_implementation(NAME)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    max_length_q: int | None = None,
    max_length_k: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Softmax attention (Vaswani et al. 2017, section 3.2.1) within each window of a packed batch.

    query: (1, heads, tokens, head_width); key, value: the same with tokens of their own, where prefixes stand
        before every window.
    cu_seq_lens_q, ..., max_length_k: the fields of `Boundaries`, in transformers' words.
    dropout: share of the attention weights that is dropped, in every path below.

    On CUDA in half precision this is torch's flash attention over variable lengths (Dao 2023). Other devices
    and float32 pad the windows for the attention alone; a CPU goes through them one by one.

    Returns: (1, tokens, heads, head_width), None.
    """
    if cu_seq_lens_q is None or cu_seq_lens_k is None or max_length_q is None or max_length_k is None:
        plain: Any = sdpa_attention_forward
        return plain(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    boundaries = Boundaries(cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    device = query.device.type
    if torch.is_autocast_enabled(device):
        # Some adapters return float32 here, and autocast casts for products of matrices alone.
        half = torch.get_autocast_dtype(device)
        query, key, value = query.to(half), key.to(half), value.to(half)
    attend = _window_by_window if device == "cpu" else _flash if _has_flash(query) else _padded
    # A view, as (1, heads, tokens, head_width) is one of (1, tokens, heads, head_width).
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    return attend(query, key, value, boundaries, dropout, scaling).unsqueeze(0), None


def _has_flash(query: Tensor) -> bool:
    width = query.shape[-1]
    return (
        query.device.type == "cuda"
        and query.dtype in (torch.bfloat16, torch.float16)
        and width % 8 == 0
        and width <= MAX_HEAD_WIDTH
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _flash(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Boundaries, dropout: float, scaling: float
) -> Tensor:
    """(tokens, heads, head_width) each, and so is the result.

    `varlen_attn` has no dropout. The operator beneath it has, gradient included: torch's own attention over
    nested tensors calls it so (torch/nested/_internal/sdpa.py).
    """
    if dropout:
        operator: Any = torch.ops.aten._flash_attention_forward
        return operator(query, key, value, *boundaries, dropout, False, False, scale=scaling)[0]
    from torch.nn.attention.varlen import varlen_attn

    # BERT's scale is the default, and torch's versions do not agree on the other parameters.
    changed: dict[str, Any] = {} if scaling == query.shape[-1] ** -0.5 else {"scale": scaling}
    return varlen_attn(query, key, value, *boundaries, **changed)  # type: ignore[return-value]


def _padded(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Boundaries, dropout: float, scaling: float
) -> Tensor:
    """The same with a row for each window, on any device and in any precision; waits for no device."""
    begins_q, begins_k, longest_q, longest_k = boundaries
    columns_q = torch.arange(longest_q, device=query.device)
    columns_k = torch.arange(longest_k, device=query.device)
    rows_q = (begins_q[:-1, None] + columns_q).clamp(max=len(query) - 1)
    rows_k = (begins_k[:-1, None] + columns_k).clamp(max=len(key) - 1)
    output = functional.scaled_dot_product_attention(
        query[rows_q].transpose(1, 2),
        key[rows_k].transpose(1, 2),
        value[rows_k].transpose(1, 2),
        attn_mask=(columns_k < begins_k.diff()[:, None])[:, None, None],
        dropout_p=dropout,
        scale=scaling,
    )
    tokens = torch.arange(len(query), device=query.device, dtype=begins_q.dtype)
    window = torch.searchsorted(begins_q, tokens, right=True) - 1
    return output[window, :, tokens - begins_q[window]]


def _window_by_window(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Boundaries, dropout: float, scaling: float
) -> Tensor:
    """The same for a CPU: plain products train faster there than torch's fused attention, above all with
    dropout, for which that has no fast way, and in bf16.
    """
    lengths_q, lengths_k = boundaries.begins_q.diff().tolist(), boundaries.begins_k.diff().tolist()
    # Splitting once lets the backward pass put the gradient together once, not once per window; tokens first,
    # because that is how the layers around it lay them out.
    parts = zip((query * scaling).split(lengths_q), key.split(lengths_k), value.split(lengths_k), strict=True)
    outputs = []
    for window in parts:
        q, k, v = (part.transpose(0, 1) for part in window)
        weights = functional.softmax(q @ k.transpose(-1, -2), dim=-1)
        outputs.append(((cpu_dropout(weights, dropout) if dropout else weights) @ v).transpose(0, 1))
    return torch.cat(outputs)

"""How large a model is: parameters by what becomes of them, and the memory that a training step takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qa.errors import InputError
from qa.layers import depths, layers_of, reader_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model, by what becomes of them."""

    total: int
    trainable: int

    @property
    def share(self) -> float:
        """Trainable share, between 0 and 1."""
        return self.trainable / self.total if self.total else 0.0


def count_parameters(model: nn.Module) -> ParameterCounts:
    """Count each tensor once, also where two modules share it."""
    return ParameterCounts(
        total=sum(parameter.numel() for parameter in model.parameters()),
        trainable=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
    )


def estimate_training_bytes(model: nn.Module, batch_size: int, seq_len: int) -> int:
    """What the tensors of one training step in float32 with AdamW take, in bytes.

    Weights, 4 bytes each; gradient and two moments of what trains, 12 bytes each; and what each layer, from
    the lowest that trains up, keeps for the backward pass: for a token 72 bytes per hidden unit and 12 per
    head and position (Korthikanti et al. 2022, section 4.1, with numbers and dropout masks of 4 bytes).

    MiniLM with 4 and 8 windows of 384 tokens on a CPU: 3 to 14 % below what was measured; the process took up
    to half as much again, because malloc keeps blocks that were freed. Attention that never writes its
    probabilities down (sdpa on a GPU, or without dropout) needs less.
    """
    config: Any = reader_of(model).config
    counts = count_parameters(model)
    hidden, heads = config.hidden_size, config.num_attention_heads
    per_layer = batch_size * seq_len * (72 * hidden + 12 * heads * seq_len)
    return 4 * counts.total + 12 * counts.trainable + _layers_kept(model) * per_layer


def _layers_kept(model: nn.Module) -> int:
    """Layers that gradients flow through: from the lowest with a trainable parameter to the top."""
    try:
        total, by_depth = len(layers_of(model)), depths(model)
    except InputError:
        return int(getattr(reader_of(model).config, "num_hidden_layers", 0))
    inside = {id(parameter) for parameter in reader_of(model).parameters()}
    # What stands outside the reader, prompts and prefixes, enters it at the bottom.
    lowest = min(
        (by_depth[n] if id(p) in inside else 0 for n, p in model.named_parameters() if p.requires_grad),
        default=total + 1,
    )
    return total + 1 - max(1, lowest)

"""The encoder as a feature extractor: only the span head trains (Peters et al. 2019, arXiv:1903.05987)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from qa.strategies.base import Strategy, freeze_encoder

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Head(Strategy):
    """The floor of every comparison: 2 x hidden_size + 2 trained parameters."""

    _argument_group_name: ClassVar[str] = "strategy head"

    def adapt(self, model: nn.Module) -> nn.Module:
        """Freeze the encoder."""
        freeze_encoder(model)
        return model

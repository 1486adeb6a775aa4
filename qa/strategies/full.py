"""Full fine-tuning (Devlin et al. 2019, section 4.2): every parameter trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from qa.strategies.base import Strategy

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Full(Strategy):
    """Nothing is added and nothing is frozen."""

    _argument_group_name: ClassVar[str] = "strategy full"

    def adapt(self, model: nn.Module) -> nn.Module:
        """Every parameter trains."""
        for parameter in model.parameters():
            parameter.requires_grad = True
        return model

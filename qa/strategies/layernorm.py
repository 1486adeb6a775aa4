"""LayerNorm tuning (Zhao et al. 2023, arXiv:2312.11420): LayerNorms train; `qa.peft_methods.layernorm`.

Trained numbers, without the head (width d, L layers): 4dL + 2d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from qa.strategies.adapters import TASK, AdapterStrategy

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class LayerNorm(AdapterStrategy):
    """Nothing to set."""

    _argument_group_name: ClassVar[str] = "strategy layernorm"
    # These are differences to the encoder's own weights and biases.
    undecayed: ClassVar[tuple[str, ...]] = ("layernorm_delta_",)

    def config(self, model: nn.Module) -> PeftConfig:
        """Our LayerNormConfig."""
        from qa.peft_methods.layernorm import LayerNormConfig

        return LayerNormConfig(task_type=TASK)

"""IA3 (Liu et al. 2022, arXiv:2205.05638): trained vectors rescale keys, values and feed-forward activations.

Trained numbers, without the head (width d, L layers, 4d feed-forward units): 6dL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from qa.strategies.adapters import TASK, AdapterStrategy

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class IA3(AdapterStrategy):
    """Nothing to set: the vectors start at 1, which changes nothing."""

    _argument_group_name: ClassVar[str] = "strategy ia3"
    # 1, not 0, is where a factor does nothing.
    undecayed: ClassVar[tuple[str, ...]] = ("ia3_l",)

    def config(self, model: nn.Module) -> PeftConfig:
        """peft's IA3Config."""
        from peft import IA3Config

        # peft's targets for BERT end in `output.dense`, which is the name of attention's output, too.
        return IA3Config(task_type=TASK, exclude_modules=["attention.output.dense"])

"""BitFit (Ben Zaken, Ravfogel, Goldberg 2022, arXiv:2106.10199): biases train; `qa.peft_methods.bitfit`.

Trained numbers, without the head (width d, L layers): all 11dL + d, query_intermediate 5dL.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from qa.strategies.adapters import TASK, AdapterStrategy

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class BitFit(AdapterStrategy):
    """Which biases train."""

    _argument_group_name: ClassVar[str] = "strategy bitfit"
    # These are differences to the encoder's own biases.
    undecayed: ClassVar[tuple[str, ...]] = ("bitfit_bias",)

    biases: Literal["all", "query_intermediate"] = field(
        default="all",
        metadata={
            "help": "all: every bias of the encoder; query_intermediate: the query's and the first "
            "feed-forward layer's (the paper's small variant, section 3)."
        },
    )

    def config(self, model: nn.Module) -> PeftConfig:
        """Our BitFitConfig."""
        from qa.peft_methods.bitfit import BitFitConfig

        return BitFitConfig(task_type=TASK, biases=self.biases)

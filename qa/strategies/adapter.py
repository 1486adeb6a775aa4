"""Bottleneck adapters: small networks in the output blocks of a frozen encoder; `qa.peft_methods.bottleneck`.

Trained numbers, without the head (width d, L layers, bottleneck k): houlsby 2L(2dk + k + d), the others half.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from qa.strategies.adapters import TASK, AdapterStrategy, check_positive, check_share

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Adapter(AdapterStrategy):
    """Where the adapters stand and how wide they are."""

    _argument_group_name: ClassVar[str] = "strategy adapter"

    adapter_style: Literal["houlsby", "pfeiffer", "parallel"] = field(
        default="pfeiffer",
        metadata={
            "help": "houlsby: after attention and feed-forward (Houlsby et al. 2019); pfeiffer: after "
            "feed-forward (Pfeiffer et al. 2021); parallel: beside feed-forward (He et al. 2022)."
        },
    )
    reduction_factor: int | None = field(
        default=None,
        metadata={
            "help": "Encoder's width / bottleneck's; without it 16, parallel 2 (adapter-hub's defaults)."
        },
    )
    adapter_dropout: float = field(
        default=0.0, metadata={"help": "Dropout of what an adapter adds; 0 to below 1."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(adapter_dropout=self.adapter_dropout)
        if self.reduction_factor is not None:
            check_positive(reduction_factor=self.reduction_factor)

    def config(self, model: nn.Module) -> PeftConfig:
        """Our BottleneckConfig."""
        from qa.peft_methods.bottleneck import BottleneckConfig

        return BottleneckConfig(
            task_type=TASK,
            style=self.adapter_style,
            reduction_factor=self.reduction_factor,
            dropout=self.adapter_dropout,
        )

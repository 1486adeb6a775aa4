"""LoRA (Hu et al. 2022, arXiv:2106.09685): a trained product of two thin matrices beside frozen layers.

Trained numbers, without the head (width d, L layers, rank r): 4drL for queries and values, the default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from qa.errors import InputError
from qa.strategies.adapters import TASK, AdapterStrategy, check_positive, check_share

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

ALL_LINEAR = "all-linear"
REWRITING = ("pissa", "olora")
"""Initial values that are taken out of the base's weights."""


def peft_targets(names: list[str]) -> list[str] | str:
    """What peft takes for `target_modules`."""
    if ALL_LINEAR in names and len(names) > 1:
        raise InputError(f"lora_targets: {ALL_LINEAR} means all of them; give it alone")
    return ALL_LINEAR if names == [ALL_LINEAR] else list(names)


@dataclass(frozen=True, kw_only=True)
class Lora(AdapterStrategy):
    """W x + alpha / r * B A x, where A and B train."""

    _argument_group_name: ClassVar[str] = "strategy lora"
    # A magnitude starts at the norm of a weight's column (Liu et al. 2024, section 4.1), far from 0.
    undecayed: ClassVar[tuple[str, ...]] = ("lora_magnitude_vector",)

    lora_rank: int = field(
        default=8,
        metadata={"help": "Columns of each thin matrix (Hu et al. 2022, table 9: 8 for RoBERTa)."},
    )
    lora_alpha: float = field(
        default=16.0,
        metadata={"help": "What is added is multiplied by lora_alpha / lora_rank (there: 8 and 16)."},
    )
    lora_dropout: float = field(
        default=0.0, metadata={"help": "Dropout of what enters the thin matrices; 0 to below 1."}
    )
    lora_targets: list[str] = field(
        default_factory=lambda: ["query", "value"],
        metadata={
            "help": "Ends of the names of the linear layers, or all-linear (Hu et al. 2022: query and value; "
            "Dettmers et al. 2023, section 4: all)."
        },
    )
    lora_init: Literal["zero", "gaussian", "pissa", "olora"] = field(
        default="zero",
        metadata={
            "help": "zero: A uniform, B 0; gaussian: A normal, B 0. These two take their values out of the "
            "base, which then differs: pissa (Meng et al. 2024), olora (Buyukakyuz 2024)."
        },
    )
    rslora: bool = field(
        default=False,
        metadata={"help": "Multiply by lora_alpha / sqrt(lora_rank) instead (Kalajdzievski 2023)."},
    )
    dora: bool = field(
        default=False, metadata={"help": "Train columns' magnitudes apart (DoRA: Liu et al. 2024)."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(lora_rank=self.lora_rank, lora_alpha=self.lora_alpha)
        check_share(lora_dropout=self.lora_dropout)
        peft_targets(self.lora_targets)
        if self.lora_init in REWRITING and (len(self.saved_adapters()) > 1 or self._adds_to_others()):
            raise InputError(
                f"lora_init: {self.lora_init} rewrites the base model, which a second adapter would not find "
                "as it was; use zero or gaussian with several adapters"
            )

    def _adds_to_others(self) -> bool:
        return bool(self.saved_adapters()) and self.reader_folder is None

    def config(self, model: nn.Module) -> PeftConfig:
        """peft's LoraConfig."""
        from peft import LoraConfig

        return LoraConfig(
            task_type=TASK,
            r=self.lora_rank,
            lora_alpha=self.lora_alpha,  # type: ignore[arg-type]
            lora_dropout=self.lora_dropout,
            target_modules=peft_targets(self.lora_targets),
            init_lora_weights=True if self.lora_init == "zero" else self.lora_init,  # type: ignore[arg-type]
            use_rslora=self.rslora,
            use_dora=self.dora,
        )

    def adapt(self, model: nn.Module) -> nn.Module:
        """As every adapter's. Raises InputError where pissa or olora would meet another adapter."""
        others = getattr(model, "peft_config", {})
        inits = [self.lora_init, *(getattr(config, "init_lora_weights", "") for config in others.values())]
        rewriting = [init for init in inits if init in REWRITING]
        if others and rewriting:
            raise InputError(
                f"lora_init: {rewriting[0]} rewrites the base model, which is no place for two adapters"
            )
        return super().adapt(model)

"""Prefix tuning (Li and Liang 2021, arXiv:2101.00190): trained keys and values before those of every layer.

Without projection these are P-tuning v2's deep prompts (Liu et al. 2022, arXiv:2110.07602). Their trained
numbers, without the head (width d, L layers, n tokens): 2dLn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from qa.errors import InputError
from qa.strategies.adapters import TASK, AdapterStrategy, check_positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

    from qa.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Prefix(AdapterStrategy):
    """How long the prefix is, and whether a network computes it."""

    _argument_group_name: ClassVar[str] = "strategy prefix"
    undecayed: ClassVar[tuple[str, ...]] = ("prompt_encoder",)

    virtual_tokens: int = field(
        default=16, metadata={"help": "Keys and values before each layer's own (P-tuning v2's code: 16)."}
    )
    prefix_projection: bool = field(
        default=False,
        metadata={
            "help": "Compute the prefix by a trained network of two layers (Li and Liang 2021, section 4.3); "
            "its result alone is needed to answer."
        },
    )
    prefix_network_size: int | None = field(
        default=None, metadata={"help": "Width inside that network; without it, the encoder's."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(virtual_tokens=self.virtual_tokens)
        if self.prefix_network_size is not None:
            check_positive(prefix_network_size=self.prefix_network_size)
            if not self.prefix_projection:
                raise InputError("prefix_network_size: there is no network; add --prefix_projection")

    def config(self, model: nn.Module) -> PeftConfig:
        """peft's PrefixTuningConfig."""
        from peft import PrefixTuningConfig

        from qa.layers import reader_of

        reader: Any = reader_of(model)
        return PrefixTuningConfig(
            task_type=TASK,
            num_virtual_tokens=self.virtual_tokens,
            prefix_projection=self.prefix_projection,
            encoder_hidden_size=self.prefix_network_size or reader.config.hidden_size,
        )

    def check(self, settings: Settings) -> None:
        """Also refuses activation checkpointing, which drops the prefix in the backward pass."""
        super().check(settings)
        told = settings.training
        if told.activation_checkpointing or told.gradient_checkpointing:
            raise InputError(
                "activation_checkpointing: computes layers anew without their prefix, so strategy prefix "
                "excludes it; drop one of the two"
            )

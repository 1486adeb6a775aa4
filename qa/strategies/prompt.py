"""Prompt tuning (Lester et al. 2021, arXiv:2104.08691): trained vectors before the input, nothing else.

It hardly works for extraction on encoders (P-tuning v2, table 3: RoBERTa-large, SQuAD 1.1: 12.0 F1).
Trained numbers, without the head (width d, n tokens): dn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from qa.strategies.adapters import TASK, AdapterStrategy, check_positive

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Prompt(AdapterStrategy):
    """How many vectors, and where they start."""

    _argument_group_name: ClassVar[str] = "strategy prompt"
    undecayed: ClassVar[tuple[str, ...]] = ("prompt_encoder",)

    virtual_tokens: int = field(
        default=20,
        metadata={"help": "Trained vectors (Lester et al. 2021, section 3.2: little is gained beyond 20)."},
    )
    prompt_init: Literal["vocabulary", "random"] = field(
        default="vocabulary",
        metadata={
            "help": "vocabulary: embeddings of tokens drawn at random (there: better than noise); random: "
            "standard normal."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(virtual_tokens=self.virtual_tokens)

    def config(self, model: nn.Module) -> PeftConfig:
        """peft's PromptTuningConfig."""
        from peft import PromptTuningConfig, PromptTuningInit

        inits = {"vocabulary": PromptTuningInit.SAMPLE_VOCAB, "random": PromptTuningInit.RANDOM}
        return PromptTuningConfig(
            task_type=TASK, num_virtual_tokens=self.virtual_tokens, prompt_tuning_init=inits[self.prompt_init]
        )

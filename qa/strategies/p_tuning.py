"""P-tuning (Liu et al. 2021, arXiv:2103.10385): vectors before the input, computed by a trained network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from qa.strategies.adapters import TASK, AdapterStrategy, check_positive, check_share

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class PTuning(AdapterStrategy):
    """How many vectors, and the network that computes them."""

    _argument_group_name: ClassVar[str] = "strategy p_tuning"
    undecayed: ClassVar[tuple[str, ...]] = ("prompt_encoder",)

    virtual_tokens: int = field(default=20, metadata={"help": "Vectors before the input."})
    prompt_network: Literal["mlp", "lstm"] = field(
        default="mlp",
        metadata={"help": "mlp: three linear layers; lstm: two LSTM layers and two linear (the paper's)."},
    )
    prompt_network_size: int | None = field(
        default=None, metadata={"help": "Width inside the network; without it, the word embeddings'."}
    )
    prompt_network_dropout: float = field(
        default=0.0, metadata={"help": "Dropout between the LSTM's layers; 0 to below 1."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(virtual_tokens=self.virtual_tokens)
        check_share(prompt_network_dropout=self.prompt_network_dropout)
        if self.prompt_network_size is not None:
            check_positive(prompt_network_size=self.prompt_network_size)

    def config(self, model: nn.Module) -> PeftConfig:
        """peft's PromptEncoderConfig."""
        from peft import PromptEncoderConfig, PromptEncoderReparameterizationType

        from qa.layers import reader_of

        reader: Any = reader_of(model)
        width = self.prompt_network_size or reader.get_input_embeddings().embedding_dim
        return PromptEncoderConfig(
            task_type=TASK,
            num_virtual_tokens=self.virtual_tokens,
            encoder_reparameterization_type=PromptEncoderReparameterizationType(self.prompt_network.upper()),
            encoder_hidden_size=width,
            encoder_dropout=self.prompt_network_dropout,
        )

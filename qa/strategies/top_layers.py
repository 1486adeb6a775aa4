"""Head and top of the encoder train, what lies below is frozen (Lee et al. 2019, arXiv:1911.03090)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from qa.errors import InputError
from qa.layers import depths, layers_of
from qa.strategies.base import Strategy

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TopLayers(Strategy):
    """How much of the encoder trains, counted from the top."""

    _argument_group_name: ClassVar[str] = "strategy top_layers"

    trained_layers: int = field(
        default=3,
        metadata={
            "help": "Layers that train, counted from the top (Lee et al. 2019: a quarter of all comes near "
            "full tuning)."
        },
    )
    train_embeddings: bool = field(default=False, metadata={"help": "Also train the embeddings."})

    def __post_init__(self) -> None:
        if self.trained_layers < 0:
            raise InputError(f"trained_layers: {self.trained_layers} is out of range; give 0 or more")

    def adapt(self, model: nn.Module) -> nn.Module:
        """Train the top `trained_layers` and all above them, freeze the rest.

        Raises InputError for more layers than there are, and for encoders without separate layers.
        """
        total = len(layers_of(model))
        if self.trained_layers > total:
            raise InputError(
                f"trained_layers: {self.trained_layers}, but this encoder has {total}; give 0 to {total}"
            )
        by_depth = depths(model)
        for name, parameter in model.named_parameters():
            depth = by_depth[name]
            parameter.requires_grad = (
                self.train_embeddings if depth == 0 else depth > total - self.trained_layers
            )
        return model

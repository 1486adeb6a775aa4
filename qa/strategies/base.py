"""What a way of tuning is: hyper-parameters, and what they make of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from qa.layers import encoder_of

if TYPE_CHECKING:
    from torch import nn


class Strategy(Protocol):
    """A frozen dataclass whose fields are the hyper-parameters of one way of tuning.

    Nobody else asks which strategy is on: the trainer is handed the adapted model and nothing more.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def adapt(self, model: nn.Module) -> nn.Module:
        """Return the model with the right parameters added, frozen and trainable, whatever they were before.

        model: an encoder with a span head, as `qa.models.load_reader` returns it.
        """
        ...


def freeze_encoder(model: nn.Module) -> None:
    """Freeze everything but the head, which trains. Raises InputError where they cannot be told apart."""
    encoder = {id(parameter) for parameter in encoder_of(model).parameters()}
    for parameter in model.parameters():
        parameter.requires_grad = id(parameter) not in encoder

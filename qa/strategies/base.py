"""What a way of tuning is: hyper-parameters, what they make of a model, what training has to know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from qa.layers import encoder_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import TrainerCallback

    from qa.settings import Settings


class Strategy:
    """Base of frozen dataclasses whose fields are the hyper-parameters of one way of tuning.

    Nobody else asks which strategy is on. `adapt` is all that a strategy has to say; the rest has an answer
    for those who ask that is right for most of them.

    undecayed: parts of names; parameters whose names contain one are exempt from weight decay, because zero
        is no better a value for them than another. Biases and LayerNorms are exempt anyway.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    _argument_group_name: ClassVar[str]
    undecayed: ClassVar[tuple[str, ...]] = ()

    def adapt(self, model: nn.Module) -> nn.Module:
        """Return the model with the right parameters added, frozen and trainable, whatever they were before.

        model: an encoder with a span head, as `qa.models.load_reader` returns it.
        """
        raise NotImplementedError

    def check(self, settings: Settings) -> None:
        """Raise InputError for a run that cannot be tuned this way, before anything is read."""

    def callbacks(self, model: nn.Module) -> list[TrainerCallback]:
        """What has to happen at Trainer's events. model: as `adapt` returned it."""
        return []

    def penalty(self, model: nn.Module) -> Tensor | float:
        """A scalar that is added to the training loss. model: as `adapt` returned it."""
        return 0.0

    @property
    def reader_folder(self) -> str | None:
        """The folder of the adapter that trains on, or answers; None where the model is all there is."""
        return None

    def adapter_settings(self) -> dict[str, Any] | None:
        """Hyper-parameters to be saved with an adapter; None where a whole model is saved, and needs none."""
        return None


def freeze_encoder(model: nn.Module) -> None:
    """Freeze everything but the head, which trains. Raises InputError where they cannot be told apart."""
    encoder = {id(parameter) for parameter in encoder_of(model).parameters()}
    for parameter in model.parameters():
        parameter.requires_grad = id(parameter) not in encoder

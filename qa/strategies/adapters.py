"""What all strategies share whose reader is a frozen model with an adapter, added by peft and saved apart."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qa.errors import InputError
from qa.hub import adapter_folder, short_name
from qa.strategies.base import Strategy

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

    from qa.settings import Settings

DEFAULT_NAME = "default"
# peft's name of the task, under which it builds the wrapper of `qa.peft_methods.question_answering`.
TASK = "QUESTION_ANS"


@dataclass(frozen=True, kw_only=True)
class AdapterStrategy(Strategy):
    """Everything but an adapter and the span head is frozen. A subclass names peft's configuration."""

    adapter_name_or_path: list[str] | None = field(
        default=None,
        metadata={
            "help": "Finished adapters to load: folders or hub names (owner/name or owner/name@revision), "
            "called by their names. Without --adapter_name, the first one trains on or answers."
        },
    )
    adapter_name: str | None = field(
        default=None,
        metadata={
            "help": "The loaded adapter that trains on or answers; another name: a new adapter of that name "
            "trains beside the loaded ones, which stay as they are."
        },
    )

    def __post_init__(self) -> None:
        if self.adapter_name is not None and not re.fullmatch(r"[\w-]+", self.adapter_name):
            raise InputError(
                f"adapter_name: {self.adapter_name!r} is no name; give one of letters, digits, _ and -"
            )
        places = self.adapter_name_or_path or []
        if len(self.saved_adapters()) < len(places):
            raise InputError(
                "adapter_name_or_path: two of these folders have the same name, which is their adapter's; "
                "rename one"
            )

    def config(self, model: nn.Module) -> PeftConfig:
        """peft's configuration of a new adapter for `model`."""
        raise NotImplementedError

    def adapt(self, model: nn.Module) -> nn.Module:
        """Load the named adapters, add a new one where that is to train, and freeze all but one and its head.

        model: also one that an earlier call returned: the new adapter then stands beside those.
        """
        from qa.peft_methods.attaching import attach

        saved = self.saved_adapters()
        config = None if self.active_adapter in saved else self.config(model)
        return attach(model, self.active_adapter, saved=saved, config=config)

    def saved_adapters(self) -> dict[str, str]:
        """Name -> folder of the adapters to load. One alone, without a name given, is called "default"."""
        places = self.adapter_name_or_path or []
        if len(places) == 1 and self.adapter_name is None:
            return {DEFAULT_NAME: str(adapter_folder(places[0]))}
        return {re.sub(r"[^\w-]", "-", short_name(place)): str(adapter_folder(place)) for place in places}

    @property
    def active_adapter(self) -> str:
        """Name of the adapter that trains or answers."""
        return self.adapter_name or next(iter(self.saved_adapters()), DEFAULT_NAME)

    @property
    def reader_folder(self) -> str | None:
        """The folder of the active adapter; None where it is new."""
        return self.saved_adapters().get(self.active_adapter)

    def adapter_settings(self) -> dict[str, Any] | None:
        """The hyper-parameters, without which adapters are loaded."""
        own = {"adapter_name_or_path", "adapter_name"}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in own}

    def check(self, settings: Settings) -> None:
        """Raises InputError where an adapter would answer that nothing has trained."""
        told, saved = settings.training, self.saved_adapters()
        if told.do_train or told.dry_run or self.reader_folder is not None:
            return
        if saved:
            raise InputError(
                f"adapter_name: {self.active_adapter}: no such adapter, and nothing trains; "
                f"there is {', '.join(saved)}"
            )
        raise InputError(
            f"strategy: {told.strategy} adds an untrained adapter, and nothing trains it; add --do_train, or "
            "name the adapter's folder: --adapter_name_or_path FOLDER"
        )


def check_positive(**values: int | float) -> None:
    """Raises InputError for the first value that is not above 0."""
    for name, value in values.items():
        if value <= 0:
            raise InputError(f"{name}: {value} is out of range; give a number above 0")


def check_share(**values: float) -> None:
    """Raises InputError for the first value that is not from 0 to below 1."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise InputError(f"{name}: {value} is out of range; give a number from 0 to below 1")

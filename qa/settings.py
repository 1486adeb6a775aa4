"""Everything one run was told, in one record, and the check of what its groups cannot see by themselves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa.adapters import SAVED_SETTINGS, is_portable
from qa.decoding import DecodingSettings
from qa.errors import InputError
from qa.models import DEFAULT_ENCODER, ModelArguments
from qa.run_settings import DataArguments, Split
from qa.strategies import Strategy
from qa.windows import WindowSettings

if TYPE_CHECKING:
    from qa.training_arguments import QATrainingArguments


@dataclass(frozen=True)
class Settings:
    """Everything one run was told, parsed and checked."""

    model: ModelArguments
    data: DataArguments
    windows: WindowSettings
    decoding: DecodingSettings
    training: QATrainingArguments
    strategy: Strategy

    def to_dict(self) -> dict[str, Any]:
        """Resolved values of all groups, as they are recorded: no secrets, files as they were named."""
        told = self.training.to_dict()
        groups = (self.model, self.data, self.windows, self.decoding, self.strategy)
        merged = {name: value for group in groups for name, value in dataclasses.asdict(group).items()}
        return merged | {name: value for name, value in told.items() if not name.endswith("_token")}

    def needed_splits(self) -> dict[Split, str]:
        """The splits that the run reads, and for each a setting that asks for it."""
        told = self.training
        asked: list[tuple[Split, str, bool]] = [
            ("train", "do_train", told.do_train),
            ("validation", "eval_before_training", told.eval_before_training),
            ("validation", "eval_strategy", told.eval_strategy != "no"),
            ("validation", "do_eval", told.do_eval),
            ("test", "do_predict", told.do_predict),
        ]
        return {split: setting for split, setting, wanted in asked if wanted}

    def reader_settings(self) -> dict[str, Any]:
        """What a finished reader must be asked with again: saved beside its weights."""
        groups = dataclasses.asdict(self.windows) | dataclasses.asdict(self.decoding)
        told = {**groups, "loss": self.training.loss}
        adapter, base = self.strategy.adapter_settings(), str(self.model.model_name_or_path)
        if adapter is not None:
            told |= {"strategy": self.training.strategy, **adapter}
            told |= {"model_name_or_path": base} if is_portable(base) else {}
        return told


def checked(settings: Settings) -> Settings:
    """Refuse what no group can see by itself, and settle which checkpoint is read.

    Raises InputError, naming the settings that cannot be together and what to do.
    """
    training = settings.training
    needed = settings.needed_splits()
    if not needed and not training.dry_run:
        raise InputError(
            "do_train, do_eval, do_predict: none is set, so nothing would be done; add one of them"
        )
    for split, setting in needed.items():
        if settings.data.source(split) is None:
            raise InputError(f"{setting}: no questions named; add --{split}_file FILE or --dataset_name NAME")
    if training.label_smoothing_factor and settings.windows.gold == "all":
        raise InputError(
            "label_smoothing_factor: smooths a single gold, but gold is all; drop one of the two"
        )
    if training.batching == "packed" and settings.model.attn_implementation is not None:
        raise InputError(
            "attn_implementation: packed batches have an attention of their own; take it out, or use "
            "--batching grouped"
        )
    settings = dataclasses.replace(settings, model=_settle_model(settings.model, training))
    settings.strategy.check(settings)
    if training.overwrite_output_dir and training.do_train:
        _refuse_to_delete_inputs(settings)
    return settings


def _settle_model(model: ModelArguments, training: QATrainingArguments) -> ModelArguments:
    if model.model_name_or_path is not None:
        return model
    finished = Path(training.output_dir or ".")
    if not training.do_train and (finished / SAVED_SETTINGS).is_file():
        return dataclasses.replace(model, model_name_or_path=str(finished))
    if training.do_train or training.dry_run:
        return dataclasses.replace(model, model_name_or_path=DEFAULT_ENCODER)
    raise InputError(
        f"model_name_or_path: nothing trains and {finished} holds no reader; name one, or add --do_train"
    )


def _refuse_to_delete_inputs(settings: Settings) -> None:
    """`overwrite_output_dir` deletes a folder: never one that holds what is read, or the current folder."""
    doomed = Path(settings.training.output_dir or ".").resolve()
    inputs = {"model_name_or_path": str(settings.model.model_name_or_path), "current folder": str(Path.cwd())}
    inputs |= {f"{split}_file": str(settings.data.source(split)) for split in settings.needed_splits()}
    adapters = getattr(settings.strategy, "adapter_name_or_path", None) or []
    inputs |= {f"adapter {place}": place for place in adapters}
    for name, place in inputs.items():
        path = Path(place).expanduser()
        if path.exists() and path.resolve().is_relative_to(doomed):
            raise InputError(
                f"overwrite_output_dir: it would delete {settings.training.output_dir}, which holds the "
                f"{name} ({place}); name another --output_dir"
            )

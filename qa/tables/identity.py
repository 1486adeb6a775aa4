"""By what a run is known: a hash of all it was asked to do, however and on whatever machine that was said.

What says only where things lie, how fast they go or what is printed has no part in it. Settings at their
default have none either, so that a new setting leaves old records valid; that a default has moved is found by
comparing values (`differences`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from qa.datasets import content_digest
from qa.errors import InputError
from qa.models import local_folder
from qa.run_settings import (
    DATA_DIR_VARIABLE,
    DataArguments,
    MonitoringSettings,
    OptimizationSettings,
    RunSettings,
)

if TYPE_CHECKING:
    from qa.settings import Settings

_WHERE_AND_HOW_FAST = frozenset(
    [
        *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "report_to", "dry_run", "use_cpu"),
        *("show_predictions", "data_dir", "cache_dir", "preprocessing_num_workers", "logging_steps"),
        *("per_device_eval_batch_size", "trust_remote_code", "allow_pickle_weights", "disable_tqdm"),
    ]
)
# What an evaluation of a finished reader does not depend on: its training is in the reader's own identity.
_OF_TRAINING = (
    {f.name for group in (OptimizationSettings, MonitoringSettings) for f in dataclasses.fields(group)}
    - {"loss"}
    | {"seed", "precision", "eval_before_training", "train_file", "max_train_samples", "gold", "dropout"}
    | {"model_name_or_path", "test_file", "max_predict_samples"}
)


@dataclass(frozen=True)
class Asked:
    """What a run is asked: values that matter, those of them that are no default, and the data's digests.

    data: split -> sha256 of its content as far as it is known here: None for data sets of the hub and for
        files that are not here. absent: why a split's data cannot be read; empty where all is here.
    """

    values: dict[str, Any]
    chosen: dict[str, Any]
    data: dict[str, str | None]
    absent: tuple[str, ...]

    @property
    def settings_sha256(self) -> str:
        """Known without any data."""
        text = json.dumps(self.chosen, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def identity(self) -> str:
        """Settings and data: names the folder of the run."""
        text = json.dumps([self.settings_sha256, self.data], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def ask(words: Sequence[str], explicit: Sequence[str], reader: str | None = None) -> Asked:
    """Resolve a command line as run_qa.py would, and keep what matters.

    explicit: names of all settings that files or words give: of transformers' others only these count.
    reader: settings hash of the training whose reader is evaluated, or `finished_reader`; None: it trains.
    Raises InputError as run_qa.py would, but not for data that is not here.
    """
    from qa.arguments import parse_settings

    with _data_anywhere():
        settings = parse_settings(list(words))
    values = _values(settings, explicit, trains=reader is None)
    defaults = _defaults(settings)
    chosen = {key: value for key, value in values.items() if key not in defaults or value != defaults[key]}
    if reader is not None:
        chosen["reader"] = reader
    data, absent = _digests(settings)
    return Asked(values, chosen, data, absent)


def finished_reader(name: str) -> str:
    """By what a reader made elsewhere is known: its name, and its weights' checksum where they are here."""
    weights = sorted(local_folder(name).glob("*.safetensors"))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in weights]
    return "@".join([name, *digests])


def _values(settings: Settings, explicit: Sequence[str], *, trains: bool) -> dict[str, Any]:
    resolved = settings.to_dict()
    parts = (settings.model, settings.data, settings.windows, settings.decoding, settings.strategy)
    known = {f.name for part in parts for f in dataclasses.fields(part)}
    known |= {
        f.name
        for group in (RunSettings, OptimizationSettings, MonitoringSettings)
        for f in dataclasses.fields(group)
    }
    if not trains:
        known -= _OF_TRAINING | {f.name for f in dataclasses.fields(settings.strategy)}
        explicit = ()
    names = (known | set(explicit)) - _WHERE_AND_HOW_FAST
    return {name: _json_value(resolved[name]) for name in sorted(names) if name in resolved}


def _defaults(settings: Settings) -> dict[str, Any]:
    """Defaults of every setting, transformers' included, as JSON would give them back."""
    parts = (settings.model, settings.data, settings.windows, settings.decoding, settings.strategy)
    fields = [f for part in (settings.training, *parts) for f in dataclasses.fields(part)]
    found = {}
    for one in fields:
        if one.default is not dataclasses.MISSING:
            found[one.name] = _json_value(one.default)
        elif one.default_factory is not dataclasses.MISSING:
            found[one.name] = _json_value(one.default_factory())
    return found


def _json_value(value: Any) -> Any:
    """The value after a way through JSON: tuples are lists, enums and infinities text."""
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_json_value(item) for item in value]
    value = getattr(value, "value", value)
    if isinstance(value, float) and value not in (float("inf"), float("-inf")):
        return value
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _digests(settings: Settings) -> tuple[dict[str, str | None], tuple[str, ...]]:
    data: dict[str, str | None] = {}
    absent: list[str] = []
    for split in settings.needed_splits():
        try:
            source = settings.data.source(split)
            data[split] = None if source is None else _digest(source, split)
        except InputError as error:
            data[split] = None
            absent.append(str(error))
    return data, tuple(absent)


def _digest(source: str, split: str) -> str | None:
    try:
        status = os.stat(source)
    except OSError:
        return content_digest(source, split)
    return _digest_of_file(source, split, status.st_size, status.st_mtime_ns)


@cache
def _digest_of_file(source: str, split: str, size: int, time: int) -> str | None:
    return content_digest(source, split)


@contextmanager
def _data_anywhere() -> Iterator[None]:
    """Settings are the same whether their data is here or not: without a data folder nobody looks for it."""
    folder = os.environ.pop(DATA_DIR_VARIABLE, None)
    try:
        yield
    finally:
        if folder is not None:
            os.environ[DATA_DIR_VARIABLE] = folder


def differences(asked: Asked, chosen: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """What was asked of a recorded run otherwise than it is asked today; empty where nothing was.

    chosen: the record's own choice; settings: all its resolved settings.
    """
    found = []
    for key in sorted(asked.chosen.keys() | chosen.keys()):
        if asked.chosen.get(key) != chosen.get(key):
            found.append(f"{key} was {chosen.get(key)!r}, is {asked.chosen.get(key)!r}")
    same_place = {f.name for f in dataclasses.fields(DataArguments) if f.name.endswith("_file")}
    for key, value in asked.values.items():
        if key in same_place | {"model_name_or_path"} or key in asked.chosen or key in chosen:
            continue
        if key in settings and settings[key] != value:
            found.append(f"the default of {key} was {settings[key]!r}, is {value!r}")
    return found

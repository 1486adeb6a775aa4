"""Folders of finished adapters: how to tell one, what it was made of and for. Reads text, imports no peft."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qa.configuration import read_yaml
from qa.errors import InputError
from qa.hub import ADAPTER_CONFIG, adapter_folder, at_revision, reader_folder, refuse_pickles, short_name
from qa.models import PACKAGED_ENCODERS, local_folder

SAVED_SETTINGS = "settings.yaml"
"""What a finished reader must be asked with again, beside its weights; an adapter's hyper-parameters, too."""

BASE = "model_name_or_path"
"""The saved setting that names an adapter's base, where that is no folder of the machine it was made on."""


def is_adapter(place: str | Path | None) -> bool:
    """Whether a folder holds an adapter and not a whole model."""
    folder = local_folder(place or "")
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


@dataclass(frozen=True)
class SavedAdapter:
    """A finished adapter. place: its folder or hub name, as given. settings: those saved with it, as text.

    as_model: whether it was named in the place of a model.
    """

    place: str
    settings: dict[str, Any] = field(default_factory=dict)
    as_model: bool = False

    @property
    def folder(self) -> Path:
        """Its folder; that of the hub's cache for one from there."""
        return adapter_folder(self.place)

    @property
    def settings_file(self) -> str:
        """Where its settings come from."""
        return str(self.folder / SAVED_SETTINGS)

    @property
    def reader_settings(self) -> dict[str, Any]:
        """Its settings but for the name of its base."""
        return {name: value for name, value in self.settings.items() if name != BASE}

    def settle_strategy(self, named: str | None) -> str:
        """The strategy it was trained by. Raises InputError where another one is named, or none is known."""
        own = self.settings.get("strategy")
        if named is None and own is None:
            raise InputError(
                f"strategy: {self.place} holds no {SAVED_SETTINGS} that tells it; add the --strategy that "
                "this adapter was trained by"
            )
        if named is not None and own not in (None, named):
            raise InputError(
                f"strategy: {named}, but {self.place} is an adapter of strategy {own}; leave --strategy out, "
                "or name a model to begin with"
            )
        return str(named or own)

    def settle_base(self, named: str | None) -> str:
        """The model it stands on: the named one, else the one it was made for."""
        if named is None or self.as_model:
            return base_of(self.folder, self.settings, self.place)
        refuse_other_base(self.folder, self.settings, named, self.place)
        return named


def find_adapter(
    places: Sequence[str] | None,
    active: str | None,
    model: str | None,
    output_dir: str | None,
    *,
    on_hub: bool = False,
    revision: str | None = None,
    allow_pickle: bool = False,
) -> SavedAdapter | None:
    """The adapter a run begins with, or asks; None where it has none.

    places, active: adapter_name_or_path and adapter_name. model: model_name_or_path, which may be the folder
    of an adapter. output_dir: of a run that trains nothing; it is looked into where nothing else is named.
    on_hub: whether `model` may also be an adapter's name on the hub; asks the hub. revision: `model`'s there.
    allow_pickle: take weights in pickles.
    Raises InputError where a named folder holds no adapter, or adapters do not go together.
    """
    if not places:
        place = model or output_dir
        if place and is_adapter(place):
            return _read_adapter(place, as_model=True, allow_pickle=allow_pickle)
        if model and on_hub and is_adapter(reader_folder(model, revision)):
            return _read_adapter(at_revision(model, revision), as_model=True, allow_pickle=allow_pickle)
        return None
    if is_adapter(model):
        raise InputError(
            f"model_name_or_path: {model}: is an adapter, too; leave it out, or name their model"
        )
    found = [_read_adapter(place, allow_pickle=allow_pickle) for place in places]
    for other in found[1:]:
        for name in ("strategy", BASE):
            first, second = found[0].settings.get(name), other.settings.get(name)
            if first != second:
                raise InputError(
                    f"adapter_name_or_path: {found[0].place} and {other.place} have not the same {name} "
                    f"({first}, {second}), so they cannot share a model; drop one of the two"
                )
    return next((one for one in found if short_name(one.place) == active), found[0])


def _read_adapter(place: str, *, as_model: bool = False, allow_pickle: bool = False) -> SavedAdapter:
    folder = adapter_folder(place, allow_pickle=allow_pickle)
    if not is_adapter(folder):
        raise InputError(
            f"adapter_name_or_path: {place}: holds no adapter ({ADAPTER_CONFIG}); name the folder of a "
            "finished adapter run, one of its checkpoints, or an adapter of the hub"
        )
    if not allow_pickle:
        refuse_pickles(folder, place)
    file = folder / SAVED_SETTINGS
    return SavedAdapter(place, read_yaml(file) if file.is_file() else {}, as_model)


def base_of(folder: Path, saved: Mapping[str, Any], place: str | None = None) -> str:
    """The model under an adapter: a hub or packaged name, or a folder that is found.

    saved: the settings saved with the adapter. A base that lay in a folder is known by that folder's name
    alone, and looked for in the current folder and beside the adapter. place: what the adapter was named by.
    Raises InputError where the base has to be named.
    """
    if saved.get(BASE):
        return str(saved[BASE])
    recorded = str(_config(folder).get("base_model_name_or_path") or "")
    for near in (Path(recorded), folder.resolve().parent / recorded, folder.resolve().parents[1] / recorded):
        if recorded and (near / "config.json").is_file():
            return str(near)
    if "/" in recorded or recorded in PACKAGED_ENCODERS:
        return recorded
    raise InputError(
        f"{place or folder}: an adapter of the model {recorded or '(not recorded)'}, which lies neither here "
        f"nor beside it; name it: --model_name_or_path MODEL --adapter_name_or_path {place or folder}"
    )


def refuse_other_base(folder: Path, saved: Mapping[str, Any], model: str, place: str) -> None:
    """Raises InputError where an adapter, named as `place`, was certainly made for another model."""
    recorded = str(saved.get(BASE) or _config(folder).get("base_model_name_or_path") or "")
    is_sure = "/" in recorded or recorded in PACKAGED_ENCODERS
    if is_sure and recorded != model and not Path(model).expanduser().exists():
        raise InputError(
            f"model_name_or_path: {model}, but {place} is an adapter of {recorded}; leave "
            "model_name_or_path out"
        )


def is_portable(model: str) -> bool:
    """Whether a model's name means the same on any machine: it is no folder's."""
    return not Path(model).expanduser().exists()


def _config(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / ADAPTER_CONFIG}: cannot be read; fetch the adapter anew") from error
    return content if isinstance(content, dict) else {}

"""Readers and adapters of the Hugging Face hub: the files beside the weights, and adapters whole.

A whole model's weights are fetched by transformers. What this project saves beside them (settings, threshold
and temperature) and adapters come from here, as a folder of the hub's cache on this machine.
"""

from __future__ import annotations

import re
import warnings
from functools import cache
from pathlib import Path

from qa.errors import InputError
from qa.models import local_folder

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PICKLED_WEIGHTS = "adapter_model.bin"
# No pattern, lest a file of weights comes that nobody reads. config.json tells a model from an adapter.
FILES = (
    *("config.json", "settings.yaml", "calibration.json"),
    *(ADAPTER_CONFIG, ADAPTER_WEIGHTS, "prompt_encoder.safetensors"),
)
# With an owner: names without one are those of the hub's first models, which are no readers.
_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[^@\s]+))?")


def reader_folder(name: str | Path, revision: str | None = None) -> Path:
    """The folder that a reader's settings and calibration are in; an adapter's holds its weights, too.

    name: a folder, a packaged reader, or a hub name (`owner/name`, or `owner/name@revision`). Where the hub
    has none, or cannot be reached, the path is of no folder: a model may well do without.
    """
    folder, named = local_folder(name), _hub_name(name)
    if folder.exists() or named is None:
        return folder
    try:
        return _snapshot(named[0], named[1] or revision, FILES)
    except InputError:
        return folder


def adapter_folder(place: str | Path, *, allow_pickle: bool = False) -> Path:
    """The folder of an adapter that must be there, or of one fetched from the hub: `owner/name[@revision]`.

    allow_pickle: also fetch pickled weights where there are no others.
    Raises InputError where it is neither, or the hub cannot be reached.
    """
    folder, named = local_folder(place), _hub_name(place)
    if folder.exists() or named is None:
        return folder
    found = _snapshot(*named, FILES)
    if allow_pickle and not (found / ADAPTER_WEIGHTS).is_file():
        found = _snapshot(*named, (*FILES, PICKLED_WEIGHTS))
    return found


def at_revision(name: str, revision: str | None) -> str:
    """A hub name with its revision: `owner/name@revision`. A name that has one keeps it."""
    return name if revision is None or "@" in name else f"{name}@{revision}"


def short_name(place: str | Path) -> str:
    """What an adapter is called after: its folder's name, or that on the hub without owner and revision."""
    folder, named = local_folder(place), _hub_name(place)
    if folder.exists() or named is None:
        return folder.resolve().name
    return named[0].rpartition("/")[2]


def refuse_pickles(folder: Path, place: str) -> None:
    """Raises InputError for an adapter without weights in safetensors: a pickle can run any code.

    place: what the folder was named by. Of the hub's pickles nothing has been fetched yet.
    """
    offers_pickle = (folder / PICKLED_WEIGHTS).is_file() or not local_folder(place).exists()
    if offers_pickle and not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(
            f"adapter_name_or_path: {place}: holds no {ADAPTER_WEIGHTS}; if it has pickled weights "
            f"({PICKLED_WEIGHTS}) from a source you trust, add --allow_pickle_weights"
        )


def _hub_name(place: str | Path) -> tuple[str, str | None] | None:
    """Repository and revision; None for what is no hub name."""
    match = _NAME.fullmatch(str(place))
    return None if match is None else (match["repository"], match["revision"])


@cache
def _snapshot(repository: str, revision: str | None, files: tuple[str, ...]) -> Path:
    """A repository's files on this machine, asked for once in a process."""
    import huggingface_hub
    from huggingface_hub import errors

    where = repository if revision is None else f"{repository}@{revision}"
    try:
        return Path(
            huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=list(files))
        )
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{where}: the hub has {repository}, but no such branch, tag or commit; check the revision"
        ) from error
    except errors.GatedRepoError as error:
        raise InputError(
            f"{where}: the hub gives it to those alone who were granted access; ask for it there, then run "
            "`hf auth login`"
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise InputError(
            f"{where}: is no folder here and no repository of the hub; check the name, or, if it is private, "
            "run `hf auth login`"
        ) from error
    except Exception as error:  # the hub's, the network's, the disk's: dozens of types
        if isinstance(error, errors.LocalEntryNotFoundError) and "is incomplete" in str(error):
            warnings.warn(f"{where}: {_reason(error)}", stacklevel=3)
        raise InputError(
            f"{where}: is no folder here, and cannot be fetched from the hub ({_reason(error)}); check the "
            "name and the network, or name a folder"
        ) from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0].rstrip(".")[:300]

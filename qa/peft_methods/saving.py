"""What lies beside peft's own adapter files, and names in them that hold on any machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

from peft import PeftConfig
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import cached_file

from qa.errors import InputError

PROMPT_ENCODER_FILE = "prompt_encoder.safetensors"


def portable_name(name_or_path: str | None) -> str | None:
    """A model's name without the place it lay in: a hub name as it is, of a local folder its last part.

    A folder of the hub's cache (`.../models--ORG--NAME/snapshots/...`) gives `ORG/NAME` back.
    """
    if not name_or_path:
        return name_or_path
    if cached := re.search(r"models--([^/\\]+)[/\\]snapshots[/\\]", name_or_path):
        return cached[1].replace("--", "/", 1)
    path = PureWindowsPath(name_or_path)  # reads slashes of both kinds
    if path.root or path.drive or name_or_path.startswith((".", "~")) or Path(name_or_path).is_dir():
        return path.name
    return name_or_path


@contextmanager
def portable_names(model: Any, configs: Iterable[PeftConfig]) -> Iterator[None]:
    """Within: a transformers model and its adapters bear portable names, which is what peft then writes."""
    fields = [(model, "name_or_path"), (model.config, "_name_or_path")]
    for config in configs:
        fields += [(config, name) for name in ("base_model_name_or_path", "tokenizer_name_or_path")]
    before = [(owner, name, getattr(owner, name)) for owner, name in fields if hasattr(owner, name)]
    try:
        for owner, name, value in before:
            setattr(owner, name, portable_name(value))
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def is_vocabulary_resized(model: Any) -> bool:
    """Whether the model's embeddings grew since its checkpoint was read.

    Asks the disk alone, where peft would ask the hub at every checkpoint, and wait where the network is away.
    """
    try:
        saved = type(model.config).from_pretrained(model.name_or_path, local_files_only=True)
    except (OSError, ValueError):
        return False
    return saved.vocab_size != model.config.vocab_size


def hub_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those keyword arguments that say where on the hub, or where in a folder, an adapter lies."""
    return {key: kwargs[key] for key in ("subfolder", "revision", "cache_dir", "token") if key in kwargs}


def write_prompt_encoder(encoder: nn.Module | None, folder: Path) -> None:
    """Write the network that computes a prompt beside the prompt; None: see that no older one lies there."""
    path = folder / PROMPT_ENCODER_FILE
    path.unlink(missing_ok=True)
    if encoder is not None:
        save_file({name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}, path)


def move_up(folder: Path, adapter_name: str) -> None:
    """Bring an adapter's files from peft's folder for it, `folder/adapter_name`, into `folder` itself."""
    own = folder / adapter_name
    if adapter_name == "default" or not own.is_dir():
        return
    (folder / PROMPT_ENCODER_FILE).unlink(missing_ok=True)
    for name in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, PROMPT_ENCODER_FILE):
        if (own / name).is_file():
            (own / name).replace(folder / name)
    if not any(own.iterdir()):
        own.rmdir()


def read_prompt_encoder(folder_or_name: str, **hub: Any) -> dict[str, Tensor]:
    """What `write_prompt_encoder` wrote, from a folder or the hub. Raises: InputError where there is none."""
    path = cached_file(
        folder_or_name, PROMPT_ENCODER_FILE, _raise_exceptions_for_missing_entries=False, **hub
    )
    if path is None:
        raise InputError(
            f"{folder_or_name}: {PROMPT_ENCODER_FILE} is missing, and without it training would go on from "
            "another prompt than the saved one; load the adapter for inference, or train anew"
        )
    return load_file(path)

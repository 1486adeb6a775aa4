"""Adapters onto a span reader: one begun anew, or saved ones, one of which answers and may train on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from peft import PeftConfig, get_peft_model
from safetensors import SafetensorError
from torch import nn

from qa.errors import InputError
from qa.peft_methods.question_answering import PeftModelForExtractiveQuestionAnswering as Wrapper


def attach(
    model: nn.Module, active: str, *, saved: Mapping[str, str] | None = None, config: PeftConfig | None = None
) -> Wrapper:
    """Load adapters, add a new one where the active one is not among them, and make that one active.

    model: a span reader, or what an earlier call returned. saved: adapter name -> its folder.
    config: of the new adapter; None: there is to be none.
    Returns: the wrapper; the active adapter with its head is trainable, all else frozen.
    `save_pretrained` then writes the active adapter alone, into the very folder it is given.
    Raises: InputError where a name cannot be used, or a folder holds no adapter for this model.
    """
    saved = saved or {}
    modules = {part for name, _ in model.named_parameters() for part in name.split(".")}
    for name in {*saved, active}:
        already = isinstance(model, Wrapper) and name in model.peft_config
        if not already and name in modules | {"model", "base_model", "modules_to_save"}:
            raise InputError(f"adapter_name: {name}: a part of the model is called so; take another name")
    with warnings.catch_warnings():
        # Names such as `lora` are safe with this version of peft.
        warnings.filterwarnings("ignore", message="Adapter name '.*' should not be contained")
        # peft asks transformers by a name that is about to go.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        for name, folder in saved.items():
            model = _load(model, name, folder, trains=name == active)
        if not isinstance(model, Wrapper) or active not in model.peft_config:
            if config is None:
                raise InputError(f"adapter_name: {active}: no such adapter; there is {', '.join(saved)}")
            model = _add(model, active, config)
    model.set_adapter(active)
    model.saved_alone = active
    return model


def _add(model: nn.Module, name: str, config: PeftConfig) -> Wrapper:
    if not isinstance(model, Wrapper):
        wrapped: Any = get_peft_model(model, config, name)  # type: ignore[arg-type]
        return wrapped
    try:
        model.add_adapter(name, config)
    except ValueError as error:
        raise InputError(
            f"adapter_name: {name}: cannot stand beside the others ({_reason(error)})"
        ) from error
    return model


def _load(model: nn.Module, name: str, folder: str, *, trains: bool) -> Wrapper:
    with warnings.catch_warnings():
        # peft would go on with the untrained values of what is missing.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            if not isinstance(model, Wrapper):
                loaded: Any = Wrapper.from_pretrained(model, folder, name, is_trainable=trains)
                return loaded
            model.load_adapter(folder, name, is_trainable=trains)
        except (RuntimeError, ValueError, KeyError, TypeError, OSError, SafetensorError, Warning) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"adapter_name_or_path: {folder}: no adapter for this model and strategy ({_reason(error)})"
            ) from error
    return model


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300].rstrip(".") or type(error).__name__

"""The span head under peft: trained with every adapter, one copy for each, the base's own untouched."""

from __future__ import annotations

from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from qa.errors import InputError


def head_names(model: nn.Module) -> list[str]:
    """Names of what stands beside the encoder and has parameters: `qa_outputs` in BERT and most others.

    Raises: InputError for a model that is an encoder without a head.
    """
    encoder = getattr(model, "base_model_prefix", "")
    children = dict(model.named_children())
    names = [name for name in children if name != encoder and any(True for _ in children[name].parameters())]
    if encoder not in children or not names:
        raise InputError(f"{type(model).__name__} has no span head; load it by AutoModelForQuestionAnswering")
    return names


def protect_head(model: nn.Module, config: Any) -> None:
    """List the head in a peft configuration's `modules_to_save`: trained whole and saved.

    It has to be there before injection: `target_modules="all-linear"` would put an adapter into the head.
    """
    if not hasattr(config, "modules_to_save"):
        raise InputError(f"{type(config).__name__}: it has no modules_to_save to train the span head by")
    config.modules_to_save = list(dict.fromkeys([*(config.modules_to_save or []), *head_names(model)]))


def saved_modules(model: nn.Module) -> list[ModulesToSaveWrapper]:
    """The heads of `model`, and whatever else is trained whole."""
    return [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]


def keep_in_float32(model: nn.Module, adapter_name: str) -> None:
    """Give an adapter's copy of the head float32 weights, as adapters have: bfloat16 loses small steps."""
    for wrapper in saved_modules(model):
        if adapter_name in wrapper.modules_to_save:
            copy = wrapper.modules_to_save[adapter_name]
            if any(p.dtype in (torch.bfloat16, torch.float16) for p in copy.parameters()):
                copy.float().register_forward_pre_hook(_input_to_float32)


def _input_to_float32(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.float() if isinstance(value, Tensor) else value for value in inputs)

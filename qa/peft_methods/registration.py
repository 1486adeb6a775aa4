"""How a tuning method of this project becomes a method of peft: its name, its registration, its base class.

peft dispatches on the members of the enum `PeftType`, so a method written outside peft has to add one. After
`register_method`, peft serves it like the methods it ships: `get_peft_model`, `save_pretrained`,
`PeftModel.from_pretrained`, `add_adapter`, `set_adapter`, `disable_adapter`, `delete_adapter`, `unload`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper, register_peft_method
from torch import nn

from qa.errors import InputError


def extend_peft_type(name: str) -> PeftType:
    """Return the `PeftType` member `name` (upper case), making it where peft has none.

    The member behaves like a built-in one: found by name and by value, listed, equal to its string, a
    singleton under pickle and copy. An enum with members cannot be subclassed, so the class is extended.
    """
    if name in PeftType.__members__:
        return PeftType[name]
    member = str.__new__(PeftType, name)
    member._name_ = name
    member._value_ = name
    member.__objclass__ = PeftType  # type: ignore[attr-defined]
    member._sort_order_ = len(PeftType)  # type: ignore[attr-defined]
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    # Python 3.13 answers `value in PeftType` from a list of its own.
    getattr(PeftType, "_hashable_values_", []).append(name)
    type.__setattr__(PeftType, name, member)
    return member


def register_method(name: str, config_class: type[PeftConfig], tuner_class: type[EncoderTuner]) -> None:
    """Make peft serve the method `name` (lower case) with our config and tuner; once more changes nothing.

    Raises RuntimeError where peft serves a method of that name with a class that is not ours.
    """
    member = extend_peft_type(name.upper())
    registered = PEFT_TYPE_TO_CONFIG_MAPPING.get(member)
    if registered is config_class:
        return
    if registered is not None:
        raise RuntimeError(
            f"peft serves the method {name!r} with {registered.__module__}.{registered.__name__}; "
            f"rename ours in {config_class.__module__}, or use peft's."
        )
    register_peft_method(name=name, config_cls=config_class, model_cls=tuner_class, prefix=tuner_class.prefix)


@dataclass
class EncoderTunerConfig(PeftConfig):
    """Base of our configs. Which modules are wrapped follows from the encoder: there is nothing to name."""

    method: ClassVar[str]
    modules_to_save: list[str] | None = field(
        default=None,
        metadata={"help": "Names of modules trained and saved whole beside the adapter (the head)."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType(self.method.upper())

    @property
    def target_modules(self) -> None:
        """peft reads this attribute of every config; a property keeps it out of adapter_config.json."""
        return


class EncoderTuner(BaseTuner):
    """Base of our tuners: the modules to wrap follow from the encoder's structure, not from a config's names.

    A subclass says which in `_find_targets`, called before any module is replaced, and builds the wrapper of
    one module in `_wrap`. A wrapper holds one dict for each kind of weight, keyed by adapter name: peft saves
    and loads nothing that lies deeper.
    """

    def _find_targets(self, config: Any) -> set[str]:
        """Return the names, inside `self.model`, of the modules to wrap.

        Raises InputError for an encoder that the method does not fit.
        """
        raise NotImplementedError

    def _wrap(self, module: nn.Module) -> Any:
        """Return a tuner layer around `module`, without any adapter yet."""
        raise NotImplementedError

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict) -> Any:
        saved_whole = peft_config.modules_to_save or []
        found = self._find_targets(peft_config)
        self._targets = {name for name in found if not _lies_in(name, saved_whole)}
        copies = [name for name, m in self.model.named_modules() if isinstance(m, AuxiliaryTrainingWrapper)]
        for name in copies:
            if any(_lies_in(target, [name]) for target in self._targets):
                raise InputError(
                    f"{name} is trained whole by another adapter; name it in modules_to_save of this one too."
                )
        return peft_config

    def _check_target_module_exists(self, peft_config: Any, key: str) -> bool:  # type: ignore[override]
        return key in self._targets

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer: Any = target
        if not isinstance(target, self.tuner_layer_cls):
            layer = self._wrap(target)
            self._replace_module(parent, target_name, layer, target)
        layer.update_layer(adapter_name, peft_config)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        # peft's version reads `child.weight`, which an output block lacks; our layers place their weights.
        setattr(parent, child_name, new_module)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        # peft's version puts new Parameters into a ParameterDict, which thaws those of an inactive adapter.
        if not autocast_adapter_dtype:
            return
        for layer in self.model.modules():
            if isinstance(layer, self.tuner_layer_cls):
                for parameter in adapter_parameters(layer, adapter_name):
                    if parameter.dtype in (torch.float16, torch.bfloat16):
                        parameter.data = parameter.data.float()

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter; where it was active, the first of the others becomes active in every layer.

        peft chooses layer by layer, which disagrees where two adapters do not wrap the same layers.
        """
        active = list(self.active_adapters)
        super().delete_adapter(adapter_name)
        if adapter_name in active:
            survivors = [name for name in active if name != adapter_name] or list(self.peft_config)[:1]
            if survivors:
                self.set_adapter(survivors)


def adapter_parameters(layer: BaseTunerLayer, adapter_name: str) -> list[nn.Parameter]:
    """The trained tensors of one adapter in one tuner layer: none where it does not wrap this layer."""
    parameters: list[nn.Parameter] = []
    for attribute in layer.adapter_layer_names:
        weights = getattr(layer, attribute)
        if adapter_name in weights:
            weight = weights[adapter_name]
            parameters += [weight] if isinstance(weight, nn.Parameter) else weight.parameters()
    return parameters


def encoder_modules(model: nn.Module, tuner_layer: type[BaseTunerLayer]) -> dict[str, nn.Module]:
    """Return {name: module} of the encoder below the task head, as before any `tuner_layer` was put in.

    The pooler is left out: no span head reads it, so it would never get a gradient.
    """
    encoder = getattr(model, "base_model", model)
    encoder_name = next(name for name, module in model.named_modules() if module is encoder)
    modules: dict[str, nn.Module] = {}
    wrapped: tuple[str, ...] = ()
    for name, module in model.named_modules():
        inside = not encoder_name or f"{name}.".startswith(f"{encoder_name}.")
        if not inside or "pooler" in name.split(".") or name.startswith(wrapped):
            continue
        if isinstance(module, tuner_layer):
            wrapped += (f"{name}.",)
            modules[name] = module.get_base_layer()
        else:
            modules[name] = module
    return modules


def _lies_in(name: str, places: list[str]) -> bool:
    """True where the module `name` is, or lies in, one of `places` (ends of names do, as in peft)."""
    parts = name.split(".")
    outer = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return any(o == place or o.endswith(f".{place}") for place in places for o in outer)

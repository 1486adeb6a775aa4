"""BitFit (Ben Zaken, Ravfogel, Goldberg 2022, arXiv:2106.10199): train the biases only, as a peft method.

Every bias b becomes b + delta with a trained delta that starts at zero. So one model holds several adapters,
disabling one gives the base back bit by bit, and merging is exact: the merged bias is the very sum that the
unmerged model computes. peft's own `bias="all"` trains the tensors of the base and has none of this.

Trained numbers, without the head (width d, L layers, 4d feed-forward units): all biases 11dL + d, query and
intermediate 5dL. Every trained tensor has `bias` in its name, so the Trainer's rule that exempts biases from
weight decay exempts all of them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import nn
from torch.nn import functional

from qa.errors import InputError
from qa.peft_methods.registration import EncoderTuner, EncoderTunerConfig, encoder_modules, register_method

Biases = Literal["all", "query_intermediate"]


class DeltaLayer(nn.Module, BaseTunerLayer):
    """A Linear or a LayerNorm some of whose parameters get a trained difference, one for each adapter.

    `delta_names` maps a parameter of the base layer ("weight", "bias") to the attribute that holds its
    differences, {adapter name: shape of the parameter}. The differences of all active adapters are added.
    """

    delta_names: ClassVar[dict[str, str]]

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        for attribute in self.delta_names.values():
            setattr(self, attribute, nn.ParameterDict())
        self.merged_adapters: list[str] = []
        self._before_merge: dict[str, torch.Tensor] = {}

    def update_layer(self, adapter_name: str, config: Any) -> None:
        """Add an adapter: differences of zero, with the device and dtype of what they are added to."""
        for parameter, attribute in self.delta_names.items():
            base = getattr(self.base_layer, parameter)
            if base is not None:
                getattr(self, attribute)[adapter_name] = nn.Parameter(torch.zeros_like(base))

    def tuned(self, parameter: str, adapter_names: list[str]) -> torch.Tensor | None:
        """Return a parameter of the base layer plus its differences, in the base's dtype; None for none.

        The sum is made in the wider of the two dtypes, so that a bfloat16 base is rounded once.
        """
        base = getattr(self.base_layer, parameter)
        if base is None or parameter not in self.delta_names:
            return base
        deltas = getattr(self, self.delta_names[parameter])
        total = base
        for name in adapter_names:
            if name in deltas:
                total = total + deltas[name]
        return total.to(base.dtype)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put the sums into the base layer. `unmerge` puts the tensors from before back, bit by bit."""
        known = self._get_available_adapters()
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in known]
        if not names:
            return
        names = self.merged_adapters + names
        if self.merged:
            self.unmerge()
        totals = {parameter: self.tuned(parameter, names) for parameter in self.delta_names}
        found = {parameter: total.detach() for parameter, total in totals.items() if total is not None}
        if safe_merge and not all(torch.isfinite(total).all() for total in found.values()):
            raise ValueError(f"The adapters {', '.join(names)} hold numbers that are not finite; not merged.")
        for parameter, total in found.items():
            self._before_merge[parameter] = getattr(self.base_layer, parameter).data
            getattr(self.base_layer, parameter).data = total
        self.merged_adapters = names

    def unmerge(self) -> None:
        """Put the tensors from before the merge back."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
        for parameter, value in self._before_merge.items():
            current = getattr(self.base_layer, parameter)
            current.data = value.to(current.data)
        self._before_merge = {}
        self.merged_adapters = []

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., width in) -> (..., width out)."""
        base = self.base_layer
        if self.disable_adapters and self.merged:
            self.unmerge()
        known = self._get_available_adapters()
        names = [name for name in self.active_adapters if name in known]
        if self.disable_adapters or self.merged or not names:
            return base(hidden_states)
        weight, bias = self.tuned("weight", names), self.tuned("bias", names)
        if isinstance(base, nn.LayerNorm):
            return functional.layer_norm(hidden_states, base.normalized_shape, weight, bias, base.eps)
        assert weight is not None
        return functional.linear(hidden_states, weight, bias)


class BitFitLayer(DeltaLayer):
    """A Linear or a LayerNorm with a trained difference to its bias."""

    delta_names: ClassVar[dict[str, str]] = {"bias": "bitfit_bias"}
    adapter_layer_names = ("bitfit_bias",)


@dataclass
class BitFitConfig(EncoderTunerConfig):
    """Settings of BitFit."""

    method: ClassVar[str] = "bitfit"
    biases: Biases = field(
        default="all",
        metadata={
            "help": "all: every bias of the encoder, its LayerNorms' too; query_intermediate: the query's "
            "and the first feed-forward layer's only, the paper's small variant (its b_q and b_m2)."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.biases not in get_args(Biases):
            raise InputError(
                f"biases: no choice {self.biases!r}; choose one of {', '.join(get_args(Biases))}."
            )


class BitFitModel(EncoderTuner):
    """The tuner that peft builds around a model for a `BitFitConfig`."""

    prefix = "bitfit_"
    tuner_layer_cls = BitFitLayer

    def _find_targets(self, config: BitFitConfig) -> set[str]:
        model = type(self.model).__name__
        modules = encoder_modules(self.model, BitFitLayer)
        biased = {name for name, module in modules.items() if module._parameters.get("bias") is not None}
        if not biased:
            raise InputError(
                f"BitFit trains biases, and the encoder of {model} has none; choose another method."
            )
        if config.biases == "query_intermediate":
            queries = {name for name in biased if name.endswith(".query")}
            intermediates = {name for name in biased if name.endswith(".intermediate.dense")}
            if not queries or not intermediates:
                raise InputError(
                    "biases: query_intermediate needs layers with biases named query and intermediate.dense, "
                    f"which {model} does not have; choose all."
                )
            biased = queries | intermediates
        for name in sorted(biased):
            # Exact types: a quantised Linear is a subclass that computes something else.
            if type(modules[name]) not in (nn.Linear, nn.LayerNorm):
                raise InputError(
                    f"BitFit knows the biases of torch's Linear and LayerNorm, and {name} of {model} is a "
                    f"{type(modules[name]).__name__}; choose another method."
                )
        return biased

    def _wrap(self, module: nn.Module) -> BitFitLayer:
        return BitFitLayer(module)


register_method("bitfit", BitFitConfig, BitFitModel)

"""LayerNorm tuning (Zhao et al. 2023, arXiv:2312.11420) as a peft method: train the LayerNorms only.

peft ships this as `LNTuningConfig`, with two faults (peft 0.21.2): its copies keep the dtype of the base, so
small steps on a bfloat16 base are rounded away, and its `merge_and_unload` leaves the head in a wrapper, so
the merged model is saved under names that no plain model loads. Here every weight and bias becomes base +
delta, with a trained delta that starts at zero, as in `bitfit`.

Trained numbers, without the head (width d, L layers): 4dL + 2d. Trained tensors of BERT's relatives have
`LayerNorm` in their names, which exempts them from weight decay by the Trainer's rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from qa.errors import InputError
from qa.peft_methods.bitfit import DeltaLayer
from qa.peft_methods.registration import EncoderTuner, EncoderTunerConfig, encoder_modules, register_method


class LayerNormDelta(DeltaLayer):
    """A LayerNorm with a trained difference to its weight, and to its bias where it has one."""

    delta_names: ClassVar[dict[str, str]] = {
        "weight": "layernorm_delta_weight",
        "bias": "layernorm_delta_bias",
    }
    adapter_layer_names = ("layernorm_delta_weight", "layernorm_delta_bias")


@dataclass
class LayerNormConfig(EncoderTunerConfig):
    """LayerNorm tuning has no settings of its own."""

    method: ClassVar[str] = "layernorm"


class LayerNormModel(EncoderTuner):
    """The tuner that peft builds around a model for a `LayerNormConfig`."""

    prefix = "layernorm_delta_"
    tuner_layer_cls = LayerNormDelta

    def _find_targets(self, config: LayerNormConfig) -> set[str]:
        model = type(self.model).__name__
        modules = encoder_modules(self.model, LayerNormDelta)
        norms = {name for name, module in modules.items() if type(module).__name__.endswith("Norm")}
        if not norms:
            raise InputError(f"The encoder of {model} has no LayerNorm to train; choose another method.")
        for name in sorted(norms):
            if type(modules[name]) is not nn.LayerNorm or modules[name].weight is None:
                raise InputError(
                    f"LayerNorm tuning knows torch's LayerNorm with a weight, and {name} of {model} is a "
                    f"{type(modules[name]).__name__} of another kind; choose another method."
                )
        return norms

    def _wrap(self, module: nn.Module) -> LayerNormDelta:
        return LayerNormDelta(module)


register_method("layernorm", LayerNormConfig, LayerNormModel)

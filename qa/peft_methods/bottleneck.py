"""Bottleneck adapters as a peft method: a small trained network in the output blocks of a frozen encoder.

An output block of BERT and its relatives computes LN(z + x): z = dropout(dense(h)), x is its residual input.
With A(v) = dropout(scaling * up(activation(down(v)))) the styles make of it

    houlsby   LN(z + A(z) + x)          both blocks of a layer   Houlsby et al. 2019, arXiv:1902.00751
    pfeiffer  LN(z + A(LN(z + x)) + x)  the feed-forward block   Pfeiffer et al. 2021, arXiv:2005.00247
    parallel  LN(z + A(x) + x)          the feed-forward block   He et al. 2022, arXiv:2110.04366

LN is the block's own, frozen; x of the parallel style is the input of the feed-forward sublayer. Outputs and
gradients equal those of the `adapters` library (DoubleSeqBnConfig, SeqBnConfig, ParBnConfig), whose defaults
these are. Trained numbers, without the head (width d, L layers, bottleneck k): houlsby 2L(2dk + k + d), the
others half of it.

A is not linear, so no weights of the block can stand for it: merging is refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.activations import ACT2FN

from qa.errors import InputError
from qa.peft_methods.registration import EncoderTuner, EncoderTunerConfig, encoder_modules, register_method

InitWeights = Literal["bert", "mam_adapter"]


@dataclass(frozen=True)
class Style:
    """Where the adapters of a style stand, and its defaults."""

    after_attention: bool  # in the block after attention too, not only in the one after feed-forward
    reduction_factor: int  # width of the encoder / width of the bottleneck
    non_linearity: str  # a name of transformers' activations
    scaling: float  # factor of what the adapter adds
    init_weights: InitWeights


STYLES = {
    "houlsby": Style(True, 16, "swish", 1.0, "bert"),
    "pfeiffer": Style(False, 16, "relu", 1.0, "bert"),
    "parallel": Style(False, 2, "relu", 4.0, "mam_adapter"),
}


@dataclass
class BottleneckConfig(EncoderTunerConfig):
    """Settings of bottleneck adapters; None stands for the style's default and is replaced by it."""

    method: ClassVar[str] = "bottleneck"
    style: str = field(default="pfeiffer", metadata={"help": f"One of {', '.join(STYLES)}."})
    reduction_factor: int | None = field(
        default=None, metadata={"help": "Bottleneck's width = encoder's width // reduction_factor."}
    )
    bottleneck_size: int | None = field(
        default=None, metadata={"help": "Bottleneck's width itself, in place of reduction_factor."}
    )
    non_linearity: str | None = field(
        default=None, metadata={"help": "Activation, by its transformers name."}
    )
    scaling: float | None = field(default=None, metadata={"help": "Factor of what the adapter adds."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout probability on what the adapter adds."})
    init_weights: InitWeights | None = field(
        default=None,
        metadata={
            "help": "bert: weights from N(0, 0.02); mam_adapter: down as torch's Linear draws it, up zero, "
            "so that the adapter begins by adding nothing (He et al. 2022). Biases begin at zero in both."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("style", self.style, STYLES)
        defaults = STYLES[self.style]
        if self.bottleneck_size is not None and self.reduction_factor is not None:
            raise InputError(
                "bottleneck_size and reduction_factor both set the bottleneck's width; give one."
            )
        if self.bottleneck_size is None and self.reduction_factor is None:
            self.reduction_factor = defaults.reduction_factor
        for name in ("non_linearity", "scaling", "init_weights"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(defaults, name))
        _check_choice("non_linearity", self.non_linearity, ACT2FN)
        _check_choice("init_weights", self.init_weights, get_args(InitWeights))
        for name in ("reduction_factor", "bottleneck_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; give a whole number of at least 1.")
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout is {self.dropout}; give a probability of at least 0 and below 1.")

    def width(self, encoder_width: int) -> int:
        """Return the width of the bottleneck in an encoder of that width; InputError where none is left."""
        width = self.bottleneck_size or encoder_width // (self.reduction_factor or 1)
        if width < 1:
            raise InputError(
                f"reduction_factor {self.reduction_factor} leaves no bottleneck in an encoder of width "
                f"{encoder_width}; give a smaller one, or bottleneck_size."
            )
        return width


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """An output block (dense, dropout, LayerNorm) with its adapters by name, one of them active at a time."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = (
        "bottleneck_activation",
        "bottleneck_dropout",
        "bottleneck_style",
        "bottleneck_scaling",
    )

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_activation = nn.ModuleDict()
        self.bottleneck_dropout = nn.ModuleDict()
        self.bottleneck_style: dict[str, str] = {}
        self.bottleneck_scaling: dict[str, float] = {}
        self.merged_adapters: list[str] = []

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add an adapter, with the device, dtype and mode (training or not) of the block."""
        dense: Any = self.base_layer.dense
        width, bottleneck = dense.out_features, config.width(dense.out_features)
        like = {"device": dense.weight.device, "dtype": dense.weight.dtype}
        down, up = nn.Linear(width, bottleneck, **like), nn.Linear(bottleneck, width, **like)
        _initialise(down, up, config.init_weights)
        self.bottleneck_down[adapter_name] = down
        self.bottleneck_up[adapter_name] = up
        self.bottleneck_activation[adapter_name] = ACT2FN[config.non_linearity]
        self.bottleneck_dropout[adapter_name] = nn.Dropout(config.dropout)
        self.bottleneck_style[adapter_name] = config.style
        self.bottleneck_scaling[adapter_name] = 1.0 if config.scaling is None else config.scaling
        self.train(self.base_layer.training)

    def added(self, adapter_name: str, states: torch.Tensor) -> torch.Tensor:
        """A(states), (batch, seq_len, width): computed in the adapter's dtype, returned in that of states."""
        down: Any = self.bottleneck_down[adapter_name]
        hidden = self.bottleneck_activation[adapter_name](down(states.to(down.weight.dtype)))
        output = self.bottleneck_up[adapter_name](hidden) * self.bottleneck_scaling[adapter_name]
        return self.bottleneck_dropout[adapter_name](output).to(states.dtype)

    def forward(self, hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
        """h (batch, seq_len, width of h) and x (batch, seq_len, width) -> (batch, seq_len, width)."""
        block: Any = self.base_layer
        names = [name for name in self.active_adapters if name in self.bottleneck_down]
        if self.disable_adapters or not names:
            return block(hidden_states, input_tensor)
        (name,) = names
        style = self.bottleneck_style[name]
        projected = block.dropout(block.dense(hidden_states))
        if style == "houlsby":
            added = self.added(name, projected)
        elif style == "pfeiffer":
            added = self.added(name, block.LayerNorm(projected + input_tensor))
        else:
            added = self.added(name, input_tensor)
        return block.LayerNorm(projected + added + input_tensor)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refused with an InputError: see the module's docstring."""
        raise _merge_refusal()

    def unmerge(self) -> None:
        """Nothing is ever merged."""


class BottleneckModel(EncoderTuner):
    """The tuner that peft builds around a model for a `BottleneckConfig`."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer

    def _find_targets(self, config: BottleneckConfig) -> set[str]:
        modules = encoder_modules(self.model, BottleneckLayer)
        blocks = {name: m for name, m in modules.items() if type(m).__name__.endswith("Output")}
        after_attention = {name for name, m in blocks.items() if type(m).__name__.endswith("SelfOutput")}
        targets = set(blocks) - after_attention
        fits = bool(targets)
        if STYLES[config.style].after_attention:
            fits = fits and len(after_attention) == len(targets)
            targets |= after_attention
        children = [{child for child, _ in blocks[name].named_children()} for name in targets]
        if not fits or any(names != {"dense", "dropout", "LayerNorm"} for names in children):
            raise InputError(
                f"Bottleneck adapters of style {config.style} stand in output blocks built as BERT's "
                "(BertOutput, for houlsby BertSelfOutput too: dense, dropout, LayerNorm), which "
                f"{type(self.model).__name__} does not have; choose another method, for example lora."
            )
        for name in targets:
            dense: Any = blocks[name].dense
            config.width(dense.out_features)
        return targets

    def _wrap(self, module: nn.Module) -> BottleneckLayer:
        return BottleneckLayer(module)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Make one adapter active, and trainable unless `inference_mode`; the others are frozen."""
        if not isinstance(adapter_name, str) and len(adapter_name) > 1:
            raise InputError(
                f"Bottleneck adapters do not add up: {', '.join(adapter_name)} cannot be active together; "
                "name one."
            )
        super().set_adapter(adapter_name, inference_mode=inference_mode)

    def _check_merge_allowed(self) -> None:
        raise _merge_refusal()


def _initialise(down: nn.Linear, up: nn.Linear, init_weights: str | None) -> None:
    if init_weights == "mam_adapter":
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        nn.init.zeros_(up.weight)
    else:
        nn.init.normal_(down.weight, std=0.02)
        nn.init.normal_(up.weight, std=0.02)
    nn.init.zeros_(down.bias)
    nn.init.zeros_(up.bias)


def _check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    if value not in choices:
        raise InputError(f"{name}: no choice {value!r}; choose one of {', '.join(choices)}.")


def _merge_refusal() -> InputError:
    return InputError(
        "A bottleneck adapter is not linear and cannot be merged into the encoder; keep it as an adapter "
        "(save_pretrained), or train with lora, bitfit or layernorm to merge."
    )


register_method("bottleneck", BottleneckConfig, BottleneckModel)

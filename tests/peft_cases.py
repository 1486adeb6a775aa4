"""Every method that this project registers with peft, on a span reader small enough to train in a test."""

from __future__ import annotations

from typing import Any

import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import BertConfig, BertForQuestionAnswering

from qa.peft_methods.bitfit import BitFitConfig
from qa.peft_methods.bottleneck import BottleneckConfig
from qa.peft_methods.layernorm import LayerNormConfig

BOTTLENECKS = ("houlsby", "pfeiffer", "parallel")
DELTAS = ("bitfit", "bitfit-small", "layernorm")
METHODS = BOTTLENECKS + DELTAS

WIDTH, LAYERS = 16, 2
TINY: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}
BATCH = {
    "input_ids": torch.tensor([[2, 7, 9, 3, 11, 12, 13, 3], [2, 8, 3, 14, 15, 16, 17, 3]]),
    "token_type_ids": torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]]),
}

SMALL = ["attention.self.query", "intermediate.dense"]
LAYER_NORMS = ["attention.output.LayerNorm", "output.LayerNorm"]
LINEARS = [*SMALL, "attention.self.key", "attention.self.value", "attention.output.dense", "output.dense"]
# Softmax over keys cancels what a key bias adds to every score: its gradient is rounding noise, or nothing.
KEY_BIASES = {
    f"base_model.model.bert.encoder.layer.{layer}.attention.self.key.bitfit_bias.{adapter}"
    for layer in range(LAYERS)
    for adapter in ("default", "second")
}


def reader(dtype: torch.dtype = torch.float32) -> BertForQuestionAnswering:
    """A tiny span reader, the same at every call, all its tensors away from their usual first values."""
    torch.manual_seed(0)
    model: Any = BertForQuestionAnswering(BertConfig(**TINY)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype)


def config_of(method: str) -> Any:
    """The method's settings with the head trained beside it; bottlenecks of width 4."""
    if method == "layernorm":
        return LayerNormConfig(modules_to_save=["qa_outputs"])
    if method in DELTAS:
        biases: Any = {"bitfit": "all", "bitfit-small": "query_intermediate"}[method]
        return BitFitConfig(biases=biases, modules_to_save=["qa_outputs"])
    return BottleneckConfig(style=method, bottleneck_size=4, modules_to_save=["qa_outputs"])


def adapted(method: str, dtype: torch.dtype = torch.float32) -> Any:
    model = reader(dtype)
    torch.manual_seed(1)
    return get_peft_model(model, config_of(method)).eval()


def expected_names(method: str, adapter: str = "default") -> set[str]:
    """The names of all that trains, written out from the structure of BERT."""
    head = {f"base_model.model.qa_outputs.modules_to_save.{adapter}.{kind}" for kind in ("weight", "bias")}
    if method in BOTTLENECKS:
        modules = ["attention.output", "output"] if method == "houlsby" else ["output"]
        places = [f"encoder.layer.{layer}.{module}" for layer in range(LAYERS) for module in modules]
        ends = [f"bottleneck_{way}.{adapter}.{kind}" for way in ("down", "up") for kind in ("weight", "bias")]
    else:
        modules = {"bitfit": LINEARS + LAYER_NORMS, "bitfit-small": SMALL, "layernorm": LAYER_NORMS}[method]
        places = [f"encoder.layer.{layer}.{module}" for layer in range(LAYERS) for module in modules]
        places += [] if method == "bitfit-small" else ["embeddings.LayerNorm"]
        kinds = (
            ("layernorm_delta_weight", "layernorm_delta_bias") if method == "layernorm" else ("bitfit_bias",)
        )
        ends = [f"{kind}.{adapter}" for kind in kinds]
    return {f"base_model.model.bert.{place}.{end}" for place in places for end in ends} | head


def logits(model: nn.Module) -> Tensor:
    """(2, batch, seq_len): start, end."""
    with torch.no_grad():
        output = model(**BATCH)
    return torch.stack([output.start_logits, output.end_logits])


def loss(model: nn.Module) -> Tensor:
    """Moves the head's bias too, which the softmax of a span loss does not see."""
    output = model(**BATCH)
    return output.start_logits.square().mean() + (output.end_logits - 1).square().mean()


def train(model: nn.Module, steps: int, kind: Any = torch.optim.Adam) -> None:
    optimizer = kind(trained(model).values(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def gradient_of(parameter: nn.Parameter | Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], model: nn.Module) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}


def closed_form_at(method: str, layers: int, width: int) -> int:
    """Trained numbers with the head, by the formulas in the modules' docstrings; default bottlenecks."""
    head = 2 * width + 2
    if method in BOTTLENECKS:
        bottleneck = width // (2 if method == "parallel" else 16)
        blocks = 2 * layers if method == "houlsby" else layers
        return blocks * (2 * width * bottleneck + bottleneck + width) + head
    per_layer, rest = {"bitfit": (11, 1), "bitfit-small": (5, 0), "layernorm": (4, 2)}[method]
    return per_layer * width * layers + rest * width + head


def counted_at(method: str, layers: int, width: int) -> int:
    """The same, counted on a reader of that shape that holds no memory."""
    with torch.device("meta"):
        shape = BertConfig(
            vocab_size=28_996,
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
        )
        model = BertForQuestionAnswering(shape)
    config = config_of(method)
    if method in BOTTLENECKS:
        config = BottleneckConfig(style=method, modules_to_save=["qa_outputs"])
    return sum(parameter.numel() for parameter in trained(get_peft_model(model, config)).values())

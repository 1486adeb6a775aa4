"""Every strategy with its variants: the exact names of what it trains in a tiny BERT, and how many numbers.

A new strategy gets its line in CASES. Where its settings are those of no experiment, they are smaller: the
model of the tests is 32 wide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForQuestionAnswering

from qa.cpu.layers import use_cpu_layers
from qa.strategies import (
    IA3,
    AdaLora,
    Adapter,
    BitFit,
    Full,
    Head,
    LayerNorm,
    Lora,
    Prefix,
    Prompt,
    PTuning,
    Strategy,
    TopLayers,
)

WIDTH, LAYERS = 32, 2
LENGTHS = (14, 9, 6)

LINEARS = [f"attention.self.{name}" for name in ("query", "key", "value")]
LINEARS += ["attention.output.dense", "intermediate.dense", "output.dense"]
NORMS = ["attention.output.LayerNorm", "output.LayerNorm"]
FACTORS = ["lora_A.{}.weight", "lora_B.{}.weight"]
BOTTLENECK = [f"bottleneck_{way}.{{}}.{kind}" for way in ("down", "up") for kind in ("weight", "bias")]
WEIGHTS = ["weight", "bias"]


@dataclass(frozen=True)
class Case:
    """names: of what trains, the adapter's name as `{}`. count: trained numbers at (width, layers)."""

    strategy: Any
    names: frozenset[str]
    count: Callable[[int, int], int]
    adds: bool = True  # an adapter, in its own files
    merges: bool = False
    starts_as_base: bool = True  # the untrained adapter changes nothing

    def named(self, adapter: str = "default") -> set[str]:
        return {name.format(adapter) for name in self.names}


def head(d: int) -> int:
    return 2 * d + 2


def layer(d: int) -> int:
    """Numbers in a layer of BERT with 4d feed-forward units."""
    return 12 * d * d + 13 * d


def whole(d: int, n: int) -> int:
    return (28_996 + 512 + 2 + 2) * d + n * layer(d) + head(d)


def in_layers(modules: list[str], tensors: list[str], *, embeddings: bool = False) -> frozenset[str]:
    """Names in peft's wrapper, with the adapter's head."""
    places = [f"encoder.layer.{index}.{module}" for index in range(LAYERS) for module in modules]
    places += ["embeddings.LayerNorm"] if embeddings else []
    names = {f"base_model.model.bert.{place}.{tensor}" for place in places for tensor in tensors}
    return frozenset(names | {f"base_model.model.qa_outputs.modules_to_save.{{}}.{kind}" for kind in WEIGHTS})


def prompts(*tensors: str) -> frozenset[str]:
    names = {f"prompt_encoder.{{}}.{tensor}" for tensor in ("embedding.weight", *tensors)}
    return frozenset(names | {f"base_model.qa_outputs.modules_to_save.{{}}.{kind}" for kind in WEIGHTS})


def plain(*modules: str) -> frozenset[str]:
    """Names of the bare reader."""
    reader = tiny_bert()
    names = {name for name, _ in reader.named_parameters() if name.startswith(modules)} if modules else set()
    return frozenset(names | {"qa_outputs.weight", "qa_outputs.bias"})


def lora_count(rank: int) -> Callable[[int, int], int]:
    return lambda d, n: 4 * d * rank * n + head(d)


def bottleneck(blocks: int, reduction: int) -> Callable[[int, int], int]:
    return lambda d, n: blocks * n * (2 * d * (d // reduction) + d // reduction + d) + head(d)


def lstm(d: int, h: int) -> int:
    """Two bidirectional LSTM layers of h units over vectors of d, and two linear layers back to d."""
    return 2 * 4 * (h * d + h * h + 2 * h) + 2 * 4 * (3 * h * h + 2 * h) + 4 * h * h + 2 * h + 2 * h * d + d


LSTM = [
    f"lstm_head.{kind}_{part}_l{index}{way}"
    for kind in WEIGHTS
    for part in ("ih", "hh")
    for index in (0, 1)
    for way in ("", "_reverse")
]


def tiny_bert(**changes: Any) -> Any:
    """The same reader at every call, all its tensors far from their usual first values."""
    sizes: dict[str, Any] = {
        "vocab_size": 60,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 20,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForQuestionAnswering(BertConfig(**(sizes | changes))).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def spanbert(width: int, layers: int) -> nn.Module:
    """SpanBERT's shape on the meta device: no memory, no pooler."""
    config = BertConfig(
        vocab_size=28_996,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )
    with torch.device("meta"):
        return BertForQuestionAnswering(config)


LORA = in_layers(["attention.self.query", "attention.self.value"], FACTORS)
CASES: dict[str, Case] = {
    "full": Case(Full(), plain("bert."), whole, adds=False),
    "head": Case(Head(), plain(), lambda d, n: head(d), adds=False),
    "top_layers": Case(
        TopLayers(1),
        plain("bert.encoder.layer.1."),
        lambda d, n: layer(d) + head(d),
        adds=False,
    ),
    "lora": Case(Lora(), LORA, lora_count(8), merges=True),
    "lora-gaussian-rslora": Case(
        Lora(lora_rank=4, lora_init="gaussian", rslora=True), LORA, lora_count(4), merges=True
    ),
    "lora-all-linear": Case(
        Lora(lora_rank=16, lora_targets=["all-linear"]),
        in_layers(LINEARS, FACTORS),
        lambda d, n: 18 * d * 16 * n + head(d),
        merges=True,
    ),
    "lora-pissa": Case(Lora(lora_init="pissa"), LORA, lora_count(8), merges=True),
    "lora-olora": Case(Lora(lora_init="olora"), LORA, lora_count(8), merges=True),
    "dora": Case(
        Lora(dora=True),
        in_layers(
            ["attention.self.query", "attention.self.value"],
            [*FACTORS, "lora_magnitude_vector.{}.weight"],
        ),
        lambda d, n: lora_count(8)(d, n) + 2 * d * n,
        merges=True,
    ),
    "adalora": Case(
        AdaLora(initial_rank=4, target_rank=2, allocation_interval=1),
        in_layers(LINEARS, ["lora_A.{}", "lora_B.{}", "lora_E.{}"]),
        lambda d, n: n * 4 * (18 * d + 6) + head(d),
        merges=True,
    ),
    "ia3": Case(
        IA3(),
        in_layers(["attention.self.key", "attention.self.value", "output.dense"], ["ia3_l.{}"]),
        lambda d, n: 6 * d * n + head(d),
        merges=True,
    ),
    "houlsby": Case(
        Adapter(adapter_style="houlsby"),
        in_layers(["attention.output", "output"], BOTTLENECK),
        bottleneck(2, 16),
        starts_as_base=False,
    ),
    "pfeiffer": Case(
        Adapter(adapter_style="pfeiffer"),
        in_layers(["output"], BOTTLENECK),
        bottleneck(1, 16),
        starts_as_base=False,
    ),
    "parallel": Case(Adapter(adapter_style="parallel"), in_layers(["output"], BOTTLENECK), bottleneck(1, 2)),
    "bitfit": Case(
        BitFit(),
        in_layers(LINEARS + NORMS, ["bitfit_bias.{}"], embeddings=True),
        lambda d, n: 11 * d * n + d + head(d),
        merges=True,
    ),
    "bitfit-small": Case(
        BitFit(biases="query_intermediate"),
        in_layers(["attention.self.query", "intermediate.dense"], ["bitfit_bias.{}"]),
        lambda d, n: 5 * d * n + head(d),
        merges=True,
    ),
    "layernorm": Case(
        LayerNorm(),
        in_layers(NORMS, ["layernorm_delta_weight.{}", "layernorm_delta_bias.{}"], embeddings=True),
        lambda d, n: 4 * d * n + 2 * d + head(d),
        merges=True,
    ),
    "prompt": Case(Prompt(), prompts(), lambda d, n: 20 * d + head(d), starts_as_base=False),
    "p_tuning": Case(
        PTuning(),
        prompts(*(f"mlp_head.{index}.{kind}" for index in (0, 2, 4) for kind in WEIGHTS)),
        lambda d, n: 20 * d + 3 * (d * d + d) + head(d),
        starts_as_base=False,
    ),
    "p_tuning-lstm": Case(
        PTuning(prompt_network="lstm", prompt_network_size=8, virtual_tokens=5),
        prompts(*LSTM, *(f"mlp_head.{index}.{kind}" for index in (0, 2) for kind in WEIGHTS)),
        lambda d, n: 5 * d + lstm(d, 8) + head(d),
        starts_as_base=False,
    ),
    "prefix": Case(Prefix(), prompts(), lambda d, n: 2 * d * n * 16 + head(d), starts_as_base=False),
    "prefix-projection": Case(
        Prefix(virtual_tokens=4, prefix_projection=True, prefix_network_size=8),
        prompts(*(f"transform.{index}.{kind}" for index in (0, 2) for kind in WEIGHTS)),
        lambda d, n: 4 * d + (d + 1) * 8 + (8 + 1) * 2 * d * n + head(d),
        starts_as_base=False,
    ),
}
ADAPTERS = [name for name, case in CASES.items() if case.adds]
SINGLE = {"lora-pissa", "lora-olora", "adalora"}
"""Those that allow no second adapter in a model."""


def has_gradient(name: str) -> bool:
    """Whether a span loss moves a tensor by more than rounding noise.

    The softmax over positions takes no notice of the head's bias, that over keys none of what a bias of keys
    adds to all scores of a query alike.
    """
    is_head_bias = "qa_outputs" in name and name.endswith("bias")
    return not is_head_bias and "self.key.bias" not in name and "self.key.bitfit_bias" not in name


def adapted(name: str, model: Any = None) -> Any:
    """The tiny reader, or `model`, adapted by a case's strategy; the same values at every call."""
    strategy: Strategy = CASES[name].strategy
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return strategy.adapt(tiny_bert() if model is None else model).eval()


def batch() -> dict[str, Tensor]:
    """Windows of 14, 9 and 6 tokens as the collator makes them; the second one's answer is elsewhere."""
    columns = torch.arange(max(LENGTHS)).expand(len(LENGTHS), -1)
    real = columns < torch.tensor(LENGTHS)[:, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        ids = torch.randint(5, 60, real.shape).where(real, 0)
    passage = real & (columns >= 4) & (columns < torch.tensor(LENGTHS)[:, None] - 1)
    return {
        "input_ids": ids,
        "attention_mask": real.long(),
        "token_type_ids": ((columns >= 4) & real).long(),
        "passage_mask": passage,
        "start_positions": torch.tensor([[5], [0], [4]]),
        "end_positions": torch.tensor([[7], [0], [4]]),
        "window_index": torch.arange(3),
        "example_weight": torch.ones(3),
    }


MODEL_KEYS = ("input_ids", "attention_mask", "token_type_ids")


def logits(model: nn.Module, **changes: Tensor) -> Tensor:
    """(2, batch, seq_len): start, end; real positions only, the others 0."""
    inputs = {key: batch()[key] for key in MODEL_KEYS} | changes
    use_cpu_layers(model)  # as a trainer does: then equal weights give equal logits, whoever had the model
    with torch.no_grad():
        output = model(**inputs)
    found = torch.stack([output.start_logits, output.end_logits])
    return found.where(batch()["attention_mask"].bool(), torch.zeros(()))


def trainable(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def snapshot(model: nn.Module, part: str = "") -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if part in name}

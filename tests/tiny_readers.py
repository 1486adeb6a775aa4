"""Random readers of a few thousand weights, a batch for them, and every method that the peft wrapper serves.

The weights are large (standard deviation 0.3) so that a wrong segment, position or mask moves the logits by
tenths, not by the 1e-4 of freshly initialised models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    RobertaConfig,
    RobertaForQuestionAnswering,
    logging,
)

from qa.peft_methods.question_answering import install

install()
logging.set_verbosity_error()

HIDDEN, LAYERS, HEADS, VIRTUAL = 32, 2, 4, 5
SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}


def tiny_bert(**changes: Any) -> BertForQuestionAnswering:
    """16 positions, two segments. The same weights at every call."""
    torch.manual_seed(0)
    return BertForQuestionAnswering(BertConfig(**(SIZES | {"max_position_embeddings": 16} | changes))).eval()


def tiny_roberta(**changes: Any) -> RobertaForQuestionAnswering:
    """16 usable positions: two of the 18 are RoBERTa's padding row and the one below it. Padding token 1."""
    torch.manual_seed(0)
    settings = SIZES | {"max_position_embeddings": 18, "type_vocab_size": 2, "pad_token_id": 1} | changes
    return RobertaForQuestionAnswering(RobertaConfig(**settings)).eval()


TINY: dict[str, Callable[..., Any]] = {"bert": tiny_bert, "roberta": tiny_roberta}


def batch(seq_len: int = 12) -> dict[str, Tensor]:
    """Three rows of 12, 9 and 5 real tokens; question of 4 tokens in segment 0, the rest in segment 1."""
    torch.manual_seed(1)
    lengths = torch.tensor([[seq_len], [9], [5]])
    columns = torch.arange(seq_len).expand(3, -1)
    real = columns < lengths
    return {
        "input_ids": torch.randint(5, 99, (3, seq_len)).where(real, 1),
        "attention_mask": real.long(),
        "token_type_ids": ((columns >= 4) & real).long(),
    }


def _config(kind: type[PeftConfig], **settings: Any) -> Callable[[], PeftConfig]:
    return lambda: kind(task_type="QUESTION_ANS", **settings)


IN_LAYERS: dict[str, Callable[[], PeftConfig]] = {
    "lora": _config(LoraConfig, r=4, target_modules=["query", "value"]),
    "all_linear": _config(LoraConfig, r=4, target_modules="all-linear"),
    "ia3": _config(IA3Config, exclude_modules=["attention.output.dense"]),
    "adalora": _config(AdaLoraConfig, total_step=10, target_modules=["query", "value"]),
}
PROMPTS: dict[str, Callable[[], PeftConfig]] = {
    "prompt": _config(PromptTuningConfig, num_virtual_tokens=VIRTUAL),
    "p_tuning": _config(PromptEncoderConfig, num_virtual_tokens=VIRTUAL, encoder_hidden_size=24),
    "p_tuning_lstm": _config(
        PromptEncoderConfig,
        num_virtual_tokens=VIRTUAL,
        encoder_reparameterization_type="LSTM",
        encoder_hidden_size=8,
        encoder_dropout=0.5,
    ),
    "prefix": _config(PrefixTuningConfig, num_virtual_tokens=VIRTUAL),
    "prefix_projection": _config(
        PrefixTuningConfig, num_virtual_tokens=VIRTUAL, prefix_projection=True, encoder_hidden_size=16
    ),
}
METHODS = IN_LAYERS | PROMPTS
REPARAMETERISED = {"p_tuning", "p_tuning_lstm", "prefix_projection"}


HEAD = {"qa_outputs.modules_to_save.default.weight", "qa_outputs.modules_to_save.default.bias"}
LINEARS = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
LINEARS += ["intermediate.dense", "output.dense"]
LSTM = {
    f"lstm_head.{kind}_{part}_l{layer}{way}"
    for kind in ("weight", "bias")
    for part in ("ih", "hh")
    for layer in (0, 1)
    for way in ("", "_reverse")
}
PROMPT_ENCODERS = {
    "prompt": set(),
    "prefix": set(),
    "p_tuning": {f"mlp_head.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")},
    "p_tuning_lstm": LSTM | {f"mlp_head.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")},
    "prefix_projection": {f"transform.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")},
}


def expected_trainable(method: str) -> set[str]:
    """The exact names of what a method trains in a tiny BERT."""
    if method in PROMPTS:
        inner = PROMPT_ENCODERS[method] | {"embedding.weight"}
        return {f"base_model.{name}" for name in HEAD} | {f"prompt_encoder.default.{name}" for name in inner}
    targets, tensors = {
        "lora": (
            ["attention.self.query", "attention.self.value"],
            ["lora_A.default.weight", "lora_B.default.weight"],
        ),
        "all_linear": (LINEARS, ["lora_A.default.weight", "lora_B.default.weight"]),
        "ia3": (["attention.self.key", "attention.self.value", "output.dense"], ["ia3_l.default"]),
        "adalora": (
            ["attention.self.query", "attention.self.value"],
            ["lora_A.default", "lora_B.default", "lora_E.default"],
        ),
    }[method]
    layers = [f"base_model.model.bert.encoder.layer.{index}" for index in range(LAYERS)]
    inside = {f"{layer}.{target}.{tensor}" for layer in layers for target in targets for tensor in tensors}
    return inside | {f"base_model.model.{name}" for name in HEAD}


def adapted(method: str, model: nn.Module | None = None, seed: int = 2) -> Any:
    """A reader whose active adapter, head included, is far from its first value."""
    reader = get_peft_model(tiny_bert() if model is None else model, METHODS[method]()).eval()
    perturb(reader, seed)
    return reader


def computed_prompt(reader: Any) -> Tensor:
    """The virtual tokens, (VIRTUAL, width), from the encoder's own layers."""
    encoder = reader.prompt_encoder["default"]
    vectors = encoder.embedding.weight
    if hasattr(encoder, "lstm_head"):
        return encoder.mlp_head(encoder.lstm_head(vectors.unsqueeze(0))[0])[0]
    for name in ("mlp_head", "transform"):
        if hasattr(encoder, name):
            return getattr(encoder, name)(vectors)
    return vectors


def perturb(reader: nn.Module, seed: int) -> None:
    """Move every trainable tensor to a random place."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in reader.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)


def trainable(model: nn.Module) -> set[str]:
    """Names of the parameters that an optimiser would be given."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """(2, batch, seq_len): start and end logits, without gradient."""
    with torch.no_grad():
        output = model(**inputs)
    return torch.stack([output.start_logits, output.end_logits])


def snapshot(model: nn.Module, part: str = "") -> dict[str, Tensor]:
    """Copies of the parameters whose names contain `part`."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if part in name}


def step(model: nn.Module, inputs: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> float:
    """One optimiser step on fixed labels. Returns: the loss before it."""
    labels = {"start_positions": torch.tensor([5, 6, 0]), "end_positions": torch.tensor([7, 6, 0])}
    optimizer.zero_grad()
    loss = model(**inputs, **labels).loss
    loss.backward()
    optimizer.step()
    return loss.item()

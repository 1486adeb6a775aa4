"""Make adapters_reference.safetensors with the `adapters` library: see README.md in this folder.

python3.11 -m venv adapters-env
adapters-env/bin/pip install torch==2.13.0 "adapters==1.3.*"
adapters-env/bin/python tests/data/make_adapters_reference.py tests/data/adapters_reference.safetensors

Weights and inputs are float32, outputs and gradients are computed and kept in float64.
Runs in that environment only (the library pins transformers ~=4.57), in a few seconds on a CPU.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import adapters
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

# The library's classes under their papers' names; every setting but the bottleneck's width is its default.
STYLES = {
    "houlsby": adapters.DoubleSeqBnConfig(reduction_factor=4),
    "pfeiffer": adapters.SeqBnConfig(reduction_factor=4),
    "parallel": adapters.ParBnConfig(reduction_factor=2),
}
BATCH, SEQ_LEN, WIDTH = 2, 6, 16


def encoder() -> BertModel:
    """A tiny BERT whose tensors, biases and LayerNorms too, all differ from their usual first values."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=8,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=SEQ_LEN,
        attn_implementation="eager",
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def our_name(name: str, style: str) -> str:
    """`...output.adapters.houlsby.adapter_down.0.weight` -> `...output.bottleneck_down.weight`."""
    name = name.replace(f"adapters.{style}.adapter_down.0.", "bottleneck_down.")
    return name.replace(f"adapters.{style}.adapter_up.", "bottleneck_up.")


def main(path: str) -> None:
    tensors = {f"base/{name}": value.clone() for name, value in encoder().state_dict().items()}
    torch.manual_seed(1)
    tensors["inputs_embeds"] = torch.randn(BATCH, SEQ_LEN, WIDTH)
    tensors["token_type_ids"] = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 0]])
    tensors["attention_mask"] = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
    tensors["output_gradient"] = torch.randn(BATCH, SEQ_LEN, WIDTH)
    for style, config in STYLES.items():
        model = encoder()
        adapters.init(model)
        model.add_adapter(style, config=config)
        model.train_adapter(style)
        model.eval()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for parameter in trained.values():
                parameter.copy_(0.3 * torch.randn_like(parameter))
        weights = {name: parameter.detach().clone() for name, parameter in trained.items()}
        model.double()
        inputs_embeds = tensors["inputs_embeds"].double().requires_grad_()
        output = model(
            inputs_embeds=inputs_embeds,
            token_type_ids=tensors["token_type_ids"],
            attention_mask=tensors["attention_mask"],
        ).last_hidden_state
        output.backward(tensors["output_gradient"].double())
        tensors[f"{style}/output"] = output.detach()
        tensors[f"{style}/input_gradient"] = inputs_embeds.grad
        for name, parameter in trained.items():
            tensors[f"{style}/weight/{our_name(name, style)}"] = weights[name]
            tensors[f"{style}/gradient/{our_name(name, style)}"] = parameter.grad
    versions = ", ".join(f"{name} {version(name)}" for name in ("adapters", "transformers", "torch"))
    save_file(tensors, path, metadata={"made_with": versions})


if __name__ == "__main__":
    main(sys.argv[1])

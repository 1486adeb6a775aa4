"""How many parameters, how long a window, how much memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    MPNetConfig,
    MPNetForQuestionAnswering,
    RobertaConfig,
    RobertaForQuestionAnswering,
    XLNetConfig,
    XLNetForQuestionAnsweringSimple,
)

from qa.model_sizes import count_parameters, estimate_training_bytes
from qa.models import max_positions
from qa.strategies import Full, Head, TopLayers


@pytest.mark.parametrize(
    ("sizes", "full", "head"),
    [
        ((768, 12, 12, 3072), 107_721_218, 1_538),
        ((1024, 24, 16, 4096), 332_531_714, 2_050),
    ],
    ids=["SpanBERT-base", "SpanBERT-large"],
)
def test_parameters_of_spanbert(sizes: tuple[int, int, int, int], full: int, head: int) -> None:
    hidden, layers, heads, intermediate = sizes
    config = BertConfig(
        vocab_size=28_996,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
    )
    with torch.device("meta"):
        model = BertForQuestionAnswering(config)
    assert count_parameters(Full().adapt(model)).trainable == full
    assert (count_parameters(Head().adapt(model)).trainable, count_parameters(model).total) == (head, full)
    layer = 4 * (hidden * hidden + hidden) + 2 * hidden * intermediate + intermediate + hidden + 4 * hidden
    assert count_parameters(TopLayers(3).adapt(model)).trainable == 3 * layer + head


def test_shared_tensors_count_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    assert count_parameters(nn.Sequential(first, second)).total == 9 + 3 + 3
    assert count_parameters(nn.Sequential()).share == 0.0


def test_longest_windows(tiny_bert: Callable[..., Any]) -> None:
    sizes: dict[str, Any] = {
        "vocab_size": 60,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    assert max_positions(tiny_bert()) == 64
    with torch.device("meta"):
        assert (
            max_positions(RobertaForQuestionAnswering(RobertaConfig(max_position_embeddings=514, **sizes)))
            == 512
        )
        assert (
            max_positions(MPNetForQuestionAnswering(MPNetConfig(max_position_embeddings=514, **sizes))) == 512
        )
        xlnet = XLNetConfig(vocab_size=60, d_model=16, n_layer=1, n_head=2, d_inner=32)
        assert max_positions(XLNetForQuestionAnsweringSimple(xlnet)) is None
    # The positions that RoBERTa is given really end there: one token more has no row in the table.
    config = RobertaConfig(max_position_embeddings=10, pad_token_id=1, **sizes)
    roberta = RobertaForQuestionAnswering(config).eval()
    longest = max_positions(roberta)
    assert longest == 8
    assert roberta(input_ids=torch.full((1, longest), 5)).start_logits.shape == (1, 8)
    with pytest.raises((IndexError, RuntimeError)):
        roberta(input_ids=torch.full((1, longest + 1), 5))


def test_memory_by_hand(tiny_bert: Callable[..., Any]) -> None:
    """Two windows of 10 tokens: 3 layers of 16 hidden units and 2 heads."""
    reader = tiny_bert()
    total = count_parameters(reader).total
    layer = 2 * 10 * (72 * 16 + 12 * 2 * 10)
    assert estimate_training_bytes(reader, 2, 10) == 16 * total + 3 * layer
    assert estimate_training_bytes(Head().adapt(reader), 2, 10) == 4 * total + 12 * 34
    top = count_parameters(TopLayers(2).adapt(reader)).trainable
    assert estimate_training_bytes(reader, 2, 10) == 4 * total + 12 * top + 2 * layer


def test_memory_of_activations_as_autograd_keeps_them(tiny_bert: Callable[..., Any]) -> None:
    """The estimate of what layers keep, against the storages that autograd really saves in training mode."""
    model = tiny_bert(
        hidden_size=64, intermediate_size=256, num_attention_heads=4, attn_implementation="eager"
    ).train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(input_ids=torch.ones(4, 64, dtype=torch.long))
    measured = sum(tensor.untyped_storage().nbytes() for at, tensor in saved.items() if at not in own)
    estimated = estimate_training_bytes(model, 4, 64) - 16 * count_parameters(model).total
    assert output.start_logits.shape == (4, 64)
    assert measured == pytest.approx(estimated, rel=0.15)

"""Exactly what each strategy trains: names, counts, and one real step that moves nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    ElectraConfig,
    ElectraForQuestionAnswering,
)

from qa.errors import InputError
from qa.model_sizes import count_parameters
from qa.strategies import STRATEGIES, Full, Head, Strategy, TopLayers

HEAD = {"qa_outputs.weight", "qa_outputs.bias"}
LAYER_PARAMETERS = 4 * (16 * 16 + 16) + 2 * 16 + (32 * 16 + 32) + (16 * 32 + 16) + 2 * 16
EMBEDDING_PARAMETERS = (60 + 64 + 2) * 16 + 2 * 16
HEAD_PARAMETERS = 2 * 16 + 2


def trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def starting(model: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("strategy", "prefixes", "count"),
    [
        (Full(), ("bert.",), EMBEDDING_PARAMETERS + 3 * LAYER_PARAMETERS),
        (Head(), (), 0),
        (TopLayers(0), (), 0),
        (TopLayers(1), ("bert.encoder.layer.2.",), LAYER_PARAMETERS),
        (TopLayers(2), ("bert.encoder.layer.1.", "bert.encoder.layer.2."), 2 * LAYER_PARAMETERS),
        (TopLayers(), ("bert.encoder.layer.",), 3 * LAYER_PARAMETERS),
        (
            TopLayers(1, train_embeddings=True),
            ("bert.encoder.layer.2.", "bert.embeddings."),
            LAYER_PARAMETERS + EMBEDDING_PARAMETERS,
        ),
        (TopLayers(3, train_embeddings=True), ("bert.",), EMBEDDING_PARAMETERS + 3 * LAYER_PARAMETERS),
    ],
    ids=str,
)
@pytest.mark.parametrize("before", ["all train", "none trains"])
def test_what_trains(
    strategy: Strategy,
    prefixes: tuple[str, ...],
    count: int,
    before: str,
    tiny_bert: Callable[..., nn.Module],
) -> None:
    model = tiny_bert()
    model.requires_grad_(before == "all train")
    assert strategy.adapt(model) is model
    assert trainable(model) == (starting(model, *prefixes) if prefixes else set()) | HEAD
    counts = count_parameters(model)
    assert counts.trainable == count + HEAD_PARAMETERS
    assert counts.total == EMBEDDING_PARAMETERS + 3 * LAYER_PARAMETERS + HEAD_PARAMETERS
    assert counts.share == counts.trainable / counts.total


@pytest.mark.parametrize(
    "strategy", [Full(), Head(), TopLayers(1), TopLayers(1, train_embeddings=True)], ids=str
)
def test_one_step_moves_what_trains_and_nothing_else(
    strategy: Strategy, tiny_bert: Callable[..., Any]
) -> None:
    model = strategy.adapt(tiny_bert())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    ids = torch.arange(60)[None]
    segments = torch.cat([torch.zeros(1, 30), torch.ones(1, 30)], dim=1).long()
    loss = model(
        input_ids=ids,
        token_type_ids=segments,
        start_positions=torch.tensor([31]),
        end_positions=torch.tensor([40]),
    ).loss
    loss.backward()
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    # A bias of keys shifts all scores of a query alike: its gradient is zero but for rounding.
    keys = {name for name in before if name.endswith("self.key.bias")}
    assert moved | keys == trainable(model) | keys
    assert moved <= trainable(model)


def test_embeddings_of_electra_are_its_projection_too() -> None:
    sizes: dict[str, Any] = {
        "vocab_size": 60,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    with torch.device("meta"):
        model = ElectraForQuestionAnswering(ElectraConfig(embedding_size=8, num_hidden_layers=3, **sizes))
    TopLayers(1, train_embeddings=True).adapt(model)
    top = ("electra.encoder.layer.2.", "electra.embeddings.", "electra.embeddings_project.")
    assert trainable(model) == starting(model, *top) | HEAD


def test_distilbert() -> None:
    with torch.device("meta"):
        config = DistilBertConfig(vocab_size=60, dim=16, n_heads=2, hidden_dim=32, n_layers=3)
        model = DistilBertForQuestionAnswering(config)
    assert trainable(TopLayers(2).adapt(model)) == HEAD | starting(
        model, "distilbert.transformer.layer.1.", "distilbert.transformer.layer.2."
    )


def test_impossible_numbers_of_layers(tiny_bert: Callable[..., nn.Module]) -> None:
    with pytest.raises(InputError, match="trained_layers: -1 is out of range; give 0 or more"):
        TopLayers(-1)
    with pytest.raises(InputError, match="trained_layers: 4, but this encoder has 3; give 0 to 3"):
        TopLayers(4).adapt(tiny_bert())


def test_registry() -> None:
    """`--strategy` takes these names; each is a frozen dataclass whose defaults can be used as they stand."""
    assert {"full", "head", "top_layers"} <= set(STRATEGIES)
    for kind in STRATEGIES.values():
        assert dataclasses.is_dataclass(kind)
        strategy = kind()
        for f in dataclasses.fields(strategy):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(strategy, f.name, None)

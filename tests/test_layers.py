"""A reader's parts by depth and the optimiser's groups, for BERT by hand and for other families by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForQuestionAnswering,
    BertModel,
    DebertaV2Config,
    DebertaV2ForQuestionAnswering,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    ElectraConfig,
    ElectraForQuestionAnswering,
    FunnelConfig,
    FunnelForQuestionAnswering,
    ModernBertConfig,
    ModernBertForQuestionAnswering,
    MPNetConfig,
    MPNetForQuestionAnswering,
    RobertaConfig,
    RobertaForQuestionAnswering,
    XLMConfig,
    XLMForQuestionAnsweringSimple,
)

from qa.errors import InputError
from qa.layers import depths, embeddings_of, encoder_of, layers_of, parameter_groups, reader_of

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
BERT_SIZES = SIZES | {"num_hidden_layers": 3, "max_position_embeddings": 32}
RELATIVE: dict[str, Any] = {"relative_attention": True, "norm_rel_ebd": "layer_norm"}


def meta(kind: Any, config: Any) -> nn.Module:
    """A reader without weights: names are enough."""
    with torch.device("meta"):
        return kind(config)


def electra() -> nn.Module:
    return meta(ElectraForQuestionAnswering, ElectraConfig(embedding_size=8, **BERT_SIZES))


def groups_of(model: nn.Module, **settings: Any) -> dict[str, tuple[float, float]]:
    """Name -> (learning rate, weight decay); every trainable parameter stands in exactly one group."""
    defaults = {
        "weight_decay": 0.01,
        "learning_rate": 1e-3,
        "head_learning_rate": None,
        "layerwise_lr_decay": 1.0,
    }
    decayed = {name for name, p in model.named_parameters() if p.dim() > 1}
    groups = parameter_groups(model, decayed=decayed, **(defaults | settings))
    names = {id(p): name for name, p in model.named_parameters()}
    found = [(names[id(p)], (g["lr"], g["weight_decay"])) for g in groups for p in g["params"]]
    assert len(found) == len({name for name, _ in found})
    assert {name for name, _ in found} == {name for name, p in model.named_parameters() if p.requires_grad}
    assert len({(g["lr"], g["weight_decay"]) for g in groups}) == len(groups)
    return dict(found)


def test_layerwise_decay_of_three_layers(tiny_bert: Callable[..., nn.Module]) -> None:
    rates = groups_of(tiny_bert(), layerwise_lr_decay=0.5)
    by_place = {
        "bert.embeddings.": 1e-3 * 0.125,
        "bert.encoder.layer.0.": 1e-3 * 0.25,
        "bert.encoder.layer.1.": 1e-3 * 0.5,
        "bert.encoder.layer.2.": 1e-3,
        "qa_outputs.": 1e-3,
    }
    counts = dict.fromkeys(by_place, 0)
    for name, (rate, decay) in rates.items():
        place = next(place for place in by_place if name.startswith(place))
        counts[place] += 1
        assert rate == by_place[place], name
        assert decay == (0.0 if name.endswith("bias") or "LayerNorm" in name else 0.01), name
    assert list(counts.values()) == [5, 16, 16, 16, 2]


def test_head_rate_and_frozen_parameters(tiny_bert: Callable[..., nn.Module]) -> None:
    model = tiny_bert()
    for parameter in layers_of(model)[0].parameters():
        parameter.requires_grad = False
    rates = groups_of(model, head_learning_rate=0.5, layerwise_lr_decay=0.1)
    assert {name: rate for name, (rate, _) in rates.items() if rate == 0.5} == {
        "qa_outputs.weight": 0.5,
        "qa_outputs.bias": 0.5,
    }
    assert not any("layer.0." in name for name in rates)
    assert rates["bert.embeddings.word_embeddings.weight"] == (pytest.approx(1e-6), 0.01)


def test_one_rate_makes_two_groups(tiny_bert: Callable[..., nn.Module]) -> None:
    model = tiny_bert()
    decayed = {name for name, p in model.named_parameters() if p.dim() > 1}
    groups = parameter_groups(
        model,
        decayed=decayed,
        weight_decay=0.1,
        learning_rate=2e-5,
        head_learning_rate=None,
        layerwise_lr_decay=1.0,
    )
    # 22 matrices: 3 tables, 6 a layer, the head's. 33 vectors: 2 above the tables, 10 a layer, the head's.
    assert sorted((g["lr"], g["weight_decay"], len(g["params"])) for g in groups) == [
        (2e-5, 0.0, 33),
        (2e-5, 0.1, 22),
    ]


@pytest.mark.parametrize("wrapped", ["lora", "head_saved_twice", "prompt", "prefix"])
def test_models_wrapped_by_peft(wrapped: str, tiny_bert: Callable[..., nn.Module]) -> None:
    """`PeftModel.base_model` is the whole reader: the head must still be told from the encoder."""
    peft = pytest.importorskip("peft")
    settings: Any = {
        "lora": lambda: peft.LoraConfig(r=2, target_modules=["query"], modules_to_save=["qa_outputs"]),
        "head_saved_twice": lambda: peft.IA3Config(
            target_modules=["key"], feedforward_modules=[], modules_to_save=["qa_outputs"]
        ),
        "prompt": lambda: peft.PromptTuningConfig(task_type="QUESTION_ANS", num_virtual_tokens=2),
        "prefix": lambda: peft.PrefixTuningConfig(task_type="QUESTION_ANS", num_virtual_tokens=2),
    }[wrapped]()
    reader = tiny_bert()
    model = peft.get_peft_model(reader, settings)
    assert reader_of(model) is reader
    assert encoder_of(model) is reader.bert
    assert len(layers_of(model)) == 3
    rates = {
        name: rate
        for name, (rate, _) in groups_of(model, head_learning_rate=0.5, layerwise_lr_decay=0.5).items()
    }
    head = {name for name in rates if "qa_outputs" in name}
    assert len(head) == 2
    assert {rates[name] for name in head} == {0.5}
    rest = {rate for name, rate in rates.items() if name not in head}
    assert rest == ({2.5e-4, 5e-4, 1e-3} if wrapped in ("lora", "head_saved_twice") else {1e-3})


def test_electra_projects_its_embeddings() -> None:
    model = electra()
    found = depths(model)
    zero = {name for name, depth in found.items() if depth == 0}
    assert {"electra.embeddings_project.weight", "electra.embeddings_project.bias"} < zero
    assert {name.split(".")[1] for name in zero} == {"embeddings", "embeddings_project"}
    assert {name for name, depth in found.items() if depth == 4} == {"qa_outputs.weight", "qa_outputs.bias"}
    rates = groups_of(model, layerwise_lr_decay=0.5)
    assert rates["electra.embeddings_project.weight"][0] == 1e-3 * 0.125
    assert rates["electra.encoder.layer.1.output.dense.weight"][0] == 5e-4


@pytest.mark.parametrize(
    ("make", "layer", "outside"),
    [
        (
            lambda: meta(RobertaForQuestionAnswering, RobertaConfig(**BERT_SIZES)),
            "roberta.encoder.layer.{}.",
            set(),
        ),
        (
            lambda: meta(
                DistilBertForQuestionAnswering,
                DistilBertConfig(vocab_size=60, dim=16, n_heads=2, hidden_dim=32, n_layers=3),
            ),
            "distilbert.transformer.layer.{}.",
            set(),
        ),
        (
            lambda: meta(MPNetForQuestionAnswering, MPNetConfig(**BERT_SIZES)),
            "mpnet.encoder.layer.{}.",
            set(),
        ),
        (
            lambda: meta(
                DebertaV2ForQuestionAnswering,
                DebertaV2Config(**BERT_SIZES, **RELATIVE),
            ),
            "deberta.encoder.layer.{}.",
            {"deberta.encoder.LayerNorm.weight", "deberta.encoder.LayerNorm.bias"},
        ),
        (
            lambda: meta(
                ModernBertForQuestionAnswering,
                ModernBertConfig(
                    **SIZES,
                    num_hidden_layers=3,
                    pad_token_id=0,
                    bos_token_id=1,
                    eos_token_id=2,
                    cls_token_id=1,
                    sep_token_id=2,
                ),
            ),
            "model.layers.{}.",
            {
                "model.final_norm.weight",
                "head.dense.weight",
                "head.norm.weight",
                "classifier.weight",
                "classifier.bias",
            },
        ),
    ],
    ids=["roberta", "distilbert", "mpnet", "deberta-v2", "modernbert"],
)
def test_depths_of_other_families(make: Callable[[], nn.Module], layer: str, outside: set[str]) -> None:
    model = make()
    found = depths(model)
    head = {name for name in found if name.startswith("qa_outputs.")}
    assert {name for name, depth in found.items() if depth == 4} == head | outside
    for depth in (1, 2, 3):
        names = {name for name, at in found.items() if at == depth}
        assert names == {name for name in found if name.startswith(layer.format(depth - 1))}
    for name, depth in found.items():
        if depth == 0:
            assert any(word in name for word in ("embeddings", "relative_attention_bias")), name
    embedded = {id(p) for p in embeddings_of(model).parameters()}
    assert embedded == {id(p) for name, p in model.named_parameters() if found[name] == 0}


@pytest.mark.parametrize(
    "make",
    [
        lambda: meta(AlbertForQuestionAnswering, AlbertConfig(**BERT_SIZES, embedding_size=8)),
        lambda: meta(
            FunnelForQuestionAnswering,
            FunnelConfig(vocab_size=60, d_model=16, n_head=2, d_head=8, d_inner=32),
        ),
        lambda: meta(
            XLMForQuestionAnsweringSimple, XLMConfig(vocab_size=60, emb_dim=16, n_layers=3, n_heads=2)
        ),
    ],
    ids=["albert shares its layers", "funnel has blocks of them", "xlm has four lists of their parts"],
)
def test_encoders_without_layers_of_their_own(make: Callable[[], nn.Module]) -> None:
    model = make()
    with pytest.raises(
        InputError, match="layers share their weights or lie in several lists, so nothing can be set"
    ):
        layers_of(model)
    with pytest.raises(InputError, match="without layerwise_lr_decay"):
        groups_of(model, layerwise_lr_decay=0.9)
    rates = groups_of(model, head_learning_rate=0.5)
    assert {name for name, (rate, _) in rates.items() if rate == 0.5} == {
        "qa_outputs.weight",
        "qa_outputs.bias",
    }


def test_an_encoder_alone_has_no_head(tiny_bert: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="BertModel: has no encoder apart from its head"):
        encoder_of(BertModel(tiny_bert().config))

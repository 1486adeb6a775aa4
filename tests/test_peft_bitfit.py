"""BitFit and LayerNorm tuning: trained differences to biases and LayerNorms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from peft_cases import (
    BATCH,
    DELTAS,
    TINY,
    WIDTH,
    adapted,
    changed,
    config_of,
    expected_names,
    logits,
    reader,
    snapshot,
    train,
    trained,
)
from torch import nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertModel,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    ModernBertConfig,
    ModernBertForQuestionAnswering,
    RobertaConfig,
    RobertaForQuestionAnswering,
)
from transformers.models.deberta.modeling_deberta import DebertaConfig, DebertaForQuestionAnswering

from qa.errors import InputError
from qa.peft_methods.bitfit import BitFitConfig, BitFitLayer
from qa.peft_methods.layernorm import LayerNormConfig, LayerNormDelta


@pytest.mark.parametrize(("method", "part"), [("bitfit", ".bias"), ("layernorm", "LayerNorm.")])
def test_it_trains_as_training_the_tensors_of_the_base_does(method: str, part: str) -> None:
    model = adapted(method).double()
    train(model, 3, torch.optim.SGD)
    plain: Any = reader().double()
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(part in name or name.startswith("qa_outputs"))
    train(plain, 3, torch.optim.SGD)
    merged = model.merge_and_unload().state_dict()
    assert set(merged) == set(plain.state_dict())
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(merged[name], tensor, atol=1e-12, rtol=0)


@pytest.mark.parametrize("method", DELTAS)
def test_an_untrained_adapter_changes_nothing(method: str) -> None:
    assert torch.equal(logits(adapted(method)), logits(reader()))


@pytest.mark.parametrize("method", DELTAS)
def test_names_fall_under_the_trainers_exemption_from_weight_decay(method: str) -> None:
    names = {name for name in trained(adapted(method)) if "qa_outputs" not in name}
    assert all("bias" in name or "layernorm" in name.lower() for name in names)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", DELTAS)
def test_merged_equals_unmerged_and_unmerging_restores_every_bit(method: str, dtype: torch.dtype) -> None:
    base = logits(reader(dtype))
    model = adapted(method, dtype)
    train(model, 2)
    before, tuned = snapshot(model), logits(model)
    model.merge_adapter(safe_merge=True)
    assert changed(before, model) != set()
    assert torch.equal(logits(model), tuned)
    model.unmerge_adapter()
    assert changed(before, model) == set()

    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    merged = model.merge_and_unload()
    assert type(merged) is BertForQuestionAnswering
    assert set(merged.state_dict()) == set(reader().state_dict())
    assert torch.equal(logits(merged), tuned)


def test_two_active_adapters_add_up_merged_or_not() -> None:
    layer: Any = BitFitLayer(nn.Linear(3, 2))
    for name, value in (("one", 0.5), ("two", -0.125)):
        layer.update_layer(name, BitFitConfig())
        nn.init.constant_(layer.bitfit_bias[name], value)
    layer.set_adapter(["one", "two"])
    states = torch.randn(4, 3)
    bias, both = layer.base_layer.bias.clone(), layer(states)
    torch.testing.assert_close(both, states @ layer.base_layer.weight.T + bias + 0.375)
    layer.merge(adapter_names=["one"])
    with pytest.warns(UserWarning, match="additionally merging two"):
        layer.merge(adapter_names=["two"])
    assert layer.merged_adapters == ["one", "two"]
    assert torch.equal(layer(states), both)
    layer.unmerge()
    assert torch.equal(layer.base_layer.bias, bias)


def test_safe_merge_refuses_what_is_not_finite() -> None:
    layer: Any = LayerNormDelta(nn.LayerNorm(4))
    layer.update_layer("default", LayerNormConfig())
    with torch.no_grad():
        layer.layernorm_delta_weight["default"].fill_(1.0)
        layer.layernorm_delta_bias["default"][2] = float("nan")
    with pytest.raises(ValueError, match="default hold numbers that are not finite"):
        layer.merge(safe_merge=True)
    assert not layer.merged
    assert torch.equal(layer.base_layer.weight, torch.ones(4))
    assert torch.equal(layer.base_layer.bias, torch.zeros(4))


def test_head_pooler_and_modules_trained_whole_get_no_differences() -> None:
    in_encoder = {name for name in expected_names("bitfit") if "qa_outputs" not in name}
    assert set(trained(get_peft_model(reader(), BitFitConfig()))) == in_encoder

    encoder = BertModel(BertConfig(**TINY))
    assert encoder.pooler is not None
    names = set(trained(get_peft_model(encoder, BitFitConfig())))
    assert names == {name.replace(".bert.", ".") for name in in_encoder}

    names = set(trained(get_peft_model(reader(), BitFitConfig(modules_to_save=["layer.1.output"]))))
    assert {name for name in names if "layer.1.output" in name} == {
        f"base_model.model.bert.encoder.layer.1.output.modules_to_save.default.{part}.{kind}"
        for part in ("dense", "LayerNorm")
        for kind in ("weight", "bias")
    }


DISTILBERT = DistilBertConfig(n_layers=2, dim=WIDTH, n_heads=2, hidden_dim=32, vocab_size=40)
MODERNBERT = ModernBertConfig(**TINY | {"pad_token_id": 0})


@pytest.mark.parametrize(
    ("family", "settings", "method", "count"),
    [
        (RobertaForQuestionAnswering, RobertaConfig(**TINY | {"max_position_embeddings": 26}), "bitfit", 17),
        (DistilBertForQuestionAnswering, DISTILBERT, "bitfit", 17),
        (DistilBertForQuestionAnswering, DISTILBERT, "layernorm", 10),
        # Its LayerNorms have weights only, five of them.
        (ModernBertForQuestionAnswering, MODERNBERT, "layernorm", 5),
    ],
)
def test_other_encoders(family: Any, settings: Any, method: str, count: int) -> None:
    torch.manual_seed(0)
    base = family(settings).eval()
    base_logits = base(input_ids=BATCH["input_ids"]).start_logits
    model: Any = get_peft_model(base, config_of(method))
    assert torch.equal(model(input_ids=BATCH["input_ids"]).start_logits, base_logits)
    model(input_ids=BATCH["input_ids"]).start_logits.square().sum().backward()
    own = {name: parameter for name, parameter in trained(model).items() if "qa_outputs" not in name}
    assert len(own) == count
    assert all(p.grad is not None for p in own.values())
    with torch.no_grad():
        for parameter in own.values():
            parameter.add_(0.1)
        assert not torch.equal(model(input_ids=BATCH["input_ids"]).start_logits, base_logits)
        with model.disable_adapter():
            assert torch.equal(model(input_ids=BATCH["input_ids"]).start_logits, base_logits)


@pytest.mark.parametrize(
    ("family", "settings", "method", "message"),
    [
        (ModernBertForQuestionAnswering, MODERNBERT, "bitfit", "encoder of ModernBert.* has none"),
        (DistilBertForQuestionAnswering, DISTILBERT, "bitfit-small", "which DistilBert.* choose all"),
        (DebertaForQuestionAnswering, DebertaConfig(**TINY), "bitfit", "deberta.* is a DebertaLayerNorm"),
        (DebertaForQuestionAnswering, DebertaConfig(**TINY), "layernorm", "deberta.* is a DebertaLayerNorm"),
    ],
)
def test_unfit_encoders_are_refused_untouched(family: Any, settings: Any, method: str, message: str) -> None:
    model = family(settings)
    modules = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(InputError, match=message):
        get_peft_model(model, config_of(method))
    assert {name: type(module) for name, module in model.named_modules()} == modules
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_layernorm_without_weights_is_refused() -> None:
    model = reader()
    model.bert.embeddings.LayerNorm = nn.LayerNorm(WIDTH, elementwise_affine=False)
    with pytest.raises(InputError, match=r"bert\.embeddings\.LayerNorm of BertForQuestionAnswering"):
        get_peft_model(model, LayerNormConfig())


def test_wrong_choice_of_biases_is_refused() -> None:
    with pytest.raises(InputError, match="biases: no choice 'none'; choose one of all, query_intermediate"):
        BitFitConfig(biases="none")  # type: ignore[arg-type]

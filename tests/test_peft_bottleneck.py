"""Bottleneck adapters: against the `adapters` library, against formulas written out, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, get_peft_model
from peft_cases import (
    BATCH,
    BOTTLENECKS,
    TINY,
    WIDTH,
    adapted,
    changed,
    config_of,
    gradient_of,
    logits,
    reader,
    snapshot,
    train,
    trained,
)
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    ElectraConfig,
    ElectraForQuestionAnswering,
    MPNetConfig,
    MPNetForQuestionAnswering,
    RobertaConfig,
    RobertaForQuestionAnswering,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForQuestionAnswering,
)
from transformers.models.bert.modeling_bert import BertOutput

from qa.errors import InputError
from qa.peft_methods.bottleneck import BottleneckConfig, BottleneckLayer

REFERENCE = Path(__file__).parent / "data" / "adapters_reference.safetensors"


@pytest.mark.parametrize(("style", "size"), [("houlsby", 4), ("pfeiffer", 4), ("parallel", 8)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 5e-5)])
def test_outputs_and_gradients_equal_the_adapters_library(
    style: str, size: int, dtype: torch.dtype, tolerance: float
) -> None:
    # Gradients reach 30, so 5e-5 is some ten roundings of float32; float64 shows that nothing else differs.
    reference = load_file(REFERENCE)
    shape = BertConfig(**TINY | {"vocab_size": 8, "max_position_embeddings": 6})
    encoder: Any = BertModel(shape, add_pooling_layer=False)
    encoder.load_state_dict(
        {n.removeprefix("base/"): t for n, t in reference.items() if n.startswith("base/")}
    )
    model = get_peft_model(encoder.to(dtype), BottleneckConfig(style=style, bottleneck_size=size)).eval()
    ours = {
        n.removeprefix("base_model.model.").replace(".default.", "."): p for n, p in trained(model).items()
    }
    theirs = {n.partition("/weight/")[2]: t for n, t in reference.items() if n.startswith(f"{style}/weight/")}
    assert set(ours) == set(theirs)
    with torch.no_grad():
        for name, weight in theirs.items():
            ours[name].copy_(weight)

    inputs_embeds = reference["inputs_embeds"].to(dtype).clone().requires_grad_()
    output = model(
        inputs_embeds=inputs_embeds,
        attention_mask=reference["attention_mask"],
        token_type_ids=reference["token_type_ids"],
    ).last_hidden_state
    output.backward(reference["output_gradient"].to(dtype))

    def largest_difference(tensor: Tensor, name: str) -> float:
        return (tensor - reference[name]).abs().max().item()

    assert largest_difference(output, f"{style}/output") < min(tolerance, 1e-5)
    assert largest_difference(gradient_of(inputs_embeds), f"{style}/input_gradient") < tolerance
    for name, parameter in ours.items():
        assert largest_difference(gradient_of(parameter), f"{style}/gradient/{name}") < tolerance


class Halve(nn.Module):
    """Stands for dropout where the test has to know what it did."""

    def forward(self, states: Tensor) -> Tensor:
        return states / 2


@pytest.mark.parametrize("style", BOTTLENECKS)
def test_adapters_stand_after_dropout_and_inside_the_residual_sum(style: str) -> None:
    torch.manual_seed(0)
    block: Any = BertOutput(BertConfig(**TINY))
    block.dropout = Halve()
    layer = BottleneckLayer(block)
    layer.update_layer("default", BottleneckConfig(style=style, bottleneck_size=3))
    down: Any = layer.bottleneck_down["default"]
    up: Any = layer.bottleneck_up["default"]
    for linear in (down, up):
        nn.init.normal_(linear.weight)
        nn.init.normal_(linear.bias)
    h, x = torch.randn(2, 5, 32), torch.randn(2, 5, WIDTH)

    def layer_norm(v: Tensor) -> Tensor:  # the block's weight is 1, its bias 0
        return (v - v.mean(-1, keepdim=True)) / torch.sqrt(v.var(-1, keepdim=True, unbiased=False) + 1e-12)

    def adapter(v: Tensor) -> Tensor:
        hidden = v @ down.weight.T + down.bias
        hidden = hidden / (1 + torch.exp(-hidden)) if style == "houlsby" else hidden.clamp(min=0)
        return hidden @ up.weight.T + up.bias

    z = (h @ block.dense.weight.T + block.dense.bias) / 2
    expected = {
        "houlsby": lambda: layer_norm(z + adapter(z) + x),
        "pfeiffer": lambda: layer_norm(z + adapter(layer_norm(z + x)) + x),
        "parallel": lambda: layer_norm(z + 4 * adapter(x) + x),
    }[style]()
    torch.testing.assert_close(layer(h, x), expected, atol=1e-5, rtol=1e-5)


def test_dropout_falls_on_what_the_adapter_adds_and_only_in_training() -> None:
    torch.manual_seed(0)
    layer = BottleneckLayer(BertOutput(BertConfig(**TINY)).eval())
    layer.update_layer("default", BottleneckConfig(style="houlsby", bottleneck_size=3, dropout=0.5))
    states = torch.randn(4, 50, WIDTH)
    kept = layer.added("default", states)
    assert torch.equal(layer.added("default", states), kept)
    dropped = layer.train().added("default", states)
    torch.testing.assert_close(dropped, torch.where(dropped == 0, 0.0, 2 * kept))
    assert 0.4 < (dropped == 0).float().mean() < 0.6


def test_bert_initialisation() -> None:
    torch.manual_seed(0)
    layer: Any = BottleneckLayer(BertOutput(BertConfig(**TINY | {"hidden_size": 512})))
    layer.update_layer("default", BottleneckConfig(style="houlsby", bottleneck_size=256))
    for linear in (layer.bottleneck_down["default"], layer.bottleneck_up["default"]):
        assert linear.bias.abs().max() == 0
        assert abs(linear.weight.std().item() - 0.02) < 0.001
        assert abs(linear.weight.mean().item()) < 0.001


def test_parallel_adapter_begins_by_adding_nothing() -> None:
    model = adapted("parallel")
    assert torch.equal(logits(model), logits(reader()))
    down = [parameter for name, parameter in trained(model).items() if "down.default.weight" in name]
    assert all(0 < weight.abs().max() <= WIDTH**-0.5 for weight in down)  # as torch's Linear draws it


def test_defaults_are_those_of_the_adapters_library() -> None:
    configs = [BottleneckConfig(style=style) for style in BOTTLENECKS]
    found = [(c.reduction_factor, c.non_linearity, c.scaling, c.init_weights, c.dropout) for c in configs]
    assert found == [
        (16, "swish", 1.0, "bert", 0.0),
        (16, "relu", 1.0, "bert", 0.0),
        (2, "relu", 4.0, "mam_adapter", 0.0),
    ]


def test_settings_survive_the_disk(tmp_path: Path) -> None:
    given = BottleneckConfig(
        style="parallel", bottleneck_size=5, non_linearity="gelu", scaling=2.0, dropout=0.1
    )
    given.save_pretrained(str(tmp_path))
    read = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(read, BottleneckConfig)
    assert read == given


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_merging_is_refused_before_anything_is_touched(merge: str) -> None:
    # peft would unwrap the embeddings, which are trained whole, before it comes to the first block.
    settings = BottleneckConfig(bottleneck_size=4, modules_to_save=["token_type_embeddings", "qa_outputs"])
    model: Any = get_peft_model(reader(), settings)
    before, before_logits, before_trained = snapshot(model), logits(model), set(trained(model))
    with pytest.raises(InputError, match=r"not linear and cannot be merged .*save_pretrained"):
        getattr(model, merge)()
    assert set(model.state_dict()) == set(before)
    assert changed(before, model) == set()
    assert torch.equal(logits(model), before_logits)
    assert set(trained(model)) == before_trained


def test_a_deleted_adapter_leaves_nothing_behind() -> None:
    model = adapted("houlsby")
    model.add_adapter("second", config_of("pfeiffer"))
    model.set_adapter("second")
    train(model, 1)
    model.delete_adapter("default")
    left = [layer for layer in model.modules() if isinstance(layer, BottleneckLayer)]
    parts = ("down", "up", "activation", "dropout", "style", "scaling")
    names = {name for layer in left for part in parts for name in getattr(layer, f"bottleneck_{part}")}
    assert names == {"second"}


def test_two_active_adapters_are_refused() -> None:
    model = adapted("pfeiffer")
    model.add_adapter("second", config_of("pfeiffer"))
    with pytest.raises(InputError, match="default, second cannot be active together"):
        model.base_model.set_adapter(["default", "second"])
    assert model.active_adapters == ["default"]


@pytest.mark.parametrize(
    ("family", "family_config", "style", "blocks"),
    [
        (RobertaForQuestionAnswering, RobertaConfig, "houlsby", 4),
        (ElectraForQuestionAnswering, ElectraConfig, "pfeiffer", 2),
        (MPNetForQuestionAnswering, MPNetConfig, "parallel", 2),
    ],
)
def test_relatives_of_bert(family: Any, family_config: Any, style: str, blocks: int) -> None:
    torch.manual_seed(0)
    base = family(family_config(**TINY)).eval()
    base_logits = base(input_ids=BATCH["input_ids"]).start_logits
    model: Any = get_peft_model(base, config_of(style))
    assert len(model.base_model.targeted_module_names) == blocks
    output = model(input_ids=BATCH["input_ids"])
    (output.start_logits + output.end_logits).square().sum().backward()
    assert all(parameter.grad is not None for parameter in trained(model).values())
    with model.disable_adapter():
        assert torch.equal(model(input_ids=BATCH["input_ids"]).start_logits, base_logits)


@pytest.mark.parametrize(
    ("family", "settings", "style"),
    [
        (
            DistilBertForQuestionAnswering,
            DistilBertConfig(n_layers=1, dim=16, n_heads=2, hidden_dim=16, vocab_size=40),
            "pfeiffer",
        ),
        # Its blocks normalise before, not after: named alike, built otherwise.
        (RobertaPreLayerNormForQuestionAnswering, RobertaPreLayerNormConfig(**TINY), "pfeiffer"),
        # It has no block of its own after attention.
        (MPNetForQuestionAnswering, MPNetConfig(**TINY), "houlsby"),
    ],
)
def test_other_encoders_are_refused_untouched(family: Any, settings: Any, style: str) -> None:
    model = family(settings)
    modules = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(
        InputError, match=f"style {style} .* which {family.__name__} does not have; choose another"
    ):
        get_peft_model(model, config_of(style))
    assert {name: type(module) for name, module in model.named_modules()} == modules
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"style": "pfeifer"}, "style: no choice 'pfeifer'; choose one of houlsby, pfeiffer, parallel"),
        ({"reduction_factor": 8, "bottleneck_size": 4}, "give one"),
        ({"reduction_factor": 0}, "reduction_factor is 0"),
        ({"bottleneck_size": -1}, "bottleneck_size is -1"),
        ({"non_linearity": "swoosh"}, "non_linearity: no choice 'swoosh'"),
        ({"init_weights": "xavier"}, "init_weights: no choice 'xavier'; choose one of bert, mam_adapter"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BottleneckConfig(**settings)


def test_too_large_a_reduction_is_refused_untouched() -> None:
    model = reader()
    with pytest.raises(
        InputError, match="reduction_factor 17 leaves no bottleneck in an encoder of width 16"
    ):
        get_peft_model(model, BottleneckConfig(reduction_factor=17))
    assert not any(isinstance(module, BottleneckLayer) for module in model.modules())

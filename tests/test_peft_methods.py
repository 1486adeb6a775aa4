"""What every method registered with peft has to do, and the registration itself."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftConfig, PeftModel, PeftType, get_peft_model
from peft_cases import (
    BATCH,
    KEY_BIASES,
    METHODS,
    adapted,
    changed,
    closed_form_at,
    config_of,
    counted_at,
    expected_names,
    gradient_of,
    logits,
    loss,
    reader,
    snapshot,
    train,
    trained,
)
from safetensors.torch import load_file

from qa.errors import InputError
from qa.peft_methods.bottleneck import BottleneckConfig, BottleneckModel
from qa.peft_methods.registration import EncoderTunerConfig, extend_peft_type, register_method


@pytest.mark.parametrize(
    ("method", "base", "large"),
    [
        ("houlsby", 1_790_594, 6_345_730),
        ("pfeiffer", 896_066, 3_173_890),
        ("parallel", 7_093_250, 25_204_738),
        ("bitfit", 103_682, 273_410),
        ("bitfit-small", 47_618, 124_930),
        ("layernorm", 39_938, 102_402),
    ],
)
def test_trainable_counts_at_spanbert_sizes(method: str, base: int, large: int) -> None:
    assert counted_at(method, 12, 768) == closed_form_at(method, 12, 768) == base
    assert counted_at(method, 24, 1024) == closed_form_at(method, 24, 1024) == large


@pytest.mark.parametrize("method", METHODS)
def test_exact_names_train_and_nothing_else_moves(method: str) -> None:
    model = adapted(method)
    names = expected_names(method)
    assert set(trained(model)) == names
    before = snapshot(model)
    train(model, 1)
    # `up` of a parallel adapter starts at 0, which keeps the first gradient of `down` at 0.
    still = {name for name in names if "bottleneck_down" in name} if method == "parallel" else set()
    assert names - KEY_BIASES - still <= changed(before, model) <= names - still
    train(model, 1)
    assert names - KEY_BIASES <= changed(before, model) <= names


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_saved_adapter_holds_what_was_trained_and_gives_equal_logits(
    method: str, low_cpu_mem_usage: bool, tmp_path: Path
) -> None:
    model = adapted(method)
    train(model, 2)
    model.save_pretrained(str(tmp_path))
    saved = load_file(tmp_path / "adapter_model.safetensors")
    names = {name.replace(".modules_to_save.default", "") for name in expected_names(method)}
    assert set(saved) == {name.removesuffix(".default").replace(".default.", ".") for name in names}
    given, read = model.peft_config["default"], PeftConfig.from_pretrained(str(tmp_path))
    written_by_peft = {"inference_mode": True, "auto_mapping": read.auto_mapping}
    assert type(read) is type(given)
    assert read.to_dict() == given.to_dict() | written_by_peft
    assert "target_modules" not in (tmp_path / "adapter_config.json").read_text()

    loaded = PeftModel.from_pretrained(reader(), str(tmp_path), low_cpu_mem_usage=low_cpu_mem_usage)
    assert trained(loaded) == {}
    assert torch.equal(logits(loaded), logits(model))
    again = PeftModel.from_pretrained(reader(), str(tmp_path), is_trainable=True)
    assert set(trained(again)) == expected_names(method)


@pytest.mark.parametrize("method", METHODS)
def test_adapters_trained_in_turn_leave_each_other_alone(method: str) -> None:
    model = adapted(method)
    train(model, 2)
    first_logits = logits(model)
    model.add_adapter("second", config_of(method))
    before_second = snapshot(model)
    assert set(trained(model)) == expected_names(method)
    assert torch.equal(logits(model), first_logits)

    model.set_adapter("second")
    names = expected_names(method, "second")
    assert set(trained(model)) == names
    train(model, 3)
    second_logits = logits(model)
    assert not torch.equal(second_logits, first_logits)
    assert names - KEY_BIASES <= changed(before_second, model) <= names

    model.set_adapter("default")
    assert torch.equal(logits(model), first_logits)
    with pytest.warns(UserWarning, match="default was active"):
        model.delete_adapter("default")
    assert model.active_adapters == ["second"]
    assert set(trained(model)) == names
    assert torch.equal(logits(model), second_logits)


@pytest.mark.parametrize(("first", "second"), [("houlsby", "pfeiffer"), ("bitfit", "bitfit-small")])
def test_adapters_over_different_modules_share_a_model(first: str, second: str) -> None:
    for one, other in ((first, second), (second, first)):
        model = adapted(one)
        train(model, 1)
        one_logits = logits(model)
        model.add_adapter("second", config_of(other))
        assert torch.equal(logits(model), one_logits)
        model.set_adapter("second")
        assert set(trained(model)) == expected_names(other, "second")
        train(model, 1)
        other_logits = logits(model)
        model.set_adapter("default")
        assert torch.equal(logits(model), one_logits)
        with pytest.warns(UserWarning, match="default was active"):
            model.delete_adapter("default")
        # In layers that only the first one wraps there is nothing left to activate.
        assert {tuple(state.active_adapters) for state in model.get_layer_status()} == {("second",)}
        assert set(trained(model)) == expected_names(other, "second")
        assert torch.equal(logits(model), other_logits)


@pytest.mark.parametrize("method", METHODS)
def test_disabling_and_unloading_give_the_base_back(method: str) -> None:
    base = reader()
    model = adapted(method)
    train(model, 2)
    tuned = logits(model)
    assert not torch.equal(tuned, logits(base))
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(base))
        assert trained(model) == {}
    assert torch.equal(logits(model), tuned)
    bare = model.unload()
    assert set(bare.state_dict()) == set(base.state_dict())
    bare.qa_outputs = base.qa_outputs  # peft's unload keeps the trained head
    assert torch.equal(logits(bare), logits(base))


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_base_with_float32_adapters(method: str) -> None:
    model = adapted(method, torch.bfloat16)
    own = {name: parameter for name, parameter in trained(model).items() if "qa_outputs" not in name}
    assert {parameter.dtype for parameter in own.values()} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    model.add_adapter("second", config_of(method))
    assert set(trained(model)) == expected_names(method)
    before = snapshot(model)
    train(model, 3)
    assert expected_names(method) - KEY_BIASES <= changed(before, model) <= expected_names(method)
    assert logits(model).dtype == torch.bfloat16
    assert torch.isfinite(logits(model)).all()


@pytest.mark.parametrize("method", METHODS)
def test_activation_checkpointing_changes_no_gradient(method: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = adapted(method)
        train(model, 1)
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        torch.manual_seed(3)
        model.zero_grad()
        loss(model).backward()
        gradients.append({name: gradient_of(parameter) for name, parameter in trained(model).items()})
    assert set(gradients[0]) == set(gradients[1]) == expected_names(method)
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


@pytest.mark.parametrize("method", METHODS)
def test_segments_reach_the_encoder_as_without_adapters(method: str) -> None:
    model, base = adapted(method), reader()
    inputs = BATCH["input_ids"]
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(input_ids=inputs).start_logits, base(input_ids=inputs).start_logits)
    with torch.no_grad():
        assert not torch.equal(model(**BATCH).start_logits, model(input_ids=inputs).start_logits)


@pytest.mark.parametrize(
    ("method", "whole"), [("pfeiffer", "layer.1.output"), ("bitfit", "layer.1.output.dense")]
)
def test_modules_that_another_adapter_trains_whole_are_refused(method: str, whole: str) -> None:
    first = config_of(method)
    first.modules_to_save = [whole]
    model = get_peft_model(reader(), first)
    names = set(model.state_dict())
    with pytest.raises(InputError, match=f"{whole} is trained whole by another adapter"):
        model.add_adapter("second", config_of(method))
    assert set(model.state_dict()) == names
    assert list(model.peft_config) == ["default"]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda member: pickle.loads(pickle.dumps(member))]
)
def test_peft_type_gets_an_ordinary_member(copied: Callable[[PeftType], PeftType]) -> None:
    member = extend_peft_type("BOTTLENECK")
    assert member is PeftType("BOTTLENECK")
    assert member is PeftType["BOTTLENECK"]
    assert member is vars(PeftType)["BOTTLENECK"]
    assert member == "BOTTLENECK"
    assert hash(member) == hash("BOTTLENECK")
    assert (member.name, member.value) == ("BOTTLENECK", "BOTTLENECK")
    assert repr(member) == "<PeftType.BOTTLENECK: 'BOTTLENECK'>"
    assert list(PeftType).count(member) == 1
    assert copied(member) is member
    assert PeftType("LORA") is PeftType.LORA


def test_registering_again_changes_nothing_and_a_taken_name_is_refused() -> None:
    register_method("bottleneck", BottleneckConfig, BottleneckModel)
    with pytest.raises(
        RuntimeError, match=r"peft serves the method 'lora' with peft\.tuners\.lora\.config\.Lora"
    ):
        register_method("lora", EncoderTunerConfig, BottleneckModel)

"""Several adapters in one reader: trained, switched, disabled and deleted without a trace in the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from tiny_readers import (
    METHODS,
    adapted,
    batch,
    expected_trainable,
    logits,
    perturb,
    snapshot,
    step,
    tiny_bert,
    trainable,
)


@pytest.mark.parametrize("method", METHODS)
def test_adapters_leave_each_other_bit_identical(method: str, tmp_path: Path) -> None:
    reader = adapted(method)
    first = logits(reader, batch())
    reader.save_pretrained(tmp_path)
    for name in ("second", "third"):
        config = METHODS[method]()
        config.inference_mode = method == "adalora"  # peft allows one AdaLoRA adapter that trains
        reader.add_adapter(name, config)
    assert trainable(reader) == expected_trainable(method)  # nothing changed for the active one
    assert torch.equal(logits(reader, batch()), first)
    untouched = snapshot(reader, ".default")
    reader.set_adapter("second")
    second_names = {name.replace(".default", ".second") for name in expected_trainable(method)}
    assert trainable(reader) == second_names
    perturb(reader, seed=3)
    second = logits(reader, batch())
    assert (second - first).abs().max() > 0.05
    assert all(torch.equal(value, untouched[name]) for name, value in snapshot(reader, ".default").items())
    reader.set_adapter("default")
    assert trainable(reader) == expected_trainable(method)
    assert torch.equal(logits(reader, batch()), first)
    reader.load_adapter(str(tmp_path), "second")  # over the one of that name
    reader.set_adapter("second", inference_mode=True)
    assert trainable(reader) == set()
    assert torch.equal(logits(reader, batch()), first)


@pytest.mark.parametrize("method", METHODS)
def test_loading_for_inference_beside_leaves_training_alone(method: str, tmp_path: Path) -> None:
    other = adapted(method, seed=4)
    other.save_pretrained(tmp_path)
    reader = adapted(method)
    expected = logits(reader, batch())
    reader.load_adapter(str(tmp_path), "other")
    assert trainable(reader) == expected_trainable(method)
    assert torch.equal(logits(reader, batch()), expected)
    reader.set_adapter("other")
    assert torch.equal(logits(reader, batch()), logits(other, batch()))
    reader.set_adapter("default")
    step(reader, batch(), torch.optim.SGD([p for p in reader.parameters() if p.requires_grad], lr=0.1))
    reader.save_pretrained(tmp_path / "both")
    both = PeftModel.from_pretrained(tiny_bert(), tmp_path / "both")
    both.load_adapter(tmp_path / "both" / "other", "other")
    assert torch.equal(logits(both, batch()), logits(reader, batch()))
    both.set_adapter("other")
    assert torch.equal(logits(both, batch()), logits(other, batch()))


@pytest.mark.parametrize("method", METHODS)
def test_disabling_gives_the_base_back_bit_for_bit(method: str, tmp_path: Path) -> None:
    base = logits(tiny_bert(), batch())
    reader = adapted(method)
    before, state = logits(reader, batch()), trainable(reader)
    with reader.disable_adapter():
        assert torch.equal(logits(reader, batch()), base)
        with reader.disable_adapter():
            assert torch.equal(logits(reader, batch()), base)
        assert torch.equal(logits(reader, batch()), base)
    assert torch.equal(logits(reader, batch()), before)
    assert trainable(reader) == state
    reader.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_bert(), tmp_path)
    with pytest.raises(KeyError), loaded.disable_adapter():
        raise KeyError
    assert torch.equal(logits(loaded, batch()), before)
    assert trainable(loaded) == set()  # peft thaws the adapter here


@pytest.mark.filterwarnings("ignore:'default' was active")
@pytest.mark.parametrize("method", [name for name in METHODS if name != "adalora"])
def test_deleting_adapters(method: str) -> None:
    reader = adapted(method)
    for name in ("second", "third"):
        reader.add_adapter(name, METHODS[method]())
    reader.set_adapter("third")
    perturb(reader, seed=5)
    third = logits(reader, batch())
    reader.set_adapter("default")
    first = logits(reader, batch())
    reader.delete_adapter("second")
    assert torch.equal(logits(reader, batch()), first)
    assert not any(".second" in name for name, _ in reader.named_parameters())
    reader.delete_adapter("default")
    assert reader.active_adapter == "third"
    assert torch.equal(logits(reader, batch()), third)
    assert trainable(reader) == {name.replace(".default", ".third") for name in expected_trainable(method)}
    with pytest.raises(ValueError, match="no adapter 'second'; there are third"):
        reader.delete_adapter("second")
    reader.delete_adapter("third")
    assert torch.equal(logits(reader, batch()), logits(tiny_bert(), batch()))
    with reader.disable_adapter():
        assert torch.equal(logits(reader, batch()), logits(tiny_bert(), batch()))
    reader.add_adapter("fourth", METHODS[method]())
    assert reader.active_adapter == "fourth"
    assert trainable(reader) == {name.replace(".default", ".fourth") for name in expected_trainable(method)}


def test_rows_of_one_batch_may_use_different_adapters() -> None:
    reader = adapted("lora")
    reader.add_adapter("second", LoraConfig(task_type="QUESTION_ANS", r=4, target_modules=["query", "value"]))
    first = logits(reader, batch())
    mixed = logits(reader, batch() | {"adapter_names": ["default", "__base__", "second"]})  # type: ignore[dict-item]
    base = logits(tiny_bert(), batch())
    torch.testing.assert_close(mixed[:, 0], first[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed[:, 1:], base[:, 1:], atol=1e-5, rtol=1e-5)

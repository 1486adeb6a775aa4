"""What lies in the files of an adapter, and that training goes on from them as if it had never stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from tiny_readers import (
    HIDDEN,
    METHODS,
    PROMPTS,
    REPARAMETERISED,
    adapted,
    batch,
    computed_prompt,
    expected_trainable,
    logits,
    perturb,
    snapshot,
    step,
    tiny_bert,
    trainable,
)
from transformers import BertConfig, BertForQuestionAnswering

from qa.errors import InputError
from qa.peft_methods.question_answering import PeftModelForExtractiveQuestionAnswering as Reader
from qa.peft_methods.saving import portable_name


@pytest.mark.parametrize("method", METHODS)
def test_saved_adapters_are_complete_minimal_and_portable(method: str, tmp_path: Path) -> None:
    base = tmp_path / "someone" / "tiny-reader"
    tiny_bert().save_pretrained(base)
    reader = adapted(method, BertForQuestionAnswering.from_pretrained(base))
    target = tmp_path / "adapter"
    reader.save_pretrained(target)
    assert reader.peft_config["default"].base_model_name_or_path == str(base)
    assert (
        json.loads((target / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny-reader"
    )
    for path in target.rglob("*"):
        assert str(tmp_path).encode() not in path.read_bytes(), path
    assert "tiny-reader" in (target / "README.md").read_text()
    saved = set(load_file(target / "adapter_model.safetensors"))
    trained = {name.replace(".modules_to_save", "").replace(".default", "") for name in trainable(reader)}
    if method in PROMPTS:
        trained = {name for name in trained if "prompt_encoder" not in name} | {"prompt_embeddings"}
    assert saved == trained
    loaded = PeftModel.from_pretrained(tiny_bert(), target)
    assert torch.equal(logits(loaded, batch()), logits(reader, batch()))
    assert trainable(loaded) == set()
    resumed = Reader.from_pretrained(tiny_bert(), target, is_trainable=True).eval()
    assert torch.equal(logits(resumed, batch()), logits(reader, batch()))
    assert trainable(resumed) == trainable(reader)


def test_saving_asks_the_disk_alone_whether_the_vocabulary_grew(tmp_path: Path, monkeypatch: Any) -> None:
    def call(*_: Any, **__: Any) -> None:
        raise AssertionError("the hub was asked")

    local = BertConfig.from_pretrained
    asked: list[bool] = []

    def read(name: str, local_files_only: bool = False, **settings: Any) -> Any:
        asked.append(local_files_only)
        return local(name, local_files_only=True, **settings)

    monkeypatch.setattr(peft.utils.save_and_load, "check_file_exists_on_hf_hub", call)
    monkeypatch.setattr(BertConfig, "from_pretrained", read)
    for place in ("someone/reader", str(tmp_path / "base")):
        model = tiny_bert()
        model.save_pretrained(tmp_path / "base")
        model.name_or_path = place
        adapted("lora", model).save_pretrained(tmp_path / "adapter")
        assert not any(
            "embeddings" in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors")
        )
    assert (
        json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "base"
    )
    assert asked == [True, True]
    monkeypatch.undo()
    model = BertForQuestionAnswering.from_pretrained(tmp_path / "base")
    model.resize_token_embeddings(101)
    adapted("lora", model).save_pretrained(tmp_path / "adapter")
    grown = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert grown["base_model.model.bert.embeddings.word_embeddings.weight"].shape == (101, HIDDEN)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (None, None),
        ("", ""),
        ("SpanBERT/spanbert-base-cased", "SpanBERT/spanbert-base-cased"),
        ("bert-base-cased", "bert-base-cased"),
        ("/home/me/models/reader/", "reader"),
        ("../runs/reader", "reader"),
        ("C:\\Users\\me\\reader", "reader"),
        ("/x/hub/models--SpanBERT--spanbert-base-cased/snapshots/0a1b", "SpanBERT/spanbert-base-cased"),
        ("/x/hub/models--gpt2/snapshots/0a1b", "gpt2"),
    ],
)
def test_portable_names(given: str | None, name: str | None) -> None:
    assert portable_name(given) == name


@pytest.mark.parametrize("method", PROMPTS)
def test_files_hold_the_prompt_the_head_and_where_needed_its_encoder(method: str, tmp_path: Path) -> None:
    reader = adapted(method)
    reader.save_pretrained(tmp_path)
    with torch.no_grad():
        prompt = computed_prompt(reader)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    head = {"base_model.qa_outputs.weight", "base_model.qa_outputs.bias"}
    assert set(saved) == head | {"prompt_embeddings"}
    torch.testing.assert_close(saved["prompt_embeddings"], prompt, atol=1e-6, rtol=1e-6)
    encoder_file = tmp_path / "prompt_encoder.safetensors"
    assert encoder_file.exists() == (method in REPARAMETERISED)
    if method in REPARAMETERISED:
        assert set(load_file(encoder_file)) == set(reader.prompt_encoder["default"].state_dict())
        loaded = PeftModel.from_pretrained(tiny_bert(), tmp_path)
        loaded.save_pretrained(
            tmp_path
        )  # knows only the result: an encoder from before would not belong to it
        assert not encoder_file.exists()
        assert torch.equal(
            load_file(tmp_path / "adapter_model.safetensors")["prompt_embeddings"], saved["prompt_embeddings"]
        )


@pytest.mark.parametrize("method", METHODS)
def test_training_resumes_where_it_stopped(method: str, tmp_path: Path) -> None:
    reader = adapted(method)

    def losses(reader: Any, steps: int) -> list[float]:
        optimizer = torch.optim.SGD([p for p in reader.parameters() if p.requires_grad], lr=0.1)
        return [step(reader, batch(), optimizer) for _ in range(steps)]

    losses(reader, 1)
    reader.save_pretrained(tmp_path)
    expected = losses(reader, 3)
    assert len(set(expected)) == 3
    resumed = Reader.from_pretrained(tiny_bert(), tmp_path, is_trainable=True).eval()
    assert trainable(resumed) == expected_trainable(method)
    assert losses(resumed, 3) == expected
    other = adapted(method, seed=7)  # what Trainer does on resume
    other.load_adapter(str(tmp_path), "default", is_trainable=True)
    assert losses(other, 3) == expected
    best = adapted(method, seed=8)  # what Trainer does to reload the best checkpoint
    best.load_adapter(str(tmp_path), "default")
    assert trainable(best) == expected_trainable(method)
    assert losses(best, 3) == expected
    if method != "adalora":  # peft allows one AdaLoRA adapter that trains
        beside = adapted(method, seed=9)
        beside.load_adapter(str(tmp_path), "second", is_trainable=True)
        second = {name.replace(".default", ".second") for name in expected_trainable(method)}
        assert trainable(beside) == expected_trainable(method) | second
        beside.set_adapter("second")
        assert trainable(beside) == second
        assert losses(beside.eval(), 3) == expected


@pytest.mark.parametrize("method", sorted(REPARAMETERISED))
def test_resuming_without_the_encoder_is_refused(method: str, tmp_path: Path) -> None:
    reader = adapted(method)
    reader.save_pretrained(tmp_path)
    (tmp_path / "prompt_encoder.safetensors").unlink()
    before = snapshot(reader)
    with pytest.raises(InputError, match=r"prompt_encoder\.safetensors is missing"):
        reader.load_adapter(str(tmp_path), "default", is_trainable=True)
    with pytest.raises(InputError, match=r"prompt_encoder\.safetensors is missing"):
        reader.load_adapter(str(tmp_path), "second", is_trainable=True)
    assert list(reader.peft_config) == ["default"]
    with pytest.raises(InputError, match=r"prompt_encoder\.safetensors is missing"):
        Reader.from_pretrained(tiny_bert(), tmp_path, is_trainable=True)
    with pytest.raises(InputError, match="only the prompt"):
        set_peft_model_state_dict(reader, load_file(tmp_path / "adapter_model.safetensors"))
    encoder = {name: value for name, value in before.items() if "prompt_encoder" in name}
    assert all(
        torch.equal(value, encoder[name]) for name, value in snapshot(reader, "prompt_encoder").items()
    )


def test_the_saved_prompt_is_free_of_dropout(tmp_path: Path) -> None:
    reader = adapted("p_tuning_lstm").train()
    prompts = [reader.get_prompt_embedding_to_save("default") for _ in range(2)]
    assert torch.equal(prompts[0], prompts[1])
    assert reader.prompt_encoder["default"].training
    perturb(reader, 5)
    assert not torch.equal(prompts[0], reader.get_prompt_embedding_to_save("default"))


def test_a_prompt_begun_from_text_needs_no_tokenizer_to_go_on(tmp_path: Path) -> None:
    reader = adapted("prompt")
    reader.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    text = {
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": "find it",
        "tokenizer_name_or_path": "gone",
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | text))
    resumed = Reader.from_pretrained(tiny_bert(), tmp_path, is_trainable=True)
    assert torch.equal(logits(resumed.eval(), batch()), logits(reader, batch()))
    assert trainable(resumed) == trainable(reader)

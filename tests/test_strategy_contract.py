"""What every strategy has to keep: one contract, all strategies and their variants, on a tiny reader."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packing_cases import token_places
from peft import PeftModel
from safetensors.torch import load_file
from strategy_cases import (
    ADAPTERS,
    CASES,
    MODEL_KEYS,
    SINGLE,
    adapted,
    batch,
    has_gradient,
    logits,
    snapshot,
    spanbert,
    tiny_bert,
    trainable,
)

from qa.batching import WindowCollator
from qa.decoding import DecodingSettings
from qa.errors import InputError
from qa.model_sizes import count_parameters, estimate_training_bytes
from qa.packing import PLACES
from qa.strategies import STRATEGIES, Lora
from qa.trainer import QATrainer
from qa.training_arguments import QATrainingArguments

MakeTrainer = Callable[..., QATrainer]


@pytest.fixture
def make_trainer(tmp_path: Path) -> MakeTrainer:
    """A trainer of a case's strategy, built as a session builds it."""

    def make(name: str, model: Any, **told: Any) -> QATrainer:
        strategy = CASES[name].strategy
        settings = {"learning_rate": 0.02, "weight_decay": 0.1} | told
        return QATrainer(
            args=QATrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True, **settings),
            model=model,
            collator=WindowCollator(0),
            decoding=DecodingSettings(),
            undecayed=strategy.undecayed,
            penalty=strategy.penalty,
        )

    return make


def steps(trainer: QATrainer, model: Any, count: int) -> list[float]:
    """Optimiser steps on one batch. Returns: the loss before each."""
    optimizer, losses = trainer.create_optimizer(), []
    model.train()
    for _ in range(count):
        model.zero_grad()
        loss = trainer.compute_loss(model, batch())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


def test_every_strategy_is_a_case() -> None:
    assert {type(case.strategy) for case in CASES.values()} == set(STRATEGIES.values())


@pytest.mark.parametrize("name", CASES)
def test_exact_names_train(name: str) -> None:
    model = tiny_bert()
    model.requires_grad_(name != "full")
    assert trainable(adapted(name, model)) == CASES[name].named()


@pytest.mark.parametrize("name", CASES)
def test_trained_numbers_are_the_closed_form_at_spanbert_sizes(name: str) -> None:
    case = CASES[name]
    if name in ("lora-pissa", "lora-olora"):
        pytest.skip("takes its values out of weights, which the meta device has not")
    published = {
        "full": (107_721_218, 332_531_714),
        "head": (1_538, 2_050),
        "bitfit": (103_682, 273_410),
        "lora": (296_450, 788_482),
        "houlsby": (1_790_594, 6_345_730),
        "pfeiffer": (896_066, 3_173_890),
        "parallel": (7_093_250, 25_204_738),
        "prefix": (296_450, 788_482),
        "prompt": (16_898, 22_530),
        "ia3": (56_834, 149_506),
    }
    counted = []
    for width, layers in ((768, 12), (1024, 24)):
        model = case.strategy.adapt(spanbert(width, layers))
        # AdaLoRA's count of its ranks, a number in each layer, loses its frozen state on the meta device.
        ranks = sum(p.requires_grad for key, p in model.named_parameters() if "ranknum" in key)
        counted.append(count_parameters(model).trainable - ranks)
        assert counted[-1] == case.count(width, layers)
    assert tuple(counted) == published.get(name, tuple(counted))


@pytest.mark.parametrize("name", CASES)
def test_logits_and_losses_are_those_of_the_windows(name: str, make_trainer: MakeTrainer) -> None:
    model = adapted(name)
    inputs = batch()
    losses, output = make_trainer(name, model).window_losses(model, inputs)
    assert output.start_logits.shape == output.end_logits.shape == inputs["input_ids"].shape
    for row in range(3):
        allowed = [0, *inputs["passage_mask"][row].nonzero().flatten().tolist()]
        expected = torch.zeros(())
        for scores, gold in (
            (output.start_logits, inputs["start_positions"]),
            (output.end_logits, inputs["end_positions"]),
        ):
            log_probs = scores[row, allowed].log_softmax(dim=0)
            expected = expected - log_probs[allowed.index(int(gold[row, 0]))] / 2
        torch.testing.assert_close(losses[row], expected)


@pytest.mark.parametrize("name", CASES)
def test_packed_equals_padded(name: str, make_trainer: MakeTrainer) -> None:
    """Logits, losses and the gradient of everything that trains, within rounding."""
    told: list[dict[str, Any]] = [{"batching": "padded"}, {"batching": "packed"}]
    real = batch()["attention_mask"].bool()
    found = []
    for settings in told:
        model = adapted(name).train()
        trainer = make_trainer(name, model, **settings)
        places = token_places(batch()["attention_mask"])
        inputs = batch() | ({PLACES: places} if settings["batching"] == "packed" else {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # P-tuning's LSTM has dropout of its own.
            losses, output = trainer.window_losses(model, inputs)
            (losses.sum() + trainer.penalty(model)).backward()
        gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
        scores = torch.stack([output.start_logits[real], output.end_logits[real]])
        found.append((losses.detach(), scores.detach(), gradients))
    padded, packed = found
    torch.testing.assert_close(packed[:2], padded[:2], atol=1e-5, rtol=1e-4)
    assert packed[2].keys() == padded[2].keys()
    assert {key for key in CASES[name].named() if has_gradient(key)} <= packed[2].keys()
    for key, gradient in packed[2].items():
        torch.testing.assert_close(gradient, padded[2][key], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("batching", ["padded", "packed"])
@pytest.mark.parametrize(("name", "frozen_layers"), [("head", 2), ("top_layers", 1)])
def test_the_frozen_trunk_builds_no_graph(
    name: str, frozen_layers: int, batching: str, make_trainer: MakeTrainer
) -> None:
    """In training mode, dropout included: its outputs carry no gradient, and nothing of it is kept."""
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model = adapted(name, tiny_bert(**dropout)).train()
    trainer = make_trainer(name, model, batching=batching)
    inputs = batch() | ({PLACES: token_places(batch()["attention_mask"])} if batching == "packed" else {})
    trunk = [model.bert.embeddings, *model.bert.encoder.layer[:frozen_layers]]
    kept: list[int] = []
    outputs: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    for module in trunk:
        module.register_forward_hook(
            lambda module, inputs, output: outputs.append(output[0] if isinstance(output, tuple) else output)
        )
    last = trunk[-1]
    before: list[int] = []
    last.register_forward_hook(lambda module, inputs, output: before.append(len(kept)))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses, _ = trainer.window_losses(model, inputs)
    assert len(outputs) == len(trunk)
    assert not any(output.requires_grad for output in outputs)
    assert before == [0]
    assert kept
    losses.sum().backward()
    assert all(p.grad is None for module in trunk for p in module.parameters())


@pytest.mark.parametrize("name", CASES)
def test_segments_and_positions_mean_what_they_mean_to_the_base(name: str) -> None:
    model, base = adapted(name), tiny_bert()
    variants = {
        "as they are": {},
        "one segment": {"token_type_ids": torch.zeros_like(batch()["token_type_ids"])},
        "later positions": {"position_ids": torch.arange(5, 19).expand(3, -1)},
    }
    found = {}
    for label, changes in variants.items():
        found[label] = logits(model, **changes)
        if CASES[name].starts_as_base:
            torch.testing.assert_close(found[label], logits(base, **changes), atol=1e-4, rtol=1e-4)
    assert (found["as they are"] - found["one segment"]).abs().max() > 0.05
    assert (found["as they are"] - found["later positions"]).abs().max() > 0.05


@pytest.mark.parametrize("name", CASES)
def test_training_moves_what_trains_and_nothing_else(name: str, make_trainer: MakeTrainer) -> None:
    model = adapted(name)
    before, names = snapshot(model), trainable(model)
    trainer = make_trainer(name, model)

    def moved() -> set[str]:
        return {key for key, value in snapshot(model).items() if not torch.equal(value, before[key])}

    first = steps(trainer, model, 1)
    assert moved() <= names
    later = steps(trainer, model, 2)
    assert {key for key in names if has_gradient(key)} <= moved() <= names
    assert later[-1] < first[0]


@pytest.mark.parametrize("name", CASES)
def test_every_trained_tensor_is_in_one_group_with_its_rate_and_decay(
    name: str, make_trainer: MakeTrainer
) -> None:
    model = adapted(name)
    optimizer = make_trainer(name, model, head_learning_rate=0.5).create_optimizer()
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    named = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(of) == len(named)
    undecayed = (
        "ia3_l",
        "prompt_encoder",
        "magnitude_vector",
        "bitfit",
        "layernorm_delta",
        "bias",
        "LayerNorm",
    )
    for key, parameter in named.items():
        group = of[id(parameter)]
        assert group["lr"] == (0.5 if "qa_outputs" in key else 0.02), key
        assert group["weight_decay"] == (0.0 if any(part in key for part in undecayed) else 0.1), key


@pytest.mark.parametrize("name", ADAPTERS)
def test_saved_and_loaded_by_folder(name: str, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    model = adapted(name)
    steps(make_trainer(name, model), model, 2)
    model.save_pretrained(tmp_path / "one")
    loaded = dataclasses.replace(CASES[name].strategy, adapter_name_or_path=[str(tmp_path / "one")])
    again = loaded.adapt(tiny_bert()).eval()
    assert trainable(again) == CASES[name].named()
    # What rewrites the base takes the same values out of it again.
    exact = {"atol": 1e-5, "rtol": 1e-5} if name in ("lora-pissa", "lora-olora") else {"atol": 0, "rtol": 0}
    torch.testing.assert_close(logits(again), logits(model), **exact)
    by_peft = PeftModel.from_pretrained(tiny_bert(), tmp_path / "one")
    torch.testing.assert_close(logits(by_peft), logits(model), **exact)


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name not in SINGLE])
def test_a_second_adapter_trains_beside_the_first(
    name: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    model = adapted(name)
    steps(make_trainer(name, model), model, 2)
    first = logits(model)
    model.save_pretrained(tmp_path / "one")
    places = [str(tmp_path / "one")]
    beside = dataclasses.replace(CASES[name].strategy, adapter_name_or_path=places, adapter_name="second")
    torch.manual_seed(4)
    both = beside.adapt(tiny_bert()).eval()
    assert list(both.peft_config) == ["one", "second"]
    assert trainable(both) == CASES[name].named("second")
    kept = snapshot(both, ".one")
    steps(make_trainer(name, both), both, 3)
    second = logits(both)
    assert (second - first).abs().max() > 1e-3
    assert all(torch.equal(value, kept[key]) for key, value in snapshot(both, ".one").items())
    both.set_adapter("one")
    assert torch.equal(logits(both), first)
    with both.disable_adapter():
        assert torch.equal(logits(both), logits(tiny_bert()))
    # A run's folder holds the adapter that it trained, whatever its name.
    both.save_pretrained(tmp_path / "two")
    assert set(load_file(tmp_path / "two" / "adapter_model.safetensors")) == set(
        load_file(tmp_path / "one" / "adapter_model.safetensors")
    )
    assert not (tmp_path / "two" / "second").exists()
    several = dataclasses.replace(CASES[name].strategy, adapter_name_or_path=[*places, str(tmp_path / "two")])
    loaded = several.adapt(tiny_bert()).eval()
    assert trainable(loaded) == CASES[name].named("one")
    assert torch.equal(logits(loaded), first)
    loaded.set_adapter("two")
    assert torch.equal(logits(loaded), second)


@pytest.mark.parametrize("name", ADAPTERS)
def test_merged_equals_unmerged_or_is_refused(name: str, make_trainer: MakeTrainer) -> None:
    model = adapted(name)
    steps(make_trainer(name, model), model, 2)
    tuned = logits(model)
    if not CASES[name].merges:
        with pytest.raises(InputError, match="cannot be merged"):
            model.merge_and_unload()
        assert torch.equal(logits(model), tuned)
        return
    merged = model.merge_and_unload()
    assert set(merged.state_dict()) == set(tiny_bert().state_dict())
    torch.testing.assert_close(logits(merged), tuned, atol=1e-4, rtol=1e-4)
    assert (tuned - logits(tiny_bert())).abs().max() > 1e-2


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name not in ("lora-pissa", "lora-olora")])
def test_a_bfloat16_base_has_float32_adapters(name: str, make_trainer: MakeTrainer) -> None:
    model = adapted(name, tiny_bert().bfloat16())
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    frozen = {p.dtype for key, p in model.named_parameters() if not p.requires_grad and "ranknum" not in key}
    assert frozen == {torch.bfloat16}
    losses = steps(make_trainer(name, model), model, 3)
    assert losses[-1] < losses[0]
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(tiny_bert().bfloat16()))


def test_prompts_need_the_memory_of_all_layers() -> None:
    """Gradients flow to them through every layer, as they flow to the embeddings in full tuning."""

    def for_activations(name: str) -> int:
        model = adapted(name)
        counts = count_parameters(model)
        return estimate_training_bytes(model, 2, 16) - 4 * counts.total - 12 * counts.trainable

    assert for_activations("head") == 0
    for name in ("prompt", "p_tuning", "prefix", "lora", "bitfit"):
        assert for_activations(name) == for_activations("full") > 0


def test_adaloras_penalty_is_pefts(make_trainer: MakeTrainer) -> None:
    model = adapted("adalora").train()
    trainer = make_trainer("adalora", model)
    losses, _ = trainer.window_losses(model, batch())
    golds = {"start_positions": batch()["start_positions"], "end_positions": batch()["end_positions"]}
    inputs = {key: batch()[key] for key in MODEL_KEYS}
    by_peft = model(**inputs, **golds).loss - model.get_base_model()(**inputs, **golds).loss
    assert by_peft > 0.05
    torch.testing.assert_close(trainer.compute_loss(model, batch()) - losses.mean(), by_peft)
    # A step of two batches, one of them of two rows: the penalty still counts once.
    short = {key: value[:2] for key, value in batch().items()}
    parts = [
        trainer.compute_loss(model, part, num_items_in_batch=torch.tensor(5.0)) for part in (batch(), short)
    ]
    mean = (losses.sum() + losses[:2].sum()) / 5
    torch.testing.assert_close(parts[0] + parts[1] - mean, by_peft)


def test_names_that_a_model_uses_are_no_names_of_adapters() -> None:
    with pytest.raises(InputError, match="adapter_name: encoder: a part of the model is called so"):
        Lora(adapter_name="encoder").adapt(tiny_bert())
    model = Lora(adapter_name="lora").adapt(tiny_bert())
    assert trainable(model) == CASES["lora"].named("lora")


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_what_rewrites_the_base_allows_no_second_adapter(init: Any, tmp_path: Path) -> None:
    places = [str(tmp_path / "one"), str(tmp_path / "two")]
    with pytest.raises(InputError, match=f"lora_init: {init} rewrites the base model"):
        Lora(lora_init=init, adapter_name_or_path=places)
    with pytest.raises(InputError, match=f"lora_init: {init} rewrites the base model"):
        Lora(lora_init=init, adapter_name_or_path=places[:1], adapter_name="second")
    pairs: list[tuple[Any, Any]] = [(init, "zero"), ("zero", init)]
    for first, second in pairs:
        model = Lora(lora_init=first).adapt(tiny_bert())
        with pytest.raises(InputError, match=f"{init} rewrites the base model"):
            Lora(lora_init=second, adapter_name="second").adapt(model)


def test_a_folder_of_another_method_or_size_is_refused(tmp_path: Path) -> None:
    adapted("lora", tiny_bert(hidden_size=16)).save_pretrained(tmp_path / "narrow")
    with pytest.raises(InputError, match="narrow: no adapter for this model and strategy"):
        Lora(adapter_name_or_path=[str(tmp_path / "narrow")]).adapt(tiny_bert())
    adapted("bitfit").save_pretrained(tmp_path / "bitfit")
    adapted("lora").save_pretrained(tmp_path / "lora")
    places = [str(tmp_path / "lora"), str(tmp_path / "bitfit")]
    with pytest.raises(InputError, match="bitfit: no adapter for this model and strategy"):
        Lora(adapter_name_or_path=places).adapt(tiny_bert())

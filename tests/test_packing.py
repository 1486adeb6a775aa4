"""Packed batches: exact tensors, and the same logits, losses, gradients, steps and answers as padded ones."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import strategy_cases
import tiny_readers
import torch
from packing_cases import token_places
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import qa.trainer
from qa import attention
from qa.batching import WindowCollator
from qa.decoding import DecodingSettings
from qa.layers import reader_of
from qa.models import forward_keys
from qa.packing import (
    PLACES,
    Spread,
    in_rows,
    packed_inputs,
    position_padding,
    positions_of,
    read_batch,
)
from qa.trainer import QATrainer
from qa.training_arguments import QATrainingArguments

MakeTrainer = Callable[..., QATrainer]


@pytest.fixture
def make_trainer(tmp_path: Path) -> MakeTrainer:
    def make(model: Any, **told: Any) -> QATrainer:
        return QATrainer(
            args=QATrainingArguments(output_dir=str(tmp_path / "run"), use_cpu=True, **told),
            model=model,
            collator=WindowCollator(0),
            decoding=DecodingSettings(n_best_size=4),
        )

    return make


def two_rows() -> dict[str, Tensor]:
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    ids = torch.tensor([[5, 1, 7, 1], [8, 9, 10, 11], [12, 1, 1, 1]])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": torch.tensor([[0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]]),
        PLACES: token_places(mask),
    }


def test_packed_inputs() -> None:
    batch = two_rows()
    assert batch[PLACES].tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    keys = frozenset({"input_ids", "attention_mask", "token_type_ids"})
    found = packed_inputs(batch, keys, None)
    assert {name: value.tolist() for name, value in found.items() if isinstance(value, Tensor)} == {
        "input_ids": [[5, 1, 7, 8, 9, 10, 11, 12]],
        "token_type_ids": [[0, 0, 1, 0, 1, 1, 1, 0]],
        "position_ids": [[0, 1, 2, 0, 1, 2, 3, 0]],
        "cu_seq_lens_q": [0, 3, 7, 8],
        "cu_seq_lens_k": [0, 3, 7, 8],
    }
    assert found["cu_seq_lens_q"].dtype == torch.int32
    assert (found["max_length_q"], found["max_length_k"]) == (4, 4)
    # RoBERTa: token 1 is padding, also where a passage has it as text, and the first position is 2.
    assert packed_inputs(batch, keys, 1)["position_ids"].tolist() == [[2, 1, 3, 2, 3, 4, 5, 2]]
    assert set(packed_inputs(batch, frozenset({"input_ids"}), None)) == set(found) - {"token_type_ids"}


def test_positions_are_the_encoders_own() -> None:
    ids = two_rows()["input_ids"]
    embeddings: Any = tiny_readers.tiny_roberta().roberta.embeddings
    padding = position_padding(tiny_readers.tiny_roberta())
    assert padding == 1
    assert torch.equal(positions_of(ids, 1), embeddings.create_position_ids_from_input_ids(ids, 1))
    assert position_padding(tiny_readers.tiny_bert()) is None
    assert positions_of(ids, None).tolist() == [[0, 1, 2, 3]]


def test_values_come_back_in_rows() -> None:
    packed = torch.arange(1.0, 9.0).unsqueeze(0).requires_grad_()
    rows = in_rows(packed, two_rows())
    assert rows.tolist() == [[1, 2, 3, 0], [4, 5, 6, 7], [8, 0, 0, 0]]
    rows.square().sum().backward()
    assert packed.grad is not None
    assert packed.grad.tolist() == [[2, 4, 6, 8, 10, 12, 14, 16]]


def test_spread_puts_the_same_tokens_before_every_window() -> None:
    begins = torch.tensor([0, 3, 4], dtype=torch.int32)
    spread = Spread.before_each(begins, tokens=4, count=2)
    further, pack = torch.tensor([[-1, -2]]), torch.tensor([[10, 11, 12, 20]])
    assert spread.apply(further, pack, dim=1).tolist() == [[-1, -2, 10, 11, 12, -1, -2, 20]]
    assert spread.begins.tolist() == [0, 5, 8]
    assert spread.begins.dtype == torch.int32
    assert spread.places.tolist() == [2, 3, 4, 7]


def packed(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch | {PLACES: token_places(batch["attention_mask"])}


@pytest.mark.parametrize("method", ["lora", "ia3", *tiny_readers.PROMPTS])
def test_peft_methods_on_roberta(method: str) -> None:
    """Its positions begin at 2 and stay on 1 for padding; prompts and prefixes stand before every window."""
    reader = tiny_readers.adapted(method, tiny_readers.tiny_roberta())
    keys, batch = forward_keys(reader), tiny_readers.batch()
    real = batch["attention_mask"].bool()
    expected = read_batch(reader, batch, keys, 1)
    attention.enable(reader_of(reader))  # type: ignore[arg-type]
    found = read_batch(reader, packed(batch), keys, 1)
    for name in ("start_logits", "end_logits"):
        torch.testing.assert_close(found[name][real], expected[name][real], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["lora", "ia3", "prefix", "p_tuning"])
def test_under_bf16_autocast(name: str, make_trainer: MakeTrainer) -> None:
    """As far from float32 as padded batches are."""
    model = strategy_cases.adapted(name)
    trainer = make_trainer(model, batching="packed")
    batch = strategy_cases.batch()
    exact, _ = trainer.window_losses(model, packed(batch))
    with torch.autocast("cpu", torch.bfloat16):
        half, output = trainer.window_losses(model, packed(batch))
        other, _ = trainer.window_losses(model, batch)
    assert output.start_logits.dtype == torch.bfloat16
    assert 0 < (half - exact).abs().max() < 0.1
    assert (half - other).abs().max() < 0.1


def test_evaluation_keeps_the_same_candidates(make_trainer: MakeTrainer) -> None:
    model = strategy_cases.adapted("full")
    trainer = make_trainer(model, batching="packed")
    batch = strategy_cases.batch() | {"example_weight": torch.tensor([1.0, 1.0, 0.0])}
    _, padded_found, _ = trainer.prediction_step(model, batch, False)
    _, packed_found, _ = trainer.prediction_step(model, packed(batch), False)
    assert packed_found[0].tolist() == [0, 1, -1]
    for one, other in zip(packed_found, padded_found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert packed_found[3].dtype == torch.int64


def test_the_collator_of_a_packed_trainer_says_where_tokens_are(make_trainer: MakeTrainer) -> None:
    rows = [
        {
            "input_ids": list(range(5, 5 + length)),
            "token_type_ids": [0] * length,
            "passage_start": 1,
            "passage_end": length,
            "start_positions": [0],
            "end_positions": [0],
            "window_index": row,
        }
        for row, length in enumerate((3, 5, 2))
    ]
    batch = make_trainer(strategy_cases.tiny_bert(), batching="packed").data_collator(rows)
    assert batch[PLACES].tolist() == token_places(batch["attention_mask"]).tolist()
    begins = list(accumulate((3, 5, 2), initial=0))
    assert packed_inputs(batch, frozenset({"input_ids"}), None)["cu_seq_lens_q"].tolist() == begins
    assert PLACES not in make_trainer(strategy_cases.tiny_bert(), batching="padded").data_collator(rows)


@pytest.mark.parametrize(
    ("told", "attention_chosen", "packs"),
    [
        ({"batching": "grouped"}, None, True),
        ({"batching": "sorted"}, None, True),
        ({"batching": "padded"}, None, False),  # is what it says: the one to compare with
        ({"batching": "grouped", "loss": "bert"}, None, False),  # its softmax wants the padding
        ({"batching": "grouped"}, "eager", False),
        ({"batching": "grouped", "torch_compile": True}, None, False),  # loops break its graph
    ],
)
def test_a_cpu_reads_grouped_batches_without_their_padding_where_it_can(
    told: dict[str, Any], attention_chosen: str | None, packs: bool, make_trainer: MakeTrainer
) -> None:
    model = strategy_cases.tiny_bert()
    if attention_chosen:
        model.set_attn_implementation(attention_chosen)
    assert make_trainer(model, **told).data_collator.packed is packs
    assert model.config._attn_implementation == (attention.NAME if packs else attention_chosen or "sdpa")


def test_a_gpu_packs_where_it_was_asked_to() -> None:
    def packs(batching: str) -> bool:
        device = torch.device("cuda")
        args = SimpleNamespace(batching=batching, device=device, loss="passage", torch_compile=False)
        return qa.trainer._packs(args, strategy_cases.tiny_bert())  # type: ignore[arg-type]

    assert [packs(name) for name in ("grouped", "sorted", "padded", "packed")] == [False, False, False, True]


class Waits(TorchDispatchMode):
    """Notes the operators for whose result a host has to wait for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in {
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.masked_select,
            torch.ops.aten.equal,
        }:
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["full", "lora", "houlsby", "prompt", "prefix"])
def test_a_packed_step_reaches_the_flash_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In half precision, with dropout, on the device without data: every call that a GPU would be given."""
    calls: list[float] = []

    def flash(*arguments: Any) -> Tensor:
        calls.append(arguments[4])
        return kernel(*arguments)

    kernel = attention._flash
    monkeypatch.setattr(attention, "_flash", flash)
    monkeypatch.setattr(attention, "_has_flash", lambda query: True)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device=None: False)  # it knows no such device
    model = strategy_cases.adapted(name)
    attention.enable(reader_of(model))
    model = model.to(device="meta", dtype=torch.bfloat16).train()
    for module in model.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, nn.Dropout):
            module.dropout.p = 0.1
    batch = {key: column.to("meta") for key, column in packed(strategy_cases.batch()).items()}
    output = read_batch(model, batch, forward_keys(model), position_padding(model))
    assert output.start_logits.shape == batch["input_ids"].shape
    (output.start_logits + output.end_logits).float().sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None and p.grad.shape == p.shape for p in trained)
    assert calls == [0.1] * reader_of(model).config.num_hidden_layers


@pytest.mark.parametrize("name", ["full", "lora", "prompt", "prefix"])
def test_a_packed_step_waits_for_no_device(
    name: str, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the attention of other devices than a CPU, from the batch to the weights."""
    monkeypatch.setattr(attention, "_window_by_window", attention._padded)
    model = strategy_cases.adapted(name)
    trainer = make_trainer(model, batching="packed", label_smoothing_factor=0.1)
    trainer.create_optimizer()
    batch = packed(strategy_cases.batch())
    before = strategy_cases.snapshot(model)
    model.train()
    with Waits() as waits:
        loss = trainer.compute_loss(model, batch, num_items_in_batch=torch.tensor(3.0))
        loss.backward()
        trainer._get_grad_norm(model, torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        trainer.optimizer.step()  # type: ignore[union-attr]
    assert waits.seen == []
    assert any(not torch.equal(p, before[key]) for key, p in model.named_parameters())
    # The mode sees what it is there to see: transformers asks padded batches whether they have padding.
    with Waits() as waits:
        trainer.compute_loss(model, strategy_cases.batch())
    assert waits.seen

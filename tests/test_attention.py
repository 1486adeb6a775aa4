"""Attention over packed windows equals attention over each window alone, on every path a CPU can take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from packing_cases import token_places
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import (
    AlbertConfig,
    AlbertForQuestionAnswering,
    BertConfig,
    BertForQuestionAnswering,
    CamembertConfig,
    CamembertForQuestionAnswering,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    ElectraConfig,
    ElectraForQuestionAnswering,
    ErnieConfig,
    ErnieForQuestionAnswering,
    MPNetConfig,
    MPNetForQuestionAnswering,
    RobertaConfig,
    RobertaForQuestionAnswering,
    XLMRobertaConfig,
    XLMRobertaForQuestionAnswering,
)

from qa import attention
from qa.attention import Boundaries, enable, packed_attention
from qa.errors import InputError
from qa.models import forward_keys
from qa.packing import PLACES, position_padding, read_batch

Attend = Callable[[Tensor, Tensor, Tensor, Boundaries, float, float], Tensor]
PATHS: list[Attend] = [attention._window_by_window, attention._padded]
LENGTHS = [5, 5, 1, 7, 7, 7, 2]
HEADS, WIDTH = 3, 8


def bounds(lengths: list[int], further: int = 0) -> Boundaries:
    """further: keys in front of every window's own."""

    def begins(more: int) -> Tensor:
        return torch.tensor([0, *(length + more for length in lengths)]).cumsum(0).to(torch.int32)

    # The longest may be overstated: a padded batch's width is, where it is rounded up.
    return Boundaries(begins(0), begins(further), max(lengths) + 1, max(lengths) + further + 1)


def states(keys: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [sum(LENGTHS), keys, keys]
    return [torch.randn(size, HEADS, WIDTH, generator=generator).double().requires_grad_() for size in sizes]


def one_by_one(query: Tensor, key: Tensor, value: Tensor, at: Boundaries, scaling: float) -> Tensor:
    """Every window and head alone, in the formula's own words."""
    parts = []
    for (a, b), (c, d) in zip(pairwise(at.begins_q.tolist()), pairwise(at.begins_k.tolist()), strict=True):
        heads = [
            torch.softmax(query[a:b, h] @ key[c:d, h].T * scaling, dim=1) @ value[c:d, h]
            for h in range(HEADS)
        ]
        parts.append(torch.stack(heads, dim=1))
    return torch.cat(parts)


@pytest.mark.parametrize("further", [0, 4])
@pytest.mark.parametrize("attend", PATHS)
def test_every_window_sees_itself_alone(attend: Attend, further: int) -> None:
    at = bounds(LENGTHS, further)
    inputs = states(int(at.begins_k[-1]))
    weights = torch.randn(sum(LENGTHS), HEADS, WIDTH, generator=torch.Generator().manual_seed(1)).double()
    found, expected = attend(*inputs, at, 0.0, 0.3), one_by_one(*inputs, at, 0.3)  # type: ignore[call-arg]
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad((found * weights).sum(), inputs)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * weights).sum(), inputs))


@pytest.mark.parametrize("attend", PATHS)
def test_dropout_drops_its_share_and_keeps_the_mean(attend: Attend) -> None:
    """Equal scores and values of one: each output is the kept share of the weights, scaled up."""
    lengths = [50] * 40
    zeros, ones = torch.zeros(2000, HEADS, WIDTH), torch.ones(2000, HEADS, WIDTH)
    torch.manual_seed(0)
    found = attend(zeros, zeros, ones, bounds(lengths), 0.25, 1.0)[..., 0]
    # A weight of 1 / 50 is kept with 3/4 and then counts 4/3: mean 1, variance (4/3 - 1) / 50.
    assert found.mean().item() == pytest.approx(1, abs=0.01)
    assert found.var().item() == pytest.approx(1 / 150, rel=0.1)


def test_states_of_mixed_precision_are_brought_together() -> None:
    """IA3 returns float32 keys under autocast, where queries are bfloat16."""
    at = bounds(LENGTHS)
    query, key, value = (part.detach().float().transpose(0, 1)[None] for part in states(sum(LENGTHS)))
    named = dict(zip(("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"), at, strict=True))
    module = nn.Module()
    exact, _ = packed_attention(module, query, key, value, None, **named)  # type: ignore[arg-type]
    assert exact.shape == (1, sum(LENGTHS), HEADS, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        half, _ = packed_attention(module, query.bfloat16(), key, value, None, **named)  # type: ignore[arg-type]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.03, rtol=0.03)


def test_flash_is_for_half_precision_on_recent_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    capability = [(8, 0)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[0])
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)

    def query(dtype: torch.dtype, width: int = 64, device: str = "cuda") -> Any:
        return SimpleNamespace(device=torch.device(device), dtype=dtype, shape=(1, 12, 99, width))

    assert attention._has_flash(query(torch.bfloat16))
    assert attention._has_flash(query(torch.float16))
    assert not attention._has_flash(query(torch.float32))
    assert not attention._has_flash(query(torch.bfloat16, width=60))
    assert not attention._has_flash(query(torch.bfloat16, width=264))
    assert not attention._has_flash(query(torch.bfloat16, device="mps"))
    capability[0] = (7, 5)
    assert not attention._has_flash(query(torch.float16))


def test_torchs_kernels_take_what_they_are_given() -> None:
    """No CPU runs them: at least their parameters, by name and place, are what the calls rely on."""
    parameters = list(inspect.signature(varlen_attn).parameters)
    assert parameters[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    schema = torch.ops.aten._flash_attention_forward.default._schema
    names = [argument.name for argument in schema.arguments]
    assert names[:7] == ["query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k"]
    assert names[7:11] == ["dropout_p", "is_causal", "return_debug_mask", "scale"]
    assert schema.returns[0].name == "output"


@pytest.mark.parametrize("scaling", [64**-0.5, 0.3])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_torchs_kernels_take_the_calls_forward_and_backward(dropout: float, scaling: float) -> None:
    """On the device without data, which checks arguments and shapes as a GPU would, and computes nothing."""
    begins = torch.tensor([0, 40, 100], dtype=torch.int32, device="meta")
    inputs = [
        torch.empty(100, 12, 64, dtype=torch.bfloat16, device="meta", requires_grad=True) for _ in range(3)
    ]
    found = attention._flash(*inputs, Boundaries(begins, begins, 64, 64), dropout, scaling)  # type: ignore[call-arg]
    assert (found.shape, found.dtype) == ((100, 12, 64), torch.bfloat16)
    gradients = torch.autograd.grad(found.float().sum(), inputs)
    assert [gradient.shape for gradient in gradients] == [(100, 12, 64)] * 3


@pytest.mark.gpu
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_flash_equals_the_padded_path(dropout: float) -> None:
    at = Boundaries(*(part.cuda() if isinstance(part, Tensor) else part for part in bounds(LENGTHS)))  # type: ignore[arg-type]
    inputs = [part.detach().cuda().bfloat16().requires_grad_() for part in states(sum(LENGTHS))]
    torch.manual_seed(0)
    found = attention._flash(*inputs, at, dropout, WIDTH**-0.5)  # type: ignore[call-arg]
    gradients = torch.autograd.grad(found.float().square().sum(), inputs)
    assert all(gradient.isfinite().all() for gradient in gradients)
    if not dropout:
        expected = attention._padded(*inputs, at, dropout, WIDTH**-0.5)  # type: ignore[call-arg]
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
        others = torch.autograd.grad(expected.float().square().sum(), inputs)
        torch.testing.assert_close(gradients, others, atol=0.05, rtol=0.05)


SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "initializer_range": 0.5,
}
FROM_TWO = SIZES | {"pad_token_id": 1, "type_vocab_size": 2}
DISTIL = {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2}
MODELS: dict[str, Callable[[], Any]] = {
    "albert": lambda: AlbertForQuestionAnswering(AlbertConfig(**SIZES, embedding_size=8)),
    "bert": lambda: BertForQuestionAnswering(BertConfig(**SIZES)),
    "camembert": lambda: CamembertForQuestionAnswering(CamembertConfig(**FROM_TWO)),
    "distilbert": lambda: DistilBertForQuestionAnswering(
        DistilBertConfig(vocab_size=60, max_position_embeddings=24, initializer_range=0.5, **DISTIL)
    ),
    "electra": lambda: ElectraForQuestionAnswering(ElectraConfig(**SIZES, embedding_size=8)),
    "ernie": lambda: ErnieForQuestionAnswering(ErnieConfig(**SIZES)),
    "roberta": lambda: RobertaForQuestionAnswering(RobertaConfig(**FROM_TWO)),
    "xlm-roberta": lambda: XLMRobertaForQuestionAnswering(XLMRobertaConfig(**FROM_TWO)),
}


def batch(padding: int) -> dict[str, Tensor]:
    lengths = torch.tensor([12, 7, 9, 9])
    real = torch.arange(12) < lengths[:, None]
    torch.manual_seed(1)
    ids = torch.randint(5, 60, real.shape).where(real, padding)
    # A passage may hold the padding token as text; RoBERTa leaves it on the padding row of its positions.
    ids[0, 6] = padding
    return {
        "input_ids": ids,
        "attention_mask": real.long(),
        "token_type_ids": ((torch.arange(12) > 3) & real).long(),
    }


def test_every_packable_model_is_tested() -> None:
    assert set(MODELS) == set(attention.PACKABLE)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_packed_equals_padded_in_every_model(kind: str, checkpointing: bool) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    inputs = batch(model.config.pad_token_id or 0)
    real = inputs["attention_mask"].bool()
    keys, padding = forward_keys(model), position_padding(model)
    before = read_batch(model, inputs, keys, padding)
    enable(model)
    if checkpointing:
        if not model.supports_gradient_checkpointing:
            pytest.skip(f"{kind} does not support it")
        model.gradient_checkpointing_enable()
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            if hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.0

    def gradients(output: Any) -> dict[str, Tensor]:
        model.zero_grad()
        scores = torch.stack([output.start_logits, output.end_logits]) * real
        weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(2))
        (scores * weights).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    padded = read_batch(model, inputs, keys, padding)
    expected = gradients(padded)
    packed = read_batch(model, inputs | {PLACES: token_places(inputs["attention_mask"])}, keys, padding)
    found = gradients(packed)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-3)
    for one, two, first in zip(
        (packed.start_logits, packed.end_logits),
        (padded.start_logits, padded.end_logits),
        (before.start_logits, before.end_logits),
        strict=True,
    ):
        assert one.shape == (4, 12)
        assert not one[~real].any()
        torch.testing.assert_close(one[real], two[real], atol=2e-5, rtol=1e-4)
        # A model set to packed reads padded batches as it did before.
        torch.testing.assert_close(two[real], first[real], atol=2e-5, rtol=1e-4)


def test_no_mask_of_all_tokens_by_all_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def spy(module: nn.Module, *states: Any, **kwargs: Any) -> Any:
        seen.append(states[3])
        return packed_attention(module, *states, **kwargs)

    model = MODELS["bert"]().eval()
    enable(model)
    monkeypatch.setitem(attention.AttentionInterface._global_mapping, attention.NAME, spy)
    inputs = batch(0)
    places = {PLACES: token_places(inputs["attention_mask"])}
    read_batch(model, inputs | places, forward_keys(model), None)
    assert seen == [None, None]
    read_batch(model, inputs, forward_keys(model), None)
    assert seen[2].shape == (4, 1, 12, 12)


def test_others_are_refused() -> None:
    model = MPNetForQuestionAnswering(MPNetConfig(**SIZES))
    with pytest.raises(
        InputError, match=r"batching: packed works with albert, bert, .*, not with mpnet; use"
    ):
        enable(model)


def test_a_model_whose_attention_was_chosen_is_left_alone() -> None:
    assert attention.is_packable(MODELS["bert"]())
    assert not attention.is_packable(MPNetForQuestionAnswering(MPNetConfig(**SIZES)))
    chosen = MODELS["bert"]()
    chosen.set_attn_implementation("eager")
    assert not attention.is_packable(chosen)
    enabled = MODELS["bert"]()
    enable(enabled)
    assert attention.is_packable(enabled)


def test_a_saved_model_knows_nothing_of_it(tmp_path: Any) -> None:
    model = MODELS["bert"]()
    enable(model)
    model.save_pretrained(tmp_path)
    assert "packed" not in (tmp_path / "config.json").read_text(encoding="utf-8")
    assert BertForQuestionAnswering.from_pretrained(tmp_path).config._attn_implementation == "sdpa"

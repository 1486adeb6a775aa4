"""Prompts, P-tuning and prefixes: exactness against hand computation, alignment, and what can be resumed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import (
    MultitaskPromptTuningConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from tiny_readers import (
    HEADS,
    HIDDEN,
    LAYERS,
    PROMPTS,
    TINY,
    VIRTUAL,
    adapted,
    batch,
    computed_prompt,
    logits,
    step,
    tiny_bert,
    tiny_roberta,
)
from torch import Tensor
from torch.nn import functional
from transformers import AlbertConfig, AlbertForQuestionAnswering, ElectraConfig, ElectraForQuestionAnswering

from qa.errors import InputError

INPUT_PROMPTS = ["prompt", "p_tuning", "p_tuning_lstm"]
PREFIXES = ["prefix", "prefix_projection"]


def attention_by_hand(attention: Any, hidden: Tensor, mask: Tensor, prefix: Tensor | None) -> Tensor:
    """Self-attention of one layer, (batch, seq_len, HIDDEN), over the prefix (key, value) and the tokens."""
    query, key, value = (getattr(attention, name)(hidden) for name in ("query", "key", "value"))
    if prefix is not None:
        key = torch.cat([prefix[0].expand(len(hidden), -1, -1), key], dim=1)
        value = torch.cat([prefix[1].expand(len(hidden), -1, -1), value], dim=1)
        mask = torch.cat([torch.ones(len(hidden), prefix.shape[1]), mask], dim=1)
    rows = []
    for head in range(HEADS):
        part = slice(head * HIDDEN // HEADS, (head + 1) * HIDDEN // HEADS)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / (HIDDEN // HEADS) ** 0.5
        scores = scores.masked_fill(mask[:, None] == 0, -1e9)
        rows.append(scores.softmax(dim=-1) @ value[..., part])
    return torch.cat(rows, dim=-1)


def reader_by_hand(
    reader: Any, inputs: dict[str, Tensor], *, prompt: Tensor | None = None, prefix: Tensor | None = None
) -> Tensor:
    """Start and end logits (2, batch, seq_len) of an adapted tiny BERT, written out layer by layer."""
    bert = reader.get_base_model().bert
    table = bert.embeddings
    words = table.word_embeddings(inputs["input_ids"])
    words = words + table.token_type_embeddings(inputs["token_type_ids"])
    words = words + table.position_embeddings.weight[: words.shape[1]]
    mask, skip = inputs["attention_mask"].float(), 0
    if prompt is not None:
        skip = len(prompt)
        constant = table.token_type_embeddings.weight[0] + table.position_embeddings.weight[0]
        words = torch.cat([(prompt + constant).expand(len(words), -1, -1), words], dim=1)
        mask = torch.cat([torch.ones(len(words), skip), mask], dim=1)
    hidden = table.LayerNorm(words)
    for index, layer in enumerate(bert.encoder.layer):
        own = None
        if prefix is not None:  # per virtual token: key of layer 0, value of layer 0, key of layer 1, ...
            own = prefix.view(len(prefix), 2 * LAYERS, HIDDEN)[:, 2 * index : 2 * index + 2].transpose(0, 1)
        context = attention_by_hand(layer.attention.self, hidden, mask, own)
        output = layer.attention.output
        hidden = output.LayerNorm(output.dense(context) + hidden)
        wide = functional.gelu(layer.intermediate.dense(hidden))
        hidden = layer.output.LayerNorm(layer.output.dense(wide) + hidden)
    head = reader.get_base_model().qa_outputs.modules_to_save["default"]
    return head(hidden[:, skip:]).permute(2, 0, 1)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("method", PROMPTS)
def test_logits_equal_the_hand_computation(method: str, attention: str) -> None:
    reader = adapted(method, tiny_bert(attn_implementation=attention))
    with torch.no_grad():
        kind = "prefix" if method in PREFIXES else "prompt"
        expected = reader_by_hand(reader, batch(), **{kind: computed_prompt(reader)})
    got = logits(reader, batch())
    assert got.shape == (2, 3, 12)
    real = batch()["attention_mask"].bool()
    torch.testing.assert_close(got[:, real], expected[:, real], atol=1e-5, rtol=1e-5)
    assert (got - logits(tiny_bert(), batch()))[:, real].abs().max() > 0.1


def test_the_hand_computation_is_bert_where_there_is_no_prompt() -> None:
    reader = adapted("prompt")
    with torch.no_grad():
        by_hand = reader_by_hand(reader, batch())
    base = tiny_bert()
    base.qa_outputs.load_state_dict(
        reader.get_base_model().qa_outputs.modules_to_save["default"].state_dict()
    )
    real = batch()["attention_mask"].bool()
    torch.testing.assert_close(by_hand[:, real], logits(base, batch())[:, real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", PROMPTS)
def test_loss_is_berts_own_on_the_real_columns(method: str) -> None:
    reader = adapted(method)
    start, end = logits(reader, batch())
    # Row 0: both in range. Row 1: the end, 12, is past the 12 columns and ignored. Row 2: -1 counts as 0.
    labels = {"start_positions": torch.tensor([3, 8, -1]), "end_positions": torch.tensor([11, 12, 4])}
    start_terms = [-start.log_softmax(1)[row, gold] for row, gold in ((0, 3), (1, 8), (2, 0))]
    end_terms = [-end.log_softmax(1)[row, gold] for row, gold in ((0, 11), (2, 4))]
    expected = (sum(start_terms) / 3 + sum(end_terms) / 2) / 2
    torch.testing.assert_close(reader(**batch(), **labels).loss, expected, atol=1e-5, rtol=1e-5)
    columns = {name: gold.unsqueeze(1) for name, gold in labels.items()}
    torch.testing.assert_close(reader(**batch(), **columns).loss, expected, atol=1e-5, rtol=1e-5)
    assert reader(**batch()).loss is None
    with torch.no_grad():
        as_tuple = reader(**batch(), **labels, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[1], start)
    assert len(as_tuple) == 3


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("method", PROMPTS)
def test_all_positions_of_the_encoder_remain_for_real_tokens(method: str, name: str) -> None:
    reader = adapted(method, TINY[name]())
    inputs = batch(seq_len=16)  # every usable position of these encoders
    assert logits(reader, inputs).shape == (2, 3, 16)
    first = 0 if name == "bert" else 2
    implicit = logits(reader, inputs)
    positions = torch.arange(first, first + 16).expand(3, -1)
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(
        logits(reader, inputs | {"position_ids": positions})[:, real], implicit[:, real]
    )
    swapped = positions.clone()
    swapped[:, [1, 2]] = swapped[:, [2, 1]]
    assert (logits(reader, inputs | {"position_ids": swapped}) - implicit).abs().max() > 0.05


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("method", PROMPTS)
def test_padding_and_neighbours_do_not_change_a_row(method: str, name: str) -> None:
    reader = adapted(method, TINY[name]())
    together = logits(reader, batch())
    for row, length in enumerate((12, 9, 5)):
        alone = {key: value[row : row + 1, :length] for key, value in batch().items()}
        torch.testing.assert_close(
            logits(reader, alone)[:, 0], together[:, row, :length], atol=1e-5, rtol=1e-5
        )
        del alone["attention_mask"]
        torch.testing.assert_close(
            logits(reader, alone)[:, 0], together[:, row, :length], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("method", PROMPTS)
def test_embeddings_may_be_given_for_ids_and_segments_count(method: str, name: str) -> None:
    reader = adapted(method, TINY[name]())
    expected = logits(reader, batch())
    inputs = batch()
    inputs["inputs_embeds"] = reader.get_input_embeddings()(inputs.pop("input_ids"))
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(logits(reader, inputs)[:, real], expected[:, real], atol=1e-6, rtol=1e-6)
    zeros = batch() | {"token_type_ids": torch.zeros(3, 12, dtype=torch.long)}
    assert (logits(reader, zeros) - expected).abs().max() > 0.05
    without = {key: value for key, value in zeros.items() if key != "token_type_ids"}
    torch.testing.assert_close(logits(reader, without), logits(reader, zeros), atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match=r"either|exactly one"):
        reader(**batch(), inputs_embeds=inputs["inputs_embeds"])


@pytest.mark.parametrize("method", PROMPTS)
def test_hidden_states_are_aligned_with_the_input(method: str) -> None:
    reader = adapted(method, tiny_bert(attn_implementation="eager"))
    output = reader(**batch(), output_hidden_states=True, output_attentions=True)
    assert [tuple(states.shape) for states in output.hidden_states] == [(3, 12, HIDDEN)] * (LAYERS + 1)
    head = reader.get_base_model().qa_outputs
    torch.testing.assert_close(head(output.hidden_states[-1])[..., 0], output.start_logits)
    rows = 12 if method in PREFIXES else 12 + VIRTUAL
    assert [tuple(a.shape) for a in output.attentions] == [(3, HEADS, rows, 12 + VIRTUAL)] * LAYERS


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_prefix_takes_prepared_masks(dtype: torch.dtype) -> None:
    reader = adapted("prefix", tiny_bert(attn_implementation="sdpa" if dtype == torch.bool else "eager"))
    seen = batch()["attention_mask"].bool()[:, None, None, :].expand(-1, 1, 12, -1)
    prepared = seen if dtype == torch.bool else torch.zeros(seen.shape).masked_fill(~seen, -1e9)
    real = batch()["attention_mask"].bool()
    expected = logits(reader, batch())[:, real]
    got = logits(reader, batch() | {"attention_mask": prepared})[:, real]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    boolean = batch() | {"attention_mask": real}
    assert torch.equal(logits(reader, boolean)[:, real], expected)


def test_prompt_widths_follow_the_word_embeddings() -> None:
    sizes: dict[str, Any] = {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    electra = ElectraForQuestionAnswering(
        ElectraConfig(**sizes, embedding_size=16, intermediate_size=64)
    ).eval()
    assert adapted("prompt", electra).prompt_encoder["default"].embedding.weight.shape == (VIRTUAL, 16)
    assert logits(adapted("prefix", electra), batch()).shape == (2, 3, 12)
    albert = AlbertForQuestionAnswering(AlbertConfig(**sizes, embedding_size=16, intermediate_size=64)).eval()
    assert logits(adapted("p_tuning", albert), batch()).shape == (2, 3, 12)


def test_what_prompts_cannot_do_is_refused() -> None:
    sizes: dict[str, Any] = {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    albert = AlbertForQuestionAnswering(AlbertConfig(**sizes, embedding_size=16, intermediate_size=64))
    with pytest.raises(InputError, match=r"AlbertModel.*past_key_values"):
        get_peft_model(albert, PROMPTS["prefix"]())
    with pytest.raises(InputError, match=r"MULTITASK_PROMPT_TUNING.*PREFIX_TUNING, PROMPT_TUNING, P_TUNING"):
        get_peft_model(
            tiny_bert(), MultitaskPromptTuningConfig(task_type="QUESTION_ANS", num_virtual_tokens=5)
        )
    reader = adapted("prompt")
    for call in (reader.merge_and_unload, reader.merge_adapter, reader.unmerge_adapter):
        with pytest.raises(InputError, match="cannot be merged"):
            call()
    with pytest.raises(InputError, match="attention_mask"):
        reader(**batch() | {"attention_mask": torch.ones(3, 1, 12, 12)})
    for method in ("prompt", "prefix"):
        with pytest.raises(InputError, match="packed"):
            adapted(method)(**batch(), cu_seq_lens_q=torch.tensor([0, 12]))
    reader.config._attn_implementation = "flash_attention_2"
    with pytest.raises(InputError, match="flash"):
        reader(**batch())


def test_no_layer_misses_its_prefix_unnoticed() -> None:
    reader = adapted("prefix")
    reader.get_base_model().gradient_checkpointing_enable()
    with pytest.raises(InputError, match="activation checkpointing"):
        reader.train()(**batch())
    wrong = PrefixTuningConfig(task_type="QUESTION_ANS", num_virtual_tokens=5, num_layers=LAYERS + 1)
    with pytest.raises(InputError, match="1 of 3"):
        get_peft_model(tiny_bert(), wrong)(**batch())
    prompted = adapted("p_tuning")
    prompted.get_base_model().gradient_checkpointing_enable()
    prompted.train()(
        **batch(), start_positions=torch.ones(3).long(), end_positions=torch.ones(3).long()
    ).loss.backward()
    assert all(p.grad is not None for p in prompted.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", [PromptTuningConfig, PrefixTuningConfig])
def test_a_half_precision_base_trains_float32_prompts(kind: Any) -> None:
    config = kind(task_type="QUESTION_ANS", num_virtual_tokens=VIRTUAL)
    reader = get_peft_model(tiny_roberta().bfloat16(), config)
    assert {p.dtype for p in reader.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in reader.parameters() if not p.requires_grad} == {torch.bfloat16}
    optimizer = torch.optim.AdamW([p for p in reader.parameters() if p.requires_grad], lr=0.05)
    losses = [step(reader, batch(), optimizer) for _ in range(4)]
    assert losses[-1] < losses[0]
    with reader.disable_adapter():
        assert torch.equal(logits(reader, batch()), logits(tiny_roberta().bfloat16(), batch()))

"""Trained vectors before the input (prompt tuning, P-tuning) or before each layer's keys and values (prefix).

Lester et al. 2021 (prompt tuning), Liu et al. 2021 (P-tuning), Li and Liang 2021 (prefix tuning), Liu et al.
2022 (P-tuning v2). In all of them the passage keeps its own coordinates: real token t stays at position t
with its own segment, and logits have one column per real token. So 512 real tokens still fit 512 positions.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from peft import PeftConfig, PeftType
from peft.tuners import PrefixEncoder, PromptEncoder
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from qa import attention
from qa.errors import InputError
from qa.packing import Spread, position_padding, positions_of

INPUT_PROMPTS = frozenset({PeftType.PROMPT_TUNING, PeftType.P_TUNING})
SUPPORTED_PROMPTS = INPUT_PROMPTS | {PeftType.PREFIX_TUNING}


def prepare_prompt(model: Any, config: Any) -> None:
    """Complete a prompt method's configuration from `model`, before it is built.

    Raises: InputError for a method that no span reader can use, and for one that this encoder cannot use.
    """
    if config.peft_type not in SUPPORTED_PROMPTS:
        names = ", ".join(sorted(SUPPORTED_PROMPTS))
        raise InputError(
            f"{config.peft_type.value}: not a prompt method for span readers; choose among {names}"
        )
    encoder = model.base_model
    if config.peft_type in INPUT_PROMPTS:
        # ELECTRA's and ALBERT's word embeddings are narrower than the hidden size that peft would take.
        width = model.get_input_embeddings().embedding_dim
    elif "past_key_values" in inspect.signature(encoder.forward).parameters:
        width = model.config.hidden_size
    else:
        raise InputError(
            f"{type(encoder).__name__}: its attention takes no past_key_values, which prefix tuning works "
            "through; take another method, or an encoder like BERT, RoBERTa or ELECTRA"
        )
    # peft reads the keys of a config's JSON, where DistilBERT calls its sizes by names of its own.
    config.token_dim = config.token_dim or width
    config.num_attention_heads = config.num_attention_heads or model.config.num_attention_heads


def is_reparameterised(config: PeftConfig) -> bool:
    """Whether the trained tensors are a network that computes the prompt, not the prompt itself."""
    if config.peft_type == PeftType.PREFIX_TUNING:
        return bool(getattr(config, "prefix_projection", False))
    return config.peft_type == PeftType.P_TUNING


def _load_whole(encoder: ResumablePromptEncoder | ResumablePrefixEncoder) -> None:
    if encoder.saved is None:
        raise InputError(
            "these tensors hold only the prompt that its encoder computed, so training cannot go on from "
            "them; load the adapter by the model's load_adapter, from a folder that save_pretrained wrote"
        )
    encoder.load_state_dict(encoder.saved)
    encoder.saved = None


class ResumablePromptEncoder(PromptEncoder):
    """peft's P-tuning encoder, restored as a whole: embedding and MLP or LSTM.

    peft would write the computed prompt over the embedding, the encoder's input, and train on from there.

    saved: the encoder's tensors, handed over by `load_adapter` just before peft asks for them.
    """

    saved: dict[str, Tensor] | None = None

    def _load_adapter_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        _load_whole(self)


class ResumablePrefixEncoder(PrefixEncoder):
    """peft's prefix encoder with a projection (P-tuning v2's re-parameterisation), restored as a whole."""

    saved: dict[str, Tensor] | None = None

    def _load_adapter_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        _load_whole(self)


def resumable_encoder(config: PeftConfig) -> ResumablePromptEncoder | ResumablePrefixEncoder:
    """The network that computes the prompt of a re-parameterised configuration, untrained."""
    if config.peft_type == PeftType.P_TUNING:
        return ResumablePromptEncoder(config)
    return ResumablePrefixEncoder(config)


def is_resumable(encoder: nn.Module | None) -> bool:
    """Whether an encoder is such a network, as against the prompt itself."""
    return isinstance(encoder, ResumablePromptEncoder | ResumablePrefixEncoder)


def without_initial_value(config: PeftConfig) -> PeftConfig:
    """`config` set to build a prompt whose tensors are about to be read from a file.

    Drawing a first value from text would need the tokenizer. peft draws none in inference mode, and builds
    the same tensors in both, except where a network computes the prompt.
    """
    config.inference_mode = not is_reparameterised(config)
    return config


def virtual_tokens(encoder: nn.Module) -> Tensor:
    """The trained vectors as the model reads them. Returns: (virtual_tokens, width), with gradient.

    width: that of the word embeddings; for a prefix 2 * layers * hidden_size, each layer's key first.
    """
    table: nn.Embedding = encoder.embedding  # type: ignore[assignment]
    if not is_resumable(encoder):
        return table.weight
    indices = torch.arange(table.num_embeddings, device=table.weight.device)
    return encoder(indices.unsqueeze(0))[0]


def finished_prompt(encoder: nn.Module) -> Tensor:
    """The virtual tokens without gradient and dropout, on the CPU, a copy."""
    was_training = encoder.training
    with torch.no_grad():
        prompt = virtual_tokens(encoder.eval()).cpu().clone()
    encoder.train(was_training)
    return prompt


class PrefixKeyValues:
    """A prefix in the shape of a key-value cache: what self-attention puts before its own keys and values.

    BERT-family encoders in transformers 5 hand `past_key_values` to every self-attention layer, which calls
    its `update` before any attention function (eager, sdpa, flash, flex), although they are no decoders. A
    cache that reports its length moves the real tokens to later positions; this one reports 0, so they stay
    where they were.
    """

    def __init__(self, prefix: Tensor, num_layers: int, num_heads: int, spread: Spread | None = None) -> None:
        """prefix: (virtual_tokens, 2 * num_layers * hidden_size), laid out as peft lays it out.

        spread: of the prefix over the windows of a packed batch; None: every row begins with it.
        """
        self.spread = spread
        by_head = prefix.view(prefix.shape[0], 2 * num_layers, num_heads, -1)
        self.states = by_head.permute(1, 2, 0, 3)  # (2 * num_layers, num_heads, virtual_tokens, head_dim)
        self.unread = set(range(num_layers))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that precede the input in the encoder's numbering: none."""
        return 0

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """(batch, num_heads, seq_len, head_dim) each -> the same with the prefix in front of seq_len.

        Of a packed batch, (1, num_heads, tokens, head_dim): with the prefix in front of every window.
        """
        self.unread.discard(layer_idx)
        key, value = self.states[2 * layer_idx : 2 * layer_idx + 2].to(keys.dtype)
        if self.spread is not None:
            spread = self.spread
            return spread.apply(key[None], keys, dim=2), spread.apply(value[None], values, dim=2)
        rows = (keys.shape[0], -1, -1, -1)
        return torch.cat([key.expand(rows), keys], dim=2), torch.cat([value.expand(rows), values], dim=2)


def prefixed_forward(
    model: PreTrainedModel, prefix: Tensor, config: Any, inputs: dict[str, Any]
) -> QuestionAnsweringModelOutput | tuple[Tensor, ...]:
    """The model's own output, with `prefix` seen by every layer: nothing in it needs to be aligned.

    prefix: (virtual_tokens, 2 * layers * hidden_size). config: peft's PrefixTuningConfig.
    Raises: InputError where a layer does not read the prefix, which would go unnoticed.
    """
    if model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise InputError("activation checkpointing drops a prefix; turn it off, or take another method")
    count, spread = prefix.shape[0], _spread(model, inputs, prefix.shape[0])
    states = PrefixKeyValues(prefix, config.num_layers, config.num_attention_heads, spread)
    if spread is not None:
        longest = inputs["max_length_k"] + count
        inputs = inputs | {"cu_seq_lens_k": spread.begins, "max_length_k": longest}
    mask = inputs.get("attention_mask")
    if mask is not None:
        # One more column per prefix vector, open to every row; a 4-d mask of floats is added to the scores.
        opened = 0.0 if mask.is_floating_point() and mask.dim() == 4 else 1
        inputs = inputs | {"attention_mask": functional.pad(mask, (count, 0), value=opened)}
    output = model(**inputs, past_key_values=states)
    if states.unread:
        raise InputError(
            f"num_layers: {len(states.unread)} of {config.num_layers} have a prefix that no layer of "
            f"{type(model).__name__} read; leave num_layers to the encoder"
        )
    return output


def prompted_forward(
    model: PreTrainedModel, prompt: Tensor, inputs: dict[str, Any]
) -> QuestionAnsweringModelOutput | tuple[Tensor, ...]:
    """The model's output for the real tokens, with `prompt` before their word embeddings.

    prompt: (virtual_tokens, width of the word embeddings).
    Returns: loss as BERT's own over the real columns; logits (batch, seq_len); hidden states
        (batch, seq_len, hidden_size); attentions as they are, (batch, heads, virtual_tokens + seq_len, same).
    """
    inputs = dict(inputs)
    labels = [inputs.pop("start_positions", None), inputs.pop("end_positions", None)]
    return_dict = inputs.pop("return_dict", getattr(model.config, "return_dict", True))
    spread = _spread(model, inputs, len(prompt))
    output = model(**prompted_inputs(model, prompt, inputs, spread), return_dict=True)

    def real(values: Tensor) -> Tensor:
        return values[:, len(prompt) :].contiguous() if spread is None else values[:, spread.places]

    start_logits, end_logits = real(output.start_logits), real(output.end_logits)
    hidden_states = output.hidden_states
    aligned = QuestionAnsweringModelOutput(
        loss=None if None in labels else bert_span_loss(start_logits, end_logits, *labels),
        start_logits=start_logits,
        end_logits=end_logits,
        hidden_states=hidden_states and tuple(real(states) for states in hidden_states),
        attentions=output.attentions,
    )
    return aligned if return_dict else aligned.to_tuple()


def prompted_inputs(
    model: PreTrainedModel, prompt: Tensor, inputs: dict[str, Any], spread: Spread | None = None
) -> dict[str, Any]:
    """`inputs` with the virtual tokens in front, as embeddings; what is not given stays the model's default.

    spread: of the prompt over the windows of a packed batch.

    Virtual tokens have segment 0 and all share the first real token's position, a constant that training
    absorbs: they use up no position, and none of the real ones moves.
    """
    if "flash" in (model.config._attn_implementation or ""):
        raise InputError(
            "attn_implementation: flash attention takes repeated positions for the start of another packed "
            "sequence, which cuts a prompt off from its passage; use sdpa or eager with prompts"
        )
    if ("input_ids" in inputs) == ("inputs_embeds" in inputs):
        raise ValueError("give either input_ids or inputs_embeds")
    inputs = dict(inputs)
    positions, first = real_positions(model, inputs)
    input_ids = inputs.pop("input_ids", None)
    embeds = inputs["inputs_embeds"] if input_ids is None else model.get_input_embeddings()(input_ids)
    rows = prompt.to(embeds.dtype).expand(embeds.shape[0], -1, -1)
    columns = {"position_ids": (positions, first)}
    if "token_type_ids" in inputs:
        columns["token_type_ids"] = (inputs["token_type_ids"], 0)
    for name, (column, value) in columns.items():
        inputs[name] = functional.pad(column, (len(prompt), 0), value=value)
    inputs["inputs_embeds"] = torch.cat([rows, embeds], dim=1)
    if spread is not None:
        for name in (*columns, "inputs_embeds"):
            inputs[name] = inputs[name].index_select(1, spread.source)
        longest = inputs["max_length_q"] + len(prompt)
        inputs |= dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), spread.begins)
        inputs |= dict.fromkeys(("max_length_q", "max_length_k"), longest)
    mask = inputs.get("attention_mask")
    if mask is not None:
        if mask.dim() != 2:
            raise InputError("attention_mask: prompt tuning and P-tuning take one of shape (batch, seq_len)")
        inputs["attention_mask"] = functional.pad(mask, (len(prompt), 0), value=1)
    return inputs


def real_positions(model: PreTrainedModel, inputs: dict[str, Any]) -> tuple[Tensor, int]:
    """Positions of the real tokens as the bare encoder numbers them, (batch or 1, seq_len), and the first."""
    padding = position_padding(model)
    first = 0 if padding is None else padding + 1
    if "position_ids" in inputs:
        return inputs["position_ids"], first
    if "input_ids" in inputs:
        return positions_of(inputs["input_ids"], padding), first
    embeds = inputs["inputs_embeds"]
    return torch.arange(first, first + embeds.shape[1], device=embeds.device).unsqueeze(0), first


def bert_span_loss(start_logits: Tensor, end_logits: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """BERT's own QA loss (transformers: `BertForQuestionAnswering.forward`): mean over start and end.

    start_logits, end_logits: (batch, seq_len). starts, ends: (batch,) or (batch, 1) token index, ends
    inclusive; an index of seq_len or more is ignored, a negative one means 0.
    """
    seq_len = start_logits.shape[1]
    losses = [
        functional.cross_entropy(logits, gold.flatten().clamp(0, seq_len), ignore_index=seq_len)
        for logits, gold in ((start_logits, starts), (end_logits, ends))
    ]
    return (losses[0] + losses[1]) / 2


def _spread(model: PreTrainedModel, inputs: dict[str, Any], count: int) -> Spread | None:
    """Where `count` further tokens stand before each window of a packed batch; None for a padded one.

    Raises: InputError where the model's attention would look past the windows' boundaries.
    """
    if "cu_seq_lens_q" not in inputs:
        return None
    if model.config._attn_implementation != attention.NAME:
        raise InputError(
            f"packed batches: prompts and prefixes need the attention {attention.NAME!r} "
            "(qa.attention.enable), not "
            f"{model.config._attn_implementation}; use padded batches"
        )
    tokens = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
    return Spread.before_each(inputs["cu_seq_lens_q"], tokens.shape[1], count)

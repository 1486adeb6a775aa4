"""peft's wrapper for extractive question answering, with its faults repaired.

peft 0.21's `PeftModelForQuestionAnswering.forward` names `token_type_ids` and `position_ids` and passes
neither on; with prompts its logits are longer than the input, so labels and the ignored index point
elsewhere; the head is protected only after injection; and prompts lack most of what other adapters can do
(disable, switch, resume). `install` puts the class below in its place; a canary test fails once peft has
repaired its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft.auto
from peft import PeftConfig, PeftModel, PeftModelForQuestionAnswering
from torch import Tensor, nn

from qa.errors import InputError
from qa.peft_methods import prompts, saving
from qa.peft_methods.heads import keep_in_float32, protect_head, saved_modules


def install() -> None:
    """Let peft build our class for every configuration with `task_type="QUESTION_ANS"`.

    `get_peft_model` and `PeftModel.from_pretrained` read the dict, `AutoPeftModelForQuestionAnswering` its
    own attribute. Calling it again changes nothing.
    """
    peft.auto.MODEL_TYPE_TO_PEFT_MODEL_MAPPING["QUESTION_ANS"] = PeftModelForExtractiveQuestionAnswering
    peft.auto.AutoPeftModelForQuestionAnswering._target_peft_class = PeftModelForExtractiveQuestionAnswering


class PeftModelForExtractiveQuestionAnswering(PeftModelForQuestionAnswering):
    """A span reader with adapters. Start and end logits are (batch, seq_len), aligned with the input, always.

    Adapters in layers (LoRA and its kin, IA3, our own) go with any model of `AutoModelForQuestionAnswering`;
    prompts with encoders that number positions as BERT or RoBERTa do; prefixes with those whose attention
    takes `past_key_values`. The head is trained with every adapter: each has its copy, and the base keeps its
    own.

    saved_alone: the adapter that `save_pretrained` writes unless told others, and into the folder itself
        whatever its name; None: all of them, as peft does.
    """

    saved_alone: str | None = None

    def __init__(
        self, model: nn.Module, peft_config: PeftConfig, adapter_name: str = "default", **kwargs: Any
    ) -> None:
        _prepare_config(model, peft_config)
        # peft's own __init__ would name the head a second time, in a list that goes into adapter_config.json.
        super(PeftModelForQuestionAnswering, self).__init__(model, peft_config, adapter_name, **kwargs)
        if kwargs.get("autocast_adapter_dtype", True):
            keep_in_float32(self, adapter_name)

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base model's output, given all it was called with.

        input_ids, attention_mask, token_type_ids, position_ids: (batch, seq_len). start_positions,
        end_positions: (batch,) token index, end inclusive. Returns: QuestionAnsweringModelOutput; the loss is
        BERT's own (softmax over every column, padding included), None without labels.
        """
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
            "start_positions": start_positions,
            "end_positions": end_positions,
        } | kwargs
        inputs = {name: value for name, value in given.items() if value is not None}
        active = self.active_adapter
        config = self.peft_config.get(active) if isinstance(active, str) else None
        base: Any = self.get_base_model()
        if config is None or (self._is_prompt_learning and self._adapters_disabled):
            return base(**inputs)
        if config.peft_type in prompts.INPUT_PROMPTS:
            return prompts.prompted_forward(base, prompts.virtual_tokens(self.prompt_encoder[active]), inputs)
        if config.is_prompt_learning:
            return prompts.prefixed_forward(
                base, prompts.virtual_tokens(self.prompt_encoder[active]), config, inputs
            )
        with self._enable_peft_forward_hooks(**inputs):
            for name in self.special_peft_forward_args:
                inputs.pop(name, None)
            # AdaLoRA's tuner adds its regulariser to any loss that passes it: wanted in training alone.
            return (self.base_model if self.training and not self._adapters_disabled else base)(**inputs)

    def get_base_model(self) -> nn.Module:
        """The model under the adapters, also where none is active."""
        model: Any = self.base_model
        return model if self._is_prompt_learning else model.model

    def add_adapter(
        self,
        adapter_name: str,
        peft_config: PeftConfig,
        low_cpu_mem_usage: bool = False,
        autocast_adapter_dtype: bool = True,
    ) -> None:
        """Add an untrained adapter, frozen until `set_adapter`; what is trainable beside it stays so.

        Where there is no other, it becomes active at once. Raises: ValueError where the name is taken or the
        method differs from the model's.
        """
        _prepare_config(self.get_base_model(), peft_config)
        before = {parameter: parameter.requires_grad for parameter in self.parameters()}
        is_only_one = not self.peft_config
        if is_only_one:
            self.active_adapter = adapter_name
            if not self._is_prompt_learning:
                tuner: Any = self.base_model
                tuner.active_adapter = adapter_name
        super(PeftModelForQuestionAnswering, self).add_adapter(
            adapter_name, peft_config, low_cpu_mem_usage, autocast_adapter_dtype
        )
        if autocast_adapter_dtype:
            keep_in_float32(self, adapter_name)
        if is_only_one:
            self.set_adapter(adapter_name, inference_mode=peft_config.inference_mode)
            return
        # peft freezes the active head where the new adapter is a prompt or for inference, and leaves some of
        # the new parameters trainable.
        for parameter in self.parameters():
            parameter.requires_grad_(before.get(parameter, False))

    def set_adapter(self, adapter_name: str, inference_mode: bool = False) -> None:
        """Switch to an adapter and its head; it alone is trainable then, or nothing with `inference_mode`."""
        super().set_adapter(adapter_name, inference_mode=inference_mode)
        if self._is_prompt_learning:
            for name, encoder in self.prompt_encoder.items():
                encoder.requires_grad_(name == adapter_name and not inference_mode)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Freeze or thaw adapters with their heads; also prompts, where peft refuses."""
        if not self._is_prompt_learning:
            super().set_requires_grad(adapter_names, requires_grad)
            return
        for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
            self.prompt_encoder[name].requires_grad_(requires_grad)
            for wrapper in saved_modules(self):
                if name in wrapper.modules_to_save:
                    wrapper.modules_to_save[name].requires_grad_(requires_grad)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Within: the base model, its own head included. Afterwards the same is trainable as before."""
        before = [(parameter, parameter.requires_grad) for parameter in self.parameters()]
        try:
            in_layers = self.peft_config and not self._is_prompt_learning
            with super().disable_adapter() if in_layers else self._prompts_disabled():
                yield
        finally:
            for parameter, requires_grad in before:
                parameter.requires_grad_(requires_grad)

    @contextmanager
    def _prompts_disabled(self) -> Iterator[None]:
        was_disabled, self._adapters_disabled = self._adapters_disabled, True
        for wrapper in saved_modules(self):
            wrapper.enable_adapters(False)
        try:
            yield
        finally:
            self._adapters_disabled = was_disabled
            for wrapper in saved_modules(self):
                wrapper.enable_adapters(not was_disabled)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter and its head. Where it was active, the first left over is then, or the base."""
        was_active = adapter_name == self.active_adapter
        if adapter_name not in self.peft_config:
            raise ValueError(f"there is no adapter {adapter_name!r}; there are {', '.join(self.peft_config)}")
        if was_active and len(self.peft_config) > 1:
            survivor = next(name for name in self.peft_config if name != adapter_name)
            warnings.warn(f"{adapter_name!r} was active; {survivor!r} is active now", stacklevel=2)
            self.set_adapter(survivor, inference_mode=self.peft_config[survivor].inference_mode)
        if self._is_prompt_learning:
            for table in (self.peft_config, self.prompt_encoder, self.prompt_tokens):
                del table[adapter_name]
            for wrapper in saved_modules(self):
                wrapper.delete_adapter(adapter_name, [self.active_adapter] if self.peft_config else None)
        else:
            super().delete_adapter(adapter_name)
        if not self.peft_config:
            self.active_adapter = []  # type: ignore[assignment]  # peft's sign for "none"

    def merge_and_unload(self, *args: Any, **kwargs: Any) -> nn.Module:
        """The base model with the active adapter worked into its weights. Raises: InputError for prompts."""
        return self._mergeable().merge_and_unload(*args, **kwargs)

    def merge_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Work adapters into the base's weights, until `unmerge_adapter`. Raises: InputError for prompts."""
        self._mergeable().merge_adapter(*args, **kwargs)

    def unmerge_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Undo `merge_adapter`. Raises: InputError for prompts."""
        self._mergeable().unmerge_adapter(*args, **kwargs)

    def _mergeable(self) -> Any:
        if self._is_prompt_learning:
            raise InputError(
                "prompts and prefixes are further tokens, not changes of weights, so they cannot be merged "
                "into the base model; keep the adapter beside it"
            )
        return self.base_model

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: Any,
        safe_serialization: bool = True,
        selected_adapters: list[str] | None = None,
        save_embedding_layers: str | bool = "auto",
        is_main_process: bool = True,
        **kwargs: Any,
    ) -> None:
        """Write adapters, as peft does each to its own folder ("default", `saved_alone`: `save_directory`).

        Two things differ: no file names a folder of this machine, and where a network computes the prompt
        (P-tuning, prefix with projection) that network is written beside it, to train on from.
        """
        model = self.get_base_model()
        if save_embedding_layers == "auto":
            save_embedding_layers = saving.is_vocabulary_resized(model)
        alone = self.saved_alone if selected_adapters is None else None
        names = list(self.peft_config) if selected_adapters is None else selected_adapters
        names = names if alone is None else [alone]
        with saving.portable_names(model, self.peft_config.values()):
            given = (safe_serialization, names, save_embedding_layers, is_main_process)
            super().save_pretrained(str(save_directory), *given, **kwargs)
        for name in names if self._is_prompt_learning and is_main_process else ():
            encoder = self.prompt_encoder[name]
            folder = Path(save_directory, "" if name == "default" else name)
            saving.write_prompt_encoder(encoder if prompts.is_resumable(encoder) else None, folder)
        if alone is not None and is_main_process:
            saving.move_up(Path(save_directory), alone)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        model: nn.Module,
        model_id: Any,
        adapter_name: str = "default",
        is_trainable: bool = False,
        config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> PeftModel:
        """As peft's, and with `is_trainable` also for prompts, which `PeftModel.from_pretrained` refuses."""
        saved = config or PeftConfig.from_pretrained(model_id, **saving.hub_arguments(kwargs))
        if not (is_trainable and saved.is_prompt_learning):
            return super().from_pretrained(model, model_id, adapter_name, is_trainable, config, **kwargs)
        wrapped = cls(model, prompts.without_initial_value(saved), adapter_name)
        saved.inference_mode = False
        wrapped.load_adapter(model_id, adapter_name, is_trainable=True, **kwargs)
        wrapped.set_adapter(adapter_name)
        return wrapped

    def load_adapter(  # type: ignore[override]
        self, model_id: Any, adapter_name: str, is_trainable: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        """Load an adapter beside the others, or over the one of that name (best checkpoint, resume).

        Raises: InputError where training would go on from a prompt whose encoder was not saved.
        """
        if self._is_prompt_learning:
            hub, known, new = saving.hub_arguments(kwargs), self.peft_config.get(adapter_name), None
            if is_trainable and known is None:
                new = prompts.without_initial_value(PeftConfig.from_pretrained(model_id, **hub))
            config = known or new
            tensors = None
            if config is not None and prompts.is_reparameterised(config) and not config.inference_mode:
                tensors = saving.read_prompt_encoder(str(model_id), **hub)
            if new is not None:
                self.add_adapter(adapter_name, new)
                new.inference_mode = False
                self.set_requires_grad(adapter_name)
            if tensors is not None:
                encoder: Any = self.prompt_encoder[adapter_name]
                encoder.saved = tensors
        return super().load_adapter(model_id, adapter_name, is_trainable, *args, **kwargs)

    def get_prompt_embedding_to_save(self, adapter_name: str) -> Tensor:
        """The prompt as computed without dropout: (virtual_tokens, width), on the CPU, a copy."""
        return prompts.finished_prompt(self.prompt_encoder[adapter_name])

    def _setup_prompt_encoder(self, adapter_name: str) -> None:
        super()._setup_prompt_encoder(adapter_name)
        config = self.peft_config[adapter_name]
        if prompts.is_reparameterised(config) and not config.inference_mode:
            self.prompt_encoder[adapter_name] = prompts.resumable_encoder(config).to(self.device)


def _prepare_config(model: nn.Module, config: PeftConfig) -> None:
    protect_head(model, config)
    if config.is_prompt_learning:
        prompts.prepare_prompt(model, config)

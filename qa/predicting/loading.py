"""A reader to ask, with all that was decided about it when it was evaluated."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa.adapters import SAVED_SETTINGS, base_of, is_adapter
from qa.confidence.final_answers import CALIBRATION_NAME, Calibration, read_calibration
from qa.configuration import read_yaml
from qa.decoding import DecodingSettings
from qa.errors import InputError
from qa.hub import adapter_folder, at_revision, reader_folder, refuse_pickles
from qa.models import (
    DEFAULT_READER,
    ModelArguments,
    load_reader,
    local_folder,
    max_positions,
    resolve_checkpoint,
)
from qa.tokenizers import is_cased_vocabulary, load_tokenizer, lower_cases, pair_template
from qa.windows import WindowSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

FORMER_MAX_SEQ_LENGTH, FORMER_DOC_STRIDE, FORMER_MAX_ANSWER_LENGTH = 384, 128, 15
"""Defaults of the removed transformers pipeline, for readers that bring no settings."""


@dataclass(frozen=True)
class Reader:
    """A model that finds spans, its tokenizer, and how it wants to be asked.

    name: where it comes from. device: where it is.
    windows, decoding, loss, calibration: those it was evaluated with.
    evaluated: whether they came with it; else they are the removed pipeline's, and the calibration is not
        fitted. special_tokens: how many the tokenizer adds to a pair. longest: tokens it has positions for.
    """

    name: str
    model: Any
    tokenizer: PreTrainedTokenizerFast
    device: torch.device
    windows: WindowSettings
    decoding: DecodingSettings
    loss: str
    calibration: Calibration
    evaluated: bool
    special_tokens: int
    longest: int | None


def load(
    model: Any = None,
    tokenizer: Any = None,
    *,
    arguments: ModelArguments | None = None,
    device: Any = None,
    dtype: Any = None,
) -> Reader:
    """A reader from a finished run's folder, any QA model's folder or hub name, an adapter's, or an object.

    model: None: the reader in the box. tokenizer: None: the model's own; else a name, folder or object.
    device: as torch names it, or a GPU's number, -1 = CPU; None: the first GPU, else the CPU.
    dtype: precision of the weights; None or "auto": float32.
    Raises InputError where there is no such reader.
    """
    arguments = arguments or ModelArguments()
    model = DEFAULT_READER if model is None else model
    if isinstance(model, str | Path):
        name, revision = str(model), arguments.model_revision
        folder = reader_folder(name, revision)
        loaded, source = _load_model(name, folder, arguments)
        revision = None if is_adapter(folder) and not local_folder(name).exists() else revision
    else:
        loaded, name = model, str(getattr(model.config, "_name_or_path", "") or type(model).__name__)
        source, revision = name, getattr(model.config, "_commit_hash", None)
        folder = reader_folder(name, revision)
    words = _tokenizer(tokenizer, source, revision, arguments.trust_remote_code)
    loaded = _moved(loaded, _device(device))
    device = next(loaded.parameters()).device
    if device.type == "cpu":
        from qa.cpu.layers import use_cpu_layers

        use_cpu_layers(loaded)
    if dtype not in (None, "auto"):
        loaded = loaded.to(dtype=_dtype(dtype))
    longest = max_positions(loaded)
    windows, decoding, loss, evaluated = _settings(folder, longest, words)
    calibration_file = folder / CALIBRATION_NAME
    if calibration_file.is_file():
        calibration = read_calibration(calibration_file)
    else:
        calibration = Calibration.unfitted(unanswerable=False)
    return Reader(
        name=name,
        model=loaded.eval(),
        tokenizer=words,
        device=device,
        windows=windows,
        decoding=decoding,
        loss=loss,
        calibration=calibration,
        evaluated=evaluated,
        special_tokens=pair_template(words).special_tokens,
        longest=longest,
    )


def _load_model(name: str, folder: Path, arguments: ModelArguments) -> tuple[Any, str]:
    """The model, an adapter on its base where the folder holds one, and where its tokenizer lies."""
    if is_adapter(folder):
        from qa.peft_methods.attaching import attach

        if not local_folder(name).exists():
            if arguments.allow_pickle_weights:
                folder = adapter_folder(at_revision(name, arguments.model_revision), allow_pickle=True)
            # The revision was the adapter's.
            arguments = replace(arguments, model_revision=None)
        if not arguments.allow_pickle_weights:
            refuse_pickles(folder, name)
        settings = folder / SAVED_SETTINGS
        base = base_of(folder, read_yaml(settings) if settings.is_file() else {}, name)
        model = attach(load_reader(arguments, base), "reader", saved={"reader": str(folder)})
        return model, resolve_checkpoint(base)
    return load_reader(arguments, name, expect_head=True), resolve_checkpoint(name)


def _tokenizer(given: Any, source: str, revision: str | None, trust_remote_code: bool) -> Any:
    from transformers import PreTrainedTokenizerFast

    if given is None or isinstance(given, str | Path):
        where = source if given is None else resolve_tokenizer_folder(str(given))
        return load_tokenizer(where, revision=revision, trust_remote_code=trust_remote_code)
    if not isinstance(given, PreTrainedTokenizerFast):
        raise InputError(
            f"tokenizer: {type(given).__name__} is not a fast tokenizer, and only fast ones give character "
            "offsets; leave it out to have the model's own, or load it with use_fast=True"
        )
    if lower_cases(given.backend_tokenizer) and is_cased_vocabulary(given.backend_tokenizer):
        warnings.warn(
            f"{given.name_or_path}: the vocabulary is cased but this tokenizer lower-cases, which costs "
            "answers; leave the tokenizer out, and it is loaded with its case kept",
            stacklevel=4,
        )
    return given


def resolve_tokenizer_folder(name: str) -> str:
    """A folder with `~` expanded; anything else as it stands."""
    folder = Path(name).expanduser()
    return str(folder) if folder.is_dir() else name


def _moved(model: Any, device: torch.device) -> Any:
    try:
        return model.to(device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(
            f"device: {device} cannot be used here ({reason}); give cpu, or leave it out"
        ) from error


def _device(device: Any) -> torch.device:
    import torch

    if device is None:
        best = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda:0" if torch.cuda.is_available() else best)
    if isinstance(device, int):
        return torch.device("cpu" if device < 0 else f"cuda:{device}")
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device: {device!r} is none; give cpu, cuda:0, a GPU's number or -1") from error


def _dtype(dtype: Any) -> torch.dtype:
    import torch

    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"dtype: {dtype!r} is no precision of weights; give float32, bfloat16 or float16")
    return found


def _settings(
    folder: Path, longest: int | None, tokenizer: Any
) -> tuple[WindowSettings, DecodingSettings, str, bool]:
    """Settings saved beside a finished run's weights; else the removed pipeline's."""
    file = folder / SAVED_SETTINGS
    if not file.is_file():
        limits = [FORMER_MAX_SEQ_LENGTH, longest or FORMER_MAX_SEQ_LENGTH, tokenizer.model_max_length]
        length = max(1, min(limits))
        stride = min(length // 2, FORMER_DOC_STRIDE)
        windows = WindowSettings(max_seq_length=length, doc_stride=stride)
        decoding = DecodingSettings(max_answer_length=FORMER_MAX_ANSWER_LENGTH)
        return windows, decoding, "passage", False
    import yaml

    try:
        saved = yaml.safe_load(file.read_text(encoding="utf-8"))
        known: dict[type, dict[str, Any]] = {
            group: {field.name: saved[field.name] for field in fields(group) if field.name in saved}
            for group in (WindowSettings, DecodingSettings)
        }
        windows = replace(WindowSettings(**known[WindowSettings]), gold="first")
        return windows, DecodingSettings(**known[DecodingSettings]), str(saved.get("loss", "passage")), True
    except (OSError, UnicodeError, yaml.YAMLError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file}: cannot be read as a run's settings ({type(error).__name__}); save the reader anew"
        ) from error

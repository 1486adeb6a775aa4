"""Every run that a sweep can draw is one that run_qa.py takes, in a folder of its own."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import run_qa
from qa.arguments import parse_settings

ROOT = Path(run_qa.__file__).parent
SWEEP: dict[str, Any] = yaml.safe_load((ROOT / "experiments/sweeps/strategies.yaml").read_text("utf-8"))
CONFIGS: list[str] = SWEEP["parameters"]["config"]["values"]
# Ranks, or what takes their place, by the field that holds them.
RANKS = ("lora_rank", "target_rank", "reduction_factor")


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], list[str]]:
    """The words that run_qa.py gets of a run with these values, by way of the sweep's own command.

    As wandb's agent makes it: macros are replaced, ${args} by a `--name=value` for every parameter. In the
    place of accelerate stands a script that writes down its words.
    """
    script = tmp_path / "accelerate"
    script.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "WANDB_RUN_ID": "abc123"}
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("QA_DATA_DIR", raising=False)

    def draw(config: str, learning_rate: float) -> list[str]:
        macros = {
            "${env}": ["/usr/bin/env"],
            "${args}": [f"--config={config}", f"--learning_rate={learning_rate}"],
        }
        command = [word for part in SWEEP["command"] for word in macros.get(part, [part])]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=30
        )
        launch, program, *words = json.loads(done.stdout)
        assert (launch, program) == ("launch", SWEEP["program"])
        return words

    return draw


@pytest.mark.parametrize("config", CONFIGS)
def test_every_strategy_of_the_sweep_parses(config: str, drawn: Callable[[str, float], list[str]]) -> None:
    rates = SWEEP["parameters"]["learning_rate"]
    settings = parse_settings(drawn(config, rates["max"]))
    told = yaml.safe_load((ROOT / config).read_text("utf-8"))
    assert settings.training.strategy == told["strategy"]
    assert settings.training.learning_rate == rates["max"] > rates["min"] > 0
    assert settings.training.output_dir == "outputs/sweeps/abc123"
    assert settings.training.report_to == ["wandb"]
    assert (settings.data.max_train_samples, settings.data.train_file) == (4000, "squad/train-v1.1.json.gz")
    for name in set(RANKS) & told.keys():
        assert getattr(settings.strategy, name) == told[name]


def test_the_sweep_is_over_strategies_rates_and_ranks_and_none_twice() -> None:
    assert set(SWEEP["parameters"]) == {"config", "learning_rate"}
    assert SWEEP["metric"] == {"name": "eval/f1", "goal": "maximize"}
    told = [yaml.safe_load((ROOT / config).read_text("utf-8")) for config in CONFIGS]
    pairs = [(one["strategy"], *(one.get(name) for name in RANKS)) for one in told]
    assert len(set(pairs)) == len(pairs)
    ranks = {strategy: {pair[1:] for pair in pairs if pair[0] == strategy} for strategy, *_ in pairs}
    assert {strategy for strategy, found in ranks.items() if len(found) > 1} == {"lora", "adalora", "adapter"}


def test_files_of_ranks_differ_from_their_strategies_in_the_rank_alone() -> None:
    """As their first lines say; the learning rate is the sweep's."""
    for name, base in [
        ("lora-4", "lora-all-linear"),
        ("lora-64", "lora-all-linear"),
        ("adalora-4", "adalora"),
    ] + [(f"adapter-{factor}", "adapter") for factor in (4, 64)]:
        rank = yaml.safe_load((ROOT / f"experiments/sweeps/ranks/{name}.yaml").read_text("utf-8"))
        strategy = yaml.safe_load((ROOT / f"experiments/strategies/{base}.yaml").read_text("utf-8"))
        differing = {key for key in rank | strategy if rank.get(key) != strategy.get(key)}
        assert differing <= {*RANKS, "lora_alpha", "initial_rank", "learning_rate"}, name

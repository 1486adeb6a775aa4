"""The benchmark: its arithmetic by hand, its parts on the sample questions, its committed records."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))  # the benchmark is no part of the installed package

from experiments.bench import (  # noqa: E402
    evaluating,
    layers,
    preparing,
    profiling,
    record,
    scoring,
    steps,
    training,
)
from experiments.bench.__main__ import PARTS, QUICK, _chosen  # noqa: E402
from experiments.bench.measuring import Part, Ratio, Row, alternate, compare  # noqa: E402
from experiments.bench.questions import Questions  # noqa: E402
from experiments.bench.steps import Counted, Setup, ours, plain  # noqa: E402
from qa.errors import InputError  # noqa: E402

RECORDS = sorted(record.RESULTS.glob("*.json"))


def silent(text: str) -> None:
    pass


def test_contenders_take_turns_and_none_is_always_first() -> None:
    order: list[tuple[str, int]] = []

    def contender(name: str, seconds: list[float]):  # type: ignore[no-untyped-def]
        def once(number: int) -> dict[str, float]:
            order.append((name, number))
            return {"seconds": seconds[number]}

        return once

    times = {"a": [4.0, 6.0, 9.0], "b": [2.0, 2.0, 3.0], "c": [8.0, 1.0, 9.0]}
    found = alternate({name: contender(name, seconds) for name, seconds in times.items()}, 3, silent)
    assert order == [(name, number) for number, names in enumerate(("abc", "bca", "cab")) for name in names]
    part = compare("part", "a part", found, "seconds", ["a"], smaller=True, ratio_of="speed", notes=["One."])
    assert replace(part, rows=()) == Part("part", "a part", (), ("a",), "speed", notes=("One.",))
    a, b, c = part.rows
    assert (a.values, a.ratios) == ({"seconds": 6.0}, {})
    assert (b.values, b.ratios) == ({"seconds": 2.0}, {"a": Ratio(3.0, 2.0, 3.0, 3)})
    assert c.ratios == {"a": Ratio(1.0, 0.5, 6.0, 3)}
    assert compare("part", "a part", found, "seconds", ["a", "c"]).rows[1].ratios == {
        "a": Ratio(1 / 3, 1 / 3, 0.5, 3),
        "c": Ratio(1 / 3, 0.25, 2.0, 3),
    }


def test_flops_of_a_token_by_hand() -> None:
    # One layer of width 2, 3 keys: 48 weights, 2 x 48 forward and 4 x 2 x 3 for attention; times three.
    assert training.model_flops(2, 1, 3.0) == 3 * (2 * 48 + 24)
    assert training.model_flops(2, 5, 3.0) == 5 * training.model_flops(2, 1, 3.0)


PART = Part(
    "speed",
    "work",
    (
        Row("plain", {"seconds": 2000.0, "share": 0.1234}),
        Row("ours, grouped", {"seconds": 1.5, "share": 0.0}, {"plain": Ratio(2.0, 1.0, 3.456, 3)}),
    ),
    bases=("plain",),
    ratio_of="speed",
    notes=("A note.",),
)
ENVIRONMENT = {
    "hardware": {"cpu": "Some CPU (R) 3.0", "cores": 2, "threads": 1},
    "packages": {"torch": "2.13", "transformers": "5.23"},
}


def test_tables_and_summary_by_hand(tmp_path: Path) -> None:
    one = record.BenchRecord(ENVIRONMENT, "Some questions.", (PART,))
    path = tmp_path / f"{record.slug(ENVIRONMENT)}.json"
    assert path.name == "some-cpu-r-3-0-2-cores.json"
    record.write(path, one)
    assert record.read(path) == one
    assert record.tables(one).endswith(
        "| work | seconds | share | speed, against plain |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| plain | 2,000 | 0.123 | 1 |\n"
        "| ours, grouped | 1.5 | 0 | 2.00 (1.00 to 3.46) |\n"
        "\nA note."
    )
    assert record.tables(one).startswith(
        "Some CPU (R) 3.0, 2 cores, 1 threads, torch 2.13, transformers 5.23. "
    )
    assert record.summary(one).splitlines()[2:] == ["| work, ours, grouped | plain | 2.00 (1.00 to 3.46) |"]
    text = f"Head\n{record.MARK}\nold"
    assert record.readme(text, [one]) == f"Head\n{record.MARK}\n\n{record.tables(one)}\n"


def test_parts_measured_elsewhere_or_before_do_not_mix(tmp_path: Path) -> None:
    other = Part("other", "other", ())
    old = record.BenchRecord(ENVIRONMENT, "Some questions.", (PART, other))
    new = record.BenchRecord(ENVIRONMENT, "Some questions.", (Part("speed", "new", ()),))
    assert [part.title for part in record.merged(old, new).parts] == ["other", "new"]
    changed = record.BenchRecord({**ENVIRONMENT, "commit": "x"}, "Some questions.", new.parts)
    assert record.merged(old, changed) == changed
    assert record.merged(None, new) == new
    path = tmp_path / "x.json"
    path.write_text('{"schema": 0}')
    with pytest.raises(InputError, match="schema 0, not 1"):
        record.read(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="not the record of a benchmark"):
        record.read(path)


def test_parts_are_chosen_by_name() -> None:
    assert _chosen([]) == QUICK
    assert _chosen(["all"]) == PARTS
    assert _chosen(["memory", "windows"]) == ("windows", "memory")
    with pytest.raises(InputError, match="speed: no such part"):
        _chosen(["speed"])


@pytest.fixture(scope="module")
def sample() -> Questions:
    return Questions("train", 40, None)


def well_formed(part: Part, tmp_path: Path) -> Part:
    """Its way to a file and back changes nothing; it has a table, and a ratio wherever there is a base."""
    one = record.BenchRecord(ENVIRONMENT, "Some questions.", (part,))
    record.write(tmp_path / "part.json", one)
    assert json.loads(json.dumps(json.loads((tmp_path / "part.json").read_text()), allow_nan=False))
    (found,) = record.read(tmp_path / "part.json").parts
    assert found == part
    assert record.tables(one).count("\n| ") == len(part.rows) + 2
    names = [row.name for row in part.rows]
    for row in part.rows:
        assert all(np.isfinite(value) and value >= 0 for value in row.values.values())
        if part.name != "memory":  # its base is a column
            assert set(row.ratios) == set(part.bases) - {row.name}
            assert set(part.bases) <= set(names)
        assert all(0 < ratio.low <= ratio.median <= ratio.high for ratio in row.ratios.values())
    return found


def test_the_sample_questions_are_repeated(sample: Questions) -> None:
    many = Questions("validation", 400, None)
    assert len(many.examples) == 400
    assert len(set(many.examples["id"][:])) < 400
    assert len(sample.examples) == 40
    assert len(sample.lengths) >= 40


def test_windows_decoding_memory_padding_startup(sample: Questions, tmp_path: Path) -> None:
    part = well_formed(preparing.windows(sample, 2, silent), tmp_path)
    assert [row.name for row in part.rows] == ["tokenizer alone", "ours, with labels"]
    part = well_formed(scoring.decoding(sample, 2, silent), tmp_path)
    assert [row.name for row in part.rows][:2] == ["loop over questions", "ours"]
    assert part.settings["questions"] == 40
    part = well_formed(scoring.memory(50), tmp_path)
    ours, full = ([row.values[name] for row in part.rows] for name in ("ours", "full logits"))
    # 20 starts and ends of 4 + 8 bytes, a null score of 8; and what objects beside the data take.
    assert max(ours) < 2 * 20 * 12 + 8 + 60
    assert max(ours) - min(ours) < 5
    assert full == pytest.approx([2 * 4 * 128, 2 * 4 * 384, 2 * 4 * 512], rel=0.05)
    lengths = np.array([10, 20, 30, 40])
    part = well_formed(preparing.padding(lengths, 2, ["sorted", "packed"]), tmp_path)
    shares = {row.name: row.values["% of tokens"] for row in part.rows}
    assert shares["padded to 384"] == pytest.approx(100 * (1 - 25 / 384))
    assert shares["ours, sorted"] == pytest.approx(100 * (1 - 100 / 120))
    assert shares["ours, packed"] == 0
    part = well_formed(preparing.startup(1, silent, {"nothing": ["-c", "pass"]}), tmp_path)
    assert part.rows[0].values["seconds"] > 0


def test_decoding_that_differs_is_refused(sample: Questions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "decode", lambda *arguments: [])
    with pytest.raises(RuntimeError, match="differ"):
        scoring.decoding(sample, 1, silent)


def test_training_and_strategies(
    sample: Questions, tiny_reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    setup = Setup(sample, str(tiny_reader), batch_size=2, steps=2, warmup=1, precision="fp32", use_cpu=True)
    part = well_formed(training.training(setup, ["grouped"], 1, silent), tmp_path)
    assert [row.name for row in part.rows] == [training.FIXED, training.BEST, "ours, grouped"]
    for row in part.rows:
        assert row.values["tokens/s"] / row.values["windows/s"] == pytest.approx(sample.lengths.mean())
    part = well_formed(training.strategies(setup, ["head"], "grouped", 1, silent), tmp_path)
    assert {row.name: row.values["trained parameters"] for row in part.rows}["head"] == 2 * 32 + 2


def test_operators_by_kind_of_work() -> None:
    kinds = {
        "aten::addmm": "matrix products",
        "aten::native_layer_norm_backward": "normalisation",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward": "attention",
        "aten::gelu_backward": "activation",
        "aten::embedding_dense_backward": "embeddings",
        "aten::_fused_adamw_": "optimiser and clipping",
        "aten::copy_": "copies and casts",
        "aten::add_": "sums and products of elements",
        "aten::arange": profiling.OTHERS,
        "mkldnn::_linear_pointwise": "matrix products",
        "_LinearBackward": "matrix products",
        "_Dropout": "dropout",
    }
    assert {name: profiling.kind_of(name) for name in kinds} == kinds


def test_the_profile_accounts_for_all_of_a_step(
    sample: Questions, tiny_reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    setup = Setup(sample, str(tiny_reader), batch_size=2, steps=2, warmup=1, precision="fp32", use_cpu=True)
    part = well_formed(profiling.profiled(setup, ["grouped", "packed"], silent), tmp_path)
    for batching in ("grouped", "packed"):
        shares = {row.name: row.values[f"{batching}, % of a step"] for row in part.rows}
        assert sum(shares.values()) == pytest.approx(100)
        assert all(shares[name] > 0 for name in ("matrix products", "normalisation", profiling.OUTSIDE))


def test_a_few_batches_stand_for_all_sizes() -> None:
    """Twelve windows in batches of two; the last, of one, is left out."""
    lengths = np.array([9, 9, 1, 1, 5, 5, 3, 3, 7, 7, 8])
    questions = SimpleNamespace(lengths=lengths)
    setup = Setup(questions, "", batch_size=2, steps=3, warmup=1, precision="fp32", use_cpu=True)  # type: ignore[arg-type]
    chosen = setup.chosen([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]])
    assert chosen[0] == [0, 1]
    # Sizes 2, 6, 10, 14, 18 in three stretches: their middles.
    assert sorted(chosen[1:]) == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(InputError, match="questions: their windows fill 2 batches of 2, too few for 3 steps"):
        setup.chosen([[0, 1], [2, 3], [10]])


@pytest.mark.parametrize(
    "contender",
    [
        lambda setup: ours(setup, 0, ["--batching", "packed"]),
        lambda setup: plain(setup, 0, grouped=True),
        lambda setup: plain(setup, 0, grouped=False),
    ],
)
def test_every_contender_trains_on_its_chosen_batches(
    contender: Any, sample: Questions, tiny_reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    setup = Setup(sample, str(tiny_reader), batch_size=2, steps=3, warmup=1, precision="fp32", use_cpu=True)
    asked: list[list[list[int]]] = []
    counted: list[Counted] = []
    chosen, run = Setup.chosen, steps.run

    def choose(self: Setup, batches: Any) -> Any:
        asked.append(chosen(self, batches))
        return asked[-1]

    def watched(make: Any, setup: Setup) -> Any:
        return run(lambda each, *rest: (counted.append(each), make(each, *rest))[1], setup)

    monkeypatch.setattr(Setup, "chosen", choose)
    monkeypatch.setattr(steps, "run", watched)
    contender(setup)
    tokens = [int(sample.lengths[batch].sum()) for batch in asked[-1]]
    assert len(tokens) == 4
    assert counted[0].tokens[:4] == tokens


def test_ranks_wait_less_where_windows_are_dealt_by_length() -> None:
    lengths = np.array([10, 20, 30, 40] * 4)
    part = preparing.ranks(lengths, 2, counts=(2,))
    waiting = [row.values["% waiting, 2 ranks"] for row in part.rows]
    by_hand = preparing._as_it_comes(lengths, 2, 2)
    assert by_hand.shape == (4, 2)
    assert by_hand.sum() == preparing._dealt(lengths, 2, 2).sum() == lengths.sum()
    assert waiting[0] == pytest.approx(100 * (1 - by_hand.mean(axis=1).sum() / by_hand.max(axis=1).sum()))
    assert waiting[1] < waiting[0]


def test_layers_of_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "TOKENS", 8)
    monkeypatch.setattr(layers, "REPEATS", 1)
    for part in layers.layers(1, silent):
        assert [row.name for row in well_formed(part, tmp_path).rows] == ["torch's layer", "ours"]


def test_evaluation_agrees_with_a_plain_trainers(
    sample: Questions, vivid_reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    setup = Setup(sample, str(vivid_reader), batch_size=4, steps=1, warmup=1, precision="fp32", use_cpu=True)
    part = well_formed(evaluating.evaluation(setup, 1, silent), tmp_path)
    assert [row.name for row in part.rows] == [
        *(training.FIXED, evaluating.DYNAMIC, "ours, grouped", "ours, packed")
    ]
    assert part.settings["same best answer"] == part.settings["questions"] == 40


def test_every_strategy_is_measured() -> None:
    assert len(list(training.STRATEGIES.glob("*.yaml"))) > 10


def test_the_gpu_part_says_that_there_is_no_gpu(sample: Questions, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    setup = Setup(sample, "shape:base", 2, 1, 1, "bf16", False)
    said: list[str] = []
    assert list(training.gpu(setup, ["grouped"], 1, said.append)) == []
    assert said == ["  left out: there is no GPU here"]


def test_it_starts_by_name_and_refuses_unknown_parts() -> None:
    command = [sys.executable, "-m", "experiments.bench", "speed"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("experiments.bench: speed: no such part; choose from startup, padding")


def test_the_committed_tables_are_those_of_the_records() -> None:
    text = record.README.read_text(encoding="utf-8")
    assert text == record.readme(text, [record.read(path) for path in RECORDS])


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_committed_record_is_whole(path: Path) -> None:
    one = record.read(path)
    assert path.stem == record.slug(one.environment)
    assert "local changes" not in one.environment["commit"]
    main_readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    if f"experiments/bench/results/{path.name}" in main_readme:
        assert record.summary(one) in main_readme

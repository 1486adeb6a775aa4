"""Two CPU ranks train and evaluate as one process does, to the last question."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run_qa
from qa.results import read_record

ROOT = Path(run_qa.__file__).parent
# 11 questions and an odd number of windows: neither divides by two.
RUN = [
    *(
        "--dataset_name",
        "sample",
        "--max_train_samples",
        "21",
        "--max_eval_samples",
        "11",
        "--do_train",
        "--do_eval",
    ),
    *(
        "--num_train_epochs",
        "2",
        "--learning_rate",
        "1e-3",
        "--logging_steps",
        "1",
        "--use_cpu",
        "--dropout",
        "0",
    ),
    *(
        "--max_seq_length",
        "128",
        "--doc_stride",
        "32",
        "--max_question_length",
        "32",
        "--bootstrap_samples",
        "0",
        "--disable_tqdm",
        "true",
    ),
    *("--eval_strategy", "epoch", "--save_strategy", "epoch", "--load_best_model_at_end"),
]


def launch(words: list[str], *, ranks: int) -> subprocess.Popen[bytes]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*torchrun, "run_qa.py", *words], cwd=ROOT, env=environment, start_new_session=True
    )


@pytest.fixture
def common(tiny_reader: Path, tmp_path: Path) -> list[str]:
    return [*RUN, "--model_name_or_path", str(tiny_reader), "--cache_dir", str(tmp_path / "cache")]


def batches(size: int, batching: str) -> list[str]:
    return ["--per_device_train_batch_size", str(size), "--batching", batching]


def test_two_ranks_equal_one(common: list[str], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run_qa.main([*common, *batches(4, "padded"), "--output_dir", str(one)])
    # Batches of 2 on two ranks are the batches of 4 on one, and packed ones are those that are padded here.
    assert launch([*common, *batches(2, "packed"), "--output_dir", str(two)], ranks=2).wait(240) == 0
    single, double = read_record(one / "run.json"), read_record(two / "run.json")
    assert double.environment["processes"] == 2
    assert single.data["train"]["windows"] % 2 == 1
    assert double.training["tokens"] == single.training["tokens"]
    assert [step for step, _ in double.training["loss_curve"]] == [
        step for step, _ in single.training["loss_curve"]
    ]
    assert [loss for _, loss in double.training["loss_curve"]] == pytest.approx(
        [loss for _, loss in single.training["loss_curve"]], rel=1e-4
    )
    answers = [
        json.loads((folder / "eval" / "predictions.json").read_text(encoding="utf-8"))
        for folder in (one, two)
    ]
    assert len(answers[1]) == 11
    # The same reader, evaluated by one process, gives what two ranks gave: every question once, in order.
    ranks = (two / "eval" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    again = tmp_path / "again"
    evaluation = [
        "--do_eval",
        "--use_cpu",
        "--dataset_name",
        "sample",
        "--max_eval_samples",
        "11",
        "--bootstrap_samples",
        "0",
    ]
    run_qa.main([*evaluation, "--model_name_or_path", str(two), "--output_dir", str(again)])
    alone = (again / "eval" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    for left, right in zip(ranks, alone, strict=True):
        a, b = json.loads(left), json.loads(right)
        assert (a["id"], a["answer"], a["start"], a["end"]) == (b["id"], b["answer"], b["start"], b["end"])
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)


def test_killed_without_warning_and_resumed(common: list[str], tmp_path: Path) -> None:
    words = [*common, "--per_device_train_batch_size", "2", "--num_train_epochs", "40", "--save_steps", "3"]
    words += [
        "--save_strategy",
        "steps",
        "--eval_strategy",
        "no",
        "--load_best_model_at_end",
        "false",
        "--max_steps",
        "60",
    ]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = launch([*words, "--output_dir", str(killed)], ranks=1)
    for _ in range(1200):
        if len(list(killed.glob("checkpoint-*/manifest.json"))) >= 2 or process.poll() is not None:
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    assert not (killed / "run.json").exists()
    run_qa.main([*words, "--output_dir", str(killed), "--resume_from_checkpoint"])
    run_qa.main([*words, "--output_dir", str(whole)])
    resumed, unbroken = read_record(killed / "run.json"), read_record(whole / "run.json")
    assert resumed.training["resumed_from"].startswith("checkpoint-")
    assert resumed.training["loss_curve"] == unbroken.training["loss_curve"]

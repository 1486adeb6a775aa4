"""Tables run to their end: once each, whatever is interrupted, and with the same table in the end."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from table_cases import FAKE, YAML, fake_runner, store_of, table_of

from qa.tables.__main__ import main
from qa.tables.cells import fill
from qa.tables.rendering import markdown
from qa.tables.runner import Runner
from qa.tables.store import KEPT, Store

REPOSITORY = Path(__file__).resolve().parents[1]
# Two rows, two seeds, each with an evaluation elsewhere; one trial of the second row is not reported.
RUNS = 2 * 2 * 2 + 1


@pytest.fixture
def starts(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with a line per start of a fake run."""
    path = empty_folder / "starts.txt"
    path.touch()
    monkeypatch.setenv("FAKE_STARTS", str(path))
    monkeypatch.setattr("qa.tables.runner.POLL_SECONDS", 0.02)
    return path


def printed(runner: Runner) -> str:
    state = runner.look()
    return markdown(fill(runner.store.table, state.plan, state.records, samples=20))


def test_a_table_is_run_once_and_then_only_printed(starts: Path, empty_folder: Path) -> None:
    said: list[str] = []
    table = table_of(empty_folder)
    outcome = fake_runner(empty_folder, table, said).run()
    assert outcome.complete
    assert len(outcome.finished) == RUNS
    assert max(Counter(starts.read_text().split()).values()) == 1
    assert said[0] == f"case, smoke: {RUNS} runs, 0 done"
    assert said[-1].startswith(f"[{RUNS}/{RUNS}] ")
    assert "to go" in said[1]
    assert {path.name for path in store_of(empty_folder, table).folder.iterdir()} == {
        f"{row}{column}-seed{seed}.json" for row in "ab" for column in ("", "-travel") for seed in (1, 2)
    }
    again = fake_runner(empty_folder, table, said).run()
    assert (again.complete, again.finished) == (True, [])
    assert len(starts.read_text().split()) == RUNS


def test_the_better_trial_trains_all_seeds_and_the_grid_stays_in_the_records(
    starts: Path, empty_folder: Path
) -> None:
    table = table_of(empty_folder)
    runner = fake_runner(empty_folder, table, [])
    runner.run()
    records = runner.store.records()
    grid = records["b-seed1.json"].grid
    assert grid is not None
    assert [trial.value for trial in grid.trials] == ["0.0001", "0.0003"]
    best = max(grid.trials, key=lambda trial: trial.f1)
    assert grid.chosen == best.value
    assert grid == records["b-seed2.json"].grid
    assert records["a-seed1.json"].grid is None
    assert records["b-seed1.json"].run.scores["eval"].metrics["f1"] == best.f1


def test_interrupted_twice_the_table_comes_out_the_same(
    starts: Path, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = empty_folder / "whole"
    whole.mkdir()
    table = table_of(empty_folder)
    undisturbed = fake_runner(whole, table, [])
    assert undisturbed.run().complete
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.02")
    for finished in (1, 3):
        before = len(starts.read_text().split())
        runner = fake_runner(empty_folder, table, [])
        worker = threading.Thread(target=runner.run)
        worker.start()
        deadline = time.monotonic() + 60
        done = runner.outcome.finished
        # A run is in flight: more have begun than have ended.
        while len(done) < finished or len(starts.read_text().split()) - before <= len(done):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        runner.stop()
        worker.join(20)
        assert runner.outcome.stopped
        assert not worker.is_alive()
    # What was in flight goes on: no training took more than its ten steps, and one was started twice.
    last = fake_runner(empty_folder, table, [])
    assert last.run().complete
    assert len(starts.read_text().split()) > 2 * RUNS
    assert printed(last) == printed(undisturbed)


def test_a_killed_runner_leaves_a_run_that_the_next_one_waits_for(starts: Path, empty_folder: Path) -> None:
    """SIGKILL, which nobody can prepare for: the orphan finishes its run, and is not given a rival."""
    table_of(empty_folder)
    command = [
        *(sys.executable, "-m", "qa.tables", "case.yaml", "--no-plots", "--results", "results"),
        *("--outputs", "outputs", "--out", "out", "--experiments", str(REPOSITORY / "experiments")),
    ]
    environment = os.environ | {
        "QA_TABLES_COMMAND": shlex.join(FAKE),
        "FAKE_STEP_SECONDS": "0.15",
        "PYTHONPATH": str(REPOSITORY),
    }
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not starts.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    (orphan,) = starts.read_text().split()
    store = Store(table_of(empty_folder), empty_folder / "results", empty_folder / "outputs" / "tables")
    runner = Runner(store, command=FAKE, say=lambda line: None)
    assert runner.run().complete
    assert Counter(starts.read_text().split())[orphan] == 1
    assert len(set(starts.read_text().split())) == RUNS


def test_a_run_whose_folder_was_deleted_begins_for_the_first_time_again(
    starts: Path, empty_folder: Path
) -> None:
    runner = fake_runner(empty_folder, table_of(empty_folder), [])
    assert runner.run().complete
    store = runner.store
    run = next(run for run in runner.look().plan.runs if run.trains)
    assert [store.begin(run), store.begin(run)] == [2, 3]
    shutil.rmtree(store.run_folder(run))
    (store.folder / run.file_name).unlink()
    assert runner.run().complete
    assert store.records()[run.file_name].attempts == 1


def test_two_runners_do_no_run_twice(
    starts: Path, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "0.005")
    table = table_of(empty_folder)
    runners = [fake_runner(empty_folder, table, [], jobs=jobs) for jobs in (1, 2)]
    workers = [threading.Thread(target=runner.run) for runner in runners]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert all(runner.outcome.complete for runner in runners)
    assert Counter(starts.read_text().split()) == Counter(set(starts.read_text().split()))
    assert sum(len(runner.outcome.finished) for runner in runners) == RUNS
    assert all(runner.outcome.finished for runner in runners)


def test_a_failed_run_is_told_at_the_end_and_stops_only_what_needs_it(
    starts: Path, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = YAML.replace("  a: {label: A}", '  a: {label: A, settings: {adam_epsilon: "1e-7"}}')
    table_of(empty_folder, text)
    monkeypatch.setenv("QA_TABLES_COMMAND", shlex.join(FAKE))
    words = ["case.yaml", "--no-plots", "--results", "results", "--outputs", "outputs", "--out", "out"]
    words += ["--experiments", str(REPOSITORY / "experiments")]
    monkeypatch.setenv("FAKE_FAIL", "1e-7")
    assert main(words) == 1
    said = capsys.readouterr()
    assert "failed: a, seed 1:   exit code 3; the end of outputs/tables/logs/" in said.err
    assert "| nothing left to give" in said.err
    assert "not run: a, travel, seed 2: needs a, seed 2" in said.err
    row = next(line for line in said.out.splitlines() if line.startswith("| A |"))
    assert row == "| A |  |  |  | ours |"
    assert len(list(Path("results/case/smoke").glob("b*.json"))) == 4
    monkeypatch.delenv("FAKE_FAIL")
    assert main(words) == 0
    assert len(list(Path("results/case/smoke").glob("*.json"))) == 8


def test_commands_can_be_printed_and_are_those_that_would_run(starts: Path, empty_folder: Path) -> None:
    runner = Runner(store_of(empty_folder, table_of(empty_folder)))
    first, *_ = runner.commands()
    words = shlex.split(first)
    assert words[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert words[words.index("--num_processes") + 1] == "1"
    assert "run_qa.py" in words
    assert words[-1] == "--resume_from_checkpoint"
    assert len(runner.commands()) == 2 * 2 + 2 * 1
    assert starts.read_text() == ""


def test_tracked_runs_are_named_and_grouped_by_their_table(
    starts: Path, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(empty_folder)
    seen = empty_folder / "seen.txt"
    code = "import os, sys; open(sys.argv[1], 'a').write(' '.join([os.environ['WANDB_RUN_GROUP'], "
    code += "os.environ['WANDB_NAME'], *sys.argv[-2:]]) + chr(10)); sys.exit(1)"
    command = [sys.executable, "-c", code, str(seen)]
    Runner(store_of(empty_folder, table), command=command, say=lambda line: None, report_to="wandb").run()
    assert sorted(seen.read_text().splitlines()) == [
        "case-smoke case-smoke-a-seed1 --report_to wandb",
        "case-smoke case-smoke-a-seed2 --report_to wandb",
        "case-smoke case-smoke-b-seed1-trial-0.0001 --report_to wandb",
        "case-smoke case-smoke-b-seed1-trial-0.0003 --report_to wandb",
    ]
    first, *_ = Runner(store_of(empty_folder, table), report_to="wandb").commands()
    words = shlex.split(first)
    assert words[:3] == ["env", "WANDB_RUN_GROUP=case-smoke", "WANDB_NAME=case-smoke-a-seed1"]
    assert words[3:5] == [sys.executable, "-m"]
    assert words[-3:] == ["--resume_from_checkpoint", "--report_to", "wandb"]


def test_questions_that_are_not_here_are_told_and_their_cells_stay_empty(
    starts: Path, empty_folder: Path
) -> None:
    text = YAML.replace("  a: {label: A}", "  a: {label: A, settings: {train_file: ./nowhere.json}}")
    runner = fake_runner(empty_folder, table_of(empty_folder, text), [])
    outcome = runner.run()
    assert not outcome.complete
    assert outcome.failed == {}
    assert "nowhere.json: there is no such file" in outcome.blocked["a, seed 1"]
    assert {name[0] for name in runner.store.records()} == {"b"}


def test_a_changed_setting_makes_its_records_stale_and_no_others(starts: Path, empty_folder: Path) -> None:
    fake_runner(empty_folder, table_of(empty_folder), []).run()
    before = len(starts.read_text().split())
    changed = table_of(empty_folder, YAML.replace('weight_decay: "0.1"', 'weight_decay: "0.2"'))
    runner = fake_runner(empty_folder, changed, [])
    assert {run.row for run in runner.look().todo} == {"b"}
    assert {
        row for row, _, _ in fill(changed, runner.look().plan, runner.look().records, samples=5).records
    } == {"a"}
    assert runner.run().complete
    assert len(starts.read_text().split()) - before == RUNS - 4


def test_a_moved_default_runs_again_and_deletes_nothing(starts: Path, empty_folder: Path) -> None:
    table = table_of(empty_folder)
    runner = fake_runner(empty_folder, table, [])
    runner.run()
    run = runner.look().plan.cells["a", "f1", 1]
    for path in (runner.store.run_folder(run) / KEPT, runner.store.folder / run.file_name):
        content = json.loads(path.read_text())
        content["run"]["settings"] = {"max_answer_length": 15}
        path.write_text(json.dumps(content))
    again = fake_runner(empty_folder, table, [])
    assert [one.label for one in again.look().todo] == ["a, seed 1"]
    assert again.run().complete
    assert Counter(starts.read_text().split())[run.identity] == 2
    assert (runner.store.runs / f"{run.identity}.outdated-1" / KEPT).is_file()


def test_a_run_that_ended_unseen_is_only_entered(starts: Path, empty_folder: Path) -> None:
    """The runner was killed between the end of its run and the record."""
    table = table_of(empty_folder)
    runner = fake_runner(empty_folder, table, [])
    runner.run()
    run = runner.look().plan.cells["a", "travel", 2]
    (runner.store.run_folder(run) / KEPT).unlink()
    (runner.store.folder / run.file_name).unlink()
    again = fake_runner(empty_folder, table, [])
    assert again.run().finished == ["a, travel, seed 2"]
    assert len(starts.read_text().split()) == RUNS
    assert runner.store.records() == again.store.records()


@pytest.mark.slow
def test_two_real_rows_through_accelerate(
    tiny_reader: Path, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real command on a reader of two layers: a training each, and the first row's reader elsewhere."""
    extra = (
        f'model_name_or_path: "{tiny_reader}", max_train_samples: "8", max_eval_samples: "6", '
        'max_steps: "2", max_seq_length: "96", doc_stride: "32", max_question_length: "32", use_cpu:'
    )
    text = YAML.replace("use_cpu:", extra).replace("seeds: [1, 2]", "seeds: [1]")
    text = text.replace(", grid: {learning_rate: [1x, 3x]}", "")
    table_of(empty_folder, text)
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.delenv("QA_TABLES_COMMAND", raising=False)
    words = [str(empty_folder / "case.yaml"), "--no-plots", "--jobs", "2"]
    for name in ("results", "outputs", "out"):
        words += [f"--{name}", str(empty_folder / name)]
    assert main(words) == 0
    printed_table = capsys.readouterr().out
    rows = [line for line in printed_table.splitlines() if line.startswith(("| A |", "| B & C |"))]
    assert len(rows) == 2
    assert all(cell.strip() for row in rows for cell in row.strip("|").split("|"))
    assert not list((empty_folder / "outputs" / "tables").glob("*/checkpoint-*"))


def test_a_finished_reader_is_evaluated_once_and_nothing_trains_for_it(
    starts: Path, empty_folder: Path
) -> None:
    text = YAML.replace("a: {label: A}", "a: {label: A, finished: 'packaged:all-MiniLM-L6-v2'}")
    table = table_of(empty_folder, text)
    runner = fake_runner(empty_folder, table, [])
    of_row = [run for run in runner.look().plan.runs if run.row == "a"]
    assert [(run.column, run.trains, run.seed) for run in of_row] == [(None, False, 1), ("travel", False, 1)]
    words = of_row[0].words(Path("folder"), Path("readers"))
    assert words[words.index("--model_name_or_path") + 1] == "packaged:all-MiniLM-L6-v2"
    assert "--resume_from_checkpoint" not in words
    outcome = runner.run()
    assert outcome.complete
    state = runner.look()
    filled = fill(table, state.plan, state.records)
    cell = filled.cells["a", "travel"]
    assert cell.seeds == 1
    assert cell.mean == filled.records["a", "travel", 1].run.scores["eval"].metrics["f1"]
    assert filled.records["a", "f1", 1].checkpoint_bytes is None

"""Runs what a table still lacks, each through `accelerate launch run_qa.py`, and survives whatever happens.

Every decision is taken from what lies on the disk, so that a runner that was killed, or a second one beside
it, comes to the same end: a run whose record is what the YAML asks for is done; one whose folder is finished
is only entered; one that somebody works on is waited for; any other is started, from its newest whole
checkpoint.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qa.errors import InputError
from qa.tables.launching import end_group, end_of_log, launch_command, start
from qa.tables.locks import Lock, acquire
from qa.tables.plan import Plan, Planner, Run
from qa.tables.record import TableRecord
from qa.tables.store import Store, stale_reasons

POLL_SECONDS = 2.0


@dataclass
class Outcome:
    """What a runner came to. failed, blocked: run -> the reason, in the order they came up."""

    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    stopped: bool = False

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not (self.failed or self.blocked or self.stopped)


@dataclass(frozen=True)
class State:
    """A look at the disk. todo: runs to start, in order; entered: runs of the plan that are done."""

    plan: Plan
    records: Mapping[str, TableRecord]
    todo: tuple[Run, ...]

    @property
    def total(self) -> int:
        """Runs of the table, as far as they are known."""
        return len(self.plan.runs) + self.plan.waiting


class Runner:
    """Works a table off with `jobs` runs at a time, each of so many processes.

    command: what a run's words are appended to (`launch_command` by default): tests and cluster schedulers
    put another here. say: where lines of progress go. changed: called when there are new records.
    report_to: what runs are tracked by, if anything.
    """

    def __init__(
        self,
        store: Store,
        *,
        command: Sequence[str] | None = None,
        jobs: int = 1,
        processes: int = 1,
        say: Callable[[str], None] = print,
        changed: Callable[[], None] | None = None,
        report_to: str | None = None,
    ) -> None:
        self.store, self.say, self.changed, self.report_to = store, say, changed, report_to
        self.jobs, self.processes = jobs, processes
        self.command = list(launch_command() if command is None else command)
        self.planner = Planner(store.table)
        self.outcome = Outcome()
        self._seconds: dict[bool, list[float]] = {True: [], False: []}
        self._busy: dict[str, subprocess.Popen[bytes] | None] = {}
        self._changing = threading.Lock()
        self._stop = threading.Event()

    def look(self) -> State:
        """Plan the table from what is on the disk; enter finished runs that no record tells of yet."""
        records = self.store.records()
        known: dict[str, float] = {}
        plan = None
        while True:
            known |= self.store.known_scores(records, plan)
            settled = self.planner.plan(known)
            if plan is not None and settled.runs == plan.runs:
                break
            plan = settled
        entered = False
        for run in plan.runs:
            if run.trial is not None or not stale_reasons(run, records.get(run.file_name)):
                continue
            kept = self.store.kept(run)
            if kept is not None:
                self.store.enter(run, kept)
                entered = True
        if entered:
            records = self.store.records()
        return State(plan, records, tuple(self._todo(plan, records, known)))

    def _todo(self, plan: Plan, records: Mapping[str, TableRecord], known: Mapping[str, float]) -> list[Run]:
        lacking = {
            run.identity
            for run in plan.runs
            if (
                run.asked.settings_sha256 not in known
                if run.trial is not None
                else stale_reasons(run, records.get(run.file_name))
            )
        }
        # A reader that has to be evaluated must lie here, whatever record tells of it.
        for run in plan.runs:
            if run.identity in lacking and run.reader is not None and not self.store.has_reader(run.reader):
                lacking.add(run.reader.identity)
        return [run for run in plan.runs if run.identity in lacking]

    def run(self) -> Outcome:
        """Do all there is to do. Ctrl-C and SIGTERM stop the runs, which go on from here the next time."""
        state = self.look()
        name = f"{self.store.table.name}, {self.store.table.scale}"
        self.say(f"{name}: {state.total} runs, {state.total - len(state.todo) - state.plan.waiting} done")
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, self._interrupted) if in_main else None
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(self.jobs)]
        try:
            for worker in workers:
                worker.start()
            while any(worker.is_alive() for worker in workers):
                for worker in workers:
                    worker.join(0.2)
        except KeyboardInterrupt:
            self.stop()
            for worker in workers:
                worker.join()
        finally:
            if in_main:
                signal.signal(signal.SIGTERM, before)
        return self.outcome

    def _interrupted(self, number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def stop(self) -> None:
        """End the runs in flight, and start no others."""
        self._stop.set()
        self.outcome.stopped = True
        with self._changing:
            for child in filter(None, self._busy.values()):
                end_group(child)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                claimed, anything_left = self._claim()
            except InputError as error:
                self.outcome.failed["the table"] = str(error)
                return
            if claimed is not None:
                self._execute(*claimed)
            elif anything_left:
                self._stop.wait(POLL_SECONDS)
            else:
                return

    def _claim(self) -> tuple[tuple[Run, Lock] | None, bool]:
        """A run to start and its lock; and whether there is something to wait for where there is none."""
        with self._changing:
            state = self.look()
            waits = bool(self._busy)
            for run in state.todo:
                if run.identity in self._busy or run.label in self.outcome.failed:
                    continue
                reason = self._blocked(run)
                if reason is not None:
                    self.outcome.blocked[run.label] = reason
                    continue
                self.outcome.blocked.pop(run.label, None)
                if run.reader is not None and not self.store.has_reader(run.reader):
                    continue
                lock = acquire(self.store.lock_path(run))
                if lock is None:
                    waits = True
                    continue
                # Somebody may have finished it between the look and the lock.
                if self.store.kept(run) is not None:
                    lock.release()
                    waits = True
                    continue
                self._busy[run.identity] = None
                return (run, lock), True
            return None, waits

    def _blocked(self, run: Run) -> str | None:
        """Why a run cannot be made, now or later; None where it can, or may be."""
        if run.asked.absent:
            return run.asked.absent[0]
        if run.reader is None or self.store.has_reader(run.reader):
            return None
        if run.reader.label in self.outcome.failed or run.reader.asked.absent:
            return f"needs {run.reader.label}"
        return None

    def _execute(self, run: Run, lock: Lock) -> None:
        started = time.monotonic()
        fault, record = None, None
        with lock:
            try:
                self.store.set_aside_outdated(run)
                # A run may have ended without its runner living to see it.
                if not self.store.is_finished(run):
                    self.store.begin(run)
                    fault = self._launch(run, lock)
                if fault is None:
                    record = self.store.collect(run, time.monotonic() - started)
                    _remove_checkpoints(self.store.run_folder(run))
            except (InputError, OSError) as error:
                fault = str(error)
        with self._changing:
            self._busy.pop(run.identity, None)
            if self._stop.is_set() and fault is not None:
                return
            if record is None:
                self.outcome.failed[run.label] = str(fault)
                self.say(f"{run.label}: failed\n{fault}")
                return
            self._seconds[run.trains].append(time.monotonic() - started)
            self.outcome.finished.append(run.label)
            self.say(self._progress(run, record))
            if self.changed is not None:
                self.changed()

    def _launch(self, run: Run, lock: Lock) -> str | None:
        """Start the run and wait for its end. Returns: why it failed, or None."""
        with self._changing:
            if self._stop.is_set():
                return "stopped"
            child = start(self._command(run), self.store.log_path(run), self._environment(run))
            self._busy[run.identity] = child
        lock.name_child(child.pid)
        code = child.wait()
        return None if code == 0 else f"  exit code {code}; {end_of_log(self.store.log_path(run))}"

    def _command(self, run: Run) -> list[str]:
        tracked = [] if self.report_to is None else ["--report_to", self.report_to]
        return [*self.command, *run.words(self.store.run_folder(run), self.store.runs), *tracked]

    def _environment(self, run: Run) -> dict[str, str]:
        """The runner's own, with the cores dealt out: accelerate gives a process on the CPU one thread."""
        threads = max(1, (os.cpu_count() or 1) // (self.jobs * self.processes))
        return {"OMP_NUM_THREADS": str(threads), **self._tracked_as(run), **os.environ}

    def _tracked_as(self, run: Run) -> dict[str, str]:
        """The group and the name of a run at wandb, which reads them there."""
        group = f"{self.store.table.name}-{self.store.table.scale}"
        trial = f"-trial-{run.trial}" if run.trial else ""
        return {"WANDB_RUN_GROUP": group, "WANDB_NAME": f"{group}-{Path(run.file_name).stem}{trial}"}

    def _progress(self, run: Run, record: TableRecord) -> str:
        state = self.look()
        done = state.total - len(state.todo) - state.plan.waiting
        metrics = record.run.scores["eval"].metrics
        scores = f"EM {metrics['exact_match']:.1f}, F1 {metrics['f1']:.1f}"
        left = self.seconds_left(state)
        return f"[{done}/{state.total}] {run.label}: {scores}, {record.wall_seconds:.0f} s" + (
            f"; about {_duration(left)} to go" if left else ""
        )

    def seconds_left(self, state: State) -> float | None:
        """An estimate from this table's runs so far, trainings and evaluations apart; None without any."""
        seen = {kind: list(times) for kind, times in self._seconds.items()}
        for record in state.records.values():
            seen["reader" not in record.chosen].append(record.wall_seconds)
        both = [*seen[True], *seen[False]]
        if not both:
            return None
        mean = {kind: sum(times or both) / len(times or both) for kind, times in seen.items()}
        waiting = state.plan.waiting * mean[True]
        return (sum(mean[run.trains] for run in state.todo) + waiting) / self.jobs

    def commands(self) -> list[str]:
        """Shell commands of the runs that are to do, readers before what evaluates them.

        Runs that trials have to settle come with the next call, when the trials are done.
        """
        return [
            shlex.join(
                [
                    *(["env", *map("=".join, self._tracked_as(run).items())] if self.report_to else []),
                    *self._command(run),
                ]
            )
            for run in self.look().todo
        ]


def _remove_checkpoints(folder: Path) -> None:
    """A finished run's checkpoints only take room: its reader lies beside them."""
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{max(1, round(seconds))} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"

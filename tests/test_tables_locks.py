"""One run, one runner: who gets a lock, who keeps it, and when it may be taken away."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from qa.tables import locks
from qa.tables.locks import Lock, acquire


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "run.lock"


def held(path: Path) -> Lock:
    lock = acquire(path)
    assert lock is not None
    return lock


def leave(path: Path, **fields: object) -> None:
    """Make a lock as another runner would have left it."""
    lock = acquire(path)
    assert lock is not None
    content = json.loads(path.read_text())
    lock.release()
    path.write_text(json.dumps({**content, "token": "other", **fields}))


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_lock_has_one_holder_until_it_is_given_back(path: Path) -> None:
    with held(path) as lock:
        assert acquire(path) is None
        assert json.loads(path.read_text())["pid"] == os.getpid()
        assert isinstance(lock, Lock)
    assert not path.exists()
    assert [one.name for one in path.parent.iterdir()] == [".gate"]
    again = acquire(path)
    assert again is not None
    again.release()


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_one_gets_it(path: Path, stale: bool) -> None:
    for _ in range(10):
        if stale:
            leave(path, pid=dead_process() if _ == 0 else 2**22 + 1, began="1")
        start, got = threading.Barrier(8), []

        def reach(start: threading.Barrier = start, got: list[Lock | None] = got) -> None:
            start.wait()
            got.append(acquire(path))

        threads = [threading.Thread(target=reach) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        held = [lock for lock in got if lock is not None]
        assert len(held) == 1
        held[0].release()


def test_a_dead_holders_lock_is_taken_away(path: Path) -> None:
    leave(path, pid=dead_process())
    lock = acquire(path)
    assert lock is not None
    lock.release()


def test_a_process_id_used_again_is_not_the_holder(path: Path) -> None:
    leave(path, began="1")
    lock = acquire(path)
    assert lock is not None
    lock.release()


def test_a_run_that_outlived_its_runner_is_left_to_finish(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    leave(path, pid=dead_process(), child=child.pid, child_began=locks._began(child.pid))
    assert acquire(path) is None
    child.communicate(b"\n")
    lock = acquire(path)
    assert lock is not None
    lock.release()


def test_another_machines_lock_counts_while_its_heart_beats(path: Path) -> None:
    leave(path, host="elsewhere", pid=dead_process())
    assert socket.gethostname() != "elsewhere"
    assert acquire(path) is None
    old = time.time() - locks.STALE_SECONDS - 5
    os.utime(path, (old, old))
    lock = acquire(path)
    assert lock is not None
    lock.release()


def test_another_life_of_the_machine_holds_nothing(path: Path) -> None:
    leave(path, boot="before")
    lock = acquire(path)
    assert lock is not None
    lock.release()


def test_the_heart_beats(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.02)
    with held(path):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 5
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_a_holder_names_its_child_and_keeps_the_lock(path: Path) -> None:
    with held(path) as lock:
        lock.name_child(os.getpid())
        assert json.loads(path.read_text())["child"] == os.getpid()
        assert acquire(path) is None
    assert not path.exists()

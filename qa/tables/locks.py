"""One run, one runner: a lock is a file that only one process can make, and that outlives nobody for long.

A lock names the runner and the process group of the run it started. A killed runner may leave its run behind
at work: such a run is left to finish, not started twice. Processes of another machine cannot be asked, so
that their locks count until no heartbeat has been seen for ten minutes.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from qa.files import write_json

HEARTBEAT_SECONDS = 20.0
STALE_SECONDS = 600.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. boot: tells two lives of a machine apart; began: a process id's from its reuse's."""

    token: str
    host: str
    boot: str
    pid: int
    began: str
    child: int | None = None
    child_began: str = ""


class Lock:
    """A lock that is held; as a context it is given back at the end. Use `acquire` to get one."""

    def __init__(self, path: Path, holder: Holder) -> None:
        self.path, self.holder = path, holder
        self._end = threading.Event()
        self._beat = threading.Thread(target=self._keep_alive, daemon=True)
        self._beat.start()

    def _keep_alive(self) -> None:
        while not self._end.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):
                os.utime(self.path)

    def name_child(self, pid: int) -> None:
        """Enter the process that works for the holder (the leader of its group)."""
        self.holder = Holder(**{**asdict(self.holder), "child": pid, "child_began": _began(pid)})
        write_json(self.path, asdict(self.holder))

    def release(self) -> None:
        """Give it back."""
        self._end.set()
        self._beat.join()
        holder = _read(self.path)
        if holder is not None and holder.token == self.holder.token:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire(path: Path) -> Lock | None:
    """The lock, or None where somebody alive holds it. A dead holder's is taken away first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(path.parent):
        if _is_stale(path, _read(path)):
            path.unlink(missing_ok=True)
        host = socket.gethostname()
        holder = Holder(secrets.token_hex(8), host, _boot(), os.getpid(), _began(os.getpid()))
        # Written aside and linked: the file is there with its content or not at all.
        aside = path.with_name(f".{path.name}.{holder.token}")
        write_json(aside, asdict(holder))
        try:
            os.link(aside, path)
        except FileExistsError:
            return None
        finally:
            aside.unlink()
    return Lock(path, holder)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Between the look at a dead holder's lock and its removal nobody else may take it, and lose it again.

    The system gives this back where a process dies. Where it has no such thing, the link alone decides.
    """
    with (folder / ".gate").open("wb") as gate:
        try:
            import fcntl

            fcntl.flock(gate, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield


def _is_stale(path: Path, holder: Holder | None) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    if holder is None:
        return age > STALE_SECONDS
    if holder.host != socket.gethostname():
        return age > STALE_SECONDS
    if holder.boot != _boot():
        return True
    child_works = holder.child is not None and _lives(holder.child, holder.child_began)
    return not (_lives(holder.pid, holder.began) or child_works)


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _lives(pid: int, began: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _began(pid) == began


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty for a zombie, and where nobody tells."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if after_name[0] == "Z" else after_name[19]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""

"""Runs as processes: the command, a log of what it prints, its end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_LOG_LINES = 6
PATIENCE_SECONDS = 20.0


def launch_command(processes: int = 1) -> list[str]:
    """What starts a run: everything said that accelerate would otherwise ask its configuration for."""
    several = ["--multi_gpu"] if processes > 1 else []
    counts = ["--num_processes", str(processes), "--num_machines", "1"]
    module = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*module, *several, *counts, "--mixed_precision", "no", "--dynamo_backend", "no", "run_qa.py"]


def start(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own; the command and all it prints go to the end of `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        stream.write(f"\n$ {shlex.join(command)}\n".encode())
        stream.flush()
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env=environment,
        )


def end_of_log(log: Path) -> str:
    """The last lines of a log, indented under its name."""
    with log.open(encoding="utf-8", errors="replace") as stream:
        last = [line.rstrip() for line in stream if line.strip()][-_LOG_LINES:]
    return "\n".join([f"the end of {log}:", *(f"  | {line}" for line in last)])


def end_group(child: subprocess.Popen[bytes], patience: float = PATIENCE_SECONDS) -> None:
    """End a run with all its processes: politely, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(patience)
            if number == signal.SIGKILL:
                return

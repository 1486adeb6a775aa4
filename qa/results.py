"""The record of one run: what was asked, with what, and what came out. Tables and cards are made of it."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from numbers import Real
from pathlib import Path
from typing import Any

from qa.errors import InputError
from qa.files import write_json

RECORD_NAME = "run.json"
SCHEMA = 1
"""Raised with every change after which an older record can no longer be read."""

_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "peft", "numpy", "pyarrow")


@dataclass(frozen=True)
class Scores:
    """One evaluation.

    metrics: scores in percent, loss in nats. signature: how they were made, to print beside them.
    intervals: 95 % bootstrap interval (low, high) of some of the metrics, in percent.
    """

    metrics: dict[str, float]
    signature: str
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """Everything needed to judge a number and to make it again.

    name: the output folder's. strategy: what was trained.
    model: hub name or folder of the checkpoint it began with. command: as typed. settings: all, resolved.
    data: per split, the data report (source, sha256 fingerprint, counts).
    scores: `before`, `eval`, `predict`, as far as they were asked for.
    training: steps, seconds, tokens, loss curve. parameters: `total` and `trainable`.
    environment: see `describe_environment`.
    """

    name: str
    strategy: str
    model: str
    command: str
    settings: dict[str, Any]
    data: dict[str, Any]
    scores: dict[str, Scores]
    training: dict[str, Any]
    parameters: dict[str, int]
    environment: dict[str, Any]
    schema: int = SCHEMA


def write_record(path: Path, record: RunRecord, folder: Path | None = None) -> None:
    """Write a record's public form as JSON, whole or not at all.

    folder: what its paths become relative to; None: the current folder.
    """
    write_json(path, asdict(public_record(record, Path.cwd() if folder is None else folder)))


def read_record(path: Path) -> RunRecord:
    """Read a record. Raises InputError where the file is not one, or is one of another schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise _no_record(path, error) from error
    return record_of(content, path)


def record_of(content: Any, path: Path) -> RunRecord:
    """The record that JSON values hold; path: the file they are from. Raises InputError as `read_record`."""
    try:
        schema = content["schema"]
    except (TypeError, KeyError) as error:
        raise _no_record(path, error) from error
    if schema != SCHEMA:
        raise InputError(
            f"{path}: a record of schema {schema}, but {SCHEMA} is what is read here; run it again"
        )
    try:
        scores = {name: _scores(value) for name, value in content["scores"].items()}
        return RunRecord(**{**content, "scores": scores})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _no_record(path, error) from error


def _no_record(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not a run record ({_reason(error)}); name a run's {RECORD_NAME}")


def _scores(content: dict[str, Any]) -> Scores:
    intervals = {key: (low, high) for key, (low, high) in content["intervals"].items()}
    return Scores(**{**content, "intervals": intervals})


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).removeprefix("RunRecord.__init__() ").removeprefix("Scores.__init__() ")


def public_record(record: RunRecord, folder: Path) -> RunRecord:
    """A record that can be committed: it names no folder of the machine it was made on."""
    return replace(
        record,
        model=public_path(record.model, folder),
        command=public_command(record.command, folder),
        settings=public_paths(record.settings, folder),
        data=public_paths(record.data, folder),
        training=public_paths(record.training, folder),
    )


def public_path(text: str, folder: Path) -> str:
    """A path without what is only true on one machine; any other text as it stands.

    Absolute paths in `folder` become relative to it; of others, and of relative ones that lead out of it,
    the last two components stay, behind `.../`.
    """
    leads_out = text.startswith(("../", "..\\"))
    if not (Path(text).is_absolute() or leads_out) or "\n" in text:
        return text
    path = Path(os.path.normpath(folder / text))
    if path.is_relative_to(folder):
        return str(path.relative_to(folder))
    return "/".join(("...", *path.parts[1:][-2:]))


def public_paths(value: Any, folder: Path) -> Any:
    """`public_path` for every text in nested dicts, lists and tuples."""
    if isinstance(value, str):
        return public_path(value, folder)
    if isinstance(value, Mapping):
        return {key: public_paths(item, folder) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(public_paths(item, folder) for item in value)
    return value


def public_command(command: str, folder: Path) -> str:
    """A shell command with `public_path` for its words, also behind the `=` of `--key=/path`."""
    words = []
    for word in shlex.split(command):
        key, equals, value = word.partition("=")
        is_flag = equals and key.startswith("-")
        words.append(f"{key}={public_path(value, folder)}" if is_flag else public_path(word, folder))
    return shlex.join(words)


def describe_environment(world_size: int) -> dict[str, Any]:
    """Versions, commit and hardware, as far as they can be told without asking; no name of host or user."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
        "hardware": _hardware(),
        "processes": world_size,
    }


def peak_memory_bytes() -> int:
    """The most memory in use so far: allocated on the GPU where there is one, else resident here."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a mapping as plain floats, NumPy's included.

    What is no number is left out, and so are NaN and infinity: JSON has none.
    """
    numbers = {k: float(v) for k, v in values.items() if isinstance(v, Real) and not isinstance(v, bool)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The project's commit, marked where tracked files differ from it; `unknown` outside a checkout."""
    try:
        # An installed copy may lie in somebody else's repository, which does not track this file.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit} with local changes" if changed else commit


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


def _hardware() -> dict[str, Any]:
    found: dict[str, Any] = {"cpu": _cpu_name(), "cores": _usable_cores()}
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
            found["gpus"] = torch.cuda.device_count()
    return found


def _usable_cores() -> int | None:
    """Cores this process may run on: a container's share can be less than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())

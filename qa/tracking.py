"""Weights & Biases at arm's length: the only file that imports wandb, and never a reason for a run to fail.

With its server away wandb waits for 90 seconds and then kills the run; with no key but a terminal it asks
for one in the middle of it. So the run is opened here, before Trainer's callback (which goes on with an open
one): it asks nothing, waits a few seconds at most, and goes offline with one warning instead.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from qa.errors import InputError

logger = logging.getLogger(__name__)

START_SECONDS = 10
"""How long the server may take to answer at the start. Checking the key takes up to 10 more, set by wandb."""

FINISH_SECONDS = 300
"""How long it may take what is left at the end. The rest stays on disk, for `wandb sync`."""


def wants_wandb(report_to: Any) -> bool:
    """Whether `TrainingArguments.report_to`, a name or several, means wandb; `all` does where installed."""
    names = [report_to] if isinstance(report_to, str) else list(report_to or [])
    return "wandb" in names or ("all" in names and importlib.util.find_spec("wandb") is not None)


def start(settings: Mapping[str, Any], *, name: str, group: str | None = None) -> None:
    """Open the wandb run that Trainer's callback goes on with. On the main process only.

    Online only where a key is set and the server takes it. `WANDB_MODE`, `WANDB_PROJECT` and wandb's other
    variables hold; its files go to `WANDB_DIR`, or else to the `output_dir` in `settings`.
    Raises InputError where wandb is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise InputError(
            "report_to: wandb is not installed; run `pip install wandb` or leave it out"
        ) from error
    folder = Path(os.environ.get("WANDB_DIR") or settings.get("output_dir") or "outputs").absolute()
    # Where this fails wandb finds another place, and says so.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    # Read by wandb's service process, which would keep its logs and copies in the home folder.
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        os.environ.setdefault(variable, str(folder / "wandb" / "cache"))
    options: dict[str, Any] = {
        "project": os.environ.get("WANDB_PROJECT", "spanbert-qa"),
        "name": name,
        "group": group,
        "config": dict(settings),
        "dir": str(folder),
        "settings": wandb.Settings(init_timeout=START_SECONDS, finish_timeout=FINISH_SECONDS),
    }
    mode: Any = os.environ.get("WANDB_MODE") or "online"
    if mode == "online":
        fault = _try_online(wandb, options)
        if fault is None:
            return
        logger.warning("wandb: %s; this run is tracked offline, in %s", fault, folder / "wandb")
        mode = "offline"
    try:
        wandb.init(**options, mode=mode)
    except Exception as error:
        logger.warning("wandb: %s; this run is not tracked", _first_line(error))
        # Trainer's callback would open a run of its own if there were none.
        wandb.init(mode="disabled")


def _try_online(wandb: Any, options: Mapping[str, Any]) -> str | None:
    """Open an online run. Returns None, or why there is none."""
    try:
        if not wandb.login(prompt=False):
            return "there is no key (set WANDB_API_KEY or run `wandb login`)"
        wandb.init(**options, mode="online")
    except Exception as error:  # a wrong key, no network and an answer too late have no common base
        wandb.teardown()
        return f"the server cannot be used ({_first_line(error)})"
    return None


def finish(scores: Mapping[str, float], record: Path) -> None:
    """Add the final scores and the run record, and close the run. Does nothing where none is open."""
    import wandb

    if wandb.run is None:
        return
    try:
        wandb.run.summary.update(dict(scores))
        # A copy: wandb links to what lies elsewhere, and a link breaks when the folder is moved.
        copy = shutil.copy2(record, wandb.run.dir)
        wandb.run.save(copy, base_path=wandb.run.dir, policy="now")
        wandb.finish()
    except Exception as error:
        logger.warning("wandb: %s; the final scores are in %s", _first_line(error), record)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

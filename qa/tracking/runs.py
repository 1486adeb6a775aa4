"""One wandb run per training: opened before it, told of it, closed with its record.

With its server away wandb waits for 90 seconds and then kills the run; with no key but a terminal it asks
for one in the middle of it. So the run is opened here, and not by Trainer's callback: it asks nothing, waits
a few seconds at most, and goes offline with one warning instead. Whatever fails later ends the tracking with
one warning, and the training goes on.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from qa.errors import InputError
from qa.files import write_json
from qa.results import RECORD_NAME, RunRecord, public_paths
from qa.tracking.deadlines import first_line, within
from qa.tracking.summary import final_numbers

logger = logging.getLogger(__name__)

START_SECONDS = 10
"""How long the server may take to answer at the start. Checking the key takes up to 10 more, set by wandb."""

FINISH_SECONDS = 60
"""How long it may take what is left at the end. The rest stays on disk, for `wandb sync`."""

GRACE_SECONDS = 5
"""What a call may take beyond the time that wandb itself was given for it."""

STEP = "train/global_step"
ID_FILE = "wandb-run.json"
"""In a training's folder: the wandb run that it goes on with when it is resumed."""


def wants_wandb(report_to: Any) -> bool:
    """Whether `TrainingArguments.report_to`, a name or several, means wandb; `all` does where installed."""
    names = [report_to] if isinstance(report_to, str) else list(report_to or [])
    return "wandb" in names or ("all" in names and importlib.util.find_spec("wandb") is not None)


class TrackedRun:
    """An open wandb run. None of its methods raises: the first that fails says so, and the others do nothing.

    folder: where wandb's own files lie.
    """

    def __init__(self, run: Any, folder: Path) -> None:
        self._run = run
        self.folder = folder
        self._try(lambda: run.define_metric(STEP))
        self._try(lambda: run.define_metric("*", step_metric=STEP, step_sync=True))

    @property
    def is_open(self) -> bool:
        """Whether anything is still tracked."""
        return self._run is not None

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Add values at an optimiser step."""
        self._try(lambda: self._run.log({**values, STEP: step}))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Add a table, all its rows at once."""
        import wandb

        self._try(
            lambda: self._run.log({name: wandb.Table(columns=list(columns), data=list(rows)), STEP: step})
        )

    def finish(self, record: RunRecord, file: Path) -> None:
        """Add the final numbers and the record's file, and close the run; `FINISH_SECONDS` at most."""
        import wandb

        def close() -> None:
            self._run.summary.update(final_numbers(record))
            artifact = wandb.Artifact(f"record-{self._run.id}", type="run-record")
            artifact.add_file(str(file), name=RECORD_NAME)
            self._run.log_artifact(artifact)
            self._run.finish()

        self._try(
            lambda: within(FINISH_SECONDS + GRACE_SECONDS, close), f"all that it lacks is in {file.parent}"
        )
        self._run = None

    def _try(self, call: Callable[[], Any], remedy: str = "from here on this run is not tracked") -> None:
        if self._run is None:
            return
        try:
            call()
        except Exception as error:
            logger.warning("wandb: %s; %s", first_line(error), remedy)
            self._run = None


def start(
    settings: Mapping[str, Any],
    *,
    name: str,
    output_dir: Path,
    group: str | None = None,
    tags: Sequence[str] = (),
    job_type: str = "training",
    resumed: bool = False,
) -> TrackedRun | None:
    """Open a wandb run; on the main process only. None where that cannot be done, after a warning.

    Online only where a key is set and the server takes it. `WANDB_MODE`, `WANDB_PROJECT`, `WANDB_NAME`,
    `WANDB_RUN_GROUP`, `WANDB_TAGS` and wandb's other variables hold; its files go to `WANDB_DIR`, or else to
    `output_dir`, the run's own folder.
    settings: all of the run's; folders outside the current one are shortened, as in the record.
    resumed: go on with the run that the same training opened before.
    Raises InputError where wandb is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise InputError(
            "report_to: wandb is not installed; run `pip install wandb` or leave it out"
        ) from error
    folder = Path(os.environ.get("WANDB_DIR") or output_dir).absolute()
    # Where this fails wandb finds another place, and says so.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    # Read by wandb's service process, which would keep its logs and copies in the home folder.
    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        os.environ.setdefault(variable, str(folder / "wandb" / "cache"))
    options: dict[str, Any] = {
        "project": os.environ.get("WANDB_PROJECT") or "spanbert-qa",
        "name": os.environ.get("WANDB_NAME") or name,
        "group": os.environ.get("WANDB_RUN_GROUP") or group,
        "tags": list(dict.fromkeys([*tags, *filter(None, os.environ.get("WANDB_TAGS", "").split(","))])),
        "job_type": job_type,
        "config": public_paths(dict(settings), Path.cwd()),
        "dir": str(folder),
        "settings": wandb.Settings(init_timeout=START_SECONDS, finish_timeout=FINISH_SECONDS),
    }
    if resumed and (former := _former_id(output_dir)) is not None:
        options |= {"id": former, "resume": "allow"}
    run = _open(wandb, options)
    if run is None:
        return None
    if job_type == "training" and getattr(run, "id", None):
        with suppress(OSError):
            write_json(output_dir / ID_FILE, {"id": run.id})
    return TrackedRun(run, folder / "wandb")


def _open(wandb: Any, options: Mapping[str, Any]) -> Any:
    mode: Any = os.environ.get("WANDB_MODE") or "online"
    if mode == "online":
        run, fault = _try_online(wandb, options)
        if fault is None:
            return run
        folder = Path(options["dir"]) / "wandb"
        logger.warning("wandb: %s; this run is tracked offline, in %s", fault, folder)
        mode = "offline"
    try:
        return within(START_SECONDS + GRACE_SECONDS, lambda: wandb.init(**options, mode=mode))
    except Exception as error:
        logger.warning("wandb: %s; this run is not tracked", first_line(error))
        return None


def _try_online(wandb: Any, options: Mapping[str, Any]) -> tuple[Any, str | None]:
    """An online run and None, or None and why there is none."""
    patience = START_SECONDS + GRACE_SECONDS
    try:
        if not within(patience, lambda: wandb.login(prompt=False)):
            return None, "there is no key (set WANDB_API_KEY or run `wandb login`)"
        return within(patience, lambda: wandb.init(**options, mode="online")), None
    except Exception as error:  # a wrong key, no network and an answer too late have no common base
        with suppress(Exception):
            within(GRACE_SECONDS, wandb.teardown)
        return None, f"the server cannot be used ({first_line(error)})"


def _former_id(output_dir: Path) -> str | None:
    try:
        return str(json.loads((output_dir / ID_FILE).read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None

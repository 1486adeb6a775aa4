"""The runs of a project at wandb's server, where it can be reached."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qa.errors import InputError
from qa.results import finite
from qa.tracking.deadlines import first_line, within

FETCH_SECONDS = 30
"""How long the server may take for everything."""

NEWEST_RUNS = 200
"""How many runs of a project are looked at, the newest first."""


@dataclass(frozen=True)
class OnlineRun:
    """A run as wandb shows it. state: finished, running, crashed, ... numbers: its summary's."""

    id: str
    name: str
    state: str
    settings: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)


class NotReachableError(Exception):
    """wandb did not answer; the message says why."""


def fetch_runs(project: str, *, seconds: float = FETCH_SECONDS) -> list[OnlineRun]:
    """The newest runs of `entity/project`, the newest first.

    Asks for no key. Raises InputError for a name of another form, NotReachableError where wandb is not
    installed, has no key, or does not answer in time.
    """
    if project.count("/") != 1 or not all(project.split("/")):
        raise InputError(f"wandb: {project}: not a project; write it as entity/project")
    mode = os.environ.get("WANDB_MODE", "online")
    if mode != "online":
        raise NotReachableError(f"WANDB_MODE is {mode}")
    try:
        import wandb
    except ImportError as error:
        raise NotReachableError("wandb is not installed") from error
    try:
        return within(seconds, lambda: _fetch(wandb, project))
    except NotReachableError:
        raise
    except Exception as error:  # a wrong key, no network and an unknown project have no common base
        raise NotReachableError(first_line(error)) from error


def _fetch(wandb: Any, project: str) -> list[OnlineRun]:
    if not wandb.login(prompt=False):
        raise NotReachableError("there is no key (set WANDB_API_KEY or run `wandb login`)")
    # Not lazily: that would ask the server once more for every run.
    runs = wandb.Api(timeout=10).runs(project, order="-created_at", lazy=False)
    found = []
    for run in runs:
        found.append(_online_run(run))
        if len(found) == NEWEST_RUNS:
            break
    return found


def _online_run(run: Any) -> OnlineRun:
    summary: Mapping[str, Any] = {key: run.summary.get(key) for key in run.summary.keys()}  # noqa: SIM118
    settings = {key: value for key, value in dict(run.config).items() if not key.startswith("_")}
    return OnlineRun(run.id, run.name, run.state, settings, finite(summary))

"""What a training tells its wandb run at every log, instead of Trainer's own callback.

That one copies all of transformers' settings and every model file that WANDB_LOG_MODEL names, and an error in
it ends the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers.integrations import WandbCallback

from qa.results import finite, peak_memory_bytes
from qa.tracking.runs import TrackedRun

_STAGES = ("before", "eval", "predict")


def follow(trainer: Trainer, tracked: TrackedRun | None) -> None:
    """Let `tracked` hear of the training; None: of this rank, or of a run that could not be opened."""
    trainer.remove_callback(WandbCallback)
    if tracked is not None:
        trainer.add_callback(_Follow(tracked))


class _Follow(TrainerCallback):
    def __init__(self, tracked: TrackedRun) -> None:
        self.tracked = tracked
        self.rates: dict[str, float] = {}

    def on_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, optimizer: Any = None, **kwargs: Any
    ) -> None:
        # When the log comes, the scheduler has gone on to the next step's.
        self.rates = learning_rates(optimizer)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.is_world_process_zero:
            values = named(finite(logs or {}))
            if "train/loss" in values:
                values |= {**self.rates, "train/peak_memory_gb": peak_memory_bytes() / 1e9}
            self.tracked.log(values, state.global_step)


def named(logs: Mapping[str, float]) -> dict[str, float]:
    """Trainer's names -> wandb's, which groups charts by what stands before the slash.

    `eval_f1` -> `eval/f1`, `loss` -> `train/loss`; a whole training's `train_loss` -> `total/loss`.
    """
    found = {}
    for name, value in logs.items():
        stage, _, rest = name.partition("_")
        if stage in ("train", "total") and rest:
            found[f"total/{rest}"] = value
        elif stage in _STAGES and rest:
            found[f"{stage}/{rest}"] = value
        else:
            found[f"train/{name}"] = value
    return found


def learning_rates(optimizer: Any) -> dict[str, float]:
    """The lowest and the highest learning rate of the parameter groups; empty where all have the same."""
    groups = getattr(optimizer, "param_groups", [])
    if len({group.get("initial_lr") for group in groups}) < 2:
        return {}
    rates = [float(group["lr"]) for group in groups]
    return {"train/lowest_learning_rate": min(rates), "train/highest_learning_rate": max(rates)}

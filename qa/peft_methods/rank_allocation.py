"""AdaLoRA's allocation of ranks as a callback of Trainer, and its state in checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qa.errors import InputError

STATE_FILE = "rank_allocation.safetensors"
_SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
_PATTERN = "rank_pattern"


class RankAllocation(TrainerCallback):
    """Calls peft's `update_and_allocate` after every optimiser step, while the gradients are there.

    peft writes the pattern of the ranks that are left into the adapter's configuration, which makes it cut
    the saved tensors. The pattern is kept here instead, and the tensors stay whole, 0 where a rank is gone.

    initial_share, final_share: shares of all steps at the begin and the end in which no rank is given up.
    """

    def __init__(self, model: nn.Module, *, initial_share: float, final_share: float) -> None:
        peft_model: Any = model
        self.tuner = peft_model.base_model
        self.config = peft_model.peft_config[peft_model.active_adapter]
        self.shares = (initial_share, final_share)
        self.pattern: dict[str, list[bool]] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Turn shares into steps; after a resume, take up the state of the checkpoint."""
        self.config.total_step = state.max_steps
        self.config.tinit, self.config.tfinal = (int(share * state.max_steps) for share in self.shares)
        if self.config.total_step - self.config.tfinal < 2:
            raise InputError(
                f"max_steps: {state.max_steps} are too few for AdaLoRA to give up ranks; train longer, or "
                "use strategy lora"
            )
        if state.global_step:
            self._read(_resumed_from(args, state) / STATE_FILE)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """global_step still counts the steps before this one."""
        self.config.rank_pattern = self.pattern
        self.tuner.update_and_allocate(state.global_step + 1)
        self.pattern, self.config.rank_pattern = self.config.rank_pattern, None

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write importance scores and pattern into the new checkpoint."""
        if args.should_save:
            folder = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
            save_file(self._state(), folder / STATE_FILE)

    def _state(self) -> dict[str, Tensor]:
        allocator = self.tuner.rankallocator
        tensors = {
            f"{kind}/{name}": tensor.detach().contiguous()
            for kind in _SCORES
            for name, tensor in getattr(allocator, kind).items()
        }
        kept = (self.pattern or {}).items()
        return tensors | {f"{_PATTERN}/{name}": torch.tensor(ranks) for name, ranks in kept}

    def _read(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"resume_from_checkpoint: {path} is missing; start anew")
        allocator, device = self.tuner.rankallocator, next(self.tuner.parameters()).device
        allocator.reset_ipt()
        pattern = {}
        for key, tensor in load_file(path).items():
            kind, _, name = key.partition("/")
            if kind == _PATTERN:
                pattern[name] = tensor.tolist()
            else:
                getattr(allocator, kind)[name] = tensor.to(device)
        self.pattern = pattern or None


def _resumed_from(args: TrainingArguments, state: TrainerState) -> Path:
    """The checkpoint's folder: as it was named, else the newest of this run."""
    named = Path(args.resume_from_checkpoint or "")
    own = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
    return named if named.name == own.name and named.is_dir() else own

"""Weights & Biases at arm's length: the one package that imports wandb, and no reason for a run to fail.

The run's own record is the truth; what wandb shows is a view of it.
"""

from qa.tracking.runs import TrackedRun, start, wants_wandb
from qa.tracking.summary import final_numbers

__all__ = ["TrackedRun", "final_numbers", "start", "wants_wandb"]

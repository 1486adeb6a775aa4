"""The numbers of a run at its end, under the names they have at wandb."""

from __future__ import annotations

from qa.results import RunRecord, finite

_OF_TRAINING = ("steps", "seconds", "tokens", "train_loss", "best_metric", "peak_memory_bytes")


def final_numbers(record: RunRecord) -> dict[str, float]:
    """Name -> number: `eval/f1` and all other metrics by stage, `training/seconds`, `parameters/trainable`.

    Units are the record's: percent, nats, seconds, bytes.
    """
    found = {f"{stage}/{name}": v for stage, s in record.scores.items() for name, v in s.metrics.items()}
    found |= {f"training/{name}": record.training.get(name) for name in _OF_TRAINING}  # type: ignore[misc]
    found |= {f"parameters/{name}": count for name, count in record.parameters.items()}
    return finite(found)

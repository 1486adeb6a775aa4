"""Windows and batches as the transformers example has them, for a plain `Trainer` to compare with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import DataCollatorWithPadding, default_data_collator

from experiments.bench.questions import Questions


class PlainWindows(torch.utils.data.Dataset):
    """The example's features: lists in memory. width: they are padded to it; None: not here."""

    def __init__(self, questions: Questions, width: int | None) -> None:
        names = ["input_ids", "token_type_ids", "start_positions", "end_positions"]
        self.columns = {name: questions.windows.table[name][:] for name in names}
        self.pad, self.width = questions.tokenizer.pad_token_id, width

    def __len__(self) -> int:
        return len(self.columns["input_ids"])

    def __getitem__(self, row: int) -> dict[str, Any]:
        ids, types = list(self.columns["input_ids"][row]), list(self.columns["token_type_ids"][row])
        more = 0 if self.width is None else self.width - len(ids)
        return {
            "input_ids": ids + [self.pad] * more,
            "token_type_ids": types + [0] * more,
            "attention_mask": [1] * len(ids) + [0] * more,
            "start_positions": self.columns["start_positions"][row][0],
            "end_positions": self.columns["end_positions"][row][0],
        }


def plain_collator(
    tokenizer: Any, pads: bool, tokens: list[int] | None = None
) -> Callable[[list[dict[str, Any]]], Any]:
    """pads: to the longest row of a batch; else rows are of one length. tokens: real ones are noted there."""
    collate = DataCollatorWithPadding(tokenizer) if pads else default_data_collator

    def counting(rows: list[dict[str, Any]]) -> Any:
        if tokens is not None:
            tokens.append(sum(sum(row["attention_mask"]) for row in rows))
        return collate(rows)

    return counting

"""Questions with their windows: what is trained on, evaluated and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qa.datasets import LoadedExamples, load_examples
from qa.datasets.cache import default_cache
from qa.windows import Windows, WindowSettings, build_windows

if TYPE_CHECKING:
    import datasets

    from qa.batching import WindowBatches
    from qa.run_settings import DataArguments

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class QuestionSet:
    """Questions of one split and their windows; as a sequence, its windows (what a DataLoader reads)."""

    name: str
    examples: LoadedExamples
    windows: Windows

    @cached_property
    def _batches(self) -> WindowBatches:
        from qa.batching import WindowBatches

        return WindowBatches(self.windows.table)

    def __len__(self) -> int:
        return len(self.windows.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._batches[index]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return self._batches.__getitems__(indices)

    @property
    def table(self) -> datasets.Dataset:
        """The examples table."""
        return self.examples.table

    @property
    def has_golds(self) -> bool:
        """Whether answers came with the questions; without them nothing can be scored."""
        return self.examples.unlabelled < self.examples.total

    def golds(self) -> dict[str, list[str]]:
        """Question id -> gold texts; empty where the passage does not tell."""
        answers = self.table["answers"][:]
        return {key: row["text"] for key, row in zip(self.table["id"][:], answers, strict=True)}


def load_question_set(
    split: Split, data: DataArguments, windows: WindowSettings, tokenizer: Any
) -> QuestionSet | None:
    """Read, check and cut a split into windows; None where no questions were named for it.

    Evaluation and prediction always take the first gold for their loss, whatever trains.
    """
    source = data.source(split)
    if source is None:
        return None
    cache_dir = None if data.cache_dir is None else Path(data.cache_dir)
    examples = load_examples(
        source,
        split=split,
        config_name=data.dataset_config_name,
        revision=data.dataset_revision,
        on_bad_record=data.on_bad_record,
        require_answers=split != "test",
        max_samples=data.max_samples(split),
        shuffle_seed=data.sample_seed,
        cache_dir=cache_dir,
    )
    built = build_windows(
        examples.table,
        tokenizer,
        windows,
        cache_dir=cache_dir or default_cache(),
        num_proc=data.preprocessing_num_workers,
    )
    # Reports name the file as the user did: where it was found is true on one machine only.
    return QuestionSet(split, replace(examples, source=data.named(split) or source), built)

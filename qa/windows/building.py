"""Examples -> tokenized windows: one function for training, evaluation and prediction.

A passage longer than the model's input is read in windows, `[CLS] question [SEP] piece of the passage [SEP]`
(Devlin et al. 2019, section 4.2). Every distinct passage is tokenized once, however many questions and
windows it serves.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from qa.errors import InputError
from qa.windows.labels import ragged_arange
from qa.windows.reading import arrow_columns, holds_answer, lists, numbers, window_lengths

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerFast

WINDOWS_VERSION = 1
"""Part of the cache's fingerprint: raise it with every change that gives other windows."""

EXAMPLES_PER_BATCH = 500

StrideMeaning = Literal["overlap", "step"]
Segments = Literal["bert", "zeros"]
Gold = Literal["first", "all", "random"]


@dataclass(frozen=True)
class WindowSettings:
    """How passages are cut and which golds train. The help of each field says what it means."""

    _argument_group_name: ClassVar[str] = "windows"

    max_seq_length: int = field(
        default=384, metadata={"help": "Longest window in tokens, question and special tokens included."}
    )
    doc_stride: int = field(
        default=128,
        metadata={"help": "Tokens between neighbouring windows; --stride_meaning says how they count."},
    )
    stride_meaning: StrideMeaning = field(
        default="overlap",
        metadata={
            "help": "overlap: doc_stride is what two neighbouring windows share (Hugging Face). step: the "
            "distance between their starts (BERT, SpanBERT)."
        },
    )
    max_question_length: int = field(
        default=64, metadata={"help": "Longer questions are cut to this many tokens, and counted (BERT: 64)."}
    )
    segments: Segments = field(
        default="bert",
        metadata={
            "help": "Token types. bert: 0 / 1 as the tokenizer gives them. zeros: all 0, as in SpanBERT's "
            "pre-training."
        },
    )
    gold: Gold = field(
        default="first",
        metadata={
            "help": "Which gold trains. first: the first annotated answer. all: every occurrence of every "
            "annotated text (marginal likelihood). random: an annotated answer, drawn anew each epoch."
        },
    )

    def __post_init__(self) -> None:
        for name, choices in (("stride_meaning", StrideMeaning), ("segments", Segments), ("gold", Gold)):
            if getattr(self, name) not in get_args(choices):
                raise InputError(
                    f"{name}: no choice {getattr(self, name)!r}; choose from {', '.join(get_args(choices))}."
                )
        least_stride = 0 if self.stride_meaning == "overlap" else 1
        for name, least in (("max_seq_length", 1), ("max_question_length", 1), ("doc_stride", least_stride)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be {least} or more.")

    def validate(self, special_tokens: int) -> None:
        """Check, before any text is read, that a question of full length leaves room for its passage.

        Args:
            special_tokens: how many tokens the tokenizer adds to a pair.

        Raises:
            InputError: no room, or an overlap that leaves no new token for the next window.
        """
        room = self.max_seq_length - special_tokens - self.max_question_length
        used = (
            f"max_seq_length {self.max_seq_length} - max_question_length {self.max_question_length}"
            f" - {special_tokens} special tokens"
        )
        if room < 1:
            raise InputError(
                f"max_seq_length: {used} leaves no room for the passage; raise max_seq_length or lower"
                " max_question_length."
            )
        if self.stride_meaning == "overlap" and self.doc_stride >= room:
            raise InputError(
                f"doc_stride: an overlap of {self.doc_stride} tokens does not fit into a passage's room"
                f" of {room} ({used}); lower doc_stride to {room - 1} or less, or raise max_seq_length."
            )


@dataclass(frozen=True)
class Windows:
    """Windows of a set of examples and what happened to the examples on the way.

    table: one row per window; the windows of one example are adjacent, in the order of the passage. Columns:
        input_ids list<int32> (seq_len,), token_type_ids list<int8> (seq_len,), offsets list<int32> (2 *
        seq_len,) flattened character start and end (exclusive) in the context, 0 outside the passage;
        passage_start, passage_end (exclusive), document_start (index of the first passage token within the
        whole passage), example_index, length int32; start_positions, end_positions list<int32> (golds,),
        inclusive, 0 = not here.
    questions, unanswerable_questions: examples, and those without an annotated answer.
    truncated_questions: questions longer than `max_question_length`.
    empty_passages: questions about a passage that the tokenizer leaves no token of.
    answers_without_tokens: golds that no token covers (empty, white space, control characters): labelled
        `[CLS]`.
    answers_in_no_window: golds too long for every window: labelled `[CLS]` everywhere.
    windows_without_answer: windows labelled `[CLS]`; those of unanswerable questions are among them.
    """

    table: datasets.Dataset
    questions: int
    unanswerable_questions: int
    truncated_questions: int
    empty_passages: int
    answers_without_tokens: int
    answers_in_no_window: int
    windows_without_answer: int

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """(windows,) number of tokens of each window."""
        return window_lengths(self.table)

    @property
    def example_index(self) -> npt.NDArray[np.int32]:
        """(windows,) the row of each window's question in the examples table."""
        return numbers(arrow_columns(self.table, ["example_index"]), "example_index")

    @property
    def holds_answer(self) -> npt.NDArray[np.bool_]:
        """(windows,) whether the window holds a gold; the others are labelled `[CLS]`."""
        return holds_answer(self.table)


def build_windows(
    examples: datasets.Dataset,
    tokenizer: PreTrainedTokenizerFast,
    settings: WindowSettings,
    *,
    cache_dir: Path | None,
    num_proc: int | None = None,
) -> Windows:
    """Cut every example into windows, with labels and offsets.

    The cache is keyed by the examples' fingerprint, the tokenizer's content, the settings and
    `WINDOWS_VERSION`. It is renamed into place when complete, so several ranks may build it at once (all but
    one of them in vain).

    Args:
        examples: columns id, question, context, answers {text: list, answer_start: list}.
        cache_dir: folder of the Arrow file `windows-<fingerprint>.arrow`; None: build in memory, keep
            nothing.
        num_proc: processes that share the work, with `cache_dir` only. The tokenizer uses every core by
            itself.

    Raises:
        InputError: settings that do not fit the tokenizer, or an answer that does not stand at its offset.
    """
    import datasets
    from pyarrow import concat_tables

    from qa.windows.columns import WindowColumns, window_features

    columns = WindowColumns.of(tokenizer, settings)
    fingerprint = _fingerprint(examples, columns.content, settings)
    features = window_features()
    count = len(examples)
    examples = examples.select_columns(["id", "question", "context", "answers"]).with_format("arrow")
    if cache_dir is not None and count:
        cached = examples.map(
            columns,
            with_indices=True,
            batched=True,
            batch_size=EXAMPLES_PER_BATCH,
            features=features,
            cache_file_name=str(cache_dir / f"windows-{fingerprint}.arrow"),
            load_from_cache_file=True,
            new_fingerprint=fingerprint,
            num_proc=num_proc if num_proc and num_proc > 1 else None,
            desc="Windows",
        ).with_format(None)
    else:
        batches = (range(count)[at : at + EXAMPLES_PER_BATCH] for at in range(0, count, EXAMPLES_PER_BATCH))
        tables = [columns(examples[batch.start : batch.stop], batch) for batch in batches]
        table = concat_tables([features.arrow_schema.empty_table(), *tables])
        cached = datasets.Dataset(table, fingerprint=fingerprint)
    return _counted(cached, count, settings)


def _fingerprint(examples: datasets.Dataset, tokenizer: str, settings: WindowSettings) -> str:
    """Hexadecimal key of everything that changes the windows."""
    parts = (examples._fingerprint, tokenizer, repr(asdict(settings)), str(WINDOWS_VERSION))
    # Hashes of the parts, not the parts joined: no text can move over a border unseen.
    return hashlib.sha256(b"".join(hashlib.sha256(part.encode()).digest() for part in parts)).hexdigest()[:32]


def _counted(cached: datasets.Dataset, questions: int, settings: WindowSettings) -> Windows:
    """Count what the bookkeeping columns tell, and leave them out of the table."""
    from qa.windows.columns import BOOKKEEPING_TYPES, COLUMN_TYPES

    places = ["example_index", "passage_start", "passage_end"]
    data = arrow_columns(cached, [*places, "start_positions", *BOOKKEEPING_TYPES])
    starts, splits = lists(data, "start_positions")
    example = numbers(data, "example_index")
    first = np.flatnonzero(np.diff(example, prepend=-1))
    of_example = {
        name: numbers(data, name)[first] for name in (*BOOKKEEPING_TYPES, "passage_start", "passage_end")
    }
    candidates = np.diff(splits)
    ordinal = np.cumsum(np.diff(example, prepend=-1) > 0) - 1
    before = np.concatenate([[0], np.cumsum(candidates[first])])[ordinal]
    found = np.unique(ragged_arange(before, candidates)[starts > 0])
    answers, lost = of_example["answer_spans"], of_example["answers_without_tokens"]
    return Windows(
        table=cached.select_columns(list(COLUMN_TYPES)),
        questions=questions,
        unanswerable_questions=int(np.sum((answers == 0) & (lost == 0))),
        truncated_questions=int(np.sum(of_example["question_tokens"] > settings.max_question_length)),
        empty_passages=int(np.sum(of_example["passage_start"] == of_example["passage_end"])),
        answers_without_tokens=int(lost.sum()),
        answers_in_no_window=int(answers.sum()) - len(found),
        windows_without_answer=int(np.sum(~holds_answer(cached))),
    )

"""Questions in every form that the removed transformers pipeline took -> examples.

Its forms and errors: transformers 4.57, pipelines/question_answering.py, `QuestionAnsweringArgumentHandler`.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from qa.errors import InputError
from qa.records import Example

FORMS = "give question= and context=, a dict with both keys, or a list, generator or data set of such dicts"


class MissingKeyError(InputError, KeyError):
    """A mapping without a question or a context; also a KeyError, as it was with the removed pipeline."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Inputs:
    """What was asked.

    examples: in the order of the answers. streamed: read and answered piece by piece (generators, data sets).
    count: how many, where that is known beforehand. single: one question, whose answer comes without a list.
    """

    examples: Iterable[Example]
    streamed: bool
    count: int | None
    single: bool = False


def parse_inputs(args: Sequence[Any], named: Mapping[str, Any]) -> Inputs:
    """Positional arguments, or `question` and `context` (or `X`, `data`), as examples with an empty id.

    Generators and data sets (of torch or `datasets`) are streamed, so a mistake in one of their items shows
    when it is reached; everything else is read and checked at once. Raises InputError, a ValueError, that
    names the item.
    """
    given = {key: value for key, value in named.items() if value is not None}
    if args and given:
        raise InputError(f"{', '.join(given)}: given beside a positional question; {FORMS}")
    if not args and ("question" in named or "context" in named):
        return _listed(_pairs(named.get("question"), named.get("context"), "the call"))
    values = list(args) or [given[key] for key in ("X", "data") if key in given]
    if not values:
        raise InputError(f"nothing was asked; {FORMS}")
    if len(values) == 2 and all(isinstance(value, str) for value in values):
        return _listed(_pairs(values[0], values[1], "the call"))
    value = values[0] if len(values) == 1 else values
    if isinstance(value, types.GeneratorType):
        return Inputs(_numbered(value), True, None)
    if _is_data_set(value):
        return Inputs(_numbered(_rows(value)), True, len(value) if isinstance(value, Sized) else None)
    if isinstance(value, str) or not (isinstance(value, Iterable) or _is_example(value)):
        raise InputError(f"a {type(value).__name__} alone is no question about a passage; {FORMS}")
    if isinstance(value, Mapping) or _is_example(value):
        of_lists = isinstance(value, Mapping) and _texts(value.get("question")) is not None
        return _listed(_examples(value, "the call"), single=not of_lists)
    return _listed([example for at, item in enumerate(value) for example in _examples(item, f"item {at}")])


def _listed(examples: list[Example], *, single: bool = True) -> Inputs:
    """single: False where even one question is answered in a list."""
    return Inputs(examples, False, len(examples), single and len(examples) == 1)


def _numbered(items: Iterable[Any]) -> Iterator[Example]:
    for at, item in enumerate(items):
        yield from _examples(item, f"item {at}")


def _is_data_set(value: Any) -> bool:
    """Whether it is a data set of torch or `datasets`, without importing either."""
    modules = [sys.modules.get(name) for name in ("torch.utils.data", "datasets")]
    kinds = [getattr(module, name, None) for module in modules for name in ("Dataset", "IterableDataset")]
    return any(isinstance(kind, type) and isinstance(value, kind) for kind in kinds)


def _rows(data_set: Any) -> Iterable[Any]:
    """The rows one by one; of a table only the two columns that are asked with."""
    if getattr(data_set, "column_names", None):
        missing = {"question", "context"}.difference(data_set.column_names)
        if missing:
            raise MissingKeyError(
                f"data set: has no column {' and '.join(sorted(missing))}; rename one with rename_column"
            )
        return data_set.select_columns(["question", "context"])
    if isinstance(data_set, Iterable):
        return data_set
    return (data_set[index] for index in range(len(data_set)))


def _is_example(value: Any) -> bool:
    return _attributes(value) is not None


def _attributes(value: Any) -> tuple[Any, Any] | None:
    """Question and context of an object such as transformers' SquadExample or `qa.records.Example`."""
    for question, context in (("question_text", "context_text"), ("question", "context")):
        if hasattr(value, question) and hasattr(value, context):
            return getattr(value, question), getattr(value, context)
    return None


def _examples(item: Any, place: str) -> list[Example]:
    """One item, which may hold lists of questions; keys beyond question and context are passed over."""
    if isinstance(item, Mapping):
        for key in ("question", "context"):
            if key not in item:
                raise MissingKeyError(f"{place}: has no key {key}; a dict needs question and context")
        return _pairs(item["question"], item["context"], place)
    pair = _attributes(item)
    if pair is None:
        raise InputError(f"{place}: a {type(item).__name__} is no question about a passage; {FORMS}")
    return _pairs(*pair, place)


def _pairs(question: Any, context: Any, place: str) -> list[Example]:
    """Both texts; both sequences of one length; or several questions about one context."""
    questions, contexts = _texts(question), _texts(context)
    if questions is None and contexts is not None:
        raise InputError(
            f"{place}: one question about {len(contexts)} contexts; give a question for each, or use rank()"
        )
    if questions is None or contexts is None:
        several = [question] if questions is None else questions
        context = _checked(context, "context", place)
        return [Example("", _checked(one, "question", place), context) for one in several]
    if len(questions) != len(contexts):
        raise InputError(
            f"{place}: questions and contexts don't have the same lengths ({len(questions)}, {len(contexts)})"
        )
    pairs = enumerate(zip(questions, contexts, strict=True))
    return [
        Example("", _checked(q, "question", f"item {at}"), _checked(c, "context", f"item {at}"))
        for at, (q, c) in pairs
    ]


def _texts(value: Any) -> list[Any] | None:
    """The members of a list, tuple or table column; None for a single text."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else None


def _checked(text: Any, name: str, place: str) -> str:
    if text is None:
        raise InputError(f"{place}: `{name}` cannot be None")
    if not isinstance(text, str):
        raise InputError(f"{place}: `{name}` must be text, but it is of type {type(text).__name__}")
    if not text:
        raise InputError(f"{place}: `{name}` cannot be empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place}: `{name}` holds half a character (a lone surrogate) at {error.start}; decode it anew"
        ) from None
    return text

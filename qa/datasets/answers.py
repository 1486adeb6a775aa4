"""Answers as files write them -> (text, start) pairs, and the one rule by which a wrong start is moved.

The rule (`place_answer`): a start that does not give the answer's text is moved only where the text settles
it, that is

1. the text occurs exactly once in the context, wherever that is; or
2. it occurs several times, the given start is not negative, and exactly one occurrence is either at most
   `NEARBY` characters away or at the very place the start names when it is counted in UTF-16 units or in
   UTF-8 bytes (other languages count so). Two such occurrences, or none, settle nothing.
"""

from __future__ import annotations

import ast
import json
import unicodedata
from collections.abc import Mapping

NEARBY = 5


class AnswersError(ValueError):
    """Answers of no known shape (kind `answers`), or an answer that has no certain place in the context."""

    def __init__(self, problem: str, kind: str = "answers") -> None:
        super().__init__(problem)
        self.kind = kind


def answer_pairs(value: object) -> list[tuple[object, object]]:
    """(text, answer_start) of every answer, in order, types unchecked.

    Knows `{"text": [...], "answer_start": [...]}` (scalars are taken for lists of one), a list of
    `{"text": ..., "answer_start": ...}`, and either written as text (`structure_from_text`).
    Raises: AnswersError.
    """
    if isinstance(value, str):
        value = structure_from_text(value)
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        if isinstance(texts, str):
            texts = [texts]
            starts = starts if isinstance(starts, (list, tuple)) else [starts]
        if not isinstance(texts, (list, tuple)) or not isinstance(starts, (list, tuple)):
            raise AnswersError("the answers need two lists, text and answer_start")
        if len(texts) != len(starts):
            raise AnswersError(f"the answers have {len(texts)} texts, but {len(starts)} answer_starts")
        return list(zip(texts, starts, strict=True))
    if isinstance(value, (list, tuple)):
        if not all(isinstance(answer, Mapping) for answer in value):
            raise AnswersError("an answer is not an object with text and answer_start")
        return [(answer.get("text"), answer.get("answer_start")) for answer in value]
    raise AnswersError(f"the answers are {value!r:.60}, not an object with text and answer_start")


def structure_from_text(text: str) -> object:
    """An answers cell of a CSV file: JSON, or the Python form that pandas and `Dataset.to_csv` write
    (`{'text': array(['x'], dtype=object), 'answer_start': array([5])}`). Nothing in it is run.

    Raises: AnswersError.
    """
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        pass
    try:
        return _literal(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise AnswersError(f"the answers {text!r:.60} are not JSON") from error


def _literal(node: ast.expr) -> object:
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "array"
        and node.args
    ):
        return _literal(node.args[0])
    if isinstance(node, ast.Dict):
        keys = [_literal(key) for key in node.keys if key is not None]
        return dict(zip(keys, [_literal(value) for value in node.values], strict=True))
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item) for item in node.elts]
    return ast.literal_eval(node)


def place_answer(text: str, start: object, context: str) -> tuple[int, str | None]:
    """Where `context[place : place + len(text)] == text`, and why the given start is not there (None: it is).

    text: not empty. start: anything; whole numbers may come as 5, 5.0 or "5" (CSV, pandas).
    Raises: AnswersError of kind `not in context`, or `offset` where the module's rule settles nothing.
    """
    offset = whole_number(start)
    if offset is not None and offset >= 0 and context.startswith(text, offset):
        return offset, None
    places = occurrences(text, context)
    if not places:
        problem = f"the answer text {text!r:.60} is not in the context{_near_miss(text, context)}"
        raise AnswersError(problem, "not in context")
    if offset is None:
        problem = f"answer_start is {start!r:.60}, not a whole number"
    elif offset < 0:
        problem = f"answer_start {offset} of the answer {text!r:.60} is negative"
    elif offset >= len(context):
        length = f"{len(context)} characters"
        problem = f"answer_start {offset} of the answer {text!r:.60} lies beyond the context ({length})"
    else:
        given = context[offset : offset + len(text)]
        problem = f"answer_start {offset} gives {given!r:.60}, not the answer text {text!r:.60}"
    place = places[0] if len(places) == 1 else _settled_by_distance(offset, places, context)
    if place is None:
        raise AnswersError(f"{problem}, which occurs {len(places)} times", "offset")
    return place, problem


def whole_number(value: object) -> int | None:
    """None where the value is not a whole number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        try:
            return whole_number(float(value)) if "." in value else int(value)
        except ValueError:
            return None
    return None


def occurrences(text: str, context: str) -> list[int]:
    """Starts of every occurrence, overlapping ones too, ascending."""
    places = []
    place = context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    return places


def _settled_by_distance(offset: int | None, places: list[int], context: str) -> int | None:
    if offset is None or offset < 0:
        return None
    candidates = {place for place in places if abs(place - offset) <= NEARBY}
    candidates |= set(places) & {
        _characters(context, offset, "utf-16-le", 2),
        _characters(context, offset, "utf-8", 1),
    }
    return candidates.pop() if len(candidates) == 1 else None


def _characters(context: str, units: int, encoding: str, unit_bytes: int) -> int | None:
    """The character offset that lies `units` code units into the text; None where it falls inside a
    character."""
    try:
        return len(context.encode(encoding)[: units * unit_bytes].decode(encoding))
    except UnicodeDecodeError:
        return None


def _near_miss(text: str, context: str) -> str:
    if text.casefold() in context.casefold():
        return " (only with other capitals)"
    if " ".join(text.split()) in " ".join(context.split()):
        return " (only with other spaces)"
    if unicodedata.normalize("NFC", text) in unicodedata.normalize("NFC", context):
        return " (only in another Unicode form)"
    return ""

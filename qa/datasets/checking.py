"""One raw record -> an `Example`, or the reason why it cannot be one.

Readers hand over records as they stand in the file; everything that may be wrong with them is decided here,
so that the same fault gets the same sentence whatever form it arrives in.

Rules a reader of the results should know:

- An empty answers list means unanswerable, flag or no flag. So does `is_impossible: true` without answers,
  and `is_impossible: true` with answers whose texts are all empty (some converters write `[""]`).
  `plausible_answers` are not read. `is_impossible: false` without an answer, or true with one, contradicts
  itself: a bad record.
- A gold text that is empty (or holds nothing a tokenizer keeps) is a bad record: it would label a real token.
- Control characters (C0 and C1 save tab, line feed, carriage return) are dropped by BERT's tokenizers, which
  joins the words beside them; repair puts a space. Lone surrogates can be neither stored nor tokenized;
  repair puts U+FFFD. Both keep the length, so offsets hold. Byte-order marks, emoji, combining and
  right-to-left characters and Unicode line separators are left as they are.
- Records marked `answer_type: multi-span` whose answers are several belong to another task: their answers
  hold together, and taking them for alternatives would label them wrongly.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from qa.datasets.answers import AnswersError, answer_pairs, place_answer
from qa.records import Answer, Example

UNCLEAN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
DROP = "or use --on_bad_record drop"
REPAIR = "or use --on_bad_record repair"


@dataclass(frozen=True, slots=True)
class RecordProblem:
    """One record that was dropped or repaired, as the report lists it.

    location: the place in the file, "train.json: data[3].paragraphs[2].qas[1]" or "train.csv: line 14"
        (1-based).
    """

    location: str
    id: str
    problem: str
    action: Literal["dropped", "repaired"]
    remedy: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one record; `kind` groups findings for counting."""

    kind: str
    problem: str
    remedy: str = f"correct the record, {DROP}"
    repairable: bool = False


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One question as a file gives it: nothing is known about the types of its fields; None = not there.

    answers: `{"text": [...], "answer_start": [...]}`, a list of `{"text", "answer_start"}`, or either one as
        text.
    findings: what the reader itself found wrong (a broken line, a span outside the context).
    notes: harmless things the reader did that are to be counted and told.
    """

    location: str
    id: object = None
    question: object = None
    context: object = None
    answers: object = None
    title: object = ""
    is_impossible: object = None
    answer_type: object = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


class BadRecordError(Exception):
    """The record cannot be used, and nothing in it settles how to repair it."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.problem)
        self.finding = finding


def bad(kind: str, problem: str, remedy: str = "correct the record") -> BadRecordError:
    """The error of a record that can only be corrected or dropped."""
    return BadRecordError(Finding(kind, problem, f"{remedy}, {DROP}"))


def check_record(record: RawRecord, require_answers: bool = True) -> tuple[Example, tuple[Finding, ...]]:
    """Returns the example with every repair made, and the repairs: none where the record was right.

    require_answers: False takes a record without an answers field as a question to predict only.
    Raises: BadRecordError.
    """
    repairs = list(record.findings)
    for finding in repairs:
        if not finding.repairable:
            raise BadRecordError(finding)
    identifier = checked_id(record.id)
    question, found = checked_text("question", record.question)
    repairs.extend(found)
    context, found = checked_text("context", record.context)
    repairs.extend(found)
    title, found = clean("title", record.title if isinstance(record.title, str) else "")
    repairs.extend(found)
    try:
        answers, found = checked_answers(record, context, require_answers)
    except AnswersError as error:
        raise bad(error.kind, str(error), "correct the answers") from error
    repairs.extend(found)
    return Example(identifier, question, context, answers, title), tuple(repairs)


def checked_id(value: object) -> str:
    """Whole numbers become their decimal text; everything else must be text with something in it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if absent(value) or value == "":
        raise bad("id", "the record has no id", "give every question an id of its own")
    if not isinstance(value, str):
        raise bad("id", f"the id is {shown(value)}, not text", "make it text")
    if UNCLEAN.search(value) or blank(value):
        raise bad("id", f"the id {shown(value)} is blank or holds control characters")
    return value


@lru_cache(maxsize=8)
def clean(field: str, text: str) -> tuple[str, tuple[Finding, ...]]:
    """The text with control characters and lone surrogates replaced one for one, and what was found."""
    first = UNCLEAN.search(text)
    if first is None:
        return text, ()
    code = f"U+{ord(first.group()):04X}"
    if "\ud800" <= first.group() <= "\udfff":
        finding = Finding(
            "surrogate",
            f"the {field} holds half of a surrogate pair, {code}, at character {first.start()}",
            f"write the whole character, {REPAIR} (U+FFFD takes its place)",
            repairable=True,
        )
    else:
        finding = Finding(
            "control character",
            f"the {field} holds the control character {code} at character {first.start()}, "
            "which BERT tokenizers drop",
            f"replace it by a space, {REPAIR}",
            repairable=True,
        )
    return UNCLEAN.sub(lambda match: "\ufffd" if match.group() >= "\ud800" else " ", text), (finding,)


def checked_text(field: str, value: object) -> tuple[str, tuple[Finding, ...]]:
    """A question or a context: text with at least one character that is neither space nor control."""
    if absent(value):
        raise bad(field, f"the record has no {field}", f"fill in the {field}")
    if not isinstance(value, str):
        raise bad(field, f"the {field} is {shown(value)}, not text", "make it text")
    text, found = clean(field, value)
    if blank(text):
        raise bad(field, f"the {field} is empty", f"fill in the {field}")
    return text, found


def checked_answers(
    record: RawRecord, context: str, require_answers: bool
) -> tuple[tuple[Answer, ...], tuple[Finding, ...]]:
    """The record's golds in the file's order, or none where it is unanswerable (see the module's rules).

    Raises: BadRecordError, AnswersError.
    """
    impossible = flag(record.is_impossible)
    if absent(record.answers):
        if impossible or not require_answers:
            return (), ()
        raise bad("answers", "the record has no answers", "give an unanswerable question an empty list")
    pairs = answer_pairs(record.answers)
    if not pairs:
        if impossible is False and require_answers:
            problem = "is_impossible is false, but there is no answer"
            raise bad("is_impossible", problem, "correct one of them")
        return (), ()
    if all(isinstance(text, str) and blank(text) for text, _ in pairs):
        if impossible:
            return (), ()
        remedy = "give an unanswerable question an empty answers list"
        raise bad("empty gold", "the gold text is empty", remedy)
    if impossible:
        problem = "is_impossible is true, but there are answers"
        raise bad("is_impossible", problem, "correct one of them")
    if record.answer_type == "multi-span" and len(pairs) > 1:
        problem = f"the question has {len(pairs)} answers that belong together (answer_type multi-span)"
        remedy = "keep to questions with one answer, for a single span cannot give them"
        raise bad("multi-span", problem, remedy)
    checked = [checked_gold(text, start, context) for text, start in pairs]
    return tuple(gold for gold, _ in checked), tuple(one for _, found in checked for one in found)


def checked_gold(text: object, start: object, context: str) -> tuple[Answer, tuple[Finding, ...]]:
    """One gold at its place in the (cleaned) context."""
    if not isinstance(text, str):
        raise bad("answers", f"an answer text is {shown(text)}, not text")
    text, found = clean("answer text", text)
    if blank(text):
        raise bad("empty gold", "a gold text is empty", "leave the empty one out")
    if len(text) > len(context):
        problem = f"the answer text {shown(text)} is longer than the context"
        raise bad("not in context", problem)
    place, wrong = place_answer(text, start, context)
    if wrong is None:
        return Answer(text, place), found
    moved = Finding("offset", wrong, f"set answer_start to {place}, {REPAIR}", repairable=True)
    return Answer(text, place), (*found, moved)


def flag(value: object) -> bool | None:
    """`is_impossible` as JSON, CSV or pandas write it; None where it is not given."""
    if absent(value) or value == "":
        return None
    if isinstance(value, str):
        value = {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower(), value)
    if value in (True, False):  # 0, 1, 0.0 and 1.0 too
        return bool(value)
    problem = f"is_impossible is {shown(value)}, neither true nor false"
    raise bad("is_impossible", problem)


def absent(value: object) -> bool:
    """None, or the NaN that pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def blank(text: str) -> bool:
    """Nothing but spaces, control and format characters: no tokenizer makes a token of it."""
    return not any(unicodedata.category(character)[0] not in "ZC" for character in text)


def shown(value: object, length: int = 60) -> str:
    """A value as an error message quotes it: one printable line of at most `length` characters."""
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."

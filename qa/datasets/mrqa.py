"""The JSON lines of the MRQA 2019 shared task (Fisch et al. 2019): a header line, then one context with its
`qas` a line.

- The context keeps its `[TLE] [DOC] [PAR]` markers: they are part of the text the offsets count.
- `detected_answers[].char_spans` are `[first, last]` with the last character INCLUSIVE. Every span is a gold;
  the first by position comes first and is the label (facebookresearch/SpanBERT, run_mrqa.py).
- A detected answer's `text` may differ from the passage in capitals, articles, punctuation or Unicode form;
  the gold is the passage's own spelling then, and counted.
- Aliases in `answers` that were not detected in the passage are no spans: they are left out, and counted. The
  official MRQA score counts them, so F1 against these golds can be lower.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qa.datasets.checking import REPAIR, Finding, RawRecord, shown
from qa.datasets.content import Content, json_lines

OWN_SPELLING = "gold texts were taken from the passage, whose spelling differs"
ALIASES = "questions have answers that were not detected in the passage and are left out"


def recognises(content: Content) -> bool:
    """JSON lines that begin with a header or with a context and its `qas`."""
    if content.shape != "json-lines":
        return False
    return isinstance(content.head.get("header"), Mapping) or {"context", "qas"} <= content.head.keys()


def read(content: Content) -> Iterator[RawRecord]:
    """Every question in the file's order; locations as in `line 3, qas[1]` (lines from 1, questions from
    0)."""
    for number, line, broken in json_lines(content):
        location = f"line {number}"
        if broken is not None:
            yield RawRecord(location, findings=(Finding("json", broken),))
        elif isinstance(line, Mapping) and "header" in line and "qas" not in line:
            continue
        elif not isinstance(line, Mapping) or not isinstance(line.get("qas"), list):
            yield RawRecord(
                location, findings=(Finding("shape", "the line is not an object with a list of qas"),)
            )
        else:
            for place, qa in enumerate(line["qas"]):
                yield _question(f"{location}, qas[{place}]", qa, line.get("context"))


def _question(location: str, qa: Any, context: object) -> RawRecord:
    if not isinstance(qa, Mapping):
        return RawRecord(location, findings=(Finding("shape", "the question is not an object"),))
    detected = qa.get("detected_answers")
    golds = _golds(detected, context) if isinstance(context, str) and detected is not None else None
    return RawRecord(
        location,
        id=qa.get("qid") or qa.get("id"),
        question=qa.get("question"),
        context=context,
        answers=None if golds is None else golds.answers,
        is_impossible=qa.get("is_impossible"),
        findings=() if golds is None else golds.findings,
        notes=() if golds is None else (*golds.notes, *_left_out(qa.get("answers"), golds)),
    )


def _left_out(aliases: object, golds: _Golds) -> tuple[str, ...]:
    known = {comparable(str(gold["text"])) for gold in golds.answers}
    if known and isinstance(aliases, list) and any(comparable(str(alias)) not in known for alias in aliases):
        return (ALIASES,)
    return ()


@dataclass(frozen=True)
class _Golds:
    """answers: by start and end, each place once; findings: what is wrong; notes: what is to be told."""

    answers: list[dict[str, object]]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def _golds(detected: object, context: str) -> _Golds:
    spans: dict[tuple[int, int], str] = {}
    findings: list[Finding] = []
    notes: list[str] = []
    for answer in detected if isinstance(detected, list) else [detected]:
        text = answer.get("text") if isinstance(answer, Mapping) else None
        found = answer.get("char_spans") if isinstance(answer, Mapping) else None
        if not isinstance(found, list) or not found:
            findings.append(Finding("answers", "a detected answer has no char_spans"))
            continue
        for span in found:
            place = _gold(span, text, context)
            if isinstance(place, Finding):
                findings.append(place)
                continue
            gold, start, end, finding = place
            spans.setdefault((start, end), gold)
            if finding is not None:
                findings.append(finding)
            elif text not in (gold, None):
                notes.append(OWN_SPELLING)
    answers: list[dict[str, object]] = [
        {"text": gold, "answer_start": start} for (start, _), gold in sorted(spans.items())
    ]
    return _Golds(answers, tuple(findings), tuple(notes))


def _gold(span: object, text: object, context: str) -> Finding | tuple[str, int, int, Finding | None]:
    """One char span: the gold's text, start, end (inclusive), and what repair did to it.

    Where text and span disagree by no more than spelling, the passage's words are the gold; a span with a
    space at its edge is not a spelling but a miscounted offset.
    """
    if not (isinstance(span, list) and len(span) == 2 and all(type(place) is int for place in span)):
        return Finding("offset", f"the char_span {shown(span)} is not a pair of whole numbers")
    start, end = span
    if not 0 <= start <= end < len(context):
        problem = f"the char_span {span} does not lie in the context ({len(context)} characters)"
        return Finding("offset", problem)
    passage = context[start : end + 1]
    if not isinstance(text, str) or not text or text == passage:
        return passage, start, end, None
    if context.startswith(text, start):
        if passage.rstrip() == text or comparable(passage) != comparable(text):
            problem = f"the char_span {span} gives {shown(passage)}, not {shown(text)} (ends are inclusive)"
            remedy = f"set it to [{start}, {start + len(text) - 1}], {REPAIR}"
            return text, start, start + len(text) - 1, Finding("offset", problem, remedy, repairable=True)
        return text, start, start + len(text) - 1, None
    if passage == passage.strip() and comparable(passage) == comparable(text) != "":
        return passage, start, end, None
    return text, start, end, None  # the record check finds that the offset is wrong


def comparable(text: str) -> str:
    """What is left when capitals, accents, punctuation, articles and spaces do not count."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(letter for letter in letters if letter.isalnum() or letter.isspace())
    return " ".join(word for word in re.split(r"\s+", plain) if word not in ("", "a", "an", "the"))

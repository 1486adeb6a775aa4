"""Records in, good examples out, every other one counted: what `--on_bad_record` means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from qa.datasets.checking import (
    BadRecordError,
    Finding,
    RawRecord,
    RecordProblem,
    absent,
    check_record,
    clean,
    flag,
)
from qa.errors import InputError
from qa.records import Example

OnBadRecord = Literal["fail", "drop", "repair"]


@dataclass
class Tally:
    """What was seen while the examples of one source passed by."""

    total: int = 0
    dropped: int = 0
    repaired: int = 0
    unlabelled: int = 0
    squad2: bool = False
    notes: Counter[str] = field(default_factory=Counter)
    problems: list[RecordProblem] = field(default_factory=list)


class Judge:
    """Remembers the ids of the examples it let through."""

    def __init__(self, repair: bool, require_answers: bool) -> None:
        self.repair = repair
        self.require_answers = require_answers
        self._seen: dict[str, int] = {}

    def verdict(self, record: RawRecord) -> tuple[Example | None, tuple[Finding, ...]]:
        """The example, or None where the record is to be left out; and what was found wrong with it."""
        try:
            example, repairs = check_record(record, self.require_answers)
            if example.id in self._seen:
                raise BadRecordError(self._repeated(example))
        except BadRecordError as bad:
            return None, (bad.finding,)
        if repairs and not self.repair:
            return None, repairs
        self._seen[example.id] = hash(example)
        return example, repairs

    def _repeated(self, example: Example) -> Finding:
        same = self._seen[example.id] == hash(example)
        earlier = "an identical record" if same else "another record"
        keep = "or use --on_bad_record drop, which keeps the first"
        return Finding(
            "duplicate id", f"{earlier} before it has the same id", f"give it an id of its own, {keep}"
        )


def checked_examples(
    records: Iterator[RawRecord], name: str, on_bad_record: OnBadRecord, require_answers: bool, tally: Tally
) -> Iterator[Example]:
    """The good and the repaired examples, in order; the tally is kept on the way.

    Raises: InputError at the first bad record under `fail`: one sentence, which counts those after it of its
        kind.
    """
    judge = Judge(on_bad_record == "repair", require_answers)
    for record in records:
        example, findings = judge.verdict(record)
        if findings and on_bad_record == "fail":
            raise InputError(_sentence(name, record, findings[0], _more(records, findings[0].kind, judge)))
        tally.total += 1
        tally.notes.update(record.notes)
        tally.squad2 |= record.is_impossible is not None
        if findings:
            tally.problems.append(_problem(record, findings, kept=example is not None))
        if example is None:
            tally.dropped += 1
            continue
        tally.repaired += bool(findings)
        tally.squad2 |= not example.answers
        tally.unlabelled += _unlabelled(record, example)
        yield example


def _unlabelled(record: RawRecord, example: Example) -> bool:
    """Nothing is known of the answer: no answers field and no flag, or an empty list that the flag denies."""
    impossible = flag(record.is_impossible)
    return not example.answers and not impossible and (absent(record.answers) or impossible is False)


def _problem(record: RawRecord, findings: tuple[Finding, ...], kept: bool) -> RecordProblem:
    return RecordProblem(
        record.location,
        _printable_id(record),
        "; ".join(finding.problem for finding in findings),
        "repaired" if kept else "dropped",
        findings[0].remedy,
        findings[0].kind,
    )


def _printable_id(record: RawRecord) -> str:
    return "" if absent(record.id) else clean("id", str(record.id))[0]


def _more(records: Iterator[RawRecord], kind: str, judge: Judge) -> int:
    """How many of the records that are left have a problem of this kind, as far as the file can be read."""
    count = 0
    try:
        for record in records:
            findings = judge.verdict(record)[1]
            count += bool(findings) and findings[0].kind == kind
    except InputError:
        pass  # the record at hand comes first
    return count


def _sentence(name: str, record: RawRecord, finding: Finding, more: int) -> str:
    known_as = f" (id {_printable_id(record)!r:.60})" if _printable_id(record) else ""
    others = f" (and {more} more like it)" if more else ""
    return f"{name}: {record.location}{known_as}: {finding.problem}{others}; {finding.remedy}."

"""From what the user names to a checked examples table: find, fingerprint, read, check, cache, cut."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from qa.datasets.cache import default_cache, fingerprint_of, read_or_build
from qa.datasets.checking import RawRecord, RecordProblem
from qa.datasets.content import content_of
from qa.datasets.hub import load_hub_rows, read_hub, rows_digest
from qa.datasets.judging import OnBadRecord, Tally, checked_examples
from qa.datasets.readers import reader_of
from qa.datasets.sample import SAMPLE, articles_of_domain, is_sample, sample_domain, sample_path
from qa.datasets.source import file_digest, local_path
from qa.datasets.table import count_unanswerable, examples_of, open_examples, write_examples, write_rows
from qa.errors import InputError
from qa.records import Example

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class LoadedExamples:
    """A checked examples table and what was found on the way to it.

    table: the examples after the cut by `max_samples`, memory-mapped; columns in `qa.datasets.table`.
    source: what the user named.
    form: squad-1.1, squad-2.0, mrqa, flat-json, flat-jsonl, flat-csv, flat-parquet, hub or sample.
    fingerprint: sha256 over the content, every setting that changes the rows, and the reader's version.
    content_sha256: of the file as it lies on disk (hub: of the rows; a domain of the sample: with its name).
    problems: one entry for every record dropped or repaired, in the source's order.
    total, dropped, repaired: records of the whole source, before the cut: total - dropped = rows before the
        cut.
    unanswerable: rows of `table` without an answer; unlabelled: records of the whole source that had no
        answers field (only where `require_answers` is off), which the table cannot tell from unanswerable
        ones.
    notes: harmless things worth telling, each with its count.
    """

    table: Dataset
    source: str
    form: str
    fingerprint: str
    problems: tuple[RecordProblem, ...]
    total: int
    dropped: int
    repaired: int
    unanswerable: int
    unlabelled: int = 0
    notes: tuple[str, ...] = ()
    content_sha256: str = ""

    def examples(self) -> Iterator[Example]:
        """The table's rows as records, in order."""
        return examples_of(self.table)


@dataclass(frozen=True)
class _Found:
    """A source that was found but not read.

    name: what it is called in messages; digest: its content's sha256; records: its form and its raw records;
    unchanged: whether it is still as it was when it was found.
    """

    name: str
    digest: str
    records: Callable[[], tuple[str, Iterator[RawRecord]]]
    unchanged: Callable[[], bool]


def load_examples(
    source: str,
    *,
    split: str = "train",
    config_name: str | None = None,
    revision: str | None = None,
    on_bad_record: OnBadRecord = "fail",
    require_answers: bool = True,
    max_samples: int | None = None,
    shuffle_seed: int | None = None,
    cache_dir: Path | None = None,
) -> LoadedExamples:
    """Reads, checks and caches a data set.

    source: a local file in any form of `DATASETS`, plain or gzipped; `sample`, or `sample:` and the name of
        one of its domains; or a hub data set's name.
    split: of `sample` and of hub data sets; a file is one split and takes no notice.
    config_name, revision: of hub data sets.
    on_bad_record: fail: the first bad record is an error; drop: bad records are left out; repair: those that
        the text settles are put right (rules: `qa.datasets.checking`, `qa.datasets.answers`), the others left
        out. The second of two records with one id is left out in both.
    require_answers: False takes records without an answers field, as questions to predict.
    max_samples: examples to keep after the checks: the first ones, or, with `shuffle_seed`, a random choice
        without replacement, kept in the source's order; a smaller choice with the same seed is part of the
        larger one.
    cache_dir: folder of the Arrow cache; by default beside the caches of `datasets`.
    Raises: InputError.
    """
    if on_bad_record not in get_args(OnBadRecord):
        raise InputError(f"on_bad_record: {on_bad_record!r} is no choice; use fail, drop or repair.")
    if max_samples is not None and max_samples < 1:
        raise InputError(f"max_samples: {max_samples} keeps no example; give at least 1, or leave it out.")
    folder = cache_dir if cache_dir is not None else default_cache()
    found = _find(source, split, config_name, revision)
    fingerprint = fingerprint_of(
        content=found.digest, on_bad_record=on_bad_record, require_answers=require_answers
    )

    def build(path: Path) -> dict[str, Any]:
        return _read(found, path, on_bad_record, require_answers)

    path, manifest = read_or_build(folder, fingerprint, build)
    table, fingerprint = _cut(folder, path, fingerprint, manifest["rows"], max_samples, shuffle_seed)
    problems = (
        RecordProblem(**{**one, "location": f"{found.name}: {one['location']}"})
        for one in manifest["problems"]
    )
    return LoadedExamples(
        table=table,
        source=source,
        form=SAMPLE if is_sample(source) else manifest["form"],
        fingerprint=fingerprint,
        problems=tuple(problems),
        total=manifest["total"],
        dropped=manifest["dropped"],
        repaired=manifest["repaired"],
        unanswerable=count_unanswerable(table),
        unlabelled=manifest["unlabelled"],
        notes=tuple(manifest["notes"]),
        content_sha256=found.digest,
    )


def content_digest(source: str, split: str) -> str | None:
    """`content_sha256` of a source without reading its questions; None for a data set of the hub.

    Raises: InputError for a file that is not there.
    """
    path = sample_path(split) if is_sample(source) else local_path(source)
    return None if path is None else _digest(path, source)


def _digest(path: Path, source: str) -> str:
    """The file's sha256, and the domain's name where it is one domain of the sample."""
    digest = file_digest(path, source)
    domain = sample_domain(source) if is_sample(source) else None
    return digest if domain is None else hashlib.sha256(f"{digest} {domain}".encode()).hexdigest()


def _find(source: str, split: str, config_name: str | None, revision: str | None) -> _Found:
    path = sample_path(split) if is_sample(source) else local_path(source)
    if path is None:
        rows = load_hub_rows(source, config_name, split, revision)
        return _Found(f"{source}[{split}]", rows_digest(rows), lambda: ("hub", read_hub(rows)), lambda: True)
    name = f"{source}[{split}]" if is_sample(source) else source
    domain = sample_domain(source) if is_sample(source) else None
    before = path.stat()

    def records() -> tuple[str, Iterator[RawRecord]]:
        content = content_of(path, name)
        if domain is not None:
            content = replace(content, head=articles_of_domain(content.head, domain))
        form, reader = reader_of(content)
        return form, reader.read(content)

    def unchanged() -> bool:
        after = path.stat()
        return (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)

    return _Found(name, _digest(path, source), records, unchanged)


def _read(found: _Found, path: Path, on_bad_record: OnBadRecord, require_answers: bool) -> dict[str, Any]:
    """Writes the Arrow file and returns the manifest. Raises: InputError."""
    tally = Tally()
    form, records = found.records()
    rows = write_examples(checked_examples(records, found.name, on_bad_record, require_answers, tally), path)
    if not found.unchanged():
        raise InputError(f"{found.name}: the file changed while it was read; run again when it is complete.")
    if not rows:
        first = f" ({tally.problems[0].location}: {tally.problems[0].problem})" if tally.problems else ""
        left = (
            f"none of its {tally.total} records can be used{first}" if tally.total else "it holds no question"
        )
        raise InputError(f"{found.name}: {left}; name a source with questions.")
    return {
        "form": f"{form}-{'2.0' if tally.squad2 else '1.1'}" if form == "squad" else form,
        "rows": rows,
        "total": tally.total,
        "dropped": tally.dropped,
        "repaired": tally.repaired,
        "unlabelled": tally.unlabelled,
        "notes": [f"{count} {note}" for note, count in tally.notes.items()],
        "problems": [asdict(problem) for problem in tally.problems],
    }


def _cut(
    folder: Path, path: Path, fingerprint: str, rows: int, max_samples: int | None, shuffle_seed: int | None
) -> tuple[Dataset, str]:
    """The table after `max_samples`, and its fingerprint. A random choice gets an Arrow file of its own."""
    if max_samples is None:
        return open_examples(path, fingerprint), fingerprint
    cut = fingerprint_of(examples=fingerprint, max_samples=max_samples, shuffle_seed=shuffle_seed)
    if shuffle_seed is None or max_samples >= rows:
        return open_examples(path, cut, first=max_samples), cut
    import numpy as np

    chosen = np.sort(np.random.default_rng(shuffle_seed).permutation(rows)[:max_samples])
    whole = open_examples(path, fingerprint)
    path, _ = read_or_build(folder, cut, lambda chosen_path: {"rows": write_rows(whole, chosen, chosen_path)})
    return open_examples(path, cut), cut

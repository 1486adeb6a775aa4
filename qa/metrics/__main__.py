"""Official SQuAD scores of official files.

    python -m qa.metrics dev-v2.0.json predictions.json --null-odds null_odds.json

Prints one JSON object on standard output with the official keys in the official order, and notes (signature,
intervals, n-best oracle, missing predictions) on standard error. A mistake in the files ends in one sentence
there and exit status 2. About one second for the 11,873 questions of SQuAD 2.0 dev; 1,000 bootstrap samples
take a few more.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from qa.errors import InputError
from qa.metrics.answers import Golds, Version
from qa.metrics.bootstrap import bootstrap_interval
from qa.metrics.files import read_golds, read_n_best, read_null_odds, read_predictions, write_json
from qa.metrics.oracle import oracle_scores
from qa.metrics.signature import signature
from qa.metrics.squad import compare_ids, evaluate_squad1, evaluate_squad2, final_scores


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status: 0, or 2 after a mistake in the input."""
    options = _parser().parse_args(arguments)
    try:
        scores, report, notes = _score(options)
        for path, content in ((options.out, scores), (options.report, report)):
            if path is not None:
                write_json(path, content)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(scores, indent=2))
    for note in notes:
        print(note, file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qa.metrics",
        description="Official SQuAD 1.1 and 2.0 scores of official files (JSON, also gzipped).",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="nested SQuAD JSON with the gold answers")
    add("predictions", type=Path, metavar="PREDICTIONS", help="JSON object: question id to text")
    version_help = (
        "rules; auto: 2.0 where DATA has is_impossible or a question without answers (default: auto)"
    )
    add("--version", choices=("auto", "1.1", "2.0"), default="auto", help=version_help)
    odds_help = "JSON object: question id to a number that grows with the belief in no answer; adds best_*"
    add("-n", "--null-odds", "--na-prob-file", type=Path, metavar="FILE", help=odds_help)
    threshold_help = "answer nothing where the null odds exceed T (default: 1.0)"
    add("-t", "--threshold", "--na-prob-thresh", type=float, metavar="T", help=threshold_help)
    add("-o", "--out", "--out-file", type=Path, metavar="FILE", help="write the scores to FILE too")
    add("--report", type=Path, metavar="FILE", help="write scores, signature and all notes to FILE as JSON")
    n_best_help = "JSON object: question id to candidates, best first; adds top-k oracle scores to the notes"
    add("--n-best", type=Path, metavar="FILE", help=n_best_help)
    add("--bootstrap", type=int, default=0, metavar="N", help="confidence intervals from N samples, say 1000")
    add("--confidence", type=float, default=0.95, metavar="C", help="of the intervals (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="S", help="of the resampling (default: %(default)s)")
    add("--allow-missing", action="store_true", help="2.0: count questions without a prediction as 0")
    add("--allow-extra", action="store_true", help="leave out ids that DATA does not have")
    return parser


@dataclass(frozen=True)
class _Inputs:
    """The files, read and checked against one another. `missing`: questions without a prediction."""

    golds: Golds
    version: Version
    predictions: dict[str, str]
    missing: list[str]
    null_odds: dict[str, float] | None
    threshold: float
    n_best: dict[str, list[str]] | None


def _read(options: argparse.Namespace) -> _Inputs:
    gold_file = read_golds(options.data)
    golds = gold_file.golds
    version = gold_file.version if options.version == "auto" else cast(Version, options.version)
    _check_options(options, golds, version)
    predictions = read_predictions(options.predictions)
    _refuse_extra(options, options.predictions, golds, predictions)
    missing = compare_ids(golds, predictions).missing
    if missing and version == "2.0" and not options.allow_missing:
        raise InputError(
            f"{options.predictions}: {len(missing)} of {len(golds)} questions have no prediction, the first "
            f"is {missing[0]!r}; predict them, or add --allow-missing to count them as 0."
        )
    null_odds = None if options.null_odds is None else read_null_odds(options.null_odds)
    n_best = None if options.n_best is None else read_n_best(options.n_best)
    for path, ids in ((options.null_odds, null_odds), (options.n_best, n_best)):
        if ids is not None:
            _refuse_extra(options, path, golds, ids)
    threshold = 1.0 if options.threshold is None else options.threshold
    return _Inputs(golds, version, predictions, missing, null_odds, threshold, n_best)


def _score(options: argparse.Namespace) -> tuple[dict[str, float], dict[str, Any], list[str]]:
    """(official scores, report, notes) for the files that the options name."""
    inputs = _read(options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = _official_scores(inputs, options.allow_missing)
    notes = [f"note: {warning.message}" for warning in caught]
    odds = [] if inputs.null_odds is None else inputs.null_odds.values()
    if options.threshold is None and not all(0 <= value <= 1 for value in odds):
        notes.append("note: the null odds are not probabilities and were compared with 1.0; set --threshold.")
    report: dict[str, Any] = {"scores": scores, "missing": inputs.missing}
    if options.bootstrap:
        report["intervals"] = _intervals(inputs, options)
        for name, (low, high) in report["intervals"].items():
            notes.append(
                f"{name}: {scores[name]:.2f}, {options.confidence:g} interval {low:.2f} to {high:.2f}"
            )
    if inputs.n_best is not None:
        report["oracle"] = oracle_scores(inputs.golds, inputs.n_best, version=inputs.version)
        # The parts with and without answers are in the report only: 24 lines would bury the other notes.
        notes += [
            f"oracle {name}: {value:.2f}" for name, value in report["oracle"].items() if name[:3] == "top"
        ]
    report["signature"] = signature(
        inputs.golds,
        version=inputs.version,
        missing=len(inputs.missing),
        threshold=None if inputs.null_odds is None else inputs.threshold,
        samples=options.bootstrap,
        confidence=options.confidence,
        seed=options.seed,
    )
    notes.append(f"signature: {report['signature']}")
    report["notes"] = notes
    return scores, report, notes


def _official_scores(inputs: _Inputs, allow_missing: bool) -> dict[str, float]:
    if inputs.version == "1.1":
        return evaluate_squad1(inputs.golds, inputs.predictions)
    return evaluate_squad2(
        inputs.golds,
        inputs.predictions,
        null_odds=inputs.null_odds,
        threshold=inputs.threshold,
        allow_missing=allow_missing,
    )


def _intervals(inputs: _Inputs, options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Intervals in percent by official key: exact match and F1, from the same resampled questions."""
    scores = final_scores(
        inputs.golds,
        inputs.predictions,
        version=inputs.version,
        null_odds=inputs.null_odds,
        threshold=inputs.threshold,
    )
    intervals = {}
    for name, by_question in (
        ("exact_match" if inputs.version == "1.1" else "exact", scores.exact),
        ("f1", scores.f1),
    ):
        low, high = bootstrap_interval(
            list(by_question.values()),
            samples=options.bootstrap,
            confidence=options.confidence,
            seed=options.seed,
        )
        intervals[name] = (100.0 * low, 100.0 * high)
    return intervals


def _check_options(options: argparse.Namespace, golds: Golds, version: Version) -> None:
    if version == "1.1" and options.null_odds is not None:
        raise InputError(
            f"{options.data} is scored as SQuAD 1.1, which knows no null odds; add --version 2.0."
        )
    if version == "1.1" and not all(golds.values()):
        first = next(id_ for id_, texts in golds.items() if not texts)
        raise InputError(f"{options.data}: question {first!r} has no answers, so leave out --version 1.1.")
    if options.threshold is not None and options.null_odds is None:
        raise InputError("--threshold has nothing to compare with; add --null-odds FILE.")
    if options.bootstrap < 0:
        raise InputError(f"--bootstrap needs a positive number of samples, got {options.bootstrap}.")


def _refuse_extra(options: argparse.Namespace, path: Path, golds: Golds, ids: Iterable[str]) -> None:
    extra = compare_ids(golds, ids).extra
    if extra and not options.allow_extra:
        raise InputError(
            f"{path}: {len(extra)} ids are not in {options.data}, the first is {extra[0]!r}; "
            "give the data they belong to, or add --allow-extra to leave them out."
        )


if __name__ == "__main__":
    sys.exit(main())

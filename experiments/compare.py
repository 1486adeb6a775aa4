"""Set runs side by side: metrics, the settings that differ, and whether a difference is more than chance.

    python experiments/compare.py                                  # = make compare: every run in outputs/
    python experiments/compare.py outputs/lora outputs/full        # two runs, with a paired test
    python experiments/compare.py experiments/results/strategies --sort parameters/trainable --format md
    python experiments/compare.py outputs --wandb me/spanbert-qa   # and what wandb has of them

Cost: a second. Exit code 2 for a mistake, in one sentence.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from qa.errors import run_program
from qa.files import write_text
from qa.reporting.compared_runs import beside_wandb, find_runs
from qa.reporting.comparison import FORMATS, compare_runs
from qa.tracking.online import NotReachableError, fetch_runs


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    told = _parser().parse_args(words)
    runs, notes = find_runs(told.places or [_usual_place()]), []
    if told.wandb is not None:
        try:
            beside = beside_wandb(runs, fetch_runs(told.wandb))
            runs, notes = list(beside.runs), list(beside.notes)
        except NotReachableError as error:
            notes = [f"wandb is not reachable ({error}): all of this is from local records."]
    comparison = compare_runs(
        runs,
        metrics=told.metrics,
        settings=told.settings,
        sort=told.sort,
        ascending=told.ascending,
        against=told.against,
        notes=notes,
    )
    text = FORMATS[told.format](comparison)
    if told.out is None:
        print(text, end="")
    else:
        write_text(told.out, text)
        print(told.out)
    if told.format == "csv":
        print("\n".join(comparison.notes), file=sys.stderr)


def _usual_place() -> Path:
    """Where runs write to; before the first one, the committed records."""
    outputs = Path("outputs")
    return outputs if outputs.is_dir() else Path("experiments/results")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="compare.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("places", nargs="*", metavar="PLACE", help="records, or folders of them (default: outputs)")
    add("--metrics", nargs="+", metavar="NAME", help="eval/f1, training/seconds, ...; f1 is eval/f1")
    add("--settings", nargs="*", metavar="NAME", help="settings to show (default: those that differ)")
    add("--sort", metavar="NAME", help="a metric, the highest first, or a setting (default: eval/f1)")
    add("--ascending", action="store_true", help="the lowest first")
    add("--against", metavar="RUN", help="test every run against this one (two are tested unasked)")
    add("--format", choices=FORMATS, default="text", help="text, md (Markdown) or csv")
    add("--out", type=Path, metavar="FILE", help="write there instead of printing")
    add("--wandb", metavar="ENTITY/PROJECT", help="also ask wandb, and say where it disagrees")
    return parser


if __name__ == "__main__":
    run_program(main, "compare.py")

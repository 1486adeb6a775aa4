"""Put a finished adapter run into the box, as the reader that `QuestionAnswerer()` uses.

    python -m qa.readers.pack outputs/default-reader
    python -m qa.readers.pack outputs/default-reader --evaluation outputs/on-squad1/evaluation-run.json

The second form adds an evaluation of that reader to its card. The folder is written whole or not at all.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from qa.adapters import ADAPTER_CONFIG, SAVED_SETTINGS, base_of, is_adapter
from qa.confidence.final_answers import CALIBRATION_NAME, read_calibration
from qa.errors import InputError, run_program
from qa.files import sync_folder, write_text
from qa.models import DEFAULT_READER, PACKAGED_ENCODERS, local_folder
from qa.reporting.model_card import write_model_card
from qa.results import RECORD_NAME, RunRecord, read_record, write_record

WEIGHTS = "adapter_model.safetensors"
SUMS = "SHA256SUMS"
"""sha256 of the other files, as `sha256sum -c` reads them."""

COPIED = (ADAPTER_CONFIG, WEIGHTS, CALIBRATION_NAME, SAVED_SETTINGS)
MOST_WEIGHT_BYTES, MOST_BYTES = 3_000_000, 3_200_000
"""Of the adapter, and of the folder: everybody who installs the package downloads them."""

_MACHINE_PATH = re.compile(
    r"""(?:^|[\s"'=(\[`])((?:/[\w.+-]+/|~/|\.\./|[A-Za-z]:\\)[^\s"'`]*)""", re.MULTILINE
)

ABOUT = """
The reader in the box: `QuestionAnswerer()` and `python -m qa.ask` use it where no other is named.
Its encoder installs from the package index with its weights, so it needs no network; what lies here
is the adapter.

It is made for English questions whose answer stands in the passage word for word. It learned from
paragraphs of Wikipedia, SQuAD 1.1 (Rajpurkar et al. 2016, arXiv:1606.05250) and unanswerable
questions of SQuAD 2.0 (Rajpurkar et al. 2018, arXiv:1806.03822), both CC BY-SA 4.0; no text of them
is in these files. Other languages, sums, and answers that have to be put together from several
places are beyond it, and a small encoder errs more often than a large one. For your own kind of
text, train it on: `run_qa.py --do_train --model_name_or_path packaged:default-reader`.

The no-answer threshold was fitted on the validation questions of the training run, so their score
is an oracle's.
"""


def pack(run: Path, target: Path, evaluations: Sequence[Path] = ()) -> list[Path]:
    """Write a run's adapter, settings, calibration, record and card to `target`, in place of what lies there.

    evaluations: records of later evaluations, by their model card's side. Returns the files.
    Raises InputError where something is missing, does not belong together, is too large, or names a folder of
    this machine; `target` is then as it was.
    """
    record = checked_record(run)
    later = [_checked_evaluation(path, record) for path in evaluations]
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(6)
    new, old = (target.with_name(f".{target.name}.{mark}.{kind}") for kind in ("part", "old"))
    try:
        new.mkdir()
        for name in COPIED:
            shutil.copyfile(run / name, new / name)
        write_record(new / RECORD_NAME, record)
        for path, one in zip(evaluations, later, strict=True):
            write_record(new / _evaluation_name(one, path), one)
        write_model_card(new, record, evaluations=later, about=ABOUT, place=DEFAULT_READER)
        _write_sums(new)
        _refuse_unfit(new)
        if target.exists():
            target.rename(old)
        new.rename(target)
        sync_folder(target.parent)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return sorted(target.iterdir())


def checked_record(run: Path) -> RunRecord:
    """The record of a finished adapter run whose files belong together; InputError names what does not."""
    if not is_adapter(run):
        raise InputError(
            f"{run}: holds no adapter ({ADAPTER_CONFIG}); name the folder of a finished adapter run"
        )
    for name in (*COPIED, RECORD_NAME):
        if not (run / name).is_file():
            raise InputError(f"{run}: {name} is missing; let the run end, with --do_train and --do_eval")
    import yaml

    record = read_record(run / RECORD_NAME)
    settings = yaml.safe_load((run / SAVED_SETTINGS).read_text(encoding="utf-8"))
    for name, value in settings.items():
        if record.settings.get(name) != value:
            raise InputError(
                f"{run}: {SAVED_SETTINGS} says {name}: {value}, but {RECORD_NAME} "
                f"{record.settings.get(name)}; they are of different runs"
            )
    count = parameters_in(run / WEIGHTS)
    if count != record.parameters["trainable"]:
        raise InputError(
            f"{run}: {WEIGHTS} holds {count:,} parameters, but {RECORD_NAME} tells of "
            f"{record.parameters['trainable']:,}; they are of different runs"
        )
    base = base_of(run, settings)
    if base not in PACKAGED_ENCODERS:
        raise InputError(
            f"{run}: stands on {base}, which does not come with the package; train on a packaged one"
        )
    if not read_calibration(run / CALIBRATION_NAME).fitted_on:
        raise InputError(f"{run}: its calibration is fitted on nothing; train it with --do_eval")
    return record


def parameters_in(weights: Path) -> int:
    """How many numbers a safetensors file holds."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{weights}: is damaged ({error}); fetch it anew") from error


def _checked_evaluation(path: Path, record: RunRecord) -> RunRecord:
    found = read_record(path)
    if "eval" not in found.scores or not found.scores["eval"].metrics:
        raise InputError(f"{path}: holds no scores; evaluate the reader with --do_eval")
    for what in ("strategy", "model"):
        if getattr(found, what) != getattr(record, what):
            raise InputError(
                f"{path}: evaluates another reader ({what}: {getattr(found, what)}); name an evaluation of "
                "this one"
            )
    if not found.settings.get("adapter_name_or_path") or "train" in found.data:
        raise InputError(f"{path}: is no evaluation of a finished adapter; name an evaluation-{RECORD_NAME}")
    return found


def _evaluation_name(record: RunRecord, path: Path) -> str:
    source = str(record.data.get("validation", {}).get("source", path.stem))
    return f"evaluation-{Path(source).name.partition('.json')[0]}.json"


def _write_sums(folder: Path) -> None:
    files = sorted(folder.iterdir())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    write_text(folder / SUMS, "".join(sums))


def _refuse_unfit(folder: Path) -> None:
    """Raises InputError where files are too large, or name a folder of this machine."""
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    for name, size, most in (
        (WEIGHTS, sizes[WEIGHTS], MOST_WEIGHT_BYTES),
        ("all", sum(sizes.values()), MOST_BYTES),
    ):
        if size > most:
            raise InputError(
                f"{name}: {size:,} bytes, but at most {most:,} go into the package; train less of it"
            )
    for path in sorted(folder.iterdir()):
        if path.name == WEIGHTS:
            continue
        text = path.read_text(encoding="utf-8")
        found = _MACHINE_PATH.search(text)
        home = next((str(place) for place in (Path.home(), Path.cwd()) if f"{place}/" in text), None)
        if found or (home and home != "/"):
            named = found[1] if found else home
            raise InputError(f"{path.name}: names a folder of this machine ({named}); write it anew without")


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack the run that the command line names. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m qa.readers.pack",
        description="Put a finished adapter run into the box.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="folder of the finished run")
    parser.add_argument(
        "--evaluation",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="evaluation-run.json of a later evaluation of this reader, for its card; several times",
    )
    told = parser.parse_args(arguments)
    files = pack(told.run.expanduser(), local_folder(DEFAULT_READER), told.evaluation)
    for path in files:
        print(f"{path.stat().st_size:>10,}  {path.name}")
    print(f"{sum(path.stat().st_size for path in files):>10,}  bytes in {DEFAULT_READER}")
    return 0


if __name__ == "__main__":
    run_program(main, "qa.readers.pack")

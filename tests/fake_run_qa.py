"""Stands in for run_qa.py where tests run tables: the same words, the same files, no training.

Every start adds a line to the file that FAKE_STARTS names. A training takes ten steps of FAKE_STEP_SECONDS
and goes on from the step that its folder has reached. FAKE_FAIL names a word of the command line that makes
it fail.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

STEPS = 10


def main(words: list[str]) -> int:
    folder = Path(words[words.index("--output_dir") + 1])
    with Path(os.environ["FAKE_STARTS"]).open("a", encoding="utf-8") as stream:
        stream.write(f"{folder.name}\n")
    folder.mkdir(parents=True, exist_ok=True)
    if os.environ.get("FAKE_FAIL", "\0") in words:
        print("nothing left to give")
        return 3
    trains = words[words.index("--do_train") + 1] == "true" if "--do_train" in words else True
    reader = None
    if not trains:
        reader = Path(words[words.index("--model_name_or_path") + 1])
        there = reader.name.startswith("packaged:") or (reader / "model.safetensors").is_file()
        assert there, "the reader has to be there first"
    progress = folder / "steps.txt"
    for step in range(int(progress.read_text()) if progress.exists() else 0, STEPS):
        time.sleep(float(os.environ.get("FAKE_STEP_SECONDS", "0")))
        progress.with_suffix(".part").write_text(str(step + 1))
        progress.with_suffix(".part").rename(progress)
    # What is scored depends on what was asked, and on nothing else.
    asked = [word for word in words if "/" not in word and word != "--resume_from_checkpoint"]
    seed = (reader.name if reader else "") + " ".join(asked)
    marks = [digit % 3 / 2 for digit in hashlib.sha256(seed.encode()).digest()[:20]]
    rows = [{"id": str(i), "exact_match": float(mark == 1), "f1": mark} for i, mark in enumerate(marks)]
    (folder / "eval").mkdir(exist_ok=True)
    (folder / "eval" / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "model.safetensors").write_bytes(b"12345678")
    mean = {key: 100 * sum(row[key] for row in rows) / len(rows) for key in ("exact_match", "f1")}
    record = {
        "name": folder.name,
        "strategy": "full",
        "model": "tiny",
        "command": "run_qa.py",
        "settings": {},
        "data": {},
        "scores": {"eval": {"metrics": mean, "signature": "fake", "intervals": {}}},
        "training": {"seconds": 2.0, "tokens": 100, "loss_curve": [[1, 3.0], [2, 2.0]]},
        "parameters": {"total": 200, "trainable": 50},
        "environment": {"hardware": {"cpu": "none", "cores": 1, "threads": 1}},
        "schema": 1,
    }
    name = "run.json" if trains else "evaluation-run.json"
    (folder / f"{name}.part").write_text(json.dumps(record))
    (folder / f"{name}.part").rename(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

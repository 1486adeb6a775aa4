"""One file of questions -> train and test files that share no article: `python -m qa.datasets.splitting`.

    python -m qa.datasets.splitting policyqa/dev.json.gz --output_dir outputs/data/policyqa
    python -m qa.datasets.splitting qamr/dev.json.gz --output_dir outputs/data/qamr \\
      --article '^[^:]*:[^:]*:[^:]*'

Questions about one article have passages, names and wording in common, so that a split by questions measures
memory. Reads SQuAD's nested JSON, plain or gzipped, and writes `train.json` and `test.json` of the same form.
"""

from __future__ import annotations

import argparse
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qa.datasets.content import content_of
from qa.datasets.squad import articles_of, recognises
from qa.errors import InputError, run_program
from qa.files import write_json

DATA_DIR_VARIABLE = "QA_DATA_DIR"


def split_articles(
    articles: Sequence[dict[str, Any]], held_out: float, seed: int, article: str = ".*"
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(train, test), each in the given order; test has `held_out` of the questions, or a little more.

    article: what of a title names the article, as a regular expression; titles that agree stay together.
    Raises InputError where a title does not match, or one of the two would be empty.
    """
    groups: dict[str, list[int]] = {}
    for index, one in enumerate(articles):
        match = re.search(article, one.get("title", ""))
        if match is None:
            raise InputError(f"article: {article} is not in the title {one.get('title', '')!r}; change it")
        groups.setdefault(match[0], []).append(index)
    # Sorted, then shuffled by the one method whose sequence Python promises to keep.
    draw = random.Random(seed).random
    order = sorted(sorted(groups), key=lambda name: draw())
    wanted = held_out * sum(map(_questions, articles))
    test: set[int] = set()
    for name in order:
        if sum(_questions(articles[index]) for index in test) >= wanted:
            break
        test |= set(groups[name])
    if not test or len(test) == len(articles):
        raise InputError(f"held_out: {held_out} of {len(groups)} articles leaves one part empty; change it")
    parts = [[one for index, one in enumerate(articles) if (index in test) is held] for held in (False, True)]
    return parts[0], parts[1]


def _questions(article: dict[str, Any]) -> int:
    return sum(len(paragraph["qas"]) for paragraph in article["paragraphs"])


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m qa.datasets.splitting")
    parser.add_argument("file", help=f"SQuAD's nested JSON; also looked for in ${DATA_DIR_VARIABLE}")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--held_out", type=float, default=0.3, help="share of the questions that is for test")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--article", default=".*", help="what of a title names the article, as a pattern")
    told = parser.parse_args(words)
    path = Path(told.file)
    if not path.exists():
        path = Path(os.environ.get(DATA_DIR_VARIABLE, ".")) / told.file
    if not path.is_file():
        raise InputError(f"{told.file}: there is no such file here or in {DATA_DIR_VARIABLE}; check the path")
    content = content_of(path, told.file)
    if not recognises(content):
        raise InputError(f"{told.file}: is not SQuAD's nested JSON, which is all that is split here")
    articles = articles_of(content.head) or []
    for name, part in zip(
        ("train", "test"), split_articles(articles, told.held_out, told.seed, told.article), strict=True
    ):
        target = told.output_dir / f"{name}.json"
        write_json(target, {"version": "split by article", "data": part})
        print(f"{target}: {len(part)} titles, {sum(map(_questions, part)):,} questions")


if __name__ == "__main__":
    run_program(main, "qa.datasets.splitting")

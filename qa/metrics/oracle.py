"""n-best oracle: the score of a reader that always picked the best of its first k candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qa.errors import InputError
from qa.metrics.answers import Golds, Version, score_answers


def oracle_scores(
    golds: Golds,
    n_best: Mapping[str, Sequence[str]],
    ks: Sequence[int] = (1, 5, 10, 20),
    *,
    version: Version = "2.0",
) -> dict[str, float]:
    """Best exact match and best F1 among the first k candidates, in percent of the questions.

    n_best: question id -> candidate texts, best first. A list shorter than k is used whole; an empty one
        counts as the one candidate "". "No answer" is a candidate only where the list holds "": an
        unanswerable question whose list holds none scores 0. Exact match and F1 may be reached by different
        candidates. Lists for other ids are not looked at.
    ks: list depths, each at least 1.
    Returns: top1_exact, top1_f1, top5_exact, ... with ascending k; where there are questions both with and
    without golds, then the same for each part, prefixed HasAns_ and NoAns_.
    `InputError` where a question has no list.
    """
    depths = sorted(set(ks))
    if not golds or not depths or depths[0] < 1:
        raise InputError(
            f"n-best oracle scores need questions and depths of at least 1, got ks = {list(ks)}."
        )
    missing = [id_ for id_ in golds if id_ not in n_best]
    if missing:
        raise InputError(f"{len(missing)} questions have no n-best list, the first is {missing[0]!r}.")
    best = {id_: _best_at(depths, texts, n_best[id_], version) for id_, texts in golds.items()}
    result = _means(depths, list(best.values()))
    parts = {
        "HasAns": [best[id_] for id_, texts in golds.items() if texts],
        "NoAns": [best[id_] for id_, texts in golds.items() if not texts],
    }
    if all(parts.values()):
        for prefix, rows in parts.items():
            result |= {f"{prefix}_{name}": value for name, value in _means(depths, rows).items()}
    return result


def _best_at(
    depths: list[int], golds: Sequence[str], candidates: Sequence[str], version: Version
) -> list[tuple[float, float]]:
    """Best (exact, F1) of one question at each depth; `depths` ascend."""
    if isinstance(candidates, str):
        raise InputError(f"An n-best list must be a list of texts, not one text: write [{candidates!r}].")
    scores = score_answers(candidates[: depths[-1]] or [""], golds, version=version)
    return [(max(exact for exact, _ in scores[:k]), max(f1 for _, f1 in scores[:k])) for k in depths]


def _means(depths: list[int], rows: list[list[tuple[float, float]]]) -> dict[str, float]:
    result: dict[str, float] = {}
    for column, k in enumerate(depths):
        result[f"top{k}_exact"] = 100.0 * sum(row[column][0] for row in rows) / len(rows)
        result[f"top{k}_f1"] = 100.0 * sum(row[column][1] for row in rows) / len(rows)
    return result

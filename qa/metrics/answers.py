"""Exact match and token F1 of one answer against its golds, as the official SQuAD scripts count them.

Sources: evaluate-v1.1.py (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1) and evaluate-v2.0.py
(Rajpurkar et al. 2018, arXiv:1806.03822). Both take the best score over the golds and normalise alike; they
part where nothing is left:

| prediction, gold after normalising | 1.1: exact, F1 | 2.0: exact, F1 |
| --- | --- | --- |
| both empty | 1, 0 | 1, 1 |
| one empty | 0, 0 | 0, 0 |
| no gold at all | cannot be scored | the gold is "" |
| some golds empty, some not | all count | the empty ones are dropped |
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from qa.errors import InputError

Version = Literal["1.1", "2.0"]
Golds = Mapping[str, Sequence[str]]
"""Question id -> gold texts, in the order of the data file; no gold = unanswerable."""

Tokens = tuple[str, ...]

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True)
class QuestionScores:
    """Scores per question id, in the order of the golds.

    exact: 0.0 or 1.0.
    f1: between 0 and 1.
    """

    exact: dict[str, float]
    f1: dict[str, float]


@lru_cache(maxsize=1 << 16)
def _tokens(text: str) -> Tokens:
    return tuple(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def normalize_answer(text: str) -> str:
    """Lower-case, delete ASCII punctuation, blank out English articles, collapse white space; in this order.

    Only `string.punctuation` goes, so typographic quotes and CJK punctuation stay; punctuation is deleted,
    not replaced ("rock'n'roll" -> "rocknroll", "2,000" -> "2000"). CJK text has no spaces and is one token.
    """
    return " ".join(_tokens(text))


def exact_match(prediction: str, golds: Sequence[str], *, version: Version = "2.0") -> float:
    """1.0 where the normalised prediction equals one of the normalised golds, else 0.0.

    No golds under 2.0: the question is unanswerable and the right answer is "". Under 1.1 an `InputError`.
    """
    return _exact(_tokens(prediction), _gold_tokens(golds, version))


def f1(prediction: str, golds: Sequence[str], *, version: Version = "2.0") -> float:
    """Best F1 over the golds, 0 to 1: harmonic mean of precision and recall over bags of normalised tokens.

    No golds under 2.0: the question is unanswerable and the right answer is "". Under 1.1 an `InputError`.
    """
    return _best_f1(_tokens(prediction), _gold_tokens(golds, version), version)


def score_answers(
    predictions: Iterable[str], golds: Sequence[str], *, version: Version = "2.0"
) -> list[tuple[float, float]]:
    """(exact, F1) of each of several candidate answers to one question: see `exact_match` and `f1`."""
    gold_tokens = _gold_tokens(golds, version)
    candidates = [_tokens(prediction) for prediction in predictions]
    return [(_exact(tokens, gold_tokens), _best_f1(tokens, gold_tokens, version)) for tokens in candidates]


def score_questions(
    golds: Golds, predictions: Mapping[str, str], *, version: Version = "2.0"
) -> QuestionScores:
    """Exact match and F1 of every question in `golds`, before any no-answer threshold.

    Predictions for other ids are not looked at. `InputError` where a question has no prediction, or one that
    is not a string, and under 1.1 where a question has no gold.
    """
    exact: dict[str, float] = {}
    token_f1: dict[str, float] = {}
    for id_, texts in golds.items():
        prediction = predictions.get(id_)
        if not isinstance(prediction, str):
            raise InputError(
                f'The prediction of question {id_!r} is {prediction!r}; give a text ("" = no answer).'
            )
        try:
            ((exact[id_], token_f1[id_]),) = score_answers((prediction,), texts, version=version)
        except InputError as error:
            raise InputError(f"Question {id_!r}: {error}") from None
    return QuestionScores(exact, token_f1)


def _gold_tokens(golds: Sequence[str], version: Version) -> list[Tokens]:
    if version not in get_args(Version):
        raise InputError(f'There is no SQuAD version {version!r}; choose "1.1" or "2.0".')
    if isinstance(golds, str):
        raise InputError(f"Golds must be a list of texts, not one text: write [{golds!r}].")
    distinct = list(dict.fromkeys(map(_tokens, golds)))
    if version == "2.0":
        return [tokens for tokens in distinct if tokens] or [()]
    if not distinct:
        raise InputError(
            "SQuAD 1.1 scoring needs a gold answer; score unanswerable questions as version 2.0."
        )
    return distinct


def _exact(prediction: Tokens, golds: list[Tokens]) -> float:
    return float(prediction in golds)


def _best_f1(prediction: Tokens, golds: list[Tokens], version: Version) -> float:
    if not prediction:
        return float(version == "2.0" and () in golds)
    return max(_token_f1(prediction, gold) for gold in golds)


def _token_f1(prediction: Tokens, gold: Tokens) -> float:
    # Most candidates of an n-best list share nothing with the gold, and sets tell so in a tenth of the time.
    shared = set(prediction).intersection(gold)
    if not shared:
        return 0.0
    common = sum(min(prediction.count(token), gold.count(token)) for token in shared)
    precision = common / len(prediction)
    recall = common / len(gold)
    return 2 * precision * recall / (precision + recall)

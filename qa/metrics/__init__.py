"""Scores of extractive question answering: pure functions, standard library only.

`answers` scores one answer, `squad` a data set, `no_answer` handles the threshold, `oracle` n-best lists,
`bootstrap` tells how sure a score is, `signature` how it was made. `python -m qa.metrics DATA PREDICTIONS`
scores official files; `evaluate_module.py` is the same for the `evaluate` library (not imported here).
"""

from qa.metrics.answers import (
    Golds,
    QuestionScores,
    Version,
    exact_match,
    f1,
    normalize_answer,
    score_answers,
    score_questions,
)
from qa.metrics.bootstrap import PairedResult, bootstrap_interval, paired_bootstrap
from qa.metrics.no_answer import BestThreshold, apply_threshold, find_best_threshold
from qa.metrics.oracle import oracle_scores
from qa.metrics.signature import METRICS_VERSION, ThresholdSource, signature
from qa.metrics.squad import IdDifference, compare_ids, evaluate_squad1, evaluate_squad2, final_scores

__all__ = [
    "METRICS_VERSION",
    "BestThreshold",
    "Golds",
    "IdDifference",
    "PairedResult",
    "QuestionScores",
    "ThresholdSource",
    "Version",
    "apply_threshold",
    "bootstrap_interval",
    "compare_ids",
    "evaluate_squad1",
    "evaluate_squad2",
    "exact_match",
    "f1",
    "final_scores",
    "find_best_threshold",
    "normalize_answer",
    "oracle_scores",
    "paired_bootstrap",
    "score_answers",
    "score_questions",
    "signature",
]

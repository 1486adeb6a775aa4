"""The metrics of this package for Hugging Face `evaluate`, loaded from this path, without the hub.

    import evaluate
    metric = evaluate.load("qa/metrics/evaluate_module.py")             # SQuAD 2.0 rules
    metric = evaluate.load("qa/metrics/evaluate_module.py", "squad")    # SQuAD 1.1 rules

    metric.compute(
        predictions=[{"id": "q1", "prediction_text": "Norway", "no_answer_probability": 0.1}],
        references=[{"id": "q1", "answers": {"text": ["Norway"], "answer_start": [14]}}],
        no_answer_threshold=1.0,
    )

Features and keys are those of the hub's `squad_v2` and `squad`; `squad` takes no `no_answer_probability`.
Predictions and references are matched by id. Probabilities are kept as float64, where the hub's module
rounds them to float32 and so can make them equal. `evaluate` copies this file elsewhere before it imports
it: `qa` must be importable.
"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from qa.errors import InputError
from qa.metrics.squad import evaluate_squad1, evaluate_squad2

_CITATION = """\
@inproceedings{rajpurkar-etal-2018-know,
  title = "Know What You Don't Know: Unanswerable Questions for {SQ}u{AD}",
  author = "Rajpurkar, Pranav and Jia, Robin and Liang, Percy",
  booktitle = "Proceedings of ACL", year = "2018", url = "https://arxiv.org/abs/1806.03822"
}
"""


class ExtractiveQA(evaluate.Metric):  # type: ignore[misc]
    """Exact match and F1 under the official SQuAD rules; configurations `squad_v2` (default) and `squad`."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", "squad_v2", "squad"):
            raise InputError(f'There is no configuration {self.config_name!r}; choose "squad_v2" or "squad".')
        prediction = {"id": datasets.Value("string"), "prediction_text": datasets.Value("string")}
        if self.config_name != "squad":
            prediction["no_answer_probability"] = datasets.Value("float64")
        reference = {
            "id": datasets.Value("string"),
            "answers": {
                "text": datasets.Sequence(datasets.Value("string")),
                "answer_start": datasets.Sequence(datasets.Value("int32")),
            },
        }
        return evaluate.MetricInfo(
            description="Official SQuAD 1.1 and 2.0 scores, in percent.",
            citation=_CITATION,
            inputs_description=__doc__,
            features=datasets.Features({"predictions": prediction, "references": reference}),
        )

    def _compute(
        self,
        *,
        predictions: list[dict[str, Any]],
        references: list[dict[str, Any]],
        no_answer_threshold: float = 1.0,
    ) -> dict[str, float]:
        """Called by `compute` with all rows; `no_answer_threshold` as in `evaluate_squad2`."""
        golds = {row["id"]: list(row["answers"]["text"]) for row in references}
        texts = {row["id"]: row["prediction_text"] for row in predictions}
        if len(golds) != len(references) or len(texts) != len(predictions):
            raise InputError("Two rows have the same id; make the ids of predictions and references unique.")
        if self.config_name == "squad":
            return evaluate_squad1(golds, texts)
        null_odds = {row["id"]: row["no_answer_probability"] for row in predictions}
        if None in null_odds.values():
            raise InputError("A no_answer_probability is None; give a number for every prediction.")
        return evaluate_squad2(golds, texts, null_odds=null_odds, threshold=no_answer_threshold)

"""From predictions to final answers with a confidence: what evaluation, prediction and the predictor share.

"No answer" is given where the null score exceeds the best span's by more than a threshold (Devlin et al.
2019, section 4.3). Its probability is Platt scaling of the null score less the threshold; what it leaves is
shared out by a softmax over a question's pooled n-best with a temperature (Guo et al. 2017, sections 4.1 and
4.2). `qa.confidence.thresholds` fits threshold and temperatures.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qa.confidence.temperature import null_probability, span_shares
from qa.decoding.spans import span_scores
from qa.errors import InputError
from qa.records import Prediction, Span

FloatArray = npt.NDArray[np.float64]

CALIBRATION_NAME = "calibration.json"
"""The file beside a reader's weights."""


@dataclass(frozen=True)
class Calibration:
    """How a reader's scores become answers and confidences. Fitted on dev, used by every prediction.

    threshold: null odds above which the answer is "no answer"; None: the reader knows no unanswerable
        questions and answers wherever it finds a span.
    temperature: divides the spans' scores before the softmax; above 0, 1 = as they are.
    null_temperature: divides what the null score less the threshold is above them; above 0, 1 = as it is.
    fitted_on: name of the questions it was fitted on; empty: not fitted.
    questions: how many they were.
    expected_calibration_error: of the answers to these very questions, 15 bins, 0 to 1; None: not fitted.
    uncalibrated_error: the same with both temperatures at 1.
    """

    threshold: float | None
    temperature: float
    null_temperature: float = field(default=1.0, kw_only=True)
    fitted_on: str
    questions: int
    expected_calibration_error: float | None = None
    uncalibrated_error: float | None = None

    @classmethod
    def unfitted(cls, *, unanswerable: bool) -> Calibration:
        """For a reader without dev questions. unanswerable: whether it was trained on such questions."""
        return cls(0.0 if unanswerable else None, 1.0, "", 0)

    def probabilities(self, prediction: Prediction) -> tuple[FloatArray, float]:
        """Probability of each n-best span, (n_best,), and of "no answer"; together 1.

        One softmax over the whole document's pooled spans, so that windows compete and questions compare.
        "No answer" takes its share first; nothing without a threshold (then all are 0 where there is no
        span). With equal temperatures it is one softmax over both, and the answer given the most probable.
        """
        shares, level = span_shares(span_scores(prediction.n_best), self.temperature)
        if self.threshold is None:
            return shares, 0.0
        null_share = null_probability(prediction.null_score - self.threshold, level, self.null_temperature)
        return (1.0 - null_share) * shares, null_share

    def to_dict(self) -> dict[str, Any]:
        """JSON content; read back by `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: object, place: str = "calibration.json") -> Calibration:
        """The inverse of `to_dict`. Raises InputError, naming `place`, for any other JSON content."""
        remedy = "evaluate the reader on its dev questions again to write a new one"
        names = [part.name for part in fields(cls)]
        if not isinstance(content, dict) or sorted(content) != sorted(names):
            raise InputError(f"{place}: not a calibration with the keys {', '.join(names)}; {remedy}")
        temperatures = ("temperature", "null_temperature")
        checks = {
            "threshold": content["threshold"] is None or _is_number(content["threshold"]),
            **{name: _is_number(content[name]) and content[name] > 0 for name in temperatures},
            "fitted_on": isinstance(content["fitted_on"], str),
            "questions": type(content["questions"]) is int and content["questions"] >= 0,
        }
        for name in ("expected_calibration_error", "uncalibrated_error"):
            checks[name] = content[name] is None or (_is_number(content[name]) and 0 <= content[name] <= 1)
        for name, holds in checks.items():
            if not holds:
                raise InputError(f"{place}: {name} cannot be {content[name]!r}; {remedy}")
        return cls(**content)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def read_calibration(path: Path) -> Calibration:
    """The calibration in a JSON file. Raises InputError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as a calibration ({error}); evaluate the reader again"
        ) from None
    return Calibration.from_dict(content, str(path))


@dataclass(frozen=True)
class FinalAnswer:
    """What the reader says to one question.

    text: "" = no answer. span: where the text stands; None for no answer.
    probability: of what is answered, be it a span or "no answer"; between 0 and 1.
    null_probability: of "no answer"; 0 with a reader that knows no unanswerable questions.
    """

    id: str
    text: str
    span: Span | None
    probability: float
    null_probability: float


def choose(prediction: Prediction, calibration: Calibration) -> FinalAnswer:
    """The best span; "no answer" where the null odds exceed the threshold (strictly) or there is no span."""
    shares, null_share = calibration.probabilities(prediction)
    if not prediction.n_best or withheld(prediction, calibration.threshold):
        return FinalAnswer(prediction.id, "", None, null_share, null_share)
    best = prediction.n_best[0]
    return FinalAnswer(prediction.id, best.text, best, float(shares[0]), null_share)


def withheld(prediction: Prediction, threshold: float | None) -> bool:
    """Whether the null odds exceed the threshold; never without one."""
    return threshold is not None and prediction.null_odds > threshold

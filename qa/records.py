"""The words of the field as records: what is asked, what is known, what is answered.

Character offsets are Python string indices (Unicode code points) into `Example.context`; ends are exclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """One gold answer: `context[start : start + len(text)] == text`."""

    text: str
    start: int

    @property
    def end(self) -> int:
        """Character offset one past the answer's last character."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Example:
    """One question about one passage. No answers: the passage does not tell (unanswerable)."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...] = ()
    title: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """One candidate answer: `text == context[start:end]`, score = start logit + end logit."""

    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the reader found for one question, before any threshold is applied.

    n_best: spans of the whole document, best first; empty where no valid span exists. A decoded one makes
        its spans when they are looked at (`qa.decoding.spans`).
    null_score: minimum over the document's windows of the `[CLS]` start + end logits: the score of
        "the passage does not tell" (Devlin et al. 2019, section 4.3).
    """

    id: str
    n_best: Sequence[Span]
    null_score: float

    @property
    def null_odds(self) -> float:
        """`null_score` minus the best span's score: above the threshold, the answer is "no answer".

        Infinite where there is no span to prefer over the null answer.
        """
        return self.null_score - self.n_best[0].score if self.n_best else float("inf")

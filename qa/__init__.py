"""Extractive question answering: fine-tune a span reader, score it, ask it.

`from qa import QuestionAnswerer` asks a reader. Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qa.predictor import QuestionAnswerer

__all__ = ["QuestionAnswerer"]


def __getattr__(name: str) -> Any:
    if name == "QuestionAnswerer":
        from qa.predictor import QuestionAnswerer

        return QuestionAnswerer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The nested JSON of SQuAD 1.1 (Rajpurkar et al. 2016) and 2.0 (Rajpurkar et al. 2018).

`{"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text",
"answer_start"}], "is_impossible"}]}]}]}`; the list under `data` alone is read too. Other keys are ignored,
`plausible_answers` among
them: they are distractors, not answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qa.datasets.checking import Finding, RawRecord
from qa.datasets.content import Content


def recognises(content: Content) -> bool:
    """A JSON document whose list of articles has paragraphs."""
    articles = articles_of(content.head) if content.shape == "json" else None
    return articles is not None and any(isinstance(one, Mapping) and "paragraphs" in one for one in articles)


def articles_of(document: Any) -> list[Any] | None:
    """The list under `data`, or the document itself where it is a list."""
    listed = document.get("data") if isinstance(document, Mapping) else document
    return listed if isinstance(listed, list) else None


def read(content: Content) -> Iterator[RawRecord]:
    """Every question in the file's order; the location counts from 0, as in
    `data[3].paragraphs[2].qas[1]`."""
    articles = articles_of(content.head) or []
    prefix = "data" if isinstance(content.head, Mapping) else ""
    for article_number, article in enumerate(articles):
        location = f"{prefix}[{article_number}]"
        paragraphs = article.get("paragraphs") if isinstance(article, Mapping) else None
        if not isinstance(paragraphs, list):
            yield _shapeless(location, "the article has no list of paragraphs")
            continue
        title = article.get("title", "")
        for paragraph_number, paragraph in enumerate(paragraphs):
            yield from _questions(f"{location}.paragraphs[{paragraph_number}]", paragraph, title)


def _questions(location: str, paragraph: Any, title: object) -> Iterator[RawRecord]:
    questions = paragraph.get("qas") if isinstance(paragraph, Mapping) else None
    if not isinstance(questions, list):
        yield _shapeless(location, "the paragraph has no list of qas")
        return
    context = paragraph.get("context")
    for number, qa in enumerate(questions):
        place = f"{location}.qas[{number}]"
        if not isinstance(qa, Mapping):
            yield _shapeless(place, "the question is not an object")
            continue
        yield RawRecord(
            place,
            id=qa.get("id"),
            question=qa.get("question"),
            context=context,
            answers=qa.get("answers"),
            title=title,
            is_impossible=qa.get("is_impossible"),
            answer_type=qa.get("answer_type"),
        )


def _shapeless(location: str, problem: str) -> RawRecord:
    return RawRecord(location, findings=(Finding("shape", problem),))

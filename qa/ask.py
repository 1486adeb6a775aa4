"""Ask a reader about documents in the terminal.

    python -m qa.ask --context-file report.pdf "Who signed the contract?"
    cat notes.md | python -m qa.ask --context-file - "When is the deadline?" --json
    python -m qa.ask --model outputs/run --context-file report.pdf

Without a question it asks for questions until an empty line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from qa.documents import STANDARD_INPUT, read_document
from qa.errors import InputError
from qa.models import DEFAULT_READER

if TYPE_CHECKING:
    from qa.predictor import QuestionAnswerer

NO_ANSWER = "The passage does not tell"
LONGEST_SENTENCE = 300
"""Characters shown on each side of an answer at most."""
EXAMPLES = """\
examples:
  python -m qa.ask --context-file report.pdf "Who signed the contract?"
  python -m qa.ask --context-file a.html --context-file b.md "When is the deadline?"
  cat notes.txt | python -m qa.ask --context-file - "Who pays?" --json
  python -m qa.ask --context-file report.pdf     asks for questions; an empty line ends
"""
LEAST_SHOWN = 0.01
"""Probability of a runner-up that is printed at all."""

SPANS_LOOKED_AT = 20
"""For every answer shown: most of the best spans are cuts of the same one."""

BOLD, DIM, PLAIN = "\033[1;33m", "\033[2m", "\033[0m"
_SENTENCE_END = re.compile(
    "[.!?\u2026][\\])'\"\u2019\u201d\u00bb]*(?=\\s+[^a-z\\s])|[\u3002\uff01\uff1f]|\\n\\s*\\n"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer the command line's question, or questions until an empty line. Returns the exit status."""
    told = _parser().parse_intermixed_args(arguments)
    asked = " ".join(told.question).strip()
    if told.question and not asked:
        raise InputError("the question is empty; write one, or leave it out to be asked for some")
    if not told.question and STANDARD_INPUT in told.context_file:
        raise InputError("--context-file -: standard input is the document, so give the question as a word")
    if told.top_k < 1:
        raise InputError(f"--top-k: {told.top_k} is out of range; give 1 or more")
    contexts = [read_document(name) for name in told.context_file]
    from transformers.utils import logging

    logging.disable_progress_bar()
    from qa.predictor import QuestionAnswerer

    # Warnings of a reader, such as a question that was cut, are one line here.
    warnings.showwarning = lambda message, *_: print(f"qa.ask: {message}", file=sys.stderr)  # type: ignore[assignment]
    reader = QuestionAnswerer(told.model, device=told.device)
    questions: Iterable[str] = [asked] if asked else _typed()
    for question in questions:
        answers = ask(reader, question, contexts, top_k=told.top_k)
        if told.json:
            print(json.dumps(to_json(question, answers, contexts, told.context_file), ensure_ascii=False))
        else:
            print(to_text(answers, contexts, told.context_file, colours=wants_colours(sys.stdout)))
            if not asked:
                print()
        if told.html:
            _write_page(told.html, reader, question, contexts[answers[0]["context"] or 0], told.top_k)
        sys.stdout.flush()
    return 0


def ask(
    reader: QuestionAnswerer, question: str, contexts: Sequence[str], *, top_k: int
) -> list[dict[str, Any]]:
    """At most `top_k` different answers, best first: whole words, no text twice, none inside another.

    "The passage does not tell" is among them where the reader's threshold was fitted for it.
    """
    from qa.predicting.answers import apart

    ranked = reader.rank(question, contexts, top_k=SPANS_LOOKED_AT * top_k, **_manner(reader))
    return [dict(answer) for answer in apart(ranked)[:top_k]]


def _manner(reader: QuestionAnswerer) -> dict[str, Any]:
    knows_unanswerable = reader.calibration.threshold is not None
    return {
        "handle_impossible_answer": knows_unanswerable,
        "align_to_words": True,
        "duplicates": "text",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qa.ask",
        description="Find the answer to a question in documents.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("question", nargs="*", help="without it: questions are asked for, one a line")
    parser.add_argument(
        "--context-file",
        action="append",
        required=True,
        metavar="FILE",
        help=".txt, .md, .html, .pdf, or - for standard input; several times: the best answer of all",
    )
    parser.add_argument(
        "--model",
        metavar="READER",
        help=f"a finished run, a folder or a hub name; default: {DEFAULT_READER}, the one in the box",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        default=4,
        help="answers at most, runners-up included (4); printed from 1 %% on",
    )
    parser.add_argument("--json", action="store_true", help="a JSON document per question")
    parser.add_argument("--html", metavar="FILE", help="also write a page that shows why this is the answer")
    parser.add_argument("--device", help="cpu, cuda:0, ...; default: the first GPU, else the CPU")
    return parser


def _typed() -> Iterable[str]:
    """Questions from the terminal until an empty line or the end of input."""
    prompt = "Question (empty to end): " if sys.stdin.isatty() else ""
    while True:
        try:
            question = input(prompt).strip()
        except EOFError:
            return
        if not question:
            return
        yield question


def wants_colours(stream: TextIO) -> bool:
    """On a terminal, unless the variable NO_COLOR is set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def sentence_around(text: str, start: int, end: int) -> tuple[int, int]:
    """Characters of the sentence, or sentences, that hold `text[start:end]`, end exclusive."""
    low, high = max(0, start - LONGEST_SENTENCE), min(len(text), end + LONGEST_SENTENCE)
    # One character more: what ends a sentence is told by how the next one begins.
    ends = (found.end() for found in _SENTENCE_END.finditer(text, low, min(len(text), start + 1)))
    first = max((place for place in ends if place <= start), default=low)
    following = _SENTENCE_END.search(text, max(start, end - 1), high)
    last = following.end() if following else high
    while first < start and text[first].isspace():
        first += 1
    while last > end and text[last - 1].isspace():
        last -= 1
    return first, max(last, end)


def to_json(
    question: str, answers: Sequence[dict[str, Any]], contexts: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    """The best answer (null: the passage does not tell), its sentence and file, and the runners-up."""
    best, *others = (_described(answer, contexts, names) for answer in answers)
    return {"question": question, **best, "alternatives": others}


def _described(answer: dict[str, Any], contexts: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    source = answer["context"]
    found = {"answer": answer["answer"] or None, "score": answer["score"]}
    if source is None:
        return found | {"start": None, "end": None, "sentence": None, "file": None}
    first, last = sentence_around(contexts[source], answer["start"], answer["end"])
    place = {"start": answer["start"], "end": answer["end"]}
    return found | place | {"sentence": contexts[source][first:last], "file": names[source]}


def to_text(
    answers: Sequence[dict[str, Any]], contexts: Sequence[str], names: Sequence[str], *, colours: bool
) -> str:
    """The best answer in its sentence with its probability, and a line for each runner-up worth one."""
    best, *others = answers
    others = [other for other in others if other["score"] >= LEAST_SHOWN]
    bold, dim, plain = (BOLD, DIM, PLAIN) if colours else ("", "", "")
    if best["context"] is None:
        lines = [f"{NO_ANSWER} ({best['score']:.0%})."]
    else:
        file = f"  {dim}{names[best['context']]}{plain}" if len(names) > 1 else ""
        lines = [
            f"{bold}{_line(best['answer'])}{plain} ({best['score']:.0%}){file}",
            _shown(best, contexts, colours),
        ]
    for other in others:
        if other["context"] is None:
            lines.append(f"{dim}  or {other['score']:.0%}: the passage does not tell{plain}")
            continue
        file = f" ({names[other['context']]})" if len(names) > 1 else ""
        lines.append(f"{dim}  or {other['score']:.0%}: {_line(other['answer'])}{file}{plain}")
    return "\n".join(lines)


def _shown(answer: dict[str, Any], contexts: Sequence[str], colours: bool) -> str:
    text, start, end = contexts[answer["context"]], answer["start"], answer["end"]
    first, last = sentence_around(text, start, end)
    before, after = ("... " if first and first == start - LONGEST_SENTENCE else ""), ""
    after = " ..." if last < len(text) and last == end + LONGEST_SENTENCE else ""
    opening, closing = (BOLD, PLAIN) if colours else ("[[", "]]")
    marked = f"{_line(text[first:start])}{opening}{_line(text[start:end])}{closing}{_line(text[end:last])}"
    return f"  {before}{marked}{after}"


def _line(text: str) -> str:
    """Text on one line, control characters of terminals taken out: a document may hold escape sequences."""
    return re.sub(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]", "", re.sub(r"\s+", " ", text))


def _write_page(file: str, reader: QuestionAnswerer, question: str, context: str, top_k: int) -> None:
    from qa.files import write_text

    try:
        explanation = reader.explain(question, context, top_k=top_k, **_manner(reader))
        write_text(Path(file), explanation.to_html())
    except OSError as error:
        raise InputError(f"--html {file}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"qa.ask: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print()
        sys.exit(130)

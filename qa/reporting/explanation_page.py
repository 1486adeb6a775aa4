"""An explanation as a small page of its own: no scripts, no links, all text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qa.explanations import Explanation, TokenAttribution

AROUND = 1500
"""Characters shown before and after the window that the answer was found in."""

STYLE = """
body { font: 17px/1.6 Georgia, serif; max-width: 46em; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.1em; } h2 { font-size: 1em; margin-top: 2em; }
.answer { border-bottom: 3px solid #b30; font-weight: bold; }
.read { background: #fafafa; } .unread { color: #999; }
.passage { white-space: pre-wrap; } small { color: #666; }
table { border-collapse: collapse; } td { padding: .1em 1em .1em 0; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
"""


def render(explanation: Explanation) -> str:
    """The page, UTF-8: question and passage, each token on a ground that says how much it speaks for (orange)
    or against (blue) the answer, the answer underlined, and the runners-up."""
    tokens = explanation.tokens
    strongest = max((abs(token.for_start + token.for_end) for token in tokens), default=0.0) or 1.0
    answer = explanation.answer
    said = escape(answer["answer"]) or "the passage does not tell"
    question = _marked(explanation.question, [t for t in tokens if t.part == "question"], strongest, (0, 0))
    runners_up = "".join(
        f'<tr><td class="n">{result["score"]:.1%}</td><td>{escape(result["answer"]) or "<i>no answer</i>"}'
        f"</td><td><small>{result['start']} to {result['end']}</small></td></tr>\n"
        for result in explanation.runners_up
    )
    rise = (
        f"start {explanation.baseline_start_logit:.2f} &rarr; {explanation.start_logit:.2f}, "
        f"end {explanation.baseline_end_logit:.2f} &rarr; {explanation.end_logit:.2f}"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{escape(explanation.question)}</title><style>{STYLE}</style></head>
<body>
<h1>{question}</h1>
<p><b>{said}</b> ({answer["score"]:.1%})</p>
<p class="passage">{_passage(explanation, strongest)}</p>
<p><small>Orange speaks for the answer, blue against it: integrated gradients of its start and end logits
({rise}, from a window without words). Grey: read in other windows.</small></p>
<h2>What else might be said</h2>
<table>
{runners_up}</table>
</body>
</html>
"""


def _passage(explanation: Explanation, strongest: float) -> str:
    context, answer = explanation.context, explanation.answer
    inside = [token for token in explanation.tokens if token.part == "passage"]
    if not inside:
        return f'<span class="unread">{escape(context[:AROUND])}</span>'
    first, last = inside[0].start, max(token.end for token in inside)
    before, after = context[max(0, first - AROUND) : first], context[last : last + AROUND]
    marked = _marked(context, inside, strongest, (answer["start"], answer["end"]))
    head = "&hellip; " if first > AROUND else ""
    tail = " &hellip;" if last + AROUND < len(context) else ""
    return (
        f'<span class="unread">{head}{escape(before)}</span><span class="read">{marked}</span>'
        f'<span class="unread">{escape(after)}{tail}</span>'
    )


def _marked(text: str, tokens: Sequence[TokenAttribution], strongest: float, answer: tuple[int, int]) -> str:
    """The stretch of text from the first token to the last, each on its ground, the answer underlined."""
    pieces, place = [], tokens[0].start if tokens else 0
    for token in tokens:
        if token.end <= place:  # several tokens of one character: the first one shows it
            continue
        start = max(token.start, place)
        underlined = answer[0] <= start < answer[1]
        if place < start:
            pieces.append(_piece(text[place:start], "", underlined and answer[0] < start))
        value = (token.for_start + token.for_end) / strongest
        ground = f"rgba({'255,140,0' if value > 0 else '60,120,255'},{min(abs(value), 1.0):.2f})"
        title = f"start {token.for_start:+.3f}, end {token.for_end:+.3f}"
        style = f' style="background:{ground}" title="{title}"'
        pieces.append(_piece(text[start : token.end], style, underlined))
        place = token.end
    return "".join(pieces) if tokens else escape(text)


def _piece(text: str, attributes: str, underlined: bool) -> str:
    kind = ' class="answer"' if underlined else ""
    return f"<span{kind}{attributes}>{escape(text)}</span>" if kind or attributes else escape(text)

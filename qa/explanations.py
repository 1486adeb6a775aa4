"""Why this answer: integrated gradients of its start and end logits, and the runners-up.

Implementation of: Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks"
(arXiv:1703.01365), sections 3 and 5, over the word embeddings, with Gauss-Legendre quadrature.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from qa.decoding import decode
from qa.layers import reader_of
from qa.models import forward_keys
from qa.predicting.answers import Result, Words, results
from qa.predicting.reading import WindowMaker, WindowSet, collate, score_windows

if TYPE_CHECKING:
    from qa.predicting.loading import Reader
    from qa.predicting.options import Options
    from qa.records import Example, Prediction

STEPS_AT_ONCE = 16


@dataclass(frozen=True)
class TokenAttribution:
    """How much one token of the window speaks for the answer's start and end, in logits.

    start, end: characters of the question or the passage, end exclusive; 0, 0 for special tokens.
    """

    text: str
    part: Literal["question", "passage", "special"]
    start: int
    end: int
    for_start: float
    for_end: float


@dataclass(frozen=True)
class Explanation:
    """An answer, what speaks for it, and what else might have been said.

    answer: as a call gives it; runners_up: the next ones, best first.
    tokens: of the window that the answer was found in (long passages are read in several). Their attributions
        add up to the logit minus the baseline's: start_logit - baseline_start_logit, and so for the end. The
        baseline is the window with every word replaced by padding.
    For the answer "" the logits are those of `[CLS]`, "the passage does not tell".
    """

    question: str
    context: str
    answer: Result
    runners_up: tuple[Result, ...]
    tokens: tuple[TokenAttribution, ...]
    start_logit: float
    end_logit: float
    baseline_start_logit: float
    baseline_end_logit: float

    def to_dict(self) -> dict[str, Any]:
        """JSON content."""
        return asdict(self)

    def to_html(self) -> str:
        """A page of its own, without scripts or links: the passage with what spoke for the answer marked."""
        from qa.reporting.explanation_page import render

        return render(self)


def explain(
    reader: Reader, example: Example, options: Options, make_windows: WindowMaker, words: Words, *, steps: int
) -> Explanation:
    """Answer a question and attribute the answer's two logits to the tokens of its window.

    steps: points of the integral; 50 bring the sum of attributions within about 1 % of what it should be.
    """
    windows = make_windows([example])
    scores = score_windows(reader, windows, options)
    (prediction,) = decode(scores, windows.table, [example.context], [example.id], options.decoding)
    answer, *runners_up = results(example, prediction, options, words)
    if answer["end"]:
        window, start, end = _locate(reader, windows, prediction, options)
    else:
        window, start, end = int(np.argmin(scores.null_scores)), 0, 0
    batch = collate(reader, windows, [window], replace(options, pad_to=None))
    values, logits, baseline = integrated_gradients(reader, batch, (start, end), steps)
    return Explanation(
        question=example.question,
        context=example.context,
        answer=answer,
        runners_up=tuple(runners_up),
        tokens=_tokens(reader, example, windows, window, words, values),
        start_logit=logits[0],
        end_logit=logits[1],
        baseline_start_logit=baseline[0],
        baseline_end_logit=baseline[1],
    )


def _locate(
    reader: Reader, windows: WindowSet, prediction: Prediction, options: Options
) -> tuple[int, int, int]:
    """Window, start and end token (inclusive) of the best span: where its logits are highest."""
    span, table = prediction.n_best[0], windows.table
    found = []
    for window in range(len(table)):
        offsets = table.offsets[table.row_splits[window] : table.row_splits[window + 1]]
        place = np.arange(len(offsets))
        inside = (place >= table.passage_start[window]) & (place < table.passage_end[window])
        starts = np.flatnonzero(inside & (offsets[:, 0] == span.start))
        ends = np.flatnonzero(inside & (offsets[:, 1] == span.end))
        if not len(starts) or not len(ends):
            continue
        batch = collate(reader, windows, [window], options)
        with torch.inference_mode():
            output = reader.model(**{key: batch[key] for key in forward_keys(reader.model)})
        start_logits, end_logits = output.start_logits[0].float().cpu(), output.end_logits[0].float().cpu()
        pairs = [(int(s), int(e)) for s in starts for e in ends if s <= e]
        found += [(float(start_logits[s] + end_logits[e]), window, s, e) for s, e in pairs]
    _, window, start, end = max(found)
    return window, start, end


def integrated_gradients(
    reader: Reader, batch: dict[str, Tensor], targets: tuple[int, int], steps: int
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Attributions (2, seq_len) of the start logit at targets[0] and the end logit at targets[1], in logits.

    batch: one window, (1, seq_len). Returns them with the two logits of the window, and of the baseline:
    special tokens as they are, padding in place of all others.
    """
    inputs = {key: batch[key] for key in forward_keys(reader.model)}
    embeddings = reader_of(reader.model).get_input_embeddings()  # type: ignore[operator]
    asked = _Window(reader.model, embeddings, inputs, targets)
    tokenizer = reader.tokenizer
    special = torch.isin(inputs["input_ids"], torch.tensor(tokenizer.all_special_ids, device=reader.device))
    empty = torch.full_like(inputs["input_ids"], tokenizer.pad_token_id or 0)
    with torch.no_grad():
        words = embeddings(inputs["input_ids"])
        baseline = embeddings(torch.where(special, inputs["input_ids"], empty))
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    alphas = torch.tensor((nodes + 1) / 2, dtype=words.dtype, device=reader.device)
    gradients = torch.zeros(2, *words.shape[1:], device=reader.device)
    for at in range(0, steps, STEPS_AT_ONCE):
        part = alphas[at : at + STEPS_AT_ONCE]
        points = baseline + part[:, None, None] * (words - baseline)
        share = torch.tensor(weights[at : at + STEPS_AT_ONCE] / 2, device=reader.device)
        for row, slopes in enumerate(asked.slopes(points)):
            gradients[row] += (slopes.float() * share[:, None, None].float()).sum(dim=0)
    attributions = (gradients * (words - baseline)[0].float()).sum(dim=-1)
    logits = asked.logits(torch.cat([words, baseline]))
    ends = [(float(start), float(end)) for start, end in logits.tolist()]
    return attributions.cpu().numpy(), ends[0], ends[1]


@dataclass(frozen=True)
class _Window:
    """A window that is read with other word embeddings than its own.

    inputs: (1, seq_len) each. targets: the tokens whose start and end logit are asked for.
    """

    model: nn.Module
    embeddings: nn.Module
    inputs: dict[str, Tensor]
    targets: tuple[int, int]

    def logits(self, points: Tensor) -> Tensor:
        """(points, 2) start and end logit with these word embeddings, (points, seq_len, width)."""
        repeated = {key: tensor.expand(len(points), -1) for key, tensor in self.inputs.items()}
        with _replaced(self.embeddings, points):
            output: Any = self.model(**repeated)
        start, end = self.targets
        return torch.stack([output.start_logits[:, start], output.end_logits[:, end]], dim=1)

    def slopes(self, points: Tensor) -> Iterator[Tensor]:
        """Gradients of the start and of the end logit by the embeddings, each (points, seq_len, width)."""
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.logits(points)
            for column in range(2):
                yield torch.autograd.grad(logits[:, column].sum(), points, retain_graph=column == 0)[0]


@contextmanager
def _replaced(embeddings: nn.Module, points: Tensor) -> Iterator[None]:
    """Put `points` in the place of what the embeddings say, in any wrapper, also without inputs_embeds."""
    hook = embeddings.register_forward_hook(lambda *_: points)
    try:
        yield
    finally:
        hook.remove()


def _tokens(
    reader: Reader, example: Example, windows: WindowSet, window: int, words: Words, values: np.ndarray
) -> tuple[TokenAttribution, ...]:
    table = windows.table
    row = slice(table.row_splits[window], table.row_splits[window + 1])
    ids, offsets = windows.ids[row].tolist(), table.offsets[row].tolist()
    passage = range(int(table.passage_start[window]), int(table.passage_end[window]))
    encoded = words.backend.encode(example.question, add_special_tokens=False)
    # `[CLS]` alone stands before the question; what fits of it comes next.
    first = 1
    asked = {first + at: place for at, place in enumerate(encoded.offsets) if first + at < passage.start}
    special = set(reader.tokenizer.all_special_ids)
    found = []
    for at, token in enumerate(ids):
        part: Literal["question", "passage", "special"] = "special"
        start, end, text = 0, 0, str(reader.tokenizer.convert_ids_to_tokens(token))
        if at in passage:
            part, (start, end) = "passage", offsets[at]
            text = example.context[start:end]
        elif at in asked and token not in special:
            part, (start, end) = "question", asked[at]
            text = example.question[start:end]
        found.append(TokenAttribution(text, part, start, end, *(float(value) for value in values[:, at])))
    return tuple(found)

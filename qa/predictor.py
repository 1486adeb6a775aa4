"""Answers to new questions: the removed transformers pipeline's surface on this project's own decoder.

    from qa import QuestionAnswerer
    reader = QuestionAnswerer("outputs/run")
    reader(question="Who brought Rømer to France?", context="... at the invitation of Jean Picard ...")

transformers 5.3 removed `pipeline("question-answering")`; `qa.pipeline.register` puts this in its place.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qa.confidence.final_answers import Calibration
from qa.errors import InputError
from qa.models import ModelArguments
from qa.predicting.answers import (
    RankedResult,
    Result,
    Words,
    pooled,
    ranked_results,
    results,
    unwrapped,
)
from qa.predicting.inputs import Inputs, parse_inputs
from qa.predicting.loading import load
from qa.predicting.options import Options, refuse_unknown, resolve
from qa.predicting.reading import WindowMaker, read
from qa.records import Example, Prediction
from qa.windows.columns import WindowColumns

if TYPE_CHECKING:
    from qa.explanations import Explanation


class QuestionAnswerer:
    """A reader that is asked questions about passages.

    model: a finished run's folder, any QA model's folder or hub name, or a loaded model; None: the reader in
        the box, "packaged:default-reader". A finished run brings its windows, decoding, temperature and
        no-answer threshold; other readers get the removed pipeline's settings, and a probability that nothing
        was fitted for.
    tokenizer: None: the model's own, its case kept where the vocabulary is cased.
    device: as torch names it, or a GPU's number, -1 = CPU; None: the first GPU, else the CPU.
    dtype: precision of the weights; None or "auto": float32.
    revision, trust_remote_code, allow_pickle_weights: as in `qa.models.ModelArguments`.
    defaults: parameters of every call that does not say otherwise; see `__call__`.
    Raises InputError, a ValueError, where there is no such reader or parameter.
    """

    task = "question-answering"

    def __init__(
        self,
        model: Any = None,
        tokenizer: Any = None,
        *,
        device: Any = None,
        dtype: Any = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        allow_pickle_weights: bool = False,
        **defaults: Any,
    ) -> None:
        refuse_unknown(defaults)
        arguments = ModelArguments(
            model_revision=revision,
            trust_remote_code=trust_remote_code,
            allow_pickle_weights=allow_pickle_weights,
        )
        self.reader = load(model, tokenizer, arguments=arguments, device=device, dtype=dtype)
        self.defaults = defaults
        # The widest windows there may be: these columns only lend their tokenizer and template.
        self._columns = WindowColumns.of(self.reader.tokenizer, self._options({}).windows)

    @property
    def model(self) -> Any:
        """The model, in eval mode."""
        return self.reader.model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.reader.tokenizer

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.reader.device

    @property
    def calibration(self) -> Calibration:
        """Threshold and temperature that came with the reader; `fitted_on` is empty where none did."""
        return self.reader.calibration

    def __repr__(self) -> str:
        kind = type(self.model).__name__
        return f"{type(self).__name__}({self.reader.name!r}, {kind} on {self.device})"

    def __call__(
        self,
        *args: Any,
        question: Any = None,
        context: Any = None,
        **told: Any,
    ) -> Any:
        """Answer questions: `question=` and `context=` texts, or lists, or several questions and one context.

        args: instead of these, a dict with both keys, an object with both attributes, a list of them, a
            generator or data set that yields them, or the two texts. X, data: other names for that.
        top_k (1): answers to a question; a finished run has `n_best_size` at most.
        handle_impossible_answer (False): whether "" may be an answer; the threshold saved with the reader
            then decides (0 where none was).
        max_answer_len: longest answer in tokens. max_seq_len, doc_stride: window length and overlap in
            tokens. max_question_len: longer questions are cut, with a warning.
        align_to_words: stretch answers to whole words; default: only for readers without saved settings.
        duplicates ("keep"): "text" leaves out equal texts at other places, "overlap" what overlaps a better
            answer.
        batch_size: windows in a batch; default: a budget of tokens. padding: "max_length" pads all windows
            to the same length; answers do not change. progress: a bar on stderr.

        Returns: a dict with `score` (a probability), `start`, `end` (characters, end exclusive) and `answer`;
        with top_k, a list of them where there are more than one. A single question gives this by itself,
        several a list of it, in their order; generators and data sets an iterator that reads as it goes, in
        constant memory. Raises InputError, a ValueError, for anything that cannot be asked.
        """
        named: dict[str, Any] = {name: told.pop(name) for name in ("X", "data") if name in told}
        if question is not None or context is not None:
            named |= {"question": question, "context": context}
        options = self._options(told)
        inputs = parse_inputs(args, named)
        answered = (
            unwrapped(results(example, prediction, options, self._words))
            for example, prediction in self._read(inputs, options)
        )
        if inputs.streamed:
            return AnswerStream(answered, inputs.count)
        found = list(answered)
        return found[0] if inputs.single else found

    def rank(self, question: str, contexts: Sequence[str], top_k: int = 5, **told: Any) -> list[RankedResult]:
        """The best answers to one question over several contexts, each with the index of its `context`.

        The contexts are read as one document: scores are shares of one softmax over the best spans of all, so
        they compare, and together with "no answer" they are at most 1. With a single context they are those
        of a call. told: parameters of a call.
        """
        if isinstance(contexts, str):
            raise InputError("rank: contexts must be a list of texts; ask about a single one with a call")
        options = self._options(told | {"top_k": top_k})
        contexts = list(contexts)
        if not contexts:
            raise InputError("rank: there are no contexts to read; give at least one")
        inputs = parse_inputs((), {"question": [question] * len(contexts), "context": contexts})
        best, sources = pooled((prediction for _, prediction in self._read(inputs, options)), options)
        return ranked_results(contexts, best, sources, options, self._words)

    def predictions(self, examples: Iterable[Example], **told: Any) -> Iterator[Prediction]:
        """What the decoder found for each example, before threshold and temperature, in their order.

        With a finished run and `duplicates` as saved, these are evaluation's.
        """
        options = self._options(told)
        make_windows = WindowMaker(self.reader, options, self._columns)
        for _, prediction in read(self.reader, examples, options, make_windows, streamed=False):
            yield prediction

    def explain(self, question: str, context: str, *, steps: int = 50, **told: Any) -> Explanation:
        """Why the reader answers as it does: how much each token speaks for start and end of the answer.

        steps: points of the integral. told: parameters of a call; `top_k` is the number of runners-up + 1.
        """
        from qa.explanations import explain

        options = self._options({"top_k": 5} | told)
        (example,) = parse_inputs((), {"question": question, "context": context}).examples
        make_windows = WindowMaker(self.reader, options, self._columns)
        return explain(self.reader, example, options, make_windows, self._words, steps=steps)

    def predict(self, questions: Any) -> Any:
        """The same as a call, for scikit-learn's manners."""
        return self(questions)

    transform = predict

    @staticmethod
    def create_sample(question: Any, context: Any) -> Example | list[Example]:
        """One example, or a list of them, to be asked with later."""
        examples = list(parse_inputs((), {"question": question, "context": context}).examples)
        return examples if isinstance(question, list) else examples[0]

    def _options(self, told: dict[str, Any]) -> Options:
        refuse_unknown(told)
        given = {name: value for name, value in told.items() if value is not None}
        if "topk" in given:
            given.setdefault("top_k", given["topk"])
        return resolve(self.reader, self.defaults | given)

    @property
    def _words(self) -> Words:
        return Words(self._columns.backend)

    def _read(self, inputs: Inputs, options: Options) -> Iterator[tuple[Example, Prediction]]:
        make_windows = WindowMaker(self.reader, options, self._columns)
        examples = (replace(example, id=str(at)) for at, example in enumerate(inputs.examples))
        found = read(self.reader, examples, options, make_windows, streamed=inputs.streamed)
        shown = options.progress
        if shown is None:
            shown = inputs.streamed and sys.stderr.isatty()
        if not shown:
            return found
        from tqdm import tqdm

        return iter(tqdm(found, total=inputs.count, desc="Answers", unit=" questions"))


class AnswerStream(Iterator[Any]):
    """Answers to a generator's or data set's questions, made as they are asked for.

    `len` says how many there will be altogether, where that is known.
    """

    def __init__(self, answers: Iterator[Result | list[Result]], count: int | None) -> None:
        self._answers = answers
        self._count = count

    def __next__(self) -> Any:
        return next(self._answers)

    def __len__(self) -> int:
        if self._count is None:
            raise TypeError("nobody knows how many questions a generator will ask")
        return self._count

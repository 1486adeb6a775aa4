"""What may be asked and how: the forms, parameters and errors of transformers 4.57's pipeline, one by one."""

from __future__ import annotations

import itertools
from collections import UserDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from qa.errors import InputError
from qa.predicting.inputs import parse_inputs
from qa.predictor import AnswerStream, QuestionAnswerer
from qa.records import Example

Q, C = "Who measured it?", "Ole Rømer measured it in Paris. Cassini did not believe him."
PAIR = {"question": Q, "context": C}


@pytest.fixture(scope="module")
def reader(vivid_reader: Path) -> QuestionAnswerer:
    return QuestionAnswerer(vivid_reader, device="cpu")


@dataclass
class SquadExample:
    """The attributes of transformers 4's class of this name that its pipeline used."""

    question_text: str
    context_text: str


class TorchPairs(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, str]:
        return {"question": f"Who {index}?", "context": C}


def asked(*args: Any, **named: Any) -> list[tuple[str, str]]:
    return [(example.question, example.context) for example in parse_inputs(args, named).examples]


ONE = [(Q, C)]


@pytest.mark.parametrize(
    ("args", "named", "pairs"),
    [
        ((), {"question": Q, "context": C}, ONE),
        ((), {"question": [Q, "When?"], "context": C}, [(Q, C), ("When?", C)]),
        ((), {"question": [Q, "When?"], "context": [C, "x"]}, [(Q, C), ("When?", "x")]),
        ((), {"question": (Q,), "context": (C,)}, ONE),
        ((Q, C), {}, ONE),
        ((PAIR,), {}, ONE),
        ((UserDict(PAIR),), {}, ONE),
        (([PAIR, PAIR],), {}, ONE * 2),
        (((PAIR, PAIR),), {}, ONE * 2),
        ((PAIR, PAIR), {}, ONE * 2),
        (({"question": [Q, "When?"], "context": [C, "x"]},), {}, [(Q, C), ("When?", "x")]),
        (({"question": [Q, "When?"], "context": C},), {}, [(Q, C), ("When?", C)]),
        ((PAIR | {"id": "7", "answers": None},), {}, ONE),
        ((SquadExample(Q, C),), {}, ONE),
        (([SquadExample(Q, C), PAIR, Example("", "When?", C)],), {}, [*ONE, *ONE, ("When?", C)]),
        ((), {"data": PAIR}, ONE),
        ((), {"X": [PAIR]}, ONE),
        (([],), {}, []),
        ((map(dict, [PAIR]),), {}, ONE),
        (((pair for pair in [PAIR, PAIR]),), {}, ONE * 2),
        ((TorchPairs(),), {}, [("Who 0?", C), ("Who 1?", C), ("Who 2?", C)]),
        ((datasets.Dataset.from_list([PAIR | {"id": "1"}]),), {}, ONE),
        ((datasets.Dataset.from_list([PAIR]).to_iterable_dataset(),), {}, ONE),
    ],
)
def test_forms_of_a_question(args: Any, named: Any, pairs: list[tuple[str, str]]) -> None:
    assert asked(*args, **named) == pairs


def test_columns_of_a_table_are_lists() -> None:
    table = datasets.Dataset.from_list([PAIR, PAIR])
    assert asked(question=table["question"], context=table["context"]) == ONE * 2


@pytest.mark.parametrize(
    ("args", "named", "words"),
    [
        ((), {"question": [Q], "context": [C, C]}, r"don't have the same lengths \(1, 2\)"),
        ((), {"question": Q, "context": [C, C]}, r"one question about 2 contexts.*rank\(\)"),
        ((), {"question": Q}, "`context` cannot be None"),
        ((), {"question": None, "context": C}, "`question` cannot be None"),
        ((), {"question": "", "context": C}, "`question` cannot be empty"),
        ((), {"question": Q, "context": ""}, "`context` cannot be empty"),
        ((), {"question": [Q, 3], "context": C}, "`question` must be text, but it is of type int"),
        ((), {"question": [Q, Q], "context": [C, None]}, "item 1: `context` cannot be None"),
        ((), {}, "nothing was asked"),
        (("a question",), {}, "a str alone"),
        ((5,), {}, "a int alone"),
        (([1, 2],), {}, "item 0: a int is no question"),
        (([PAIR, {"question": Q, "context": None}],), {}, "item 1: `context` cannot be None"),
        (([[Q], [C]],), {}, "item 0: a list is no question"),
        ((PAIR,), {"question": Q, "context": C}, "question, context: given beside a positional question"),
        ((), {"question": "caf\ud800?", "context": C}, r"lone surrogate\) at 3"),
    ],
)
def test_what_cannot_be_asked_is_a_value_error_that_names_the_place(
    args: Any, named: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words) as error:
        asked(*args, **named)
    assert isinstance(error.value, ValueError)


def test_a_missing_key_is_still_a_key_error() -> None:
    with pytest.raises(KeyError, match="has no key context") as error:
        asked({"question": Q})
    assert isinstance(error.value, InputError)
    assert str(error.value) == "the call: has no key context; a dict needs question and context"
    with pytest.raises(KeyError, match="no column context"):
        asked(datasets.Dataset.from_list([{"question": Q, "passage": C}]))


def test_a_mistake_in_a_generator_shows_when_it_is_reached(reader: QuestionAnswerer) -> None:
    answers = reader(pair for pair in [PAIR, {"question": Q}])
    assert next(answers)["answer"] in C
    with pytest.raises(InputError, match="item 1: has no key context"):
        next(answers)


def test_one_answer_is_unwrapped_and_several_are_not(reader: QuestionAnswerer) -> None:
    single = reader(question=Q, context=C)
    assert set(single) == {"score", "start", "end", "answer"}
    assert [type(single[name]) for name in ("score", "start", "end", "answer")] == [float, int, int, str]
    assert C[single["start"] : single["end"]] == single["answer"]
    # A list of one question gives no list; a mapping of lists always does.
    for same in ([PAIR], PAIR, SquadExample(Q, C)):
        assert reader(same) == single
    assert reader(question=[Q], context=C) == reader(question=[Q], context=[C]) == single
    assert reader({"question": [Q], "context": [C]}) == [single]
    assert reader([PAIR, PAIR]) == [single, single]
    assert reader([]) == []
    assert reader(Q, C) == reader.predict(PAIR) == reader.transform([PAIR]) == single
    three = reader(question=Q, context=C, top_k=3)
    assert len(three) == 3
    assert three[0] == single
    assert reader(question=[Q, Q], context=C, top_k=3) == [three, three]
    # As many as there are, and a single one by itself, whatever top_k says.
    assert isinstance(reader(question=Q, context="Paris", top_k=5), dict)
    assert [found["answer"] for found in sorted(reader(question=Q, context="a b", top_k=50), key=str)] != []
    assert len(reader(question=Q, context="a b", top_k=50)) == 3


def test_generators_and_data_sets_are_streams(reader: QuestionAnswerer) -> None:
    single = reader(question=Q, context=C)
    table = datasets.Dataset.from_list([PAIR] * 5)
    stream = reader(table, progress=False)
    assert isinstance(stream, AnswerStream)
    assert len(stream) == 5
    assert [found["answer"] for found in stream] == [single["answer"]] * 5
    assert len(reader(TorchPairs())) == len(list(reader(TorchPairs()))) == 3
    generated = reader(pair for pair in [PAIR])
    with pytest.raises(TypeError, match="generator"):
        len(generated)
    assert list(generated) == [single]
    assert list(reader(pair for pair in [])) == []


def test_examples_made_beforehand(reader: QuestionAnswerer) -> None:
    one = reader.create_sample(Q, C)
    assert one == Example("", Q, C)
    assert reader.create_sample([Q, "When?"], [C, C]) == [one, Example("", "When?", C)]
    assert reader(one) == reader(question=Q, context=C)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"top_k": 0}, r"top_k parameter should be >= 1 \(got 0\)"),
        ({"max_answer_len": 0}, r"max_answer_len parameter should be >= 1 \(got 0\)"),
        ({"top_k": "3"}, "top_k: '3' is not a whole number"),
        ({"doc_stride": 60, "max_seq_len": 50}, r"doc_stride \(60\) is larger than max_seq_len \(50\)"),
        ({"doc_stride": 45, "max_seq_len": 50}, "leaves 1 for a question"),
        ({"max_seq_len": 513}, "reads at most 512 tokens"),
        ({"max_question_len": 381}, "leaves no room"),
        ({"padding": "left"}, "do_not_pad, longest or max_length"),
        ({"duplicates": "merge"}, "keep, text, overlap"),
        ({"batch_size": 0}, "batch_size"),
        ({"topk_": 3}, "topk_: no such parameter; did you mean topk"),
        ({"foo": 3}, "foo: no such parameter; there are top_k"),
    ],
)
def test_parameters_that_cannot_be(reader: QuestionAnswerer, told: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        reader(question=Q, context=C, **told)


def test_old_names_and_absent_values(reader: QuestionAnswerer) -> None:
    with pytest.warns(UserWarning, match="top_k"):
        assert len(reader(question=Q, context=C, topk=2)) == 2
    with pytest.warns(UserWarning, match="top_k"):
        assert len(reader(question=Q, context=C, topk=2, top_k=3)) == 3
    single = reader(question=Q, context=C)
    nothing = dict.fromkeys(["top_k", "doc_stride", "max_answer_len", "max_seq_len", "padding", "batch_size"])
    assert reader(question=Q, context=C, num_workers=2, **nothing) == single
    assert len(reader(question=Q, context=C, top_k=np.int64(2))) == 2


@pytest.mark.parametrize("told", [{"padding": True}, {"padding": "max_length"}, {"batch_size": 2}])
def test_padding_and_batches_change_no_answer(reader: QuestionAnswerer, told: dict[str, Any]) -> None:
    questions = [Q, "When?", "Where was it, and who was not convinced of it?"]
    plain = reader(question=questions, context=C)
    for one, other in zip(plain, reader(question=questions, context=C, **told), strict=True):
        assert other == one | {"score": pytest.approx(one["score"], rel=1e-4)}


def test_parameters_of_every_call(vivid_reader: Path) -> None:
    reader = QuestionAnswerer(vivid_reader, device=-1, top_k=2)
    assert len(reader(question=Q, context=C)) == 2
    assert isinstance(reader(question=Q, context=C, top_k=1), dict)
    with pytest.raises(InputError, match="no such parameter"):
        QuestionAnswerer(vivid_reader, tok_k=2)


def test_answers_are_no_longer_than_asked(reader: QuestionAnswerer) -> None:
    tokens = reader.tokenizer(C, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for most in (1, 2):
        for found in reader(question=Q, context=C, max_answer_len=most, top_k=30, align_to_words=False):
            covered = [s < found["end"] and e > found["start"] for s, e in tokens]
            assert 1 <= sum(covered) <= most


def test_answers_are_whole_words_unless_asked_otherwise(reader: QuestionAnswerer) -> None:
    context = "Unbelievable, Rømer's re-measurement: 巴黎 (Île-de-France)."
    words = {
        "Unbelievable",
        ",",
        "Rømer",
        "'",
        "s",
        "re",
        "-",
        "measurement",
        ":",
        "巴",
        "黎",
        "(",
        "Île",
        "de",
    }
    words |= {"France", ")", "."}
    whole = reader(question=Q, context=context, max_answer_len=1, top_k=50)
    assert {found["answer"] for found in whole} == words
    places = [(found["start"], found["end"]) for found in whole]
    assert len(places) == len(set(places))
    pieces = reader(question=Q, context=context, max_answer_len=1, top_k=50, align_to_words=False)
    assert {found["answer"] for found in pieces} >= {"R", "ø", "mer"}


def test_words_stretched_into_one_another_are_still_no_duplicates(reader: QuestionAnswerer) -> None:
    context = "Unforgettably, xylophonists rehearsed. Grimsbyshire's xylophonists, xylophonists!"
    told = {"question": Q, "context": context, "max_answer_len": 2, "top_k": 40, "align_to_words": True}
    texts = [found["answer"] for found in reader(**told, duplicates="text")]
    assert len(texts) == len(set(texts)) > 5
    apart = [(found["start"], found["end"]) for found in reader(**told, duplicates="overlap")]
    assert all(a[1] <= b[0] or b[1] <= a[0] for a, b in itertools.combinations(apart, 2))
    assert len(apart) > 3
    places = [(found["start"], found["end"]) for found in reader(**told)]
    assert len(places) == len(set(places)) > len(texts)


def test_offsets_count_characters_of_any_script(reader: QuestionAnswerer) -> None:
    context = "I 😀 like it.\r\n\t\u041f\u0430\u0440\u0438\u0436 🎉 är fint. "
    context += "\u202e\u05e9\u05dc\u05d5\u05dd\u202c e\u0301te\u0301"
    for found in reader(question=Q, context=context, top_k=40):
        assert context[found["start"] : found["end"]] == found["answer"] != ""


def test_a_passage_without_a_token_tells_nothing(reader: QuestionAnswerer) -> None:
    nothing = {"score": 0.0, "start": 0, "end": 0, "answer": ""}
    assert reader(question=Q, context="  \n ") == nothing
    assert reader(question=Q, context="  \n ", top_k=4) == nothing
    assert reader(question=Q, context=" ", handle_impossible_answer=True) == nothing | {"score": 1.0}
    assert reader(question=["  ", Q], context=C)[0]["answer"] in C

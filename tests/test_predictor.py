"""The predictor against evaluation, against brute force, and in size: one question gets one answer."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import run_qa
from qa import QuestionAnswerer
from qa.confidence import Calibration, read_calibration
from qa.decoding import DecodingSettings
from qa.errors import InputError
from qa.models import DEFAULT_READER, PACKAGED_READERS, ModelArguments, load_reader
from qa.predicting.reading import batches
from qa.windows import WindowSettings

SAMPLE = Path(run_qa.__file__).parent / "qa/datasets/sample/dev.json"
Q = "Who was it?"
TOWN = "Paris lies on the Seine, and Rømer measured the speed of light there in 1676. "


def sample_questions() -> list[dict[str, str]]:
    content = json.loads(SAMPLE.read_text(encoding="utf-8"))
    return [
        {"id": q["id"], "question": q["question"], "context": passage["context"]}
        for article in content["data"]
        for passage in article["paragraphs"]
        for q in passage["qas"]
    ]


def answered_sample_questions() -> list[dict[str, Any]]:
    """The answerable ones, with their golds in the form of flat records."""
    content = json.loads(SAMPLE.read_text(encoding="utf-8"))
    return [
        {"id": q["id"], "question": q["question"], "context": passage["context"], "answers": golds}
        for article in content["data"]
        for passage in article["paragraphs"]
        for q in passage["qas"]
        if (golds := {key: [a[key] for a in q["answers"]] for key in ("text", "answer_start")})["text"]
    ]


@pytest.fixture(scope="module")
def reader(vivid_reader: Path) -> QuestionAnswerer:
    return QuestionAnswerer(vivid_reader, device="cpu")


@pytest.fixture(scope="module")
def finished_run(vivid_reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader as a run leaves it: with settings, and a threshold in the middle of some null odds."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(vivid_reader, folder)
    windows = WindowSettings(max_seq_length=96, doc_stride=32, max_question_length=32)
    settings = dataclasses.asdict(windows) | dataclasses.asdict(DecodingSettings()) | {"loss": "passage"}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    plain = QuestionAnswerer(folder, device="cpu")
    assert plain.reader.windows == windows
    examples = [plain.create_sample(q["question"], q["context"]) for q in sample_questions()[:23]]
    odds = [found.null_odds for found in plain.predictions(examples)]  # type: ignore[arg-type]
    threshold = float(np.median(odds)) + 1e-3
    calibration = Calibration(threshold, 2.5, "dev", 23, 0.1, 0.2, null_temperature=2.5)
    (folder / "calibration.json").write_text(json.dumps(calibration.to_dict()), encoding="utf-8")
    return folder


def test_evaluation_and_predictor_give_the_same_answers(finished_run: Path, tmp_path: Path) -> None:
    words = ["--do_eval", "--dataset_name", "sample", "--max_eval_samples", "23", "--use_cpu"]
    words += ["--bootstrap_samples", "0", "--cache_dir", str(tmp_path / "cache"), "--disable_tqdm", "true"]
    run_qa.main([*words, "--model_name_or_path", str(finished_run), "--output_dir", str(tmp_path / "out")])
    lines = (tmp_path / "out/eval/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    evaluated = [json.loads(line) for line in lines]
    asked = sample_questions()[:23]
    assert [row["id"] for row in evaluated] == [q["id"] for q in asked]
    reader = QuestionAnswerer(finished_run, device="cpu", handle_impossible_answer=True)
    answers = reader(asked)
    assert {answer["answer"] == "" for answer in answers} == {True, False}
    for row, answer in zip(evaluated, answers, strict=True):
        assert answer["answer"] == row["answer"]
        assert (answer["start"], answer["end"]) == (row["start"] or 0, row["end"] or 0)
    # With equal texts left out, as this run was evaluated, all spans and probabilities agree, too.
    for row, spans in zip(evaluated, reader(asked, duplicates="text", top_k=21), strict=True):
        found = [span for span in spans if span["answer"]]
        assert [(span["start"], span["end"]) for span in found] == [
            (span["start"], span["end"]) for span in row["n_best"]
        ]
        assert [span["score"] for span in found] == pytest.approx([s["probability"] for s in row["n_best"]])
        (none,) = (span for span in spans if not span["answer"])
        assert none["score"] == pytest.approx(row["no_answer_probability"])
        assert spans[0]["score"] == pytest.approx(row["probability"])


def test_the_saved_threshold_decides_where_no_answer_may_be_given(finished_run: Path) -> None:
    reader = QuestionAnswerer(finished_run, device="cpu")
    assert reader.calibration.fitted_on == "dev"
    asked = sample_questions()[:23]
    always = reader(asked)
    assert all(answer["answer"] for answer in always)
    assert reader(asked, handle_impossible_answer=False) == always
    decided = reader(asked, handle_impossible_answer=True)
    assert [answer["answer"] for answer in decided].count("") == 11
    # A span has the same probability whether or not the passage may be said not to tell.
    for found, other in zip(decided, always, strict=True):
        assert found == other or (found["answer"] == "" and found["score"] > other["score"])


def test_a_set_without_unanswerable_questions_is_always_answered(finished_run: Path, tmp_path: Path) -> None:
    """SQuAD 1.1's rules: the threshold saved with the reader has no say, one given by hand has."""
    rows = [
        {"id": q["id"], "question": q["question"], "context": q["context"], "answers": q["answers"]}
        for q in answered_sample_questions()[:12]
    ]
    (tmp_path / "all.json").write_text(json.dumps(rows), encoding="utf-8")
    words = ["--do_eval", "--validation_file", str(tmp_path / "all.json"), "--use_cpu"]
    words += ["--bootstrap_samples", "0", "--cache_dir", str(tmp_path / "cache"), "--disable_tqdm", "true"]
    words += ["--model_name_or_path", str(finished_run)]
    found: dict[str, list[dict[str, Any]]] = {}
    for name, more in {"plain": [], "given": ["--null_score_diff_threshold", "-1000"]}.items():
        run_qa.main([*words, *more, "--output_dir", str(tmp_path / name)])
        lines = (tmp_path / name / "eval/predictions.jsonl").read_text(encoding="utf-8").splitlines()
        found[name] = [json.loads(line) for line in lines]
    metrics = json.loads((tmp_path / "plain/eval/metrics.json").read_text(encoding="utf-8"))
    assert metrics["signature"].startswith("squad1|")
    assert "|thresh:none|" in metrics["signature"]
    assert "threshold" not in metrics
    assert [row["answer"] for row in found["given"]] == [""] * len(rows)
    reader = QuestionAnswerer(finished_run, device="cpu")
    assert any(a["answer"] == "" for a in reader(rows, handle_impossible_answer=True))
    offered = reader(rows, duplicates="text", handle_impossible_answer=True, top_k=100)
    for row, answer, spans in zip(found["plain"], reader(rows, duplicates="text"), offered, strict=True):
        assert answer["answer"] == row["answer"] != ""
        # Here every passage tells, which the predictor cannot know: it leaves "no answer" its share.
        (none,) = (span["score"] for span in spans if not span["answer"])
        assert row["no_answer_probability"] == 0.0
        assert answer["score"] == pytest.approx((1 - none) * row["probability"])


def test_a_finished_reader_is_calibrated_on_other_questions(finished_run: Path, tmp_path: Path) -> None:
    words = ["--do_eval", "--dataset_name", "sample", "--max_eval_samples", "23", "--use_cpu"]
    words += ["--bootstrap_samples", "0", "--cache_dir", str(tmp_path / "cache"), "--disable_tqdm", "true"]
    words += ["--model_name_or_path", str(finished_run), "--output_dir", str(tmp_path / "out")]
    run_qa.main([*words, "--fit_calibration"])
    saved, fitted = (read_calibration(f / "calibration.json") for f in (finished_run, tmp_path / "out"))
    assert fitted.questions == 23
    assert fitted.threshold is not None
    assert fitted.threshold != saved.threshold
    metrics = json.loads((tmp_path / "out/eval/metrics.json").read_text(encoding="utf-8"))
    assert "|fit:oracle|" in metrics["signature"]
    assert metrics["threshold"] == fitted.threshold
    assert (metrics["temperature"], metrics["null_temperature"]) == (
        fitted.temperature,
        fitted.null_temperature,
    )
    assert metrics["expected_calibration_error"] == pytest.approx(fitted.expected_calibration_error)
    shutil.copytree(finished_run, tmp_path / "again")
    shutil.copyfile(tmp_path / "out/calibration.json", tmp_path / "again/calibration.json")
    assert QuestionAnswerer(tmp_path / "again", device="cpu").calibration == fitted


def test_readers_without_settings_get_the_removed_pipelines(reader: QuestionAnswerer) -> None:
    known = reader.reader
    assert known.windows == WindowSettings(max_seq_length=384, doc_stride=128)
    assert known.decoding.max_answer_length == 15
    assert reader.calibration == Calibration.unfitted(unanswerable=False)
    spans = reader(question=Q, context=TOWN, top_k=1000)
    assert all(span["answer"] for span in spans)
    with_null = reader(question=Q, context=TOWN, top_k=1000, handle_impossible_answer=True)
    assert [span for span in with_null if span["answer"]] == spans[: len(with_null) - 1]
    assert {"start": 0, "end": 0, "answer": ""}.items() <= next(
        s for s in with_null if not s["answer"]
    ).items()


def all_span_scores(
    reader: QuestionAnswerer, question: str, context: str
) -> tuple[dict[tuple[int, int], float], float]:
    """Start + end logit of every span of a one-window passage, by characters, and of `[CLS]`: brute force."""
    encoded = reader.tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets, parts = encoded.pop("offset_mapping")[0].tolist(), encoded.sequence_ids()
    with torch.no_grad():
        output = reader.model(**encoded)
    start, end = output.start_logits[0].double(), output.end_logits[0].double()
    inside = [at for at, part in enumerate(parts) if part == 1]
    spans = {
        (offsets[first][0], offsets[last][1]): float(start[first] + end[last])
        for first in inside
        for last in inside
        if first <= last < first + 15
    }
    return spans, float(start[0] + end[0])


def test_scores_are_shares_of_all_spans_and_no_answer(reader: QuestionAnswerer) -> None:
    context = "Rømer came from Aarhus."
    scores, null = all_span_scores(reader, Q, context)
    total = sum(math.exp(score) for score in [*scores.values(), null])
    found = reader(
        question=Q, context=context, top_k=500, align_to_words=False, handle_impossible_answer=True
    )
    assert len(found) == len(scores) + 1
    for span in found:
        expected = null if not span["answer"] else scores[span["start"], span["end"]]
        assert span["score"] == pytest.approx(math.exp(expected) / total, rel=1e-4)
    assert sum(span["score"] for span in found) == pytest.approx(1)
    order = [span["score"] for span in found[1:]]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize(
    "told", [{}, {"handle_impossible_answer": True}, {"max_seq_len": 64, "doc_stride": 32}]
)
@pytest.mark.parametrize("repeats", [1, 3, 60])
def test_scores_never_pass_one_over_the_whole_document(
    reader: QuestionAnswerer, told: dict[str, Any], repeats: int
) -> None:
    found = reader(question=Q, context=TOWN * repeats, top_k=300, **told)
    assert all(0 <= span["score"] <= 1 for span in found)
    assert sum(span["score"] for span in found) <= 1 + 1e-9


def test_what_is_added_to_a_document_only_lowers_the_scores_of_what_was_there(
    reader: QuestionAnswerer,
) -> None:
    """Scores of documents of any length compare: what stands elsewhere takes its share."""
    told = {"max_seq_len": 64, "doc_stride": 16, "top_k": 1, "align_to_words": False}
    short = reader(question=Q, context=TOWN, **told)
    long = reader(question=Q, context=TOWN * 20, **told)
    assert long["score"] < short["score"]
    one_word = reader(question=Q, context="Paris", **told)
    assert one_word["score"] < 1


def test_equal_texts_at_different_places_stay_apart_unless_asked(reader: QuestionAnswerer) -> None:
    context = "Paris, Paris and again Paris."
    told = {"top_k": 40, "max_answer_len": 1}
    apart = reader(question=Q, context=context, **told)
    assert sorted(span["start"] for span in apart if span["answer"] == "Paris") == [0, 7, 23]
    assert [span["answer"] for span in reader(question=Q, context=context, duplicates="text", **told)].count(
        "Paris"
    ) == 1
    best, second, *_ = reader(question=Q, context=context, duplicates="overlap", top_k=5)
    assert best["end"] <= second["start"] or second["end"] <= best["start"]


def test_the_best_answer_does_not_depend_on_how_many_are_asked_for(reader: QuestionAnswerer) -> None:
    for question in ("Who?", "When was it?", "Where?"):
        best = reader(question=question, context=TOWN * 3)
        assert reader(question=question, context=TOWN * 3, top_k=7)[0] == best


def test_long_questions_are_cut_with_a_warning(reader: QuestionAnswerer) -> None:
    long = "why " * 500
    with pytest.warns(UserWarning, match="1 of 2 questions were cut to max_question_len, 64 tokens.*500"):
        cut, _ = reader(question=[long, Q], context=TOWN)
    assert cut == reader(question="why " * 64, context=TOWN) | {
        "score": pytest.approx(cut["score"], rel=1e-4)
    }
    with pytest.warns(UserWarning, match="5 tokens"):
        reader(question="why " * 10, context=TOWN, max_question_len=5)


def test_a_context_is_tokenized_once_for_all_its_questions(
    reader: QuestionAnswerer, monkeypatch: Any
) -> None:
    seen: list[str] = []

    class Counting:
        def __init__(self, backend: Any) -> None:
            self.backend = backend

        def encode_batch(self, texts: list[str], **told: Any) -> Any:
            seen.extend(texts)
            return self.backend.encode_batch(texts, **told)

        def encode_batch_fast(self, texts: list[str], **told: Any) -> Any:
            return self.backend.encode_batch_fast(texts, **told)

    monkeypatch.setattr(reader._columns, "backend", Counting(reader._columns.backend))
    monkeypatch.setattr("qa.predicting.reading.QUESTIONS_AT_ONCE", 3)
    context = TOWN * 4
    answers = reader(
        question=[f"Who was number {n}?" for n in range(10)], context=context, align_to_words=False
    )
    assert len(answers) == 10
    assert seen == [context]


def test_many_questions_come_back_in_their_order(reader: QuestionAnswerer, monkeypatch: Any) -> None:
    monkeypatch.setattr("qa.predicting.reading.QUESTIONS_AT_ONCE", 4)
    asked = [{"question": f"Who {n}?", "context": TOWN * (1 + n * 7 % 5)} for n in range(11)]
    together = reader(asked)
    for one, answer in zip(asked, together, strict=True):
        alone = reader(one)
        assert answer == alone | {"score": pytest.approx(alone["score"], rel=1e-3)}
    assert list(reader(pair for pair in asked)) == [
        a | {"score": pytest.approx(a["score"], rel=1e-3)} for a in together
    ]


def test_batches_hold_windows_of_like_length_within_a_budget(reader: QuestionAnswerer) -> None:
    lengths = np.random.default_rng(0).integers(20, 384, 1000)
    options = reader._options({})
    rows = list(batches(lengths, reader.reader, options))
    assert sorted(row for batch in rows for row in batch) == list(range(1000))
    padded = [len(batch) * lengths[batch].max() for batch in rows]
    assert max(padded) <= 4096
    assert lengths.sum() / sum(padded) > 0.97
    sizes = {len(batch) for batch in batches(lengths, reader.reader, reader._options({"batch_size": 8}))}
    assert sizes == {8}


def test_streams_take_no_more_questions_than_they_answer(reader: QuestionAnswerer) -> None:
    taken = 0

    def questions() -> Iterator[dict[str, str]]:
        nonlocal taken
        for n in range(200):
            taken += 1
            yield {"question": f"Who {n}?", "context": TOWN}

    stream = reader(questions())
    assert taken == 0
    next(stream)
    assert taken == 1
    assert sum(1 for _ in stream) == 199
    taken = 0
    for answered, _ in enumerate(reader(questions(), batch_size=1), start=1):
        assert taken == answered


def peak_memory() -> int:
    """Highest resident memory since `forget_peak`, in bytes."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def forget_peak() -> None:
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not tell peak memory")


def test_a_document_of_300_000_characters_is_read_whole_in_bounded_memory(reader: QuestionAnswerer) -> None:
    needle = "The password of Grimsby harbour is xylophone."
    half = TOWN * 1925
    document = half + needle + " " + half
    assert len(document) > 300_000
    reader(question=Q, context=half[:20_000])  # what is made once
    forget_peak()
    before = peak_memory()
    (best,) = reader.rank("What is the password?", [document], top_k=1)
    grown = peak_memory() - before
    assert document[best["start"] : best["end"]] == best["answer"]
    assert grown < 120e6, f"{grown / 1e6:.0f} MB"
    # Every part was read: the last sentence is found when nothing else is offered.
    prediction = next(reader.predictions([reader.create_sample(Q, " " * 299_990 + "the end.")]))  # type: ignore[list-item]
    assert {span.text for span in prediction.n_best} >= {"end", "the end"}


@pytest.mark.parametrize("duplicates", ["keep", "text"])
def test_long_documents_are_decoded_in_stretches_as_if_at_once(
    reader: QuestionAnswerer, monkeypatch: Any, duplicates: str
) -> None:
    examples = [reader.create_sample(Q, TOWN * n) for n in (30, 2, 17, 1)]
    told = {"max_seq_len": 64, "doc_stride": 32, "duplicates": duplicates}
    expected = list(reader.predictions(examples, **told))  # type: ignore[arg-type]
    assert max(len(p.n_best) for p in expected) == 64
    monkeypatch.setattr("qa.predicting.reading.WINDOWS_AT_ONCE", 3)
    assert list(reader.predictions(examples, **told)) == expected  # type: ignore[arg-type]


def test_ranked_contexts_share_one_scale(reader: QuestionAnswerer) -> None:
    contexts = [TOWN, "Aarhus is a town in Denmark.", "   ", "Copenhagen has a round tower."]
    ranked = reader.rank(Q, contexts, top_k=400, handle_impossible_answer=True)
    assert sum(found["score"] for found in ranked) <= 1 + 1e-9
    assert {found["context"] for found in ranked} == {None, 0, 1, 3}
    for found in ranked:
        if found["context"] is not None:
            assert contexts[found["context"]][found["start"] : found["end"]] == found["answer"]
    # The better of two answers is the one with the higher logits, wherever it stands.
    raw = {}
    for at, context in enumerate(contexts):
        if context.strip():
            scores, _ = all_span_scores(reader, Q, context)
            raw |= {(at, *place): score for place, score in scores.items()}
    best = reader.rank(Q, contexts, top_k=1, align_to_words=False)[0]
    assert (best["context"], best["start"], best["end"]) == max(raw, key=raw.__getitem__)


def test_ranking_one_context_is_asking_about_it(finished_run: Path) -> None:
    reader = QuestionAnswerer(finished_run, device="cpu")
    for asked in sample_questions()[:6]:
        told = {"question": asked["question"], "top_k": 4}
        answers = reader(context=asked["context"], **told)
        ranked = reader.rank(contexts=[asked["context"]], **told)
        assert [{k: v for k, v in found.items() if k != "context"} for found in ranked] == answers
        assert [found["context"] for found in ranked] == [0 if found["answer"] else None for found in answers]


def test_nothing_to_rank(reader: QuestionAnswerer) -> None:
    with pytest.raises(InputError, match="no contexts"):
        reader.rank(Q, [])
    with pytest.raises(InputError, match="list of texts"):
        reader.rank(Q, TOWN)


def test_no_reader_in_the_box_is_said_with_the_remedy(monkeypatch: Any) -> None:
    monkeypatch.setitem(PACKAGED_READERS, DEFAULT_READER, "no/such/folder")
    with pytest.raises(InputError, match=r'no reader came with.*QuestionAnswerer\("outputs/run"\)'):
        QuestionAnswerer()


def test_the_reader_in_the_box_is_asked_where_none_is_named(monkeypatch: Any, finished_run: Path) -> None:
    monkeypatch.setitem(PACKAGED_READERS, DEFAULT_READER, str(finished_run))
    reader = QuestionAnswerer(device="cpu")
    assert reader.calibration.fitted_on == "dev"
    assert reader.reader.name == "packaged:default-reader"


def test_loaded_models_and_tokenizers(reader: QuestionAnswerer, vivid_reader: Path) -> None:
    model = load_reader(ModelArguments(), str(vivid_reader), expect_head=True)
    expected = reader(question=Q, context=TOWN)
    assert QuestionAnswerer(model, device="cpu")(question=Q, context=TOWN) == expected
    assert QuestionAnswerer(model, reader.tokenizer, device="cpu")(question=Q, context=TOWN) == expected
    assert QuestionAnswerer(model, vivid_reader, device="cpu")(question=Q, context=TOWN) == expected
    half = QuestionAnswerer(vivid_reader, device="cpu", dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert half(question=Q, context=TOWN)["answer"] in TOWN


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"model": "no/such/folder/here"}, "no such folder"),
        ({"dtype": "int8"}, "no precision"),
        ({"device": "abacus"}, "device"),
        ({"device": "cuda:99"}, "device: cuda:99 cannot be used here"),
        ({"tokenizer": object()}, "not a fast tokenizer"),
    ],
)
def test_readers_that_cannot_be(vivid_reader: Path, told: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        QuestionAnswerer(**({"model": vivid_reader} | told))


def test_broken_settings_are_named(finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(finished_run, folder)
    (folder / "settings.yaml").write_text("max_seq_length: [1, 2]\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"settings\.yaml: cannot be read"):
        QuestionAnswerer(folder, device="cpu")


def test_an_adapters_folder_is_asked_like_a_reader(vivid_reader: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    from qa.peft_methods.attaching import attach

    torch.manual_seed(3)
    config = LoraConfig(
        task_type="QUESTION_ANS", r=2, target_modules=["query", "value"], init_lora_weights=False
    )
    adapted = attach(load_reader(ModelArguments(), str(vivid_reader)), "reader", config=config)
    folder = tmp_path / "adapter"
    adapted.save_pretrained(str(folder))
    saved = {
        "model_name_or_path": str(vivid_reader),
        "max_seq_length": 96,
        "doc_stride": 32,
        "max_question_length": 32,
        "strategy": "lora",
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(saved), encoding="utf-8")
    reader = QuestionAnswerer(folder, device="cpu")
    assert reader.reader.windows == WindowSettings(max_seq_length=96, doc_stride=32, max_question_length=32)
    whole = QuestionAnswerer(adapted.eval(), vivid_reader, device="cpu", max_seq_len=96, doc_stride=32)
    told = {"question": Q, "context": TOWN * 3, "align_to_words": False, "max_answer_len": 30}
    assert reader(**told)["answer"] == whole(**told)["answer"]
    assert reader(**told)["answer"] != QuestionAnswerer(vivid_reader, device="cpu")(**told)["answer"]


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, qa; print(sorted({'torch', 'transformers', 'numpy'} & sys.modules.keys())); qa.nothing"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "[]"
    assert "module 'qa' has no attribute 'nothing'" in done.stderr

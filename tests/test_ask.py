"""`python -m qa.ask`: what it prints, what it reads, and how it says what is wrong."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qa import QuestionAnswerer, ask
from qa.confidence import Calibration
from qa.documents import html_text, markdown_text, read_document
from qa.errors import InputError
from qa.predicting.answers import Words, apart, overlap

C = "Ole Rømer came to Paris in 1672.\nHe timed the eclipses of Io. Cassini doubted him."
Q = "Who came?"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "passage.txt"
    path.write_text(C, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def reader(vivid_reader: Path) -> QuestionAnswerer:
    return QuestionAnswerer(vivid_reader, device="cpu")


def run(*words: Any) -> int:
    return ask.main([str(word) for word in words])


def test_the_answer_stands_in_its_sentence_with_runners_up(
    vivid_reader: Path, reader: QuestionAnswerer, document: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(ask, "LEAST_SHOWN", 0.0)
    assert run("--model", vivid_reader, "--context-file", document, "--device", "cpu", Q) == 0
    best, sentence, *others = capsys.readouterr().out.splitlines()
    expected = apart(reader.rank(Q, [C], top_k=80, align_to_words=True, duplicates="text"))[:4]
    one_line = expected[0]["answer"].replace("\n", " ")
    assert best == f"{one_line} ({expected[0]['score']:.0%})"
    assert f"[[{one_line}]]" in sentence
    assert len(expected) > 1
    assert others == [f"  or {e['score']:.0%}: {' '.join(e['answer'].split())}" for e in expected[1:]]


def test_words_without_quotes_are_one_question(vivid_reader: Path, document: Path, capsys: Any) -> None:
    run("--model", vivid_reader, "--context-file", document, "--device", "cpu", "--json", *Q.split())
    first = capsys.readouterr().out
    assert json.loads(first)["question"] == Q
    run(Q, "--model", vivid_reader, "--json", "--context-file", document, "--device", "cpu")
    assert capsys.readouterr().out == first


def test_json_for_programs(vivid_reader: Path, reader: QuestionAnswerer, document: Path, capsys: Any) -> None:
    run("--model", vivid_reader, "--context-file", document, "--device", "cpu", "--json", "--top-k", 2, Q)
    content = json.loads(capsys.readouterr().out)
    ranked = reader.rank(Q, [C], top_k=80, align_to_words=True, duplicates="text")
    best, second, *_ = ({k: v for k, v in r.items() if k != "context"} for r in apart(ranked))
    assert set(content) == {"question", "answer", "score", "start", "end", "sentence", "file", "alternatives"}
    assert content["question"] == Q
    assert content["file"] == str(document)
    assert {name: content[name] for name in best} == best
    assert content["answer"] in content["sentence"]
    assert [other["answer"] for other in content["alternatives"]] == [second["answer"]]


def test_a_loop_of_questions_until_an_empty_line(
    vivid_reader: Path, document: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Who?\nWhen?\n\nNever?\n"))
    assert run("--model", vivid_reader, "--context-file", document, "--json", "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["question"] for line in lines] == ["Who?", "When?"]


def test_several_documents_and_a_page(
    vivid_reader: Path, document: Path, tmp_path: Path, capsys: Any
) -> None:
    other = tmp_path / "other.md"
    other.write_text("# Aarhus\n\n*Aarhus* is a town in **Denmark**.\n", encoding="utf-8")
    page = tmp_path / "why.html"
    words = ["--context-file", document, "--context-file", other, "--device", "cpu"]
    run("--model", vivid_reader, *words, "--html", page, Q)
    out = capsys.readouterr().out
    assert str(document) in out or str(other) in out
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_runners_up_are_whole_words_and_other_answers(
    vivid_reader: Path, reader: QuestionAnswerer, tmp_path: Path
) -> None:
    context = "Unforgettably, Grimsbyshire's xylophonists rehearsed 1681 times."
    words = Words(reader.tokenizer.backend_tokenizer)
    for question in (Q, "How often?", "What did they do?", "Where?"):
        found = ask.ask(reader, question, [context, C], top_k=12)
        places = [(f["context"], f["start"], f["end"]) for f in found]
        assert len(places) > 2
        assert not any(overlap(one, other) for one, other in itertools.combinations(places, 2))
        spans = [(start, end) for _, start, end in places]
        assert words.aligned([[context, C][at] for at, _, _ in places], spans) == spans
        texts = [(f["context"], f["answer"]) for f in found]
        assert len(set(texts)) == len(texts)


def test_what_overlaps_a_better_answer_is_left_out() -> None:
    ranked: list[Any] = [answer("eclipses of"), NOTHING, answer("of Io"), answer("Io"), answer("eclipses")]
    ranked.append(answer("eclipses", context=1))
    assert apart(ranked) == [ranked[0], NOTHING, ranked[3], ranked[5]]


def test_only_a_reader_that_knows_unanswerable_questions_says_that_a_passage_does_not_tell(
    reader: QuestionAnswerer, monkeypatch: Any
) -> None:
    assert all(found["answer"] for found in ask.ask(reader, Q, [C], top_k=20))
    knows = dataclasses.replace(reader.reader, calibration=Calibration(-1000.0, 1.0, "dev", 1, 0.1, 0.1))
    monkeypatch.setattr(reader, "reader", knows)
    assert ask.ask(reader, Q, [C], top_k=2)[0]["answer"] == ""


def answer(text: str, **more: Any) -> dict[str, Any]:
    start = C.index(text)
    return {"score": 0.87, "start": start, "end": start + len(text), "answer": text, "context": 0} | more


NOTHING = {"score": 0.6, "start": 0, "end": 0, "answer": "", "context": None}


def test_colours_only_where_they_are_wanted(monkeypatch: Any) -> None:
    plain = ask.to_text([answer("eclipses"), NOTHING], [C], ["a.txt"], colours=False)
    found = ask.to_text(
        [answer("eclipses"), NOTHING, answer("Io", score=0.009)], [C], ["a.txt"], colours=False
    )
    assert found == plain
    assert plain == "eclipses (87%)\n  He timed the [[eclipses]] of Io.\n  or 60%: the passage does not tell"
    assert "\033" not in plain
    coloured = ask.to_text([answer("eclipses")], [C], ["a.txt"], colours=True)
    assert f"{ask.BOLD}eclipses{ask.PLAIN} of Io." in coloured

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert ask.wants_colours(Terminal())
    assert not ask.wants_colours(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not ask.wants_colours(Terminal())


def test_no_answer_is_said() -> None:
    text = ask.to_text([NOTHING, answer("Io")], [C], ["a.txt"], colours=False)
    assert text.splitlines() == ["The passage does not tell (60%).", "  or 87%: Io"]
    content = ask.to_json(Q, [NOTHING, answer("Io")], [C], ["a.txt"])
    assert content["answer"] is content["start"] is content["sentence"] is content["file"] is None
    assert content["alternatives"][0]["sentence"] == "He timed the eclipses of Io."


def test_escape_sequences_of_a_document_do_not_reach_the_terminal() -> None:
    context = "Red \033[31malert\a in Paris. End."
    found = {"score": 0.5, "start": 4, "end": 15, "answer": context[4:15], "context": 0}
    shown = ask.to_text([found], [context], ["x"], colours=False)
    assert "\033" not in shown
    assert "\a" not in shown


@pytest.mark.parametrize(
    ("text", "inside", "sentence"),
    [
        (C, "Io", "He timed the eclipses of Io."),
        (C, "doubted", "Cassini doubted him."),
        (C, "Cassini", "Cassini doubted him."),
        (C, "Io.", "He timed the eclipses of Io."),
        ("It cost 3.5 kronor in all. Later 4.", "kronor", "It cost 3.5 kronor in all."),
        ('He said "No." She left.', "No", 'He said "No."'),
        ("A title\n\nThe text is short", "text", "The text is short"),
        ("e.g. this one. Next.", "this", "e.g. this one."),
        ("One. Two three. Four", "One. Two", "One. Two three."),
        ("one word", "word", "one word"),
    ],
)
def test_sentences(text: str, inside: str, sentence: str) -> None:
    start = text.index(inside)
    first, last = ask.sentence_around(text, start, start + len(inside))
    assert text[first:last] == sentence


def test_a_text_without_sentences_is_shown_in_part() -> None:
    text = "x " * 5000
    first, last = ask.sentence_around(text, 4000, 4001)
    assert (first, last) == (3700, 4301)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--context-file", "nothing.txt", Q], "nothing.txt: cannot be read (No such file or directory)"),
        (["--context-file", "-"], "standard input is the document"),
        (["--context-file", "-", ""], "the question is empty"),
        (["--context-file", "-", "--top-k", "0", Q], "--top-k: 0 is out of range"),
        (["--context-file", "empty.txt", Q], "empty.txt: holds no text"),
        (["--context-file", "latin.txt", Q], "latin.txt: is not text in utf-8"),
        (["--context-file", "binary.txt", Q], "binary.txt: is no text"),
    ],
)
def test_mistakes_are_one_line_and_status_2(words: list[str], message: str, tmp_path: Path) -> None:
    files = {
        "empty.txt": b" \n",
        "latin.txt": "é".encode("latin-1"),
        "binary.txt": b"a\0b",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    environment = os.environ | {"PYTHONPATH": str(Path(ask.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "qa.ask", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("qa.ask: ")
    assert message in line


def test_a_reader_that_is_not_there(document: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        run("--context-file", document, "--model", "no/such/reader/x", Q)


def test_standard_input_is_a_document(monkeypatch: Any) -> None:
    class Input:
        buffer = io.BytesIO(C.encode("utf-8-sig").replace(b"\n", b"\r\n"))

    monkeypatch.setattr(sys, "stdin", Input())
    assert read_document("-") == C


def test_text_files_in_their_encodings(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes(C.encode(encoding))
        assert read_document(str(path)) == C


def test_markdown_without_its_marks() -> None:
    source = """# The *speed* of light #

Ole [Rømer](https://example.org/a_(b) "title") came to **Paris** in __1672__.
> A snake_case_name and 2 * 3 * 4 stay.

- first `code`
2. second ![image](x.png)

---
```python
x = 1
```
[ref]: https://example.org
<!-- hidden -->"""
    assert markdown_text(source) == (
        "The speed of light\n\nOle Rømer came to Paris in 1672.\n"
        "A snake_case_name and 2 * 3 * 4 stay.\n\nfirst code\nsecond image\n\nx = 1"
    )


def test_the_visible_text_of_a_page(tmp_path: Path) -> None:
    page = """<!DOCTYPE html><html><head><title>Title</title><style>p { color: red }</style>
    <script>if (a < b) document.write("<p>no</p>")</script></head><body>
    <h1>Light &amp; time</h1><p>R&oslash;mer came to <b>Par</b>is&nbsp;in
    1672.<p>Twice<br/>so.<ul><li>one<li>two</ul><noscript>no</noscript><template>no</template></body></html>"""
    expected = "Light & time\n\nRømer came to Paris in 1672.\n\nTwice\nso.\n\none\n\ntwo"
    assert html_text(page) == expected
    file = tmp_path / "page.HTM"
    file.write_bytes('<meta charset="iso-8859-1"><p>Rømer'.encode("latin-1"))
    assert read_document(str(file)) == "Rømer"


def small_pdf(text: str) -> bytes:
    """A PDF of one page that says `text`, written by hand."""
    stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return (
        out
        + b"xref\n0 6\n0000000000 65535 f \n%strailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF"
        % (
            table,
            len(out),
        )
    )


def test_pdf_files(tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="PDF files need the extra `pdf`")
    file = tmp_path / "a.pdf"
    file.write_bytes(small_pdf("Cassini doubted it."))
    assert read_document(str(file)).strip() == "Cassini doubted it."
    file.write_bytes(small_pdf(""))
    with pytest.raises(InputError, match="pictures but no text"):
        read_document(str(file))
    file.write_bytes(b"no pdf at all")
    with pytest.raises(InputError, match="cannot be read as a PDF"):
        read_document(str(file))


def test_pdf_without_its_library(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "a.pdf"
    file.write_bytes(small_pdf("x"))
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(InputError, match=r"pip install 'spanbert-qa\[pdf\]'"):
        read_document(str(file))

"""Text of the documents that people ask about: plain text, Markdown, HTML and PDF."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

from qa.errors import InputError

SUFFIXES = {".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html", ".pdf": "pdf"}
"""How a file is read; any other suffix: as plain text."""

STANDARD_INPUT = "-"
_BLOCKS = frozenset(
    [
        *("address", "article", "aside", "blockquote", "body", "dd", "div", "dl", "dt", "fieldset", "figure"),
        *("figcaption", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main"),
        *("nav", "ol", "p", "pre", "section", "table", "tr", "ul"),
    ]
)
_LINES = frozenset(["br", "option", "td", "th"])
_UNSEEN = ("head", "script", "style", "template", "noscript", "svg", "math")


def read_document(name: str) -> str:
    """The text of a file, or of standard input for "-". Answers' offsets count its characters.

    Raises InputError for what cannot be read, is not UTF-8 (HTML and PDF say their own encoding), or holds no
    text.
    """
    if name == STANDARD_INPUT:
        text = _decoded(sys.stdin.buffer.read(), "standard input")
    else:
        path = Path(name).expanduser()
        kind = SUFFIXES.get(path.suffix.lower(), "text")
        try:
            text = pdf_text(path) if kind == "pdf" else _text(path, kind)
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the path") from error
    if not text.strip():
        raise InputError(f"{name}: holds no text")
    return text


def _text(path: Path, kind: str) -> str:
    content = path.read_bytes()
    if kind == "html":
        return html_text(_decoded(content, str(path), _declared_charset(content)))
    text = _decoded(content, str(path))
    return markdown_text(text) if kind == "markdown" else text


def _decoded(content: bytes, place: str, charset: str | None = None) -> str:
    encodings = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    encoding = encodings.get(content[:2], charset or "utf-8-sig")
    try:
        text = content.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        raise InputError(f"{place}: is not text in {encoding}; save it as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{place}: is no text (it holds zero bytes); give .txt, .md, .html or .pdf")
    return text.replace("\r\n", "\n")


def _declared_charset(content: bytes) -> str | None:
    found = re.search(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]+)""", content[:2048], re.IGNORECASE)
    return found[1].decode("ascii") if found else None


def markdown_text(text: str) -> str:
    """Markdown without its marks: what is read is what a reader sees. Code keeps its lines."""
    rules = (
        (r"^(```|~~~).*$", ""),
        (r"<!--.*?-->", ""),
        (r"^ {0,3}#{1,6}[ \t]+(.*?)[ \t]*#*$", r"\1\n"),
        (r"^ {0,3}>[ \t]?", ""),
        (r"^[ \t]*(?:[-*_][ \t]*){3,}$", ""),
        (r"^([ \t]*)(?:[-*+]|\d+\.)[ \t]+", r"\1"),
        (r"^[ \t]*\[[^\]]+\]:[ \t]+\S+.*$", ""),
        (r"!?\[([^\]]*)\]\((?:[^()\s]|\([^()]*\))*(?:\s+\"[^\"]*\")?\)", r"\1"),
        (r"\[([^\]]+)\]\[[^\]]*\]", r"\1"),
        (r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2"),
        (r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])", r"\1"),
        (r"(?<!\w)_(?=\S)([^_\n]+?)(?<=\S)_(?!\w)", r"\1"),
        (r"`([^`\n]+)`", r"\1"),
    )
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


class _VisibleText(HTMLParser):
    """Collects what a browser shows."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._unseen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen.append(tag)
        if tag == "body":  # a head that nobody closed ends here
            self._unseen.clear()
        self._break(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._unseen:
            del self._unseen[self._unseen.index(tag) :]
        self._break(tag)

    def _break(self, tag: str) -> None:
        if tag in _BLOCKS or tag in _LINES:
            self.pieces.append("\n\n" if tag in _BLOCKS else "\n")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.pieces.append(re.sub(r"\s+", " ", data))


def html_text(page: str) -> str:
    """The visible text of a page, an empty line between blocks."""
    parser = _VisibleText()
    parser.feed(page)
    parser.close()
    lines = (re.sub(r"[ \xa0]+", " ", line).strip() for line in "".join(parser.pieces).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def pdf_text(path: Path) -> str:
    """The text of all pages, with words put together again that were split at a line's end."""
    try:
        from pypdf import PdfReader
        from pypdf.errors import PdfReadError, PyPdfError
    except ImportError:
        raise InputError(f"{path}: PDF files need pypdf; run `pip install 'spanbert-qa[pdf]'`") from None
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError(f"{path}: is protected by a password; save a copy without it")
        pages = [page.extract_text() for page in reader.pages]
    except (PdfReadError, PyPdfError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as a PDF ({error})") from error
    text = "\n\n".join(pages).replace("\0", "")
    if not text.strip():
        raise InputError(f"{path}: its pages hold pictures but no text; run text recognition (OCR) over it")
    return re.sub(r"(?<=[a-z])-\n(?=[a-z])", "", text)

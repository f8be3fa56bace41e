"""The text of a document's file: plain text, the text layer of a PDF, or a DOCX, with tables in reading order.

Pictures and scans have no text. They are refused with what to do, never read as an empty document.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_PAGES = 1000
MAX_XML_BYTES = 64 * 1024 * 1024
SUFFIXES = (".txt", ".text", ".md", ".csv", ".tsv", ".pdf", ".docx")
"""What is read from a folder."""
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"GIF8", b"BM", b"RIFF")
_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_OCR = "recognise its text first, for example with `ocrmypdf IN.pdf OUT.pdf`, or send the picture to a model that sees"
_SAME_LINE = 0.5
"""Share of the lower height by which two pieces of text overlap if they are on one line."""
_WIDE_GAP = 1.5
"""Widths of a character from which a gap parts two cells."""


class UnreadableFileError(Exception):
    """A file's text can't be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece of text on a page: its box in points, y growing upwards."""

    left: float
    bottom: float
    right: float
    top: float
    text: str


def read_document(path: Path) -> str:
    """Return the text of a file. Raise UnreadableFileError."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UnreadableFileError(f"{path} has {size} bytes; at most {MAX_FILE_BYTES} are read: split it")
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"{path} can't be read: {error.strerror or error}") from None
    return text_of(content, str(path))


def text_of(content: bytes, name: str) -> str:
    """Return the text in the bytes of a file; `name` names it in errors. Raise UnreadableFileError."""
    if content.startswith(b"%PDF-"):
        return _text_of_pdf(content, name)
    if content.startswith(b"PK\x03\x04"):
        return _text_of_docx(content, name)
    if content.startswith(_PICTURES):
        raise UnreadableFileError(f"{name} is a picture without text: {_OCR}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableFileError(
            f"{name} is neither UTF-8 text nor a PDF nor a DOCX; convert it, or save it as UTF-8"
        ) from None


def documents_in(folder: Path) -> list[Path]:
    """Return the files of a folder, and of those in it, that `read_document` reads, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _text_of_pdf(content: bytes, name: str) -> str:
    try:
        import pypdfium2
    except ImportError:
        raise UnreadableFileError(
            f"{name} is a PDF; reading one needs the extra `documents`: pip install '.[documents]' from the checkout"
        ) from None
    try:
        with pypdfium2.PdfDocument(content) as pdf:
            if len(pdf) > MAX_PAGES:
                raise UnreadableFileError(f"{name} has {len(pdf)} pages; at most {MAX_PAGES} are read: split it")
            pages = [_lines(list(_pieces(page))) for page in pdf]
    except pypdfium2.PdfiumError as error:
        raise UnreadableFileError(
            f"{name} is no PDF that can be opened (damaged, or with a password): {error}"
        ) from None
    text = "\n\n".join(page for page in pages if page)
    if not text.strip():
        raise UnreadableFileError(f"{name} has no text layer, it seems to be a scan: {_OCR}")
    return text


def _pieces(page: object) -> Iterator[_Piece]:
    text_page = page.get_textpage()  # type: ignore[attr-defined]
    try:
        for number in range(text_page.count_rects()):
            left, bottom, right, top = text_page.get_rect(number)
            text = text_page.get_text_bounded(left, bottom, right, top).strip()
            if text:
                yield _Piece(left=left, bottom=bottom, right=right, top=top, text=" ".join(text.split()))
    finally:
        text_page.close()


def _lines(pieces: list[_Piece]) -> str:
    """Return pieces of text as lines from top to bottom, each from left to right, with wide gaps kept wide."""
    rows: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda p: (-p.top, p.left)):
        row = next((row for row in reversed(rows[-3:]) if _on_one_line(row[0], piece)), None)
        if row is None:
            rows.append([piece])
        else:
            row.append(piece)
    return "\n".join(_joined(sorted(row, key=lambda p: p.left)) for row in rows)


def _on_one_line(one: _Piece, other: _Piece) -> bool:
    overlap = min(one.top, other.top) - max(one.bottom, other.bottom)
    return overlap > _SAME_LINE * min(one.top - one.bottom, other.top - other.bottom)


def _joined(row: list[_Piece]) -> str:
    line = row[0].text
    for before, piece in pairwise(row):
        width = (piece.right - piece.left) / max(1, len(piece.text))
        gap = piece.left - before.right
        line += ("   " if gap > _WIDE_GAP * width else " " if gap > width / 4 else "") + piece.text
    return line


def _text_of_docx(content: bytes, name: str) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entry = archive.getinfo("word/document.xml")
            if entry.file_size > MAX_XML_BYTES:
                raise UnreadableFileError(f"{name} unpacks to {entry.file_size} bytes; split it")
            with archive.open(entry) as file:
                xml = file.read(MAX_XML_BYTES + 1)
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError):
        raise UnreadableFileError(
            f"{name} is an archive, but no DOCX that can be opened; save it as PDF or text"
        ) from None
    if len(xml) > MAX_XML_BYTES or b"<!DOCTYPE" in xml[:4096]:
        raise UnreadableFileError(f"{name} holds what no word processor writes; save it as PDF or text")
    try:
        body = ElementTree.fromstring(xml).find(f"{_WORD}body")  # noqa: S314 - bounded, and no DTD
    except ElementTree.ParseError as error:
        raise UnreadableFileError(f"{name} is a damaged DOCX: {error}") from None
    text = "" if body is None else "\n".join(_blocks(body))
    if not text.strip():
        raise UnreadableFileError(f"{name} holds no text; if it holds pictures, {_OCR}")
    return text


def _blocks(parent: ElementTree.Element) -> Iterator[str]:
    """Yield the paragraphs and the rows of tables in their order."""
    for element in parent:
        if element.tag == f"{_WORD}p":
            yield _paragraph(element)
        elif element.tag == f"{_WORD}tbl":
            for row in element.iter(f"{_WORD}tr"):
                cells = [" ".join(_blocks(cell)).strip() for cell in row.findall(f"{_WORD}tc")]
                yield " | ".join(cells)
        elif element.tag in (f"{_WORD}sdt", f"{_WORD}sdtContent"):
            yield from _blocks(element)


def _paragraph(paragraph: ElementTree.Element) -> str:
    words: list[str] = []
    for element in paragraph.iter():
        if element.tag == f"{_WORD}t":
            words.append(element.text or "")
        elif element.tag == f"{_WORD}tab":
            words.append("\t")
        elif element.tag in (f"{_WORD}br", f"{_WORD}cr"):
            words.append("\n")
    return "".join(words)

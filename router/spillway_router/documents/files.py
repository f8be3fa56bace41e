"""The text of a document's file: plain text, a PDF, a DOCX or a picture, with tables in reading order.

Pictures and scanned pages have no text. A recogniser (recognition.py) reads them; without one they are refused with
what to do, never read as an empty document. A page without text that shows a picture is a scanned one.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spillway_router.documents.page_lines import PageText, Piece, lines_of_pieces
from spillway_router.documents.recognition import Recogniser, RecognitionError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_PAGES, MAX_SCANNED_PAGES = 1000, 50
MAX_XML_BYTES = 64 * 1024 * 1024
SUFFIXES = (
    *(".txt", ".text", ".md", ".csv", ".tsv", ".pdf", ".docx"),
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"),
)
"""What is taken from a folder."""
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"GIF8", b"BM", b"RIFF")
_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_CONTROLS = (f"{_WORD}sdt", f"{_WORD}sdtContent")
_MOST_DEPTH = 50
_OCR = "recognise its text first, for example with `ocrmypdf IN.pdf OUT.pdf`, or send the picture to a model that sees"
_IMAGE = 3
"""pdfium's number for a picture among the objects of a page."""
_POINTS_PER_INCH, _SCAN_DPI, _MOST_PIXELS = 72.0, 200.0, 4400.0
"""Pages are drawn for the recogniser at this resolution, and at most so many pixels wide or high."""


class UnreadableFileError(Exception):
    """A file's text can't be read; the message says why and what to do."""


class LongFileError(UnreadableFileError):
    """A file has more text than is taken."""


class _TooDeepError(Exception):
    """Tables are nested too deep."""


@dataclass(frozen=True, slots=True)
class FileText:
    """The text of a file. `recognised`: at least a part of it was read from pictures; `unsure` are the places
    [start, end) of words that were recognised with doubts."""

    text: str
    recognised: bool = False
    unsure: tuple[tuple[int, int], ...] = ()


def bytes_of(path: Path) -> bytes:
    """Return the content of a file. Raise UnreadableFileError."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UnreadableFileError(f"{path} has {size} bytes; at most {MAX_FILE_BYTES} are read: split it")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"{path} can't be read: {error.strerror or error}") from None


def is_text(content: bytes) -> bool:
    """Return whether a file is neither a PDF nor an archive nor a picture."""
    return not content.startswith((b"%PDF-", b"PK\x03\x04", *_PICTURES))


def text_of(content: bytes, name: str, recogniser: Recogniser | None = None) -> FileText:
    """Return the text in the bytes of a file; `name` names it in errors. Raise UnreadableFileError."""
    if content.startswith(b"%PDF-"):
        return _text_of_pdf(content, name, recogniser)
    if content.startswith(b"PK\x03\x04"):
        return FileText(_text_of_docx(content, name))
    if content.startswith(_PICTURES):
        page = _recognised(content, f"{name} is a picture without text", recogniser)
        if not page.text.strip():
            raise UnreadableFileError(f"{name} is a picture in which no text was recognised; send a sharper one")
        return FileText(page.text, recognised=True, unsure=page.unsure)
    try:
        return FileText(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UnreadableFileError(
            f"{name} is neither UTF-8 text nor a PDF, a DOCX or a picture; convert it, or save it as UTF-8"
        ) from None


def documents_in(folder: Path) -> list[Path]:
    """Return the files of a folder, and of those in it, that `text_of` reads, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _recognised(picture: bytes, what: str, recogniser: Recogniser | None) -> PageText:
    if recogniser is None:
        raise UnreadableFileError(f"{what}: {_OCR}")
    try:
        return recogniser.page(picture)
    except RecognitionError as error:
        raise UnreadableFileError(f"{what}: {error}") from None


def _text_of_pdf(content: bytes, name: str, recogniser: Recogniser | None) -> FileText:
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
            pages, scanned = _pages(pdf, name, recogniser)
    except pypdfium2.PdfiumError as error:
        raise UnreadableFileError(
            f"{name} is no PDF that can be opened (damaged, or with a password): {error}"
        ) from None
    page = PageText.joined(pages, "\n\n")
    if not page.text.strip():
        recognised = "and none was recognised" if scanned else f"it seems to be a scan: {_OCR}"
        raise UnreadableFileError(f"{name} has no text layer, {recognised}")
    return FileText(page.text, recognised=scanned > 0, unsure=page.unsure)


def _pages(pdf: Any, name: str, recogniser: Recogniser | None) -> tuple[list[PageText], int]:
    """Return the text of every page, and how many were recognised."""
    pages: list[PageText] = []
    scanned = 0
    for number, page in enumerate(pdf, 1):
        text = lines_of_pieces(list(_pieces(page)))
        if not text.text.strip() and _shows_pictures(page):
            scanned += 1
            if scanned > MAX_SCANNED_PAGES:
                message = f"{name} has more than {MAX_SCANNED_PAGES} scanned pages; split it, or recognise it first"
                raise UnreadableFileError(message)
            what = f"{name} has no text layer on page {number}, it seems to be a scan"
            text = _recognised(_drawn(page) if recogniser else b"", what, recogniser)
        pages.append(text)
    return pages, scanned


def _shows_pictures(page: Any) -> bool:
    return any(item.type == _IMAGE for item in page.get_objects(max_depth=3))


def _drawn(page: Any) -> bytes:
    """Return a page as a grey picture in PNM."""
    width, height = page.get_size()
    scale = min(_SCAN_DPI / _POINTS_PER_INCH, _MOST_PIXELS / max(width, height, 1.0))
    bitmap = page.render(scale=scale, grayscale=True)
    try:
        rows = bytes(bitmap.buffer)
        pixels = b"".join(rows[y * bitmap.stride : y * bitmap.stride + bitmap.width] for y in range(bitmap.height))
        return b"P5\n%d %d\n255\n" % (bitmap.width, bitmap.height) + pixels
    finally:
        bitmap.close()


def _pieces(page: Any) -> Iterator[Piece]:
    text_page = page.get_textpage()
    try:
        for number in range(text_page.count_rects()):
            left, bottom, right, top = text_page.get_rect(number)
            text = text_page.get_text_bounded(left, bottom, right, top).strip()
            if text:
                yield Piece(left=left, bottom=bottom, right=right, top=top, text=" ".join(text.split()))
    finally:
        text_page.close()


def _text_of_docx(content: bytes, name: str) -> str:
    from xml.etree import ElementTree  # here, since a router that only hands files over needs no parser

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
    if len(xml) > MAX_XML_BYTES or b"<!DOCTYPE" in xml.replace(b"\0", b""):  # in UTF-16, too
        raise UnreadableFileError(f"{name} holds what no word processor writes; save it as PDF or text")
    try:
        body = ElementTree.fromstring(xml).find(f"{_WORD}body")  # noqa: S314 - bounded, and no DTD
    except ElementTree.ParseError as error:
        raise UnreadableFileError(f"{name} is a damaged DOCX: {error}") from None
    try:
        text = "" if body is None else "\n".join(_blocks(body))
    except _TooDeepError:
        message = f"{name} has tables nested deeper than {_MOST_DEPTH} levels; save it as PDF or text"
        raise UnreadableFileError(message) from None
    if not text.strip():
        raise UnreadableFileError(f"{name} holds no text; if it holds pictures, {_OCR}")
    return text


def _blocks(parent: Element, depth: int = 0) -> Iterator[str]:
    """Yield the paragraphs and the rows of tables in their order. Raise _TooDeepError for tables in tables beyond what
    people write."""
    if depth > _MOST_DEPTH:
        raise _TooDeepError
    for element in parent:
        if element.tag == f"{_WORD}p":
            yield _paragraph(element)
        elif element.tag == f"{_WORD}tbl":
            for row in _within(element, f"{_WORD}tr"):
                cells = [" ".join(_blocks(cell, depth + 1)).strip() for cell in _within(row, f"{_WORD}tc")]
                yield " | ".join(cells)
        elif element.tag in _CONTROLS:
            yield from _blocks(element, depth + 1)


def _within(parent: Element, tag: str) -> Iterator[Element]:
    """Yield the children with a tag, those in content controls too. Those of tables within are not among them: each
    would be read once for every table around it."""
    waiting = list(parent)[::-1]
    while waiting:
        element = waiting.pop()
        if element.tag == tag:
            yield element
        elif element.tag in _CONTROLS:
            waiting += list(element)[::-1]


def _paragraph(paragraph: Element) -> str:
    words: list[str] = []
    for element in paragraph.iter():
        if element.tag == f"{_WORD}t":
            words.append(element.text or "")
        elif element.tag == f"{_WORD}tab":
            words.append("\t")
        elif element.tag in (f"{_WORD}br", f"{_WORD}cr"):
            words.append("\n")
    return "".join(words)

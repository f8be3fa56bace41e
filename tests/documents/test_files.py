"""Files as documents: PDF with a text layer, DOCX, text, folders; pictures and scans are refused with what to do."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
from tests.documents.command import command
from tests.documents.harness import setup
from tests.documents.office_files import docx, paragraph, pdf, table
from tests.documents.papers import answer

from spillway_router.documents.captions.reading import read_captions
from spillway_router.documents.files import UnreadableFileError, bytes_of, documents_in, text_of
from spillway_router.documents.schemas import shipped_schemas

ROWS = [("AL [mm]", "23.87", "24.55"), ("K flat [D]", "43.10", "41.90"), ("K steep [D]", "44.90", "43.05"),
        ("ACD", "3.21", "3.01"), ("LT", "4.41", "4.15"), ("WTW", "11.9", "12.0")]  # fmt: skip
TRUTH = {"id": "K402211", "eye": "OS", "AL": 24.55, "K1": 41.9, "K2": 43.05, "ACD": 3.01, "LT": 4.15, "WTW": 12.0}
HEAD = [(60.0, 780.0, "Biometry (summary)"), (60.0, 760.0, "Patient ID: K402211"), (300.0, 760.0, "Eye: OS")]
COLUMNS = [(200.0, 740.0, "OD"), (300.0, 740.0, "OS")]
# Column by column, as some programs write tables: the lines must be put together again.
CELLS = [
    (x, 720.0 - 15 * n, row[column]) for column, x in enumerate((60.0, 200.0, 300.0)) for n, row in enumerate(ROWS)
]
REPORT = pdf([[*HEAD, *COLUMNS, *CELLS]])


def test_a_table_of_a_pdf_is_read_line_by_line() -> None:
    text = text_of(REPORT, "report.pdf").text
    assert text.splitlines()[:4] == [
        "Biometry (summary)", "Patient ID: K402211   Eye: OS", "OD   OS", "AL [mm]   23.87   24.55",
    ]  # fmt: skip
    schema = shipped_schemas()["biometry"]
    reading = read_captions(text, schema.json_schema, schema.captions())
    assert (reading.values, reading.confidence) == (TRUTH, 0.99)


def test_pages_follow_each_other() -> None:
    assert text_of(pdf([[(60, 700, "one")], [], [(60, 700, "two")]]), "a.pdf").text == "one\n\ntwo"


def test_paragraphs_and_tables_of_a_docx_are_read_in_their_order() -> None:
    body = paragraph("Patient ID: K402211, Eye: OS") + table([("", "OD", "OS"), *ROWS]) + paragraph("End")
    text = text_of(docx(body), "report.docx").text
    assert text.splitlines()[1:3] == [" | OD | OS", "AL [mm] | 23.87 | 24.55"]
    schema = shipped_schemas()["biometry"]
    assert read_captions(text, schema.json_schema, schema.captions()).values == TRUTH


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pdf([[]]), "ocrmypdf"),
        (b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n", "no PDF that can be opened"),
        (b"\x89PNG\r\n\x1a\n", "ocrmypdf"),
        (b"\xff\xd8\xff\xe0", "ocrmypdf"),
        (b"PK\x03\x04 nothing", "no DOCX"),
        (docx(""), "holds no text"),
        (docx("<w:p>").replace(b"w:body", b"w:bods"), "DOCX"),
        ("Länge".encode("latin-1"), "UTF-8"),
    ],
)
def test_what_has_no_text_is_refused_with_what_to_do(data: bytes, words: str) -> None:
    with pytest.raises(UnreadableFileError, match=words) as refused:
        text_of(data, "scan.bin")
    assert "scan.bin" in str(refused.value)


def nested(tables: int) -> str:
    """Tables in tables, with a word in the innermost one."""
    return "<w:tbl><w:tr><w:tc>" * tables + paragraph("word") + "</w:tc></w:tr></w:tbl>" * tables


def test_tables_in_tables_are_read_once_each() -> None:
    """Rows of inner tables were read for every table around them: a file of 2 kB with 30 tables took for ever."""
    assert text_of(docx(nested(40)), "a.docx").text.split() == ["word"]
    with pytest.raises(UnreadableFileError, match="deeper than 50 levels"):
        text_of(docx(nested(3000)), "a.docx")


def test_entities_are_refused_wherever_they_are_declared() -> None:
    document = docx(paragraph("x"))
    late = b"<!-- " + b"a" * 5000 + b" --><!DOCTYPE d [<!ENTITY a 'b'>]>"
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(document)) as old, zipfile.ZipFile(out, "w") as new:
        new.writestr("word/document.xml", late + old.read("word/document.xml"))
    with pytest.raises(UnreadableFileError, match="no word processor writes"):
        text_of(out.getvalue(), "a.docx")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"none\.txt can't be read: No such file"):
        bytes_of(tmp_path / "none.txt")


def test_only_documents_of_a_folder_are_read(tmp_path: Path) -> None:
    for name in ("b.pdf", "a.TXT", "c.json", "d.docx"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in documents_in(tmp_path)] == ["a.TXT", "b.pdf", "d.docx"]


async def test_a_folder_of_files_is_extracted_end_to_end(tmp_path: Path) -> None:
    """The router gets the text of a PDF and answers by its captions; a scan does not keep the others from it."""
    (tmp_path / "report.pdf").write_bytes(REPORT)
    (tmp_path / "scan.pdf").write_bytes(pdf([[]]))
    async with setup(answer("none"), answer("none")) as (engine, other, router):
        status, out, err = await command("extract", str(tmp_path), "--url", router.url, "--json")
        first, second = (json.loads(line) for line in out.splitlines())
        assert (first["file"], first["result"]["values"]) == (str(tmp_path / "report.pdf"), TRUTH)
        assert first["result"]["read_by"]["model"] == "captions"
        assert "AL [mm]   23.87   24.55" in engine.seen[0].json["messages"][0]["content"]
        assert (status, second["error"]["code"]) == (1, "invalid_request")
        assert not other.seen
        status, _, err = await command("extract", str(tmp_path / "scan.pdf"), "--url", router.url)
        assert (status, err.count("scan.pdf")) == (1, 1)
        assert "ocrmypdf" in err

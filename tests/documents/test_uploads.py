"""Files over HTTP: a PDF, a DOCX, a scan or a picture as the body or as `file`; bounded and private as texts are."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.documents.harness import PATH, rows, setup
from tests.documents.office_files import docx, paragraph, pdf, png, scanned, scanned_pdf
from tests.documents.papers import answer

from spillway_router.documents.drafts import UNSURE_WORD, Draft, DraftContext, FieldReading, doubt_recognition
from spillway_router.documents.file_process import read_apart
from spillway_router.documents.files import FileText, LongFileError, UnreadableFileError, text_of
from spillway_router.documents.highlight import TextSpan
from spillway_router.documents.page_lines import Piece, lines_of_pieces
from spillway_router.documents.recognition import PROGRAM_PATH, Recogniser
from spillway_router.documents.schemas import Schema, shipped_schemas
from spillway_router.documents.uploads import OF_ONE_WAITING, FileReader, FileRules
from spillway_router.proxy.request.errors import RefusedError
from spillway_router.testing.harness import LIMIT_S

LINES = ["Biometry report", "Patient ID: K402211", "Eye: OD", "Axial length: 23.87 mm", "Flat K: 43.10 D",
         "Steep K: 44.90 D", "Anterior chamber depth: 3.21 mm", "Lens thickness: 4.41 mm",
         "White to white: 11.9 mm"]  # fmt: skip
TRUTH = {"id": "K402211", "eye": "OD", "AL": 23.87, "K1": 43.1, "K2": 44.9, "ACD": 3.21, "LT": 4.41, "WTW": 11.9}
REPORT = pdf([[(60.0, 780.0 - 18 * n, line) for n, line in enumerate(LINES)]])
DOCX = docx("".join(map(paragraph, LINES)))
DOCX_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
tesseract = pytest.mark.skipif(
    shutil.which("tesseract", path=PROGRAM_PATH) is None, reason="Tesseract is not installed (tesseract-ocr)"
)


async def upload(base: httpx.AsyncClient, content: bytes, media: str, **query: str) -> httpx.Response:
    return await base.post(PATH, content=content, params=query, headers={"content-type": media})


@pytest.mark.parametrize(("content", "media"), [(REPORT, "application/pdf"), (DOCX, DOCX_TYPE)])
async def test_a_file_as_the_body_is_read_and_its_text_comes_along(content: bytes, media: str) -> None:
    async with setup(answer("none")) as (engine, _, router):
        reply = await upload(router.client, content, media, schema="biometry", review="false")
        extraction = reply.json()
        assert (reply.status_code, extraction["values"], extraction["status"]) == (200, TRUTH, "answered")
        assert extraction["file"]["recognised"] is False
        start, end = extraction["fields"]["/AL"]["span"]
        assert extraction["file"]["text"][start:end] == "23.87"
        assert "23.87" in engine.seen[0].body.decode()
        assert len(rows(router, extraction)) == 2  # the engine's unused answer, and the document's own


async def test_a_file_is_a_member_of_a_json_body_too() -> None:
    async with setup(answer("none")) as (_, __, router):
        body: dict[str, Any] = {"file": {"data": b64encode(REPORT).decode(), "name": "a.pdf"}, "review": False}
        assert (await router.post(body, PATH)).json()["values"] == TRUTH
        texts = (await router.post({"text": "\n".join(LINES), "file": None, "review": False}, PATH)).json()
        assert (texts["values"], "file" in texts) == (TRUTH, False)


async def test_a_large_file_is_decoded_in_slices() -> None:
    async with setup(answer("none")) as (_, __, router):
        data = b64encode(REPORT + b"\n" * 600_000).decode()
        assert (await router.post({"file": {"data": data}, "review": False}, PATH)).json()["values"] == TRUTH
        for wrong in (
            data[: 256 << 10] + "=" + data[(256 << 10) + 1 :],
            data[:-1] + "!",
            data[: (256 << 10) - 1] + "=" + data[256 << 10 :],
        ):
            refused = await router.post({"file": {"data": wrong}}, PATH)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "file")


@tesseract
@pytest.mark.parametrize("kind", ["picture", "scanned PDF"])
async def test_pictures_and_scans_are_recognised(kind: str) -> None:
    scan = scanned(REPORT)
    content, media = (png(scan), "image/png") if kind == "picture" else (scanned_pdf(scan), "application/pdf")
    async with setup(answer("none")) as (_, __, router):
        extraction = (await upload(router.client, content, media, review="false")).json()
        assert extraction["file"]["recognised"] is True
        assert extraction["values"] == TRUTH, extraction
        assert extraction["status"] == "answered"


@tesseract
async def test_what_was_recognised_is_unreadable_to_detectors_and_stays_here_where_that_is_the_rule() -> None:
    """A detector sees only what the recogniser made of the picture."""
    scan = png(scanned(pdf([[(60.0, 780.0, "Dear colleague, please see this patient soon.")]])))
    for rule, private in (("any", False), ("local-only", True)):
        more = f"privacy: {{unreadable: {rule}}}\n"
        async with setup(answer("none"), answer("none"), more) as (_, other, router):
            extraction = (await upload(router.client, scan, "image/png", review="false")).json()
            assert (extraction["private"], "unreadable" in extraction["privacy_reasons"]) == (private, private)
            assert bool(other.seen) is not private


async def test_a_private_word_in_a_file_keeps_it_here() -> None:
    more = "privacy: {keywords: [biometry]}\n"
    async with setup(answer("none"), answer("none"), more) as (_, other, router):
        strange = pdf([[(60.0, 780.0, "Biometry of nobody")]])
        extraction = (await upload(router.client, strange, "application/pdf", review="false")).json()
        assert (extraction["private"], other.seen) == (True, [])


REFUSED: dict[str, tuple[bytes, str, dict[str, str], int, str]] = {
    "no PDF": (b"%PDF-1.4 nothing", "application/pdf", {}, 400, "no PDF that can be opened"),
    "empty": (b"", "application/pdf", {}, 400, "empty"),
    "a query nobody knows": (REPORT, "application/pdf", {"shema": "biometry"}, 400, "Unknown query parameter 'shema'"),
    "no number": (REPORT, "application/pdf", {"min_confidence": "much"}, 400, "min_confidence"),
    "neither true nor false": (REPORT, "application/pdf", {"review": "no"}, 400, "'review'"),
    "plain text, which any web page can send": (b"AL: 23", "text/plain", {}, 415, "application/json"),
    "too large": (b"%PDF-" + b"0" * 1_100_000, "application/pdf", {}, 413, "limits.body_mb"),
}  # fmt: skip


async def test_what_cannot_be_read_is_refused_with_what_to_do() -> None:
    async with setup(answer("none"), more="limits: {body_mb: 1}\n") as (engine, _, router):
        for name, (content, media, query, status, words) in REFUSED.items():
            reply = await upload(router.client, content, media, **query)
            assert (reply.status_code, words in reply.json()["error"]["message"]) == (status, True), (name, reply.text)
        for file in ("x", {"data": 1}, {"data": "!"}, {"data": ""}, {"data": "eA==", "path": "/etc/passwd"}):
            reply = await router.post({"file": file}, PATH)
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "file"), file
        both = await router.post({"file": {"data": "eA=="}, "text": "x"}, PATH)
        assert (both.status_code, both.json()["error"]["param"]) == (400, "file")
        assert not engine.seen


async def test_a_small_file_with_a_huge_text_is_refused_before_the_router_holds_the_text() -> None:
    bomb = docx(paragraph("\u6f22" * 3_000_000))
    assert len(bomb) < 100_000
    with pytest.raises(LongFileError, match=r"has 3000000 characters; documents\.max_chars allows 1000: split it"):
        await read_apart(bomb, "a.docx", (), 60.0, max_chars=1000)
    async with setup(answer("none")) as (engine, _, router):
        reply = await upload(router.client, bomb, DOCX_TYPE)
        assert (reply.status_code, "documents.max_chars" in reply.text) == (413, True)
        assert not engine.seen


async def test_no_more_is_read_from_the_process_than_a_text_may_take(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec yes\n")
    program.chmod(0o755)
    with pytest.raises(UnreadableFileError, match="took more than"):
        await read_apart(REPORT, "a.pdf", (), 60.0, max_chars=1000, python=str(program))


async def test_recognition_can_be_switched_off() -> None:
    async with setup(answer("none"), more="documents: {ocr_languages: []}\n") as (_, __, router):
        reply = await upload(router.client, png(scanned(REPORT, 30)), "image/png")
        assert (reply.status_code, "ocrmypdf" in reply.text) == (400, True)


async def test_a_file_is_read_without_the_routers_environment_and_killed_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nenv > $(dirname $0)/environment\nsleep 600\n")
    program.chmod(0o755)
    started_s = time.monotonic()
    with pytest.raises(UnreadableFileError, match="took more than 2 s"):
        await read_apart(REPORT, "a.pdf", (), 2.0, python=str(program))
    assert time.monotonic() - started_s < 60
    assert "sk-secret" not in (tmp_path / "environment").read_text()


async def test_a_reading_that_is_cancelled_leaves_no_process() -> None:
    reading = asyncio.create_task(read_apart(REPORT, "a.pdf", (), 60.0))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.parametrize("way", ["the body", "a member"])
async def test_a_file_is_read_no_further_once_its_client_has_left(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, begun = tmp_path / "python", tmp_path / "begun"
    os.mkfifo(begun)
    program.write_text(
        f'#!/bin/sh\n[ -p {begun} ] && echo $$ > {begun} && exec sleep 600\nexec {sys.executable} "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr("spillway_router.documents.services.FileReader", lambda: FileReader(str(program)))
    async with setup(answer("none")) as (_, __, router):
        async with httpx.AsyncClient(base_url=router.url, timeout=LIMIT_S) as leaving:
            asking = asyncio.create_task(
                upload(leaving, REPORT, "application/pdf")
                if way == "the body"
                else leaving.post(PATH, json={"file": {"data": b64encode(REPORT).decode()}})
            )
            process = psutil.Process(int(await asyncio.to_thread(begun.read_text)))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await router.until(lambda: not process.is_running())
        begun.unlink()
        assert (await upload(router.client, REPORT, "application/pdf", review="false")).status_code == 200


def test_a_scanned_page_among_others_is_not_dropped() -> None:
    """Its values would be missing from the text without a word."""
    scan = scanned_pdf(scanned(REPORT, 40))
    with pytest.raises(UnreadableFileError, match="page 1, it seems to be a scan"):
        text_of(scan, "a.pdf")
    assert text_of(pdf([[(60, 700, "one")], []]), "a.pdf") == FileText("one")


def test_unsure_words_keep_their_places() -> None:
    pieces = [
        Piece(left=0, bottom=0, right=20, top=10, text="AL:"),
        Piece(left=24, bottom=0, right=54, top=10, text="23.87", sure=False),
        Piece(left=0, bottom=-20, right=20, top=-10, text="K1:"),
        Piece(left=200, bottom=-20, right=230, top=-10, text="43.1", sure=False),
    ]
    page = lines_of_pieces(pieces)
    assert page.text == "AL: 23.87\nK1:   43.1"
    assert [page.text[start:end] for start, end in page.unsure] == ["23.87", "43.1"]


def test_a_value_in_an_unsure_word_is_doubted() -> None:
    schema: Schema = shipped_schemas()["biometry"]
    fields = {"/AL": FieldReading(23.87, 0.99, TextSpan(4, 9)), "/K1": FieldReading(43.1, 0.99, TextSpan(14, 18))}
    draft = Draft(step="parser", backend="parsers", model="captions", values=TRUTH, fields=fields, confidence=0.99)
    doubted = doubt_recognition(draft, ((14, 18),), DraftContext("AL: 23.87\nK1: 43.1", schema))
    assert [doubted.fields[name].confidence for name in ("/AL", "/K1")] == [0.99, 0.5]
    assert (doubted.confidence, doubted.fields["/K1"].why) == (0.5, UNSURE_WORD)
    assert doubt_recognition(draft, (), DraftContext("", schema)) is draft


def test_a_missing_program_is_named() -> None:
    with pytest.raises(UnreadableFileError, match="install the package tesseract-ocr"):
        text_of(png(scanned(REPORT, 30)), "a.png", Recogniser(("eng",), path="/nowhere"))


@tesseract
def test_a_missing_language_is_named() -> None:
    with pytest.raises(UnreadableFileError, match="install tesseract-ocr-xxx"):
        text_of(png(scanned(REPORT, 30)), "a.png", Recogniser(("xxx",)))


def test_the_child_says_why_it_read_nothing() -> None:
    async def read() -> None:
        await read_apart(b"\xff\xfe\x00", "a.bin", (), 60.0)

    with pytest.raises(UnreadableFileError, match=r"a\.bin is neither"):
        asyncio.run(read())


def test_an_extraction_by_the_command_sends_files_whole(tmp_path: Path) -> None:
    """The router reads them, so that the places of values fit, and what recognises is installed once."""
    from spillway_router.commands.extract import _content

    (tmp_path / "a.pdf").write_bytes(REPORT)
    (tmp_path / "a.txt").write_text("AL: 23")
    assert _content(tmp_path / "a.txt") == {"text": "AL: 23"}
    sent = json.loads(json.dumps(_content(tmp_path / "a.pdf")))
    assert sent["file"]["name"].endswith("a.pdf")


async def test_one_caller_does_not_take_every_turn_of_the_reader(tmp_path: Path) -> None:
    """A file of 150 KB takes all of its 60 s; somebody else's is read meanwhile."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\ncase "$3" in slow*) exec sleep 600;; esac\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    reader = FileReader(str(program))
    rules = FileRules(languages=(), limit_s=60.0)
    slow = [asyncio.create_task(reader.read(REPORT, f"slow{i}.pdf", rules, "flood")) for i in range(OF_ONE_WAITING)]
    try:
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="Too many files"):
            await reader.read(REPORT, "slow.pdf", rules, "flood")
        async with asyncio.timeout(50):
            for _ in range(3):
                assert "Axial length" in (await reader.read(REPORT, "a.pdf", rules, "calm")).text
        assert not any(task.done() for task in slow)
    finally:
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    assert "Axial length" in (await reader.read(REPORT, "a.pdf", rules, "flood")).text

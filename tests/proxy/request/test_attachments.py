"""Base64 of pictures, recordings, documents and films is no text; a picture's header says how much it costs."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from spillway_router.core.routing import pictures
from spillway_router.core.routing.pictures import UNKNOWN_SIZE, Size
from spillway_router.proxy.request.attachments import attachments
from spillway_router.proxy.request.picture_size import size_of_base64


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def gif(width: int, height: int, frame: tuple[int, int, int, int] | None = None, before: bytes = b"") -> bytes:
    """Return the beginning of a GIF with a table of four colours, extensions and a frame (left, top, width, height)."""
    left_top_and_size = (0, 0, width, height) if frame is None else frame
    colours = b"\0" * 12
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x81, 0, 0) + colours
    return head + before + b"," + struct.pack("<HHHHB", *left_top_and_size, 0)


def jpeg(width: int, height: int, metadata: int = 0) -> bytes:
    app1 = b"\xff\xe1" + struct.pack(">H", metadata + 2) + b"\0" * metadata
    return b"\xff\xd8" + app1 + b"\xff\xff\xc2" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\0" * 8


def webp(kind: bytes, payload: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + struct.pack("<I", len(payload)) + payload + b"\0" * 8


def b64(data: bytes) -> str:
    return base64.b64encode(data + b"\0" * 9).decode()


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (png(1024, 768), (1024, 768)),
        (gif(320, 200), (320, 200)),
        (gif(320, 200, (10, 10, 300, 100), b"!\xf9\x04\0\0\0\0\0!\xfe\x02hi\0"), (320, 200)),
        (gif(1, 1, (0, 0, 9000, 9000)), UNKNOWN_SIZE),
        (gif(100, 100, (60, 0, 50, 100)), UNKNOWN_SIZE),
        (gif(320, 200)[:25], UNKNOWN_SIZE),
        (gif(320, 200, None, b"!\xfe" + b"\xff" * 30_000), UNKNOWN_SIZE),
        (jpeg(4032, 3024, 5000), (4032, 3024)),
        (webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640, 480)), (640, 480)),
        (webp(b"VP8L", b"\x2f" + struct.pack("<I", 639 | 479 << 14)), (640, 480)),
        (webp(b"VP8X", b"\0\0\0\0" + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")), (640, 480)),
        (jpeg(4032, 3024, 30_000), UNKNOWN_SIZE),  # its metadata is longer than what is read
        (png(0, 5), UNKNOWN_SIZE),
        (png(2**31, 5), UNKNOWN_SIZE),
        (jpeg(8, 8)[:10], UNKNOWN_SIZE),
        (b"RIFF", UNKNOWN_SIZE),
        (b"", UNKNOWN_SIZE),
        (b"%PDF-1.7", UNKNOWN_SIZE),
    ],
)
def test_the_size_stands_in_the_header(data: bytes, size: Size) -> None:
    assert size_of_base64(b64(data)) == size


@pytest.mark.parametrize("data", [png(1024, 768), jpeg(1024, 768, 300)])
def test_base64_may_come_in_lines(data: bytes) -> None:
    assert size_of_base64(base64.encodebytes(data + b"\0" * 9).decode()) == (1024, 768)


@pytest.mark.parametrize("text", ["", "=", "ä" * 40, "\x00", "not base64 at all!", b64(png(9, 7)) + "…-mark-1"])
def test_text_of_any_kind_is_no_error(text: str) -> None:
    assert size_of_base64(text) in (UNKNOWN_SIZE, (9, 7))


DATA = b64(b"\x01" * 90_000)
PARTS: list[tuple[dict[str, Any], int]] = [
    ({"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}, 113),
    ({"type": "audio_url", "audio_url": {"url": "data:audio/mp3;base64," + DATA}}, 113),
    ({"type": "file", "file": {"file_data": "data:application/pdf;base64," + DATA, "filename": "a.pdf"}}, 5296),
    ({"type": "input_file", "file_data": "data:application/pdf;base64," + DATA}, 5296),
    ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": DATA}}, 5295),
    ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + DATA}}, 113),
]


@pytest.mark.parametrize(("part", "expected"), PARTS)
def test_the_data_of_media_is_no_text_of_the_prompt(part: dict[str, Any], expected: int) -> None:
    attached = attachments([{"role": "user", "content": [{"type": "text", "text": "sum it up"}, part]}], {})
    assert len(DATA) <= attached.data_bytes < len(DATA) + 40
    assert abs(attached.media_tokens - expected) < 3


@pytest.mark.parametrize(
    "part",
    [
        {"type": "document", "source": {"type": "url", "url": "https://x.example/500-pages.pdf"}},
        {"type": "input_file", "file_url": "https://x.example/500-pages.pdf"},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "document", "source": {"type": "file", "file_id": "file-1"}},
        {"type": "video_url", "video_url": {"url": "https://x.example/film.mp4"}},
    ],
)
def test_a_medium_by_address_has_an_allowance(part: dict[str, Any]) -> None:
    attached = attachments([{"role": "user", "content": [part]}], {})
    assert (attached.data_bytes, attached.media_tokens) == (0, pictures.EXPECTED_BY_ADDRESS)


def test_a_document_given_as_text_is_text() -> None:
    part = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "word " * 1000}}
    attached = attachments([{"role": "user", "content": [part]}], {})
    assert (attached.data_bytes, attached.media_tokens, attached.pictures) == (0, 0, ())


@pytest.mark.parametrize(
    ("provider", "model", "size", "tokens"),
    [
        ("openai", "gpt-4o-2024-08-06", (1024, 1024), 765),  # the guide's own examples
        ("openai", "gpt-4o", (2048, 4096), 1105),
        ("openai", "gpt-4o", UNKNOWN_SIZE, 1445),
        ("openai", "gpt-4o", (10, 100_000), 1445),
        ("openai", "gpt-4o-mini", (1024, 1024), 2833 + 4 * 5667),
        ("anthropic", "claude-x", (280, 280), 100),
        ("anthropic", "claude-x", (100_000, 100_000), 92 * 92),
        ("generic", "gpt-4o", (1, 1), pictures.MOST_TOKENS),
    ],
)
def test_a_rule_counts_by_the_size(provider: str, model: str, size: Size, tokens: int) -> None:
    assert pictures.most_tokens(provider, model, size) == tokens


def test_expectations_stay_within_bounds() -> None:
    assert pictures.expected_tokens(UNKNOWN_SIZE) == pictures.EXPECTED_TOKENS
    assert pictures.expected_tokens((560, 280)) == 200
    assert pictures.expected_tokens((100_000, 100_000)) == pictures.MOST_EXPECTED_TOKENS

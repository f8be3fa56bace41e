"""The width and height of a picture, from the first bytes of its base64. Pure.

Only the header is read, by the file's own first bytes and not by its declared type: PNG, GIF, WebP and JPEG. A JPEG
says its size after its metadata, which may be longer than what is read; its size is then unknown. So is that of a GIF
whose first frame is larger than its screen: decoders enlarge the screen, and a cost bound must not be below the cost.
"""

from __future__ import annotations

import base64
import binascii

from spillway_router.core.routing.pictures import UNKNOWN_SIZE, Size

READ_CHARACTERS = 16 * 1024
"""Characters of base64 that are decoded of a JPEG."""
SHORT_HEADER = 64
"""Characters of base64 in which every other kind of file says its size."""
MOST_PIXELS_A_SIDE = 100_000
_JPEG = b"\xff\xd8"
_JPEG_SIZES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
"""The markers of a JPEG's frame, whatever its coding."""
_GIF_HEAD = 13
_JPEG_WITHOUT_LENGTH = frozenset({0x01, 0xFF, *range(0xD0, 0xD9)})


def size_of_base64(text: str) -> Size:
    """Return the size of a picture; UNKNOWN_SIZE if it can't be read. `text` may go on with anything."""
    data = _decoded(text[:SHORT_HEADER])
    if data.startswith(_JPEG):
        data = _decoded(text[:READ_CHARACTERS])
    width, height = _size(data)
    return (width, height) if 0 < width <= MOST_PIXELS_A_SIDE and 0 < height <= MOST_PIXELS_A_SIDE else UNKNOWN_SIZE


def _decoded(head: str) -> bytes:
    """Return what base64 stands for; nothing if it is none."""
    if not head.isascii():
        head = head.encode("ascii", "replace").decode().partition("?")[0]  # a string that was cut ends in a mark
    try:
        plain = "".join(head.split())  # base64 may come in lines
        return base64.b64decode(plain[: len(plain) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def _size(data: bytes) -> Size:
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= _GIF_HEAD:
        return _gif(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30:
        return _webp(data)
    return _jpeg(data) if data.startswith(_JPEG) else UNKNOWN_SIZE


def _gif(data: bytes) -> Size:
    width, height = _shorts(data, 6)
    at = _GIF_HEAD
    if data[10] & 0x80:  # a table of colours
        at += 3 << (data[10] & 7) + 1
    while data[at : at + 1] == b"!":  # an extension: its label, and blocks that each begin with their length
        at += 2
        while data[at : at + 1] not in (b"", b"\0"):
            at += 1 + data[at]
        at += 1
    if data[at : at + 1] != b"," or at + 9 > len(data):
        return UNKNOWN_SIZE
    (left, top), (frame_width, frame_height) = _shorts(data, at + 1), _shorts(data, at + 5)
    return (width, height) if left + frame_width <= width and top + frame_height <= height else UNKNOWN_SIZE


def _shorts(data: bytes, at: int) -> Size:
    return int.from_bytes(data[at : at + 2], "little"), int.from_bytes(data[at + 2 : at + 4], "little")


def _webp(data: bytes) -> Size:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return UNKNOWN_SIZE


def _jpeg(data: bytes) -> Size:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_SIZES:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker in _JPEG_WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return UNKNOWN_SIZE

"""Text that is written in base64 within a body: text files, document blocks, `data:` URLs, whole messages.

What is encoded is text if its beginning decodes to printable UTF-8, UTF-16, or a Western
8-bit encoding. Pictures, recordings and compressed files are not, and are passed over after their first bytes. All work
is linear in the length of the text and is done in small steps.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterator

from spillway_router.privacy.marks import BASE64_BEGINNING

_BEGINS = re.compile(BASE64_BEGINNING)
_RUN = re.compile(rb"(?:[A-Za-z0-9+/_\-]++|\\++(?:/|r\\++n|n))*+")
"""Base64 within JSON, whose lines may be wrapped and whose slashes may be escaped."""
_ESCAPES = re.compile(rb"\\++[/rn]")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_HEAD = 96
"""Characters by which text is told from other content."""
_LEAST_BYTES = 6
"""Bytes below which a beginning says nothing."""
_LEAST_UTF_16 = 12
"""Bytes of which every second one is 0 in ASCII text in UTF-16, which Windows encodes without a mark of its order."""
_STEP = 8 << 10
"""Bytes that are looked at between two steps."""
_OVERLAP = 1 << 10
"""Characters that two pieces of one text have in common."""
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_MOST_FOREIGN = 0.2
"""The share of bytes beyond ASCII in a text of an 8-bit encoding."""


def embedded_texts(text: bytes) -> Iterator[str]:
    """Return the texts that are written in base64 within a JSON text, in pieces of some kilobytes that overlap. Between
    two steps without a piece it returns an empty one."""
    at = 0
    while at < len(text):
        match = _BEGINS.search(text, at, at + _STEP)
        if match is None:
            at += _STEP - _HEAD
            yield ""
            continue
        beginning = match.group()
        start = match.start() + max(beginning.rfind(b","), beginning.rfind(b'"')) + 1
        if text[start - 1 : start] == b"\\":
            start += 1  # the letter of an escaped line end
        encoding = _encoding(_octets(_run(text, start, _HEAD)))
        at = start
        overlap, left, decoder = "", b"", codecs.getincrementaldecoder(encoding or "latin-1")("replace")
        while run := _run(text, at, _STEP):
            at += len(run)
            if not encoding:
                yield ""
                continue
            characters = left + _plain(run)
            whole = len(characters) - len(characters) % 4
            left = characters[whole:]
            piece = overlap + decoder.decode(_octets(characters[:whole]))
            overlap = piece[-_OVERLAP:]
            yield piece
        if encoding and left:
            yield overlap + decoder.decode(_octets(left))


def _run(text: bytes, start: int, most: int) -> bytes:
    match = _RUN.match(text, start, start + most)
    return b"" if match is None else match.group()


def _plain(run: bytes) -> bytes:
    """Return base64 in its standard alphabet, without escapes and line ends."""
    if b"\\" in run:
        run = _ESCAPES.sub(lambda escape: b"/" if escape.group().endswith(b"/") else b"", run)
    return run.translate(_URL_SAFE)


def _octets(characters: bytes) -> bytes:
    """Return what base64 stands for; a last character that stands for no whole byte is left out."""
    plain = _plain(characters)
    if len(plain) % 4 == 1:
        plain = plain[:-1]
    try:
        return binascii.a2b_base64(plain + b"=" * (-len(plain) % 4))
    except binascii.Error:
        return b""


def _encoding(head: bytes) -> str:
    """Return the encoding of a text by its first bytes; "" if they are no text."""
    if len(head) < _LEAST_BYTES:
        return ""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(head) >= _LEAST_UTF_16 and (not any(head[1::2]) or not any(head[::2])):
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    if _CONTROLS.search(head) is not None:
        return ""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "cp1252" if sum(octet > 0x7F for octet in head) <= _MOST_FOREIGN * len(head) else ""
    return "utf-8"

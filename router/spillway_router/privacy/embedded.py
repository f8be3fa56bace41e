"""Text that is written in base64, hexadecimal or Base32 within a body: text files, document blocks, `data:` URLs, whole
messages, dumps.

What is encoded is text if its beginning decodes to printable UTF-8, UTF-16, or a Western 8-bit encoding. Pictures,
hashes, recordings and compressed files are not, and are passed over after their first bytes. All work is linear in the
length of the text and is done in small steps.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from spillway_router.privacy.marks import BASE64_BEGINNING

_BEGINS = re.compile(BASE64_BEGINNING)
_ESCAPES = re.compile(rb"\\++[/rn]")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BASE_32 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789abcdefghijklmnopqrstuv")
"""From the digits of Base32 to those that Python reads."""
_HEX_BEGINS = re.compile(rb"(?:[A-Za-z0-9+/_\-]*[+/_\-])??(?:0[xX])?(?=[0-9A-Fa-f]{24})")
_BASE_32_BEGINS = re.compile(rb"(?:[A-Za-z0-9+/_\-]*[+/_\-])??(?=[A-Z2-7]{24})")
"""Where such text begins in a run of characters of base64, to which a name in front of it and a sign belong too."""
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


@dataclass(frozen=True, slots=True)
class _Code:
    """A way to write bytes in characters. `run` matches them, in lines and as they stand in JSON, where slashes may be
    escaped; `group` of them stand for whole bytes, which `octets` returns."""

    run: re.Pattern[bytes]
    group: int
    octets: Callable[[bytes], bytes]

    def taken(self, text: bytes, start: int, most: int) -> bytes:
        """Return the characters from `start` on, at most so many."""
        match = self.run.match(text, start, start + most)
        return b"" if match is None else match.group()


def embedded_texts(text: bytes) -> Iterator[str]:
    """Return the texts that are written in base64, hexadecimal or Base32 within a JSON text, in pieces of some
    kilobytes that overlap. Between two steps without a piece it returns an empty one."""
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
        at, code, encoding = _code_of(text, start)
        overlap, left, decoder = "", b"", codecs.getincrementaldecoder(encoding or "latin-1")("replace")
        while run := code.taken(text, at, _STEP):
            at += len(run)
            if not encoding:
                yield ""
                continue
            characters = left + _plain(run)
            whole = len(characters) - len(characters) % code.group
            left = characters[whole:]
            piece = overlap + decoder.decode(code.octets(characters[:whole]))
            overlap = piece[-_OVERLAP:]
            yield piece
        if encoding and left:
            yield overlap + decoder.decode(code.octets(left))


def _code_of(text: bytes, start: int) -> tuple[int, _Code, str]:
    """Return where text begins in a run, how it is written, and its encoding; "" if it is none."""
    head = _BASE_64.taken(text, start, _HEAD)
    encoding = _encoding(_BASE_64.octets(head))
    if not encoding:
        for code, begins in ((_HEX, _HEX_BEGINS), (_BASE_32_CODE, _BASE_32_BEGINS)):
            match = begins.match(head)
            if match is not None:
                at = start + match.end()
                encoding = _encoding(code.octets(_plain(code.taken(text, at, _HEAD))))
                if encoding:
                    return at, code, encoding
    return start, _BASE_64, encoding


def _plain(run: bytes) -> bytes:
    """Return base64 in its standard alphabet, without escapes and line ends."""
    if b"\\" in run:
        run = _ESCAPES.sub(lambda escape: b"/" if escape.group().endswith(b"/") else b"", run)
    return run.translate(_URL_SAFE, b"\r\n")


def _octets(characters: bytes) -> bytes:
    """Return what base64 stands for; a last character that stands for no whole byte is left out."""
    plain = _plain(characters)
    if len(plain) % 4 == 1:
        plain = plain[:-1]
    try:
        return binascii.a2b_base64(plain + b"=" * (-len(plain) % 4))
    except binascii.Error:
        return b""


def _octets_of_hex(characters: bytes) -> bytes:
    return binascii.unhexlify(characters[: len(characters) // 2 * 2])


def _octets_of_base_32(characters: bytes) -> bytes:
    """Return what Base32 stands for, without the bits that make no whole byte."""
    count, bits = len(characters) * 5 // 8, len(characters) * 5
    return (int(characters.translate(_BASE_32), 32) >> (bits - count * 8)).to_bytes(count) if count else b""


_BASE_64 = _Code(re.compile(rb"(?:[A-Za-z0-9+/_\-]++|[\r\n]++|\\++(?:/|r\\++n|n))*+"), 4, _octets)
_HEX = _Code(re.compile(rb"(?:[0-9A-Fa-f]++|[\r\n]++|\\++(?:r\\++n|n))*+"), 2, _octets_of_hex)
_BASE_32_CODE = _Code(re.compile(rb"(?:[A-Z2-7]++|[\r\n]++|\\++(?:r\\++n|n))*+"), 8, _octets_of_base_32)


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

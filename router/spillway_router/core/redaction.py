"""Cut secrets out of what an upstream wrote.

Providers repeat a key that they refuse, whole, cut off or in part, and gateways write it as base64, in percent escapes
or in JSON within JSON. So not whole keys are looked for, but every run of PIECE characters of one, in the text as a
reader would decode it. Only errors and headers are searched, which are short.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HIDDEN = "***"
"""Takes the place of a secret."""
PIECE = 8
"""Characters of a secret that are cut out wherever they stand together. A secret that is shorter is cut out whole."""
_TOKEN = re.compile(
    r"%(?:25)*u[0-9A-Fa-f]{4}|%(?:25)*[0-9A-Fa-f]{2}|\\+u[0-9A-Fa-f]{4}|\\+u\{[0-9A-Fa-f]{1,6}\}|\\+U[0-9A-Fa-f]{8}"
    r"|\\+x[0-9A-Fa-f]{2}|\\+[0-3][0-7]{2}|&(?:amp;)*#[xX][0-9A-Fa-f]{1,8};?|&(?:amp;)*#[0-9]{1,8};?"
    r"|\\+(?=[\"'/\\-])|.",
    re.DOTALL,
)
"""One character as it may be written: as it is, in percent, JSON, Python, shell or HTML escapes, once or repeatedly."""
_PLAIN = re.compile(r"[\w:/+=-]*", re.ASCII)
"""Text without escapes, white space and marks."""
_MASKED = re.compile(r"([\w-]{3,})[*.•…xX]{2,}([\w-]{2,})")
"""A key as providers show it: its beginning, marks, and its end."""
_MOST_CODE = 0x10FFFF


class Redactor:
    """Cuts a fixed set of secrets out of texts. Making one is cheap: what it looks for is worked out when first
    needed."""

    __slots__ = ("_lengths", "_pieces", "_secrets")

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple(dict.fromkeys(secret for secret in secrets if secret))
        self._pieces: frozenset[str] | None = None
        self._lengths: tuple[int, ...] = ()

    def with_secret(self, secret: str) -> Redactor:
        """Return one that cuts out a further secret."""
        return Redactor((*self._secrets, secret))

    def cut(self, text: str) -> str:
        """Return the text with every piece of a secret replaced."""
        if not self._secrets or not text:
            return text
        if _PLAIN.fullmatch(text) is not None and not self._holds_piece(text.lower()):
            return text  # nearly every header
        characters, places = _decoded(text)
        hidden = self._places(characters)
        return _MASKED.sub(self._unmasked, _without(text, places, hidden) if hidden else text)

    def cut_value(self, value: Any) -> Any:
        """Return a JSON value in which every text, names too, has its secrets replaced."""
        if isinstance(value, str):
            return self.cut(value)
        if isinstance(value, Mapping):
            return {self.cut(str(name)): self.cut_value(inner) for name, inner in value.items()}
        return [self.cut_value(inner) for inner in value] if isinstance(value, list | tuple) else value

    def _places(self, characters: str) -> list[tuple[int, int]]:
        """Return the spans of the decoded text that hold a piece, in order."""
        if not self._holds_piece(characters):
            return []
        pieces = self._looked_for()
        spans: list[tuple[int, int]] = []
        for length in self._lengths:
            for start in range(len(characters) - length + 1):
                if characters[start : start + length] in pieces:
                    spans.append((start, start + length))
        return _merged(spans)

    def _holds_piece(self, characters: str) -> bool:
        pieces = self._looked_for()
        return not all(
            pieces.isdisjoint([characters[start : start + length] for start in range(len(characters) - length + 1)])
            for length in self._lengths
        )

    def _looked_for(self) -> frozenset[str]:
        pieces = self._pieces
        if pieces is None:
            written = [form for secret in self._secrets for form in _forms(secret)]
            pieces = self._pieces = frozenset(piece for form in written for piece in _pieces_of(form))
            self._lengths = tuple(sorted({len(piece) for piece in pieces}))
        return pieces

    def _unmasked(self, match: re.Match[str]) -> str:
        """Replace a key of which only the beginning and the end are shown."""
        start, end = match.group(1).lower(), match.group(2).lower()
        secrets = [secret.lower() for secret in self._secrets]
        return HIDDEN if any(s.startswith(start) and s.endswith(end) for s in secrets) else match.group()


NOTHING_SECRET = Redactor()


def _forms(secret: str) -> Sequence[str]:
    """Return how a secret may be written besides escapes: as it is, in hexadecimal, and in base64 at each of the three
    places where it may begin, also of its UTF-16 and of its base64. All is in lower case, without white space."""
    raw, wide = secret.encode(), secret.encode("utf-16-le")
    forms = [secret, raw.hex(), raw.hex(":"), wide.hex()]
    for octets in (raw, wide, base64.b64encode(raw)):
        for before in range(3):
            coded = base64.b64encode(b"\0" * before + octets).decode()
            cut = coded[-(-before * 8 // 6) : len(coded) - (len(coded) - len(coded.rstrip("="))) - 1]
            forms += [cut, cut.replace("+", "-").replace("/", "_")]
    return ["".join(form.lower().split()) for form in forms]


def _pieces_of(form: str) -> Iterable[str]:
    if len(form) <= PIECE or "://" in form:  # the beginning of an address is no secret
        return (form,)
    return [form[start : start + PIECE] for start in range(len(form) - PIECE + 1)]


def _decoded(text: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the characters of the text in lower case, without escapes, white space and what is not shown, and where
    each one stands."""
    characters: list[str] = []
    places: list[tuple[int, int]] = []
    if "%" not in text and "\\" not in text and "&" not in text:
        tokens = ((character, (at, at + 1)) for at, character in enumerate(text))
    else:
        tokens = ((token.group(), token.span()) for token in _TOKEN.finditer(text))
    for token, place in tokens:
        character = _shown(token if len(token) == 1 else _character(token))
        if character:
            characters.append(character)
            places.append(place)
    return "".join(characters), places


def _character(token: str) -> str:
    """Return what an escape stands for; "" for none."""
    if token[0] == "&":
        digits = token.rpartition("#")[2].rstrip(";")
        code = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
    elif token[0] == "%":
        code = int(token[-4:] if "u" in token else token[-2:], 16)
    else:
        digits = token.lstrip("\\")
        if not digits:
            return ""
        code = int(digits[1:].strip("{}"), 16) if digits[0] in "uUx" else int(digits, 8)
    return chr(code) if code <= _MOST_CODE else ""


def _shown(character: str) -> str:
    """Return the ASCII character in lower case that another one looks like or stands for, itself if there is none, and
    "" for white space and what is not shown."""
    if character.isascii():
        return "" if character <= " " or character == "\x7f" else character.lower()
    if "\U000e0020" <= character <= "\U000e007e":  # a tag
        return chr(ord(character) - 0xE0000).lower()
    if character.isspace() or unicodedata.category(character) in ("Cc", "Cf", "Mn"):
        return ""
    if "\u2010" <= character <= "\u2015":
        return "-"
    return unicodedata.normalize("NFKC", character).lower()[:1]


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _without(text: str, places: Sequence[tuple[int, int]], hidden: Sequence[tuple[int, int]]) -> str:
    parts: list[str] = []
    rest = 0
    for start, end in hidden:
        parts += [text[rest : places[start][0]], HIDDEN]
        rest = places[end - 1][1]
    return "".join(parts) + text[rest:]

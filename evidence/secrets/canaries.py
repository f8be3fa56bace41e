"""Canaries: secrets that occur nowhere else, their spellings, and the search for pieces of them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final
from urllib.parse import quote

PIECE: Final = 12
"""Characters of a canary, or of a spelling of it, that count as a sighting wherever they stand together. Providers show
the first and the last four characters of keys, which is no secret."""
_BREAKS: Final = re.compile(rb"[\s\x00]+|\xe2\x94[\x80-\xbf]")
"""White space and the lines of tables, at which terminals break a long word."""
_ESCAPE: Final = re.compile(
    rb"%([0-9A-Fa-f]{2})|\\+u([0-9A-Fa-f]{4})|&#x([0-9A-Fa-f]{1,5});|&#([0-9]{1,6});|\\+(?=[/\"'])"
)
_ALPHABET: Final = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"

PLANTED: Final = (
    "key of the engine",
    "provider key in the file",
    "provider key by ${VARIABLE}",
    "provider key beside a header",
    "provider key by its usual variable",
    "own key of a user",
    "stored key of a user",
    "secret key of the vault",
    "header of a backend",
    "scrape token",
    "scrape token by its variable",
    "secret of the webhook",
    "address of the webhook",
    "password of the database",
    "wrong password of the database",
    "key of RunPod",
    "key of Vast.ai",
    "secret key of AWS",
    "token of the model hub",
    "key that nobody gave out",
    "key in a broken file",
)
"""The secrets that a user hands to the product. The keys that the router makes itself are added when it made them."""


def canaries(seed: int) -> dict[str, str]:
    """Return a value for each planted secret. `+` and `/` make its spellings differ."""
    random = Random(seed)

    def run(length: int) -> str:
        return "".join(random.choice(_ALPHABET) for _ in range(length))

    values = {name: f"{run(18)}/{run(9)}+{run(18)}" for name in PLANTED}
    # What is a mark to YAML would end the word in which it stands.
    return {**values, "key in a broken file": run(40), "secret key of the vault": f"{run(43)}="}


def spellings(secret: str) -> Sequence[str]:
    """Return the ways in which programs write a secret: as it is, in URLs, in JSON, in HTML, in hexadecimal and in
    base64."""
    raw = secret.encode()
    return (
        secret,
        quote(secret, safe=""),
        "".join(f"%{byte:02X}" for byte in raw),
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        "".join(f"\\u{byte:04x}" for byte in raw),
        "".join(f"&#{byte};" for byte in raw),
        raw.hex(),
        *_base64(secret),
    )


class Search:
    """Finds pieces of secrets in what a program wrote, in any case, over line breaks, and behind escapes."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        forms = {name: (secret, secret.encode().hex(), *_base64(secret)) for name, secret in secrets.items()}
        self._pieces = {piece: name for name, texts in forms.items() for piece in _pieces(texts)}

    def names(self, data: bytes) -> set[str]:
        """Return the names of the secrets of which a piece is there."""
        plain = _BREAKS.sub(b"", data)
        unescaped = _ESCAPE.sub(_character, plain)
        texts = {plain.lower(), unescaped.lower()}
        pieces = self._pieces
        return {
            pieces[piece]
            for text in texts
            for start in range(len(text) - PIECE + 1)
            if (piece := text[start : start + PIECE]) in pieces
        }


def _base64(secret: str) -> Sequence[str]:
    """Return base64 of a secret at each of the three places where it may begin, in both alphabets."""
    inside = [base64.b64encode(b"\0" * before + secret.encode()).decode().rstrip("=")[4:-1] for before in range(3)]
    return (*inside, *(text.replace("+", "-").replace("/", "_") for text in inside))


def _character(match: re.Match[bytes]) -> bytes:
    """Return the character that an escape stands for, or for a backslash before another character that one."""
    code = next((int(group, base) for group, base in zip(match.groups(), (16, 16, 16, 10), strict=True) if group), None)
    return b"" if code is None or code > 255 else bytes([code])


def _pieces(texts: Iterable[str]) -> set[bytes]:
    lowered = [text.lower().encode() for text in texts]
    return {text[start : start + PIECE] for text in lowered for start in range(len(text) - PIECE + 1)}


@dataclass(frozen=True, slots=True)
class Sighting:
    """A secret that was seen, and where."""

    secret: str
    place: str

    def __str__(self) -> str:
        return f"{self.secret}: {self.place}"


@dataclass(slots=True)
class Written:
    """All that was written, by place, with the secrets that the reader of that place had sent or may have."""

    secrets: dict[str, str]
    places: list[tuple[str, bytes, frozenset[str]]] = field(default_factory=list)
    controls: dict[str, int] = field(default_factory=dict)
    """How often each thing happened that the search is about. A thing that did not happen proves nothing."""

    def add(self, place: str, data: bytes | str, may_have: Iterable[str] = ()) -> None:
        """Note what was written at a place."""
        self.places.append((place, data.encode() if isinstance(data, str) else data, frozenset(may_have)))

    def happened(self, control: str, times: int = 1) -> None:
        """Note that something happened, or with 0 that it should."""
        self.controls[control] = self.controls.get(control, 0) + times

    def sightings(self) -> list[Sighting]:
        """Return every secret that is at a place where it must not be."""
        search = Search(self.secrets)
        return [
            Sighting(name, place)
            for place, data, may_have in self.places
            for name in sorted(search.names(data) - may_have)
        ]

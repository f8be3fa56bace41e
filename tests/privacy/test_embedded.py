"""Text that is written in base64, hexadecimal or Base32 is read; pictures, hashes and identifiers are passed over."""

from __future__ import annotations

import base64
import json
import random
import textwrap
from typing import Any

import orjson
import pytest

from spillway_router.privacy.detectors import PATTERN_NAMES, Detectors
from spillway_router.privacy.embedded import embedded_texts
from spillway_router.privacy.stepwise import Steps, search_body
from spillway_router.proxy.request.large_body import read_body

DETECTORS = Detectors(["medical record", "password", "médical"], patterns=PATTERN_NAMES)
SAID = "this is the medical record of Mr X"


def b64(text: str, encoding: str = "utf-8") -> str:
    return base64.b64encode(text.encode(encoding)).decode()


def document(data: str) -> list[dict[str, Any]]:
    source = {"type": "base64", "media_type": "text/plain", "data": data}
    return [{"type": "document", "source": source}]


PICTURE = b64("\x89PNG\r\n\x1a\n password", "latin-1")
PRIVATE: dict[str, object] = {
    "a document block": document(b64(SAID)),
    "a short document block": document(b64("a password")),
    "a file": [
        {"type": "file", "file": {"filename": "a.txt", "file_data": f"data:text/plain;base64,{b64('password')}"}}
    ],
    "an input file without a type": [{"type": "input_file", "file_data": b64("name,password\n1,2")}],
    "a data URL within a text": f"<a href='data:text/html;base64,{b64('<p>my password</p>')}'>",
    "a whole message": b64(SAID),
    "lines of an e-mail": f"see the file\n{base64.encodebytes((SAID * 9).encode()).decode()}",
    "a tool result in JSON": json.dumps({"file": base64.encodebytes((SAID * 9).encode()).decode()}),
    "the alphabet of URLs": base64.urlsafe_b64encode("ÿþ~~~??? medical record".encode()).decode(),
    "UTF-16": b64(SAID, "utf-16"),
    "Latin-1": b64("le dossier médical de M. X", "latin-1"),
    "a number": b64("the card is 4111 1111 1111 1111, valid until May"),
    "hexadecimal": SAID.encode().hex(),
    "hexadecimal in capitals, with a sign": f"0x{SAID.encode().hex().upper()}",
    "hexadecimal behind a name": f"blob-{SAID.encode().hex()}",
    "lines of a dump in hexadecimal": "\n".join(textwrap.wrap((SAID * 3).encode().hex(), 60)),
    "hexadecimal of UTF-16": SAID.encode("utf-16-le").hex(),
    "the end of a long text in hexadecimal": ("ordinary words, " * 9000 + "password").encode().hex(),
    "Base32": base64.b32encode(SAID.encode()).decode(),
    "Base32 without padding": f"KEY: {base64.b32encode(SAID.encode()).decode().rstrip('=')}",
    "the end of a long text in Base32": base64.b32encode(("ordinary words, " * 2000 + "password").encode()).decode(),
    "at the end of a long text": b64("ordinary words, " * 9000 + "password"),
}
ORDINARY: dict[str, object] = {
    "an ordinary file": document(b64("nothing special here")),
    "a picture": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}],
    "the id of a call": "call_AbCdEfGhIjKlMnOpQrStUvWx",
    "a hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "a hash in capitals": "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08",
    "a secret of one-time passwords": "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
    "a number of many digits": "314159265358979323846264338327950288419716939937510",
    "an ordinary text in hexadecimal": b"nothing special is in here".hex(),
    "a path": "/usr/lib/python3/dist-packages/passwordless/registry/index",
}


def kinds(content: object) -> set[str]:
    body = {"model": "auto", "messages": [{"role": "user", "content": content}]}
    return set(DETECTORS.kinds_in_body(body, orjson.dumps(body)))


@pytest.mark.parametrize("name", PRIVATE)
def test_text_in_base64_is_read(name: str) -> None:
    assert kinds(PRIVATE[name])


@pytest.mark.parametrize("name", ORDINARY)
def test_what_is_no_private_text_is_passed_over(name: str) -> None:
    assert kinds(ORDINARY[name]) == set()


@pytest.mark.parametrize("name", PRIVATE)
async def test_it_is_read_in_large_bodies_too(name: str) -> None:
    filler = [{"role": "user", "content": "An ordinary sentence of several words. " * 8000}]
    body = {"model": "auto", "messages": [*filler, {"role": "user", "content": PRIVATE[name]}]}
    read = await read_body(json.dumps(body).encode(), DETECTORS, key_id="")
    assert read.kinds  # type: ignore[attr-defined]


SPLIT = {
    "base64": b64(SAID),
    "hexadecimal": SAID.encode().hex(),
    "Base32": base64.b32encode(SAID.encode()).decode(),
}


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("parts", [2, 3])
def test_encoded_text_is_read_over_parts_and_messages(name: str, parts: int) -> None:
    size = len(SPLIT[name]) // parts + 1
    texts = textwrap.wrap(SPLIT[name], size)
    messages = [{"role": "user", "content": text} for text in texts]
    content = [{"type": "text", "text": text} for text in texts]
    for split in (messages, [{"role": "user", "content": content}]):
        body = {"model": "auto", "messages": split}
        assert DETECTORS.kinds_in_body(body, orjson.dumps(body)) == {"keyword"}
        assert _result(search_body(DETECTORS, body, orjson.dumps(body))) == {"keyword"}


@pytest.mark.parametrize("letters", [b"0123456789abcdef", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"])
def test_random_characters_of_other_codes_are_passed_over_in_small_steps(letters: bytes) -> None:
    characters = bytes(random.Random(2).choices(letters, k=1_000_000))
    pieces = list(embedded_texts(orjson.dumps({"data": characters.decode()})))
    assert not any(pieces)
    assert len(pieces) > 100, "each step looks at some kilobytes"


def test_a_large_picture_is_passed_over_in_small_steps() -> None:
    octets = random.Random(1).randbytes(3_000_000)
    text = orjson.dumps({"data": base64.b64encode(octets).decode()})
    pieces = list(embedded_texts(text))
    assert not any(pieces)
    assert len(pieces) > 400, "each step looks at some kilobytes"


def test_every_split_of_a_long_text_is_searched() -> None:
    """The word lies on another border of the steps each time."""
    for before in range(6100, 6180):
        text = b64("x" * before + " medical record " + "y" * 9000)
        body = {"input": text}
        steps = search_body(DETECTORS, body, orjson.dumps(body))
        assert _result(steps) == {"keyword"}, before


def _result(steps: Steps) -> frozenset[str]:
    """Take all steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return frozenset(end.value)

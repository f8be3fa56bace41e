"""Keys are cut out of what upstreams say, however they are written."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from spillway_router.core.redaction import HIDDEN, PIECE, Redactor

KEY = "sk-CANARY+cloud/key0123456789"
WAYS = {
    "as it is": KEY,
    "in capitals": KEY.upper(),
    "its beginning": KEY[: PIECE + 3],
    "its end": KEY[-PIECE - 3 :],
    "its middle": KEY[5 : 5 + PIECE],
    "in two lines": f"{KEY[:14]}\n  {KEY[14:]}",
    "percent escapes": quote(KEY, safe=""),
    "percent escapes of everything": "".join(f"%{byte:02x}" for byte in KEY.encode()),
    "JSON escapes": "".join(f"\\u{ord(c):04X}" for c in KEY),
    "JSON with escaped slashes": KEY.replace("/", "\\/"),
    "JSON within JSON": json.dumps(json.dumps(KEY.replace("/", "\\/"))),
    "Python escapes": "".join(f"\\x{ord(c):02x}" for c in KEY),
    "HTML escapes": "".join(f"&#{ord(c)};" for c in KEY),
    "HTML escapes in hexadecimal": "".join(f"&#x{ord(c):x};" for c in KEY),
    "hexadecimal": KEY.encode().hex(),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 within a header": base64.b64encode(f"Basic user:{KEY}".encode()).decode(),
    "base64 at the third place": base64.b64encode(f"xx{KEY}yy".encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(KEY.encode()).decode(),
    "base64 in lines": "\n".join(base64.b64encode(KEY.encode()).decode()[at : at + 12] for at in range(0, 40, 12)),
    "percent escapes of percent escapes": "".join(f"%25{byte:02x}" for byte in KEY.encode()),
    "escape() of JavaScript": "".join(f"%u{byte:04x}" for byte in KEY.encode()),
    "braces": "".join(f"\\u{{{byte:x}}}" for byte in KEY.encode()),
    "octal": "".join(f"\\{byte:03o}" for byte in KEY.encode()),
    "HTML escapes of HTML escapes": "".join(f"&amp;#{byte:05d};" for byte in KEY.encode()),
    "HTML escapes in capitals without ends": "".join(f"&#X{byte:X}" for byte in KEY.encode()),
    "hexadecimal with colons": KEY.encode().hex(":"),
    "UTF-16 in JSON": "".join(f"{c}\\u0000" for c in KEY),
    "UTF-16 in base64": base64.b64encode(f"Bearer {KEY}".encode("utf-16-le")).decode(),
    "base64 of base64": base64.b64encode(base64.b64encode(KEY.encode())).decode(),
    "full width": "".join(chr(0xFEE0 + ord(c)) for c in KEY),
    "soft hyphens": "\u00ad".join(KEY),
    "tag characters": "".join(chr(0xE0000 + ord(c)) for c in KEY),
    "typographic hyphens": KEY.replace("-", "\u2011"),
    "masked by the provider": f"{KEY[:6]}...{KEY[-4:]}",
    "masked with stars": f"{KEY[:6]}********{KEY[-4:]}",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_key_is_cut_out(way: str) -> None:
    text = Redactor(["another-secret-value", KEY]).cut(f"Incorrect API key: {WAYS[way]} (see the docs)")
    assert HIDDEN in text
    assert text.startswith("Incorrect API key: ")
    assert text.endswith(" (see the docs)")
    for coded in (KEY, base64.b64encode(KEY.encode()).decode()):
        pieces = {coded[at : at + PIECE] for at in range(len(coded) - PIECE)}
        assert not [piece for piece in pieces if piece in text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
        "req_5f0c1d2e3b4a69788796a5b4c3d2e1f0",
        "50% of \\n and \\u00e9 stay; see https://platform.openai.com/account/api-keys ...",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert Redactor([KEY, "https://mine.example/app"]).cut(text) == text


def test_values_of_any_shape_are_searched() -> None:
    value = {"message": f"bad {KEY}", "more": [{KEY: 1, "n": None, "deep": [f"x{KEY}"]}]}
    cut = Redactor([KEY]).cut_value(value)
    assert cut == {"message": "bad ***", "more": [{HIDDEN: 1, "n": None, "deep": ["x***"]}]}
    assert Redactor([KEY]).with_secret("own-secret").cut(f"{KEY} x own-secret") == "*** x ***"

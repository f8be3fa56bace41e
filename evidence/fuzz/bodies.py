"""Made-up bodies: valid requests of every route, changed in a few places."""

from __future__ import annotations

import copy
import json
import random
import zlib
from collections.abc import Callable
from typing import Any, Final

Body = dict[str, Any]

FIELDS: Final = (
    "model", "messages", "prompt", "input", "stream", "stream_options", "n", "best_of", "tools", "tool_choice",
    "functions", "logprobs", "top_logprobs", "response_format", "max_tokens", "max_completion_tokens", "models",
    "provider", "metadata", "user", "seed", "stop", "logit_bias", "reasoning", "instructions", "previous_response_id",
    "store", "background", "suffix", "echo", "temperature", "top_p", "service_tier", "modalities", "audio", "system",
    "prediction", "thinking", "request_id", "rating", "reason", "retry", "schema", "text", "conversation", "extra",
)  # fmt: skip
ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, -(10**400), 0.1, 1e308, -0.0, "", " ", "\0",
    "a" * 5000, "\ud800", "\u202e\u0300", "\U0001d54f é", "null", "auto", "cloud/x", "local/demo", "auto:fastest", "::",
    "../x", "${HOME}",
    "{{7*7}}", "'; DROP TABLE entries; --", "http://127.0.0.1:1/", "data:image/png;base64,AAAA", [], {}, [[]], [None],
    [{}], {"": {}}, {"type": "text"}, {"role": "user"}, [{"role": "user", "content": None}],
    [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}], [{"type": "input_audio"}],
    {"order": ["cloud"]}, {"only": ["local"]}, {"max_price": {"prompt": -1}}, {"include_usage": 1}, {"effort": "x"},
)  # fmt: skip
LITERALS: Final = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"00",
    b"+1",
    b"'a'",
    b'"\\ud800"',
    b'"\xff"',
    b'{"a":1,"a":2}',
    b"undefined",
)
DEEP: Final = 300


def valid(path: str, tag: str, model: str) -> Body:
    """Return a valid body for an inference route or an own endpoint; `tag` is part of the text."""
    words = f"Which eye is it? {tag}"
    messages = [{"role": "user", "content": words}]
    shapes: dict[str, Body] = {
        "/v1/completions": {"model": model, "prompt": words},
        "/v1/embeddings": {"model": model, "input": words},
        "/v1/responses": {"model": model, "input": words},
        "/v1/messages": {"model": model, "max_tokens": 5, "messages": messages},
        "/v1/documents/extract": {"text": words, "schema": "biometry"},
        "/v1/feedback": {"request_id": f"req_{tag}", "rating": "good", "reason": words},
    }
    return shapes.get(path, {"model": model, "messages": messages, "max_tokens": 5})


def changed(body: Body, rng: random.Random, *, spare: frozenset[str] = frozenset()) -> Body:
    """Return the body with up to three members added, removed or replaced; those named in `spare` stay."""
    result = json.loads(json.dumps(body))
    for _ in range(rng.randint(0, 3)):
        place: Any = result
        top = True
        while (inner := _inner(place, rng)) is not None and rng.random() < 0.5:
            place, top = inner, False
        if isinstance(place, list):
            place.insert(rng.randint(0, len(place)), _odd(rng))
            continue
        names = [name for name in place if not (top and name in spare)]
        if names and rng.random() < 0.2:
            del place[rng.choice(names)]
        elif names and rng.random() < 0.5:
            place[rng.choice(names)] = _odd(rng)
        elif (name := rng.choice(FIELDS)) not in spare:
            place[name] = _odd(rng)
    return dict(result)


def _odd(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(ODD))


def _inner(place: Any, rng: random.Random) -> Any:
    values = list(place.values()) if isinstance(place, dict) else place
    inner = [value for value in values if isinstance(value, (dict, list))]
    return rng.choice(inner) if inner else None


def encoded(body: Body) -> bytes:
    """Return the body as JSON; lone surrogates are escaped."""
    return json.dumps(body).encode("ascii")


def broken(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes of a body with one fault: cut, doubled, flipped, nested deeply, or with a wrong literal."""
    faults: tuple[Callable[[bytes, random.Random], bytes], ...] = (
        lambda d, r: d[: r.randint(0, len(d))],
        lambda d, r: d + d,
        _flipped,
        lambda d, _: b'{"messages":' + b"[" * DEEP + b"]" * DEEP + b"," + d[1:],
        lambda d, _: b'{"a":' * DEEP + d + b"}" * DEEP,
        lambda d, r: d[:-1] + b',"extra":' + r.choice(LITERALS) + b"}",
        lambda d, _: b"\xef\xbb\xbf" + d,
        lambda d, r: r.randbytes(len(d)),
        lambda d, _: d.decode("ascii").encode("utf-16"),
        lambda d, _: zlib.compress(d),
        lambda _, r: json.dumps(r.choice(ODD)).encode("ascii"),
    )
    return rng.choice(faults)(data, rng)


def _flipped(data: bytes, rng: random.Random) -> bytes:
    flipped = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)

"""The client's JSON body: what routing reads from it, and how single fields are changed without re-writing it.

The bytes that a client sent go upstream as they are; a rule that must change a top-level field (the model's name, an
added `stream_options`) splices just that span. So numbers, key order and unknown fields arrive as they were written.
To splice safely the spans must be certain: `spans` walks the bytes with one regular expression that knows strings and
brackets, and a body whose top-level keys are not unique is refused, because two readers could read it differently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from spillway_router.core.routing.model import Refusal

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]|,|:', re.DOTALL)
_OPEN = frozenset(b"{[")
_CLOSE = frozenset(b"}]")
MAX_DEPTH = 64
_OBJECTS = {dict}


class BadRequestError(Exception):
    """The request can't be accepted; `refusal` is what the client gets."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def bad(message: str, param: str | None = None) -> BadRequestError:
    """A 400 with the OpenAI error shape."""
    return BadRequestError(Refusal(400, "invalid_request", message, param))


def too_large(limit: int) -> Refusal:
    """A 413 that names the limit."""
    message = f"The request body is larger than {limit} bytes. Send less, or raise limits.body_mb."
    return Refusal(413, "request_too_large", message)


def head_flaw(headers: Mapping[str, str], limit: int) -> Refusal | None:
    """What bars a request before its body is read: 415 not JSON, 413 above `limit` bytes, 400 two lengths.

    A web page of another origin can make a browser POST text, forms or untyped bytes without asking first, also to a
    router on loopback that needs no key; it can't do so with JSON.
    """
    kind = headers.get("content-type", "")
    if kind != "application/json":
        media = kind.partition(";")[0].strip().lower()
        if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
            message = "Send the body as JSON, with the header 'content-type: application/json'."
            return Refusal(415, "invalid_request", message, "content-type")
    length = headers.get("content-length")
    if length is not None:
        if "transfer-encoding" in headers:
            message = "Content-Length and Transfer-Encoding were both sent. Send one of them."
            return Refusal(400, "invalid_request", message)
        if length.isdecimal() and int(length) > limit:
            return too_large(limit)
    return None


def load(body: bytes) -> dict[str, Any]:
    """The body as a JSON object with unique keys. Raises BadRequestError that says what to change."""
    if not body:
        raise bad("The request body is empty. Send a JSON object.")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise bad("The request body must be a JSON object.")
    if not _plain(body, parsed) and not _plainly_unique(body, _measure(parsed)):
        _refuse_duplicates(body)
    return parsed


def _plain(body: bytes, parsed: dict[str, Any]) -> bool:
    """True if counting bytes proves what `_measure` and `_plainly_unique` would find, for a usual chat: as many colons
    as keys in the object and its messages, which leaves none for other or double ones, and too few brackets to nest."""
    messages = parsed.get("messages")
    if type(messages) is not list or set(map(type, messages)) != _OBJECTS:
        return False
    keys = len(parsed) + sum(map(len, messages))
    return body.count(b":") == keys and body.count(b"[") + body.count(b"{") <= MAX_DEPTH


def _plainly_unique(body: bytes, keys: int) -> bool:
    """True if counting proves that no key was lost in parsing, so that none stands twice.

    Without white space every key token ends in a quote and a colon, so there are at least as many of those as keys:
    equal counts leave no room for a duplicate. Text that looks like a key only makes the proof fail; then the exact
    and slow check decides.
    """
    return body.translate(None, b" \t\r\n").count(b'":') == keys


def _measure(parsed: dict[str, Any]) -> int:
    """Number of keys at all levels. Raises BadRequestError when nested too deep."""
    keys = 0
    level: list[Any] = [parsed]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for node in level:
            if type(node) is dict:
                keys += len(node)
                below += [v for v in node.values() if type(v) is dict or type(v) is list]
            else:
                below += [v for v in node if type(v) is dict or type(v) is list]
        if not below:
            return keys
        level = below
    raise bad(f"The request body is nested deeper than {MAX_DEPTH} levels.")


def _refuse_duplicates(body: bytes) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> None:
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise bad(f"The key {key[:80]!r} stands twice in one JSON object. Send it once.", key[:80])
            seen.add(key)

    json.loads(body, object_pairs_hook=unique)


def spans(body: bytes) -> dict[str, tuple[int, int, int]]:
    """Top-level key -> (start of the key, start of its value, end of its value), for a valid JSON object."""
    found: dict[str, tuple[int, int, int]] = {}
    depth = 0
    key_start = value_start = -1
    key: str | None = None
    expect_key = True
    for match in _TOKEN.finditer(body):
        char = body[match.start()]
        if char in _OPEN:
            depth += 1
        elif char in _CLOSE:
            depth -= 1
            if depth == 0 and key is not None:
                found[key] = (key_start, value_start, _rstrip(body, match.start()))
        elif depth == 1:
            if char == 0x3A:  # colon
                value_start = match.end()
                expect_key = False
            elif char == 0x2C and key is not None:  # comma
                found[key] = (key_start, value_start, _rstrip(body, match.start()))
                key, expect_key = None, True
            elif expect_key:
                key_start = match.start()
                key = orjson.loads(match.group())
    return {k: (a, _lstrip(body, b), c) for k, (a, b, c) in found.items()}


def _rstrip(body: bytes, end: int) -> int:
    while body[end - 1] in b" \t\r\n":
        end -= 1
    return end


def _lstrip(body: bytes, start: int) -> int:
    while body[start] in b" \t\r\n":
        start += 1
    return start


def edit(body: bytes, keys: Collection[str], changes: Mapping[str, Any], drop: frozenset[str] = frozenset()) -> bytes:
    """The body with top-level fields set to new values, added or dropped; every other byte as it was.

    `keys` are the body's top-level keys, known from parsing it.
    """
    if not changes and drop.isdisjoint(keys):
        return body
    quick = _quick(body, keys, changes) if drop.isdisjoint(keys) else None
    if quick is not None:
        return quick
    where = spans(body)
    pieces: list[tuple[int, int, bytes]] = []
    added: list[bytes] = []
    for key, value in changes.items():
        if key in where:
            _, start, end = where[key]
            pieces.append((start, end, orjson.dumps(value)))
        else:
            added.append(orjson.dumps(key) + b":" + orjson.dumps(value))
    kept = sorted((span, key) for key, span in where.items())
    pieces.extend(_drop_span(kept, i) for i, (_, key) in enumerate(kept) if key in drop)
    left = [key for _, key in kept if key not in drop]
    out = bytearray(body)
    for start, end, text in sorted(pieces, reverse=True):
        out[start:end] = text
    if added:
        close = out.rindex(b"}")
        out[close:close] = (b"," if left else b"") + b",".join(added)
    if drop and left and kept[0][1] in drop:
        _fix_leading_comma(out)
    return bytes(out)


def _drop_span(kept: list[tuple[tuple[int, int, int], str]], i: int) -> tuple[int, int, bytes]:
    """From the end of the field before (its comma included) to the end of this one."""
    start = kept[i - 1][0][2] if i else kept[i][0][0]
    return (start, kept[i][0][2], b"")


def _fix_leading_comma(out: bytearray) -> None:
    brace = out.index(b"{")
    i = brace + 1
    while out[i] in b" \t\r\n":
        i += 1
    if out[i] == 0x2C:
        del out[i]


def _quick(body: bytes, keys: Collection[str], changes: Mapping[str, Any]) -> bytes | None:
    """The common edits without a walk: add new fields, replace `"model": "..."` where that text stands once."""
    if not keys:
        return None
    out = body
    for key, value in changes.items():
        # The first key of the object can be no deeper one, and no second one is there.
        if key == "model" and (first := _MODEL_FIRST.match(out)) is not None:
            out = b"%b%b%b" % (out[: first.start(1)], orjson.dumps(value), out[first.end(1) :])
            continue
        if key not in keys:
            close = out.rindex(b"}")
            out = b"%b,%b:%b%b" % (out[:close], orjson.dumps(key), orjson.dumps(value), out[close:])
            continue
        # The top-level key is in the text once; spelled with escapes, or with a namesake deeper down, it takes a walk.
        if key != "model" or b"\\u" in body or body.count(b'"model"') != 1:
            return None
        match = _MODEL.search(out)
        if match is None:
            return None
        out = out[: match.start(1)] + orjson.dumps(value) + out[match.end(1) :]
    return out


_MODEL = re.compile(rb'"model"\s*:\s*("[^"\\]*")')
_MODEL_FIRST = re.compile(rb'\s*\{\s*"model"\s*:\s*("[^"\\]*")')

"""The client's JSON body: parse it once, and change single fields without rewriting it.

The bytes that a client sent go upstream unchanged; a rule that must change a top-level field (the model's name, an
added `stream_options`) splices only that span. Numbers, key order and unknown fields therefore arrive as the client
wrote them. Splicing is safe only if the spans are certain: `FieldScanner` walks the bytes by strings and brackets, and
`load` refuses a body with duplicate keys, because two parsers could read it differently. What is said here of reading
holds for bodies that are read in one go; `large_body.py` reads the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from spillway_router.core.routing.model import Refusal
from spillway_router.http_client.types import Pieces
from spillway_router.proxy.request.errors import RefusedError, bad_request

Spans = dict[str, tuple[int, int, int]]

# The quantifiers are possessive: a match keeps no state for every character or escape that it passed.
STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
ANY_STRING = re.compile(STRING, re.DOTALL)
_REST = rb'(?:[^"\[\]{}]++|' + STRING + rb")*+"
_TOP = re.compile(rb'[^"\[\]{},:]*+(' + STRING + rb"|[\[\]{},:])", re.DOTALL)
_BELOW_TOP = re.compile(
    rb'(?:[^"\[\]{}]++|' + STRING + rb"|\[" + _REST + rb"\]|\{" + _REST + rb"\})*+([\[\]{}])", re.DOTALL
)
_OPEN = frozenset(b"{[")
_CLOSE = frozenset(b"}]")
MAX_DEPTH = 200
"""Deepest nesting of a body. A JSON schema of n nested objects needs 2n levels, and orjson writes at most 254."""
MAX_FIELDS = 1_000
"""Most top-level fields of a body. Each is looked at by itself, and no API has a tenth of that."""
_SPACE_AT_ONCE = 4 << 10
"""Bytes that are searched at once for the end of a value."""


def too_large(limit: int) -> Refusal:
    """Return a 413 that names the limit, which is in bytes."""
    message = (
        f"The request body is larger than {limit} bytes. Send less, or raise limits.body_mb for prompts and documents."
    )
    return Refusal(413, "request_too_large", message)


def head_flaw(headers: Mapping[str, str], limit: int, media: frozenset[str] = frozenset()) -> Refusal | None:
    """Return why the headers alone rule a request out: 415 not JSON, 413 above `limit` bytes, 400 two lengths or an
    unknown transfer coding.

    `media` are content types that are accepted instead of JSON.
    A web page of another origin can make a browser POST text, forms or untyped bytes without a preflight request, even
    to a router on loopback that requires no key. It cannot do so with JSON.
    """
    kind = headers.get("content-type", "")
    if kind != "application/json":
        plain = kind.partition(";")[0].strip().lower()
        is_json = plain == "application/json" or (plain.startswith("application/") and plain.endswith("+json"))
        if not is_json if not media else plain not in media:
            message = "Send the body as JSON, with the header 'content-type: application/json'."
            return Refusal(415, "invalid_request", message, "content-type")
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None and coding.lower() != "chunked":
        message = "Send the body with its length or in chunks: no other transfer coding is undone here."
        return Refusal(400, "invalid_request", message, "transfer-encoding")
    if length is not None:
        if coding is not None:
            message = "Content-Length and Transfer-Encoding were both sent. Send one of them."
            return Refusal(400, "invalid_request", message)
        if length.isdecimal() and int(length) > limit:
            return too_large(limit)
    return None


def too_many_fields() -> RefusedError:
    """Return the error of a body with more than MAX_FIELDS fields."""
    return bad_request(f"The request body has more than {MAX_FIELDS} fields at its top level. Send fewer.")


def too_deep() -> RefusedError:
    """Return the error of a body that nests more than MAX_DEPTH levels."""
    return bad_request(f"The request body is nested deeper than {MAX_DEPTH} levels.")


def load(body: bytes) -> dict[str, Any]:
    """Parse the body as a JSON object with unique keys. Raise RefusedError, which says what to change."""
    if not body:
        raise bad_request("The request body is empty. Send a JSON object.")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise bad_request("The request body must be a JSON object.")
    if len(parsed) > MAX_FIELDS:
        raise too_many_fields()
    if not _is_plain_chat(body, parsed) and not _has_unique_keys(body, _measure(parsed)):
        refuse_duplicates(body)
    return parsed


def _is_plain_chat(body: bytes, parsed: dict[str, Any]) -> bool:
    """Return True if counting bytes proves that the keys are unique and the nesting is shallow enough.

    This covers the usual chat: there are as many colons as keys in the object and its messages, which leaves none for
    other or duplicate keys. Nothing nests deeper than that, or there are too few brackets to nest too deep.
    """
    messages = parsed.get("messages")
    if type(messages) is not list:
        return False
    keys, containers = len(parsed), 0
    for value in parsed.values():
        if isinstance(value, (dict, list)):
            containers += 1
    for message in messages:
        if type(message) is not dict:
            return False
        keys += len(message)
        for value in message.values():
            if isinstance(value, (dict, list)):
                containers += 1
    # One container is `messages` itself.
    is_shallow = containers == 1 or body.count(b"[") + body.count(b"{") <= MAX_DEPTH
    return is_shallow and body.count(b":") == keys


def _has_unique_keys(body: bytes, keys: int) -> bool:
    """Return True if counting proves that parsing lost no key, so that no key is a duplicate.

    Without white space every key token ends in a quote and a colon, so there are at least as many of those as keys.
    Equal counts leave no room for a duplicate. Text that merely looks like a key makes this proof fail; then the
    colons outside of strings are counted.
    """
    if body.translate(None, b" \t\r\n").count(b'":') == keys:
        return True
    bare: bytes = ANY_STRING.sub(b'"', body)
    return bare.count(b":") == keys


def _measure(parsed: dict[str, Any]) -> int:
    """Count the keys at all levels. Raise RefusedError if the body is nested too deep."""
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
    raise too_deep()


def refuse_duplicates(body: bytes) -> None:
    """Raise RefusedError with the name of the first duplicate key, if there is one."""

    def unique(pairs: list[tuple[str, Any]]) -> None:
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise bad_request(f"Duplicate key {key[:80]!r} in a JSON object. Send it once.", key[:80])
            seen.add(key)

    json.loads(body, object_pairs_hook=unique)


class FieldScanner:
    """Finds the top-level fields of a JSON object, part by part.

    Below the top level only brackets matter, and one match skips all other bytes, strings and the innermost containers.
    The work is linear in the body's length whatever it holds.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.spans: Spans = {}
        """Each key's (start of the key, start of its value, end of its value). White space around a value may count as
        part of it until `trimmed` is asked."""
        self._key: str | None = None
        self._key_start = 0
        self._value_start = 0
        self._expects_key = True

    @property
    def expects_key(self) -> bool:
        """True if a string that comes next is a top-level key."""
        return self.depth == 1 and self._expects_key

    def scan(self, body: bytes, start: int, end: int) -> None:
        """Scan body[start:end], which holds no part of a string without the rest of it. Raise RefusedError if the body
        is nested too deep."""
        at, depth = start, self.depth
        while at < end:
            match = (_BELOW_TOP if depth > 1 else _TOP).match(body, at, end)
            if match is None:
                break
            at = match.end()
            char = body[match.start(1)]
            if char in _OPEN:
                depth += 1
                if depth > MAX_DEPTH:
                    raise too_deep()
            elif char in _CLOSE:
                depth -= 1
                if depth == 0:
                    self._end_field(at - 1)
            else:
                self._take(body, char, match.start(1), at)
        self.depth = depth

    def _take(self, body: bytes, char: int, at: int, after: int) -> None:
        """Take the comma, colon or string body[at:after], which begins with `char`, at the top level."""
        if char == 0x3A:  # colon
            self._value_start = after
            self._expects_key = False
        elif char == 0x2C:  # comma
            self._end_field(at)
            self._expects_key = True
        elif self._expects_key:
            self._key_start = at
            self._key = str(orjson.loads(body[at:after]))

    def _end_field(self, end: int) -> None:
        key = self._key
        if key is not None:
            self.spans[key] = (self._key_start, self._value_start, end)
            self._key = None

    def trimmed(self, body: bytes) -> Spans:
        """Return the spans of the scanned `body` without white space around the values."""
        return {k: (a, _lstrip(body, b), _rstrip(body, c)) for k, (a, b, c) in self.spans.items()}


def spans(body: bytes) -> Spans:
    """Map each top-level key of a valid JSON object to (start of the key, start of its value, end of its value)."""
    scanner = FieldScanner()
    scanner.scan(body, 0, len(body))
    return scanner.trimmed(body)


def _rstrip(body: bytes, end: int) -> int:
    """Return where the text body[:end] ends without its white space, of which there may be megabytes."""
    while end > 0:
        start = max(0, end - _SPACE_AT_ONCE)
        kept = len(body[start:end].rstrip())
        if kept:
            return start + kept
        end = start
    return end


def _lstrip(body: bytes, start: int) -> int:
    while start < len(body):
        part = body[start : start + _SPACE_AT_ONCE]
        kept = len(part.lstrip())
        if kept:
            return start + len(part) - kept
        start += len(part)
    return start


def edit(
    body: bytes,
    keys: Collection[str],
    changes: Mapping[str, Any],
    drop: frozenset[str] = frozenset(),
    known_spans: Spans | None = None,
) -> bytes:
    """Return the body with top-level fields set, added or dropped; every other byte stays as it was.

    `keys` are the body's top-level keys, which the caller has from parsing it. `known_spans` are those of a large body,
    which must not be walked again.
    """
    if not changes and drop.isdisjoint(keys):
        return body
    if known_spans is None and drop.isdisjoint(keys):
        quick = _edited_without_walk(body, keys, changes)
        if quick is not None:
            return quick
    return bytes(edited_pieces(body, keys, changes, drop, spans(body) if known_spans is None else known_spans))


def edited_pieces(
    body: bytes, keys: Collection[str], changes: Mapping[str, Any], drop: frozenset[str], span_of: Spans
) -> bytes | Pieces:
    """Return what `edit` returns, without a copy of the body. `span_of` are the spans of its top-level fields."""
    if not changes and drop.isdisjoint(keys):
        return body
    pieces: list[tuple[int, int, bytes]] = []
    added: list[bytes] = []
    for key, value in changes.items():
        if key in span_of:
            _, start, end = span_of[key]
            pieces.append((start, end, orjson.dumps(value)))
        else:
            added.append(orjson.dumps(key) + b":" + orjson.dumps(value))
    fields = sorted((span, key) for key, span in span_of.items())
    pieces.extend(_drop_span(fields, i) for i, (_, key) in enumerate(fields) if key in drop)
    remaining = [i for i, (_, key) in enumerate(fields) if key not in drop]
    if remaining and remaining[0] > 0:
        comma = body.index(b",", fields[remaining[0] - 1][0][2])
        pieces.append((comma, comma + 1, b""))
    if added:
        close = body.rindex(b"}")
        pieces.append((close, close, (b"," if remaining else b"") + b",".join(added)))
    return _spliced(body, sorted(pieces))


def _spliced(body: bytes, pieces: list[tuple[int, int, bytes]]) -> Pieces:
    """Replace each (start, end, text) of the sorted pieces."""
    out: list[bytes | memoryview] = []
    view, at = memoryview(body), 0
    for start, end, text in pieces:
        out.append(view[at:start])
        out.append(text)
        at = end
    out.append(view[at:])
    return Pieces(tuple(out))


def _drop_span(fields: list[tuple[tuple[int, int, int], str]], i: int) -> tuple[int, int, bytes]:
    """Return the span from the end of the previous field, so including its comma, to the end of field `i`."""
    start = fields[i - 1][0][2] if i else fields[i][0][0]
    return (start, fields[i][0][2], b"")


def _edited_without_walk(body: bytes, keys: Collection[str], changes: Mapping[str, Any]) -> bytes | None:
    """Make the common edits without walking the body; None if that is not safe.

    The common edits add new fields, and replace `"model": "..."` where that text occurs once.
    """
    if not keys:
        return None
    out = body
    for key, value in changes.items():
        # The first key of the object is at the top level, and keys are unique.
        if key == "model" and (first := _MODEL_FIRST.match(out)) is not None:
            out = b"%b%b%b" % (out[: first.start(1)], orjson.dumps(value), out[first.end(1) :])
            continue
        if key not in keys:
            close = out.rindex(b"}")
            out = b"%b,%b:%b%b" % (out[:close], orjson.dumps(key), orjson.dumps(value), out[close:])
            continue
        # The top-level key occurs in the text once. Written with escapes, or with a namesake deeper down, it needs the
        # walk.
        if key != "model" or b"\\u" in body or body.count(b'"model"') != 1:
            return None
        match = _MODEL.search(body)  # what was added so far stands behind it, and may have such a text too
        if match is None:
            return None
        out = out[: match.start(1)] + orjson.dumps(value) + out[match.end(1) :]
    return out


_MODEL = re.compile(rb'"model"\s*:\s*("[^"\\]*")')
_MODEL_FIRST = re.compile(rb'\s*\{\s*"model"\s*:\s*("[^"\\]*")')

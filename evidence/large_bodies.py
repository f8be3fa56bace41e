"""Bodies of 32 MB that were found to stop a router, or that could: one builder for each kind."""

from __future__ import annotations

import base64
import gzip
import json
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spillway_router.proxy.request.large_body import MAX_KEYS, MAX_STRINGS, MAX_VALUES

SIZE = 32 * 1000 * 1000 - 4096
"""Bytes of a body, a little below the default of `limits.body_mb`."""
_TURN = '{"model":"auto","max_tokens":4,"messages":[{"role":"user","content":"hi"}]'

_SHORT_PART = b'{"type":"text","text":"hello"},'
_LONG_PART = b'{"type":"text","text":"' + b"word " * 4000 + b'"},'
_LAST_PART = b'{"type":"text","text":""}]'


def _around(field: bytes, size: int) -> bytes:
    """Return a chat request with one more field, whose text is repeated up to the size."""
    return _TURN.encode() + b"," + field[:size] + b"}"


def _filled(before: bytes, unit: bytes, after: bytes, size: int) -> bytes:
    count = (size - len(before) - len(after)) // len(unit)
    return before + unit * count + after


def _messages(content: bytes, unit: bytes, close: bytes, size: int) -> bytes:
    """Return a chat request whose only message has this content."""
    return _filled(b'{"messages":[{"role":"user","content":' + content, unit, close + b'}],"model":"auto"}', size)


def _picture(size: int) -> bytes:
    pixels = base64.b64encode(random.Random(1).randbytes(size * 3 // 4 - 400)).decode()
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + pixels}}
    return json.dumps({"messages": [{"role": "user", "content": [part]}], "model": "auto", "top_k": 3}).encode()


def _pictures(size: int) -> bytes:
    pixels = base64.b64encode(random.Random(1).randbytes(60_000)).decode()
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + pixels}}
    return json.dumps({"messages": [{"role": "user", "content": [part] * (size // 80_100)}], "model": "auto"}).encode()


def _schema(size: int) -> bytes:
    one: dict[str, Any] = {"type": "string", "description": "x" * 400}
    schema = {"type": "object", "properties": {f"p{i}": one for i in range(size // 460)}}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return (_TURN + ',"response_format":' + json.dumps(shape) + "}").encode()


def _tools(size: int) -> bytes:
    text = "x" * 2000
    tool = {"type": "function", "function": {"name": "f", "description": text, "parameters": {"type": "object"}}}
    return (_TURN + ',"tools":' + json.dumps([tool] * (size // 2110)) + "}").encode()


def _most(value: bytes) -> int:
    """Return of how many such values a list may be, a little below the limits of a body."""
    if b'"' in value:
        return MAX_STRINGS - 10_000
    return MAX_KEYS - 10_000 if value[:1] in b"[{" else MAX_VALUES - 10_000


def _allowed(value: bytes, size: int) -> bytes:
    """Return a body with about as many values as a body may have, the rest of it white space."""
    before = _TURN.encode() + b',"x":[' + value * min(_most(value), size // 50)
    return _filled(before, b" " * 64, b"1]}", size)


def _parts(part: bytes, size: int) -> bytes:
    """Return a chat request with as many parts as the limit of keys allows, or as fit."""
    after = b'{"type":"text","text":""}]}]}'
    count = min((size - 200) // len(part), (MAX_KEYS - 2_000) // part.count(b'":'))
    return _padded(b'{"model":"auto","messages":[{"role":"user","content":[' + part * count + after, size)


def _padded(body: bytes, size: int) -> bytes:
    """Return a request that is made as long by one more text, which is cut: so it is not refused for its length."""
    before, after = body.removesuffix(b"}") + b',"metadata":{"more":"', b'"}}'
    return before + b"a" * (size - len(before) - len(after)) + after


def _listed(before: bytes, value: bytes, after: bytes, size: int) -> bytes:
    """Return a request with a list of about as many values as a body may have, then a text."""
    return _padded(before + value * min(_most(value), size // 50) + after, size)


def _names(before: bytes, after: bytes, size: int, member: bytes = b'"name%d":1') -> bytes:
    """Return a request with about as many different names as the limit of keys allows, or as fit; the rest is one text,
    which is cut."""
    count = min((size - 400) // (len(member) + 6), (MAX_KEYS - 2_000) // member.count(b'":'))
    body = before + b",".join([member % i for i in range(count)]) + after[:-1] + b',"title":"'
    return body + b"a" * (size - len(body) - 2) + b'"}'


def _keys(size: int) -> bytes:
    return _around(b'"metadata":{' + b",".join(b'"k%d":1' % i for i in range(size // 12)) + b"}", size - 200)


KINDS: dict[str, Callable[[int], bytes]] = {
    "one picture": _picture,
    "many pictures": _pictures,
    "one plain text": lambda size: _messages(b'"', b"the quick brown fox ", b'"', size),
    "text of two-byte characters": lambda size: _messages(b'"', "süß äöü ".encode(), b'"', size),
    "text of quotes": lambda size: _messages(b'"', b'\\"a\\" ', b'"', size),
    "text of backslashes": lambda size: _messages(b'"', b"\\\\", b'"', size),
    "text of unicode escapes": lambda size: _messages(b'"', b"\\u00e9", b'"', size),
    "text of escaped pairs of surrogates": lambda size: _messages(b'"', b"\\ud83d\\ude00", b'"', size),
    "text that looks like keys": lambda size: _messages(b'"', b'\\"model\\": ', b'"', size),
    "many short parts": lambda size: _messages(
        b"[", b'{"type":"text","text":"hello"},', b'{"type":"text","text":""}]', size
    ),
    "many long parts": lambda size: _messages(b"[", _LONG_PART, _LAST_PART, size),
    "parts of a kind that nobody knows": lambda size: _parts(b'{"type":"zz","zz":{"a":"http://x"}},', size),
    "addresses of pictures": lambda size: _parts(
        b'{"type":"image_url","image_url":{"url":"http://a.example.com/x"}},', size
    ),
    "hosts in escapes": lambda size: _parts(
        b'{"type":"image_url","image_url":{"url":"http://' + b"%41" * 3000 + b'.com/"}},', size
    ),
    "prompts": lambda size: _listed(b'{"model":"auto","max_tokens":2,"prompt":[', b'"a",', b'"a"]}', size),
    "tokens of a prompt": lambda size: _listed(b'{"model":"auto","max_tokens":2,"prompt":[', b"12345,", b"1]}", size),
    "texts to embed": lambda size: _listed(b'{"input":[', b'"a",', b'"a"],"model":"auto"}', size),
    "numbers of cards": lambda size: _padded(_messages(b'"', b"4111 1111 1111 1112 ", b'"', size // 16), size),
    "ligatures": lambda size: _padded(_messages(b'"', "\ufdfa ".encode(), b'"', size // 16), size),
    "escaped pictures": lambda size: _padded(
        _messages(b'[{"type":"image_url","image_url":{"url":"data:image/svg+xml,', b"%3Csvg%20", b'"}}]', size // 4),
        size,
    ),
    "messages without text": lambda size: _padded(
        b'{"model":"auto","messages":['
        + b'{"role":"user","name":"a","content":[]},' * min(32_000, (size - 200) // 44)
        + b'{"role":"user","content":"hi"}]}',
        size,
    ),
    "many messages": lambda size: _filled(
        b'{"model":"auto","messages":[',
        b'{"role":"user","content":"' + b"word " * 100 + b'"},',
        b'{"role":"user","content":"hi"}]}',
        size,
    ),
    "empty lists": lambda size: _filled(_TURN.encode() + b',"x":[', b"[],", b"1]}", size),
    "small numbers": lambda size: _filled(_TURN.encode() + b',"x":[', b"1,", b"1]}", size),
    "numbers to embed": lambda size: _filled(b'{"model":"auto","input":[', b"123456," + b" " * 100, b"1]}", size),
    "as many numbers as allowed": lambda size: _allowed(b"1234567890123456789,", size),
    "as many strings as allowed": lambda size: _allowed(b'"abcdefghijklmnopqrst",', size),
    "many keys": _keys,
    "many fields": lambda size: _names(_TURN.encode() + b",", b"}", size),
    "metadata of many names": lambda size: _names(_TURN.encode() + b',"metadata":{', b"}}", size),
    "metadata of names that are nearly marks": lambda size: _names(
        _TURN.encode() + b',"metadata":{', b"}}", size, b'"pricay%d":1'
    ),
    "metadata of inner JSON": lambda size: _names(_TURN.encode() + b',"metadata":{', b"}}", size, b'"n%d":"[1]"'),
    "a message of many names": lambda size: _names(
        b'{"model":"auto","messages":[{"role":"user","content":"hi",', b"}]}", size
    ),
    "parts with names of their own": lambda size: _names(
        b'{"model":"auto","messages":[{"role":"user","content":[', b"]}]}", size, b'{"type":"text","text":"","n%d":1}'
    ),
    "many tags": lambda size: _listed(_TURN.encode() + b',"tags":[', b'"color",', b'"a"]}', size),
    "tags in one text": lambda size: _padded(_TURN.encode() + b',"tags":"' + b"color," * (size // 64) + b'"}', size),
    "empty objects": lambda size: _listed(b'{"model":"auto","input":[', b"{},", b"{}]}", size),
    "deep nesting": lambda size: (_TURN + ',"x":').encode() + b"[" * (size // 2) + b"]" * (size // 2) + b"}",
    "repeated nesting": lambda size: _filled(
        _TURN.encode() + b',"x":[', b"[" * 150 + b"]" * 150 + b"," + b" " * 20, b"1]}", size
    ),
    "a large schema": _schema,
    "many tools": _tools,
    "white space between fields": lambda size: _padded(
        _TURN.encode() + b" " * min(11_000_000, size // 3) + b',"x":1}', size
    ),
    "white space": lambda size: _filled(_TURN.encode(), b" " * 64, b"}", size),
    "an open string": lambda size: _filled(_TURN.encode() + b',"x":"', b"abcdefgh", b"", size),
    "an open escape": lambda size: _filled(_TURN.encode() + b',"x":"', b"abcdefgh", b"\\", size),
    "invalid UTF-8 at the end": lambda size: _messages(b'"', b"abcdefgh", b'\xff"', size),
    "zeros": bytes,
    "a long number": lambda size: _filled(_TURN.encode() + b',"x":', b"1234567890", b"}", size),
}
"""A body of about so many bytes, by kind. Some are valid requests, some are refused."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request: where it goes, its headers beside the usual ones, each with its line end, and its body."""

    path: str
    body: bytes
    headers: bytes = b""


def _source(characters: int) -> dict[str, Any]:
    pixels = base64.b64encode(random.Random(1).randbytes(characters // 4 * 3)).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": pixels}}


def _to_messages(content: list[dict[str, Any]]) -> bytes:
    return json.dumps({"model": "auto", "max_tokens": 4, "messages": [{"role": "user", "content": content}]}).encode()


def _prose(size: int) -> str:
    return "the quick brown fox " * (size // 20 - 50)


def _tool_results(size: int) -> bytes:
    result = {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "word " * 400}]}
    return _to_messages([result] * min(11_000, size // 2100))


def _compressed(size: int) -> Sent:
    body = gzip.compress(KINDS["one plain text"](size), 1)
    return Sent("/v1/chat/completions", body, b"content-encoding: gzip\r\n")


def _keyed(size: int) -> Sent:
    return Sent("/v1/chat/completions", _picture(size), b"idempotency-key: %b\r\n" % uuid.uuid4().hex.encode())


def _file(size: int) -> bytes:
    data = base64.b64encode(random.Random(1).randbytes(size * 3 // 4 - 200)).decode()
    return json.dumps({"schema": "biometry", "file": {"name": "scan.pdf", "data": data}}).encode()


REQUESTS: dict[str, Callable[[int], Sent]] = {
    "a picture to /v1/messages": lambda size: Sent("/v1/messages", _to_messages([_source(size - 400)])),
    "pictures to /v1/messages": lambda size: Sent("/v1/messages", _to_messages([_source(80_000)] * (size // 80_200))),
    "tool results to /v1/messages": lambda size: Sent("/v1/messages", _tool_results(size)),
    "a text to /v1/responses": lambda size: Sent(
        "/v1/responses", json.dumps({"model": "auto", "input": _prose(size)}).encode()
    ),
    "a text to be counted": lambda size: Sent(
        "/v1/responses/input_tokens", json.dumps({"model": "auto", "input": _prose(size)}).encode()
    ),
    "a text to be explained": lambda size: Sent("/v1/route/explain", KINDS["one plain text"](size)),
    "pictures to be explained": lambda size: Sent("/v1/route/explain", _pictures(size)),
    "a file in base64": lambda size: Sent("/v1/documents/extract", _file(size)),
    "a compressed text": _compressed,
    "a picture with an idempotency key": _keyed,
    "a picture to a backend that fails": lambda size: Sent(
        "/v1/chat/completions", _picture(size).replace(b'"auto"', b'"fail"')
    ),
}
"""A request with about so many bytes, or with so many once they are decoded, by kind: other routes than those of
KINDS, and what the router does with a whole body."""

"""Read a large body in small steps, so that the event loop serves everybody else meanwhile.

orjson reads a body in one go, which stops the router for as long as that takes: seconds for 30 MB of tiny values. So a
body above LARGE bytes is read in slices. The work between two turns of the loop is bounded by SLICE bytes, by
STEP_VALUES values, or by one parse of at most MAX_PARSED bytes with at most MAX_VALUES values.

1. Each slice is cut at the end of a token. Strings are counted and skipped, and so is the rest: colons are keys, commas
   and opening brackets bound the number of values. Too many of them, and too deep a nesting, are refused at once.
2. Long strings are checked piece by piece, and left out of the text that is parsed: only their beginning stays, which
   holds a picture's size. `LargeBody.cut_strings` says how long they were.
3. The remaining text is parsed. The number of parsed keys shows whether a key was a duplicate.

The bytes that go upstream are the client's own; only what routing reads is shortened.

What routing reads from a body of many parts (proxy/request/facts.py) takes its time too; `in_thread` is for that.

Large answers are read in the same steps. Nothing in one is refused: an answer with more values than that is parsed
whole, piece by piece (proxy/request/json_steps.py). Of a long list of numbers, as embeddings are, only the first and
the last are parsed.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import orjson

from spillway_router.aio.fair_turns import FairTurns, Turn
from spillway_router.core.routing.model import Refusal
from spillway_router.privacy.detectors import Detectors
from spillway_router.privacy.pieces import text_pieces
from spillway_router.privacy.recognizer import Recognizer
from spillway_router.privacy.stepwise import OVERLAP, search_body, search_embedded, search_json
from spillway_router.providers.streams import MalformedObject, parse_object
from spillway_router.proxy.request.body import (
    ANY_STRING,
    MAX_DEPTH,
    MAX_FIELDS,
    STRING,
    FieldScanner,
    Spans,
    load,
    refuse_duplicates,
    too_deep,
    too_many_fields,
)
from spillway_router.proxy.request.errors import RefusedError, bad_request
from spillway_router.proxy.request.json_steps import load_in_steps

LARGE = 256 << 10
"""Most bytes of a body that is read in one go."""
LARGE_ANSWER = 2 << 20
"""Most bytes of an answer that is parsed in one go, which takes about 10 ms."""
SLICE = 32 << 10
"""Most bytes that are scanned between two turns of the event loop."""
STEP_VALUES = 20_000
"""Most parsed values that are counted between two turns of the event loop."""
MAX_VALUES = 400_000
"""Most values in a large body. OpenAI accepts at most 300,000 tokens in one request for embeddings."""
KEPT_TEXT = 4 << 20
"""Bytes up to which long texts are parsed whole. Beyond them only the beginning of a long text is."""
MAX_PARSED = 12 << 20
"""Most bytes that are parsed: everything but long strings."""
HEAD = 16 << 10
"""Bytes of a string that was cut which are parsed. A picture's size stands there."""
SHORT = 1 << 10
"""Bytes of a text that stay behind KEPT_TEXT."""
MAX_KEYS = 50_000
"""Most keys in a large body, and most lists and objects. One takes four times as long to parse as a number."""
MAX_STRINGS = 150_000
"""Most strings in a large body, with its keys. A string takes twice as long to parse as a number, and is searched."""
MANY_PARTS = 64 << 10
"""Bytes up to which the parts of a body are looked at in one go; a part takes about 10 us."""
SEARCHED_AT_ONCE = 16 << 10
"""Bytes up to which a body is searched for private content in one go."""

Made = TypeVar("Made")

_TOKENS = re.compile(rb'(?:[^"]++|' + STRING + rb")*+", re.DOTALL)
_CHARACTERS = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_TEXT = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"(\s*+:)?', re.DOTALL)
_MARK = b"\\u2026" + secrets.token_hex(8).encode() + b"-"
"""Ends a string that was cut. A client can't guess it, so that no whole string is taken for one that was cut."""
_PREFIX = rb'(?:data:[^"\\,]{0,256},)?'
_LONG_BASE64 = re.compile(rb'(?<!\\)"(' + _PREFIX + rb'[A-Za-z0-9+/=_-]{%d,}+)"(?!\s*:)' % HEAD)
_STARTS_BASE64 = re.compile(_PREFIX + rb"[A-Za-z0-9+/=_-]{1024}")
_HIGH_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")


_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_LISTED = rb"\s*+%b(?=\s*+[,\]])" % _NUMBER
_NUMBERS = re.compile(rb"(?<=,)%b(?:\s*+,%b){15,}+" % (_LISTED, _LISTED))
"""The numbers of a long list but its first, as far as they are followed by something: `1` can stand for them wherever
slices cut the list. What follows is looked at after each number, because a search that finds it missing at the end
begins again at the next number, which takes quadratic time."""


class ExaminedBody(dict[str, Any]):
    """The parsed JSON of a body in which private content was searched for already."""

    __slots__ = ("kinds", "text_bytes")

    def __init__(self, parsed: dict[str, Any]) -> None:
        super().__init__(parsed)
        self.kinds: frozenset[str] = frozenset()
        """The kinds of private content in the body; not all of them where there are several."""
        self.text_bytes = 0
        """Length of the whole body as orjson would write it."""


class LargeBody(ExaminedBody):
    """The parsed JSON of a large body; long strings in it end after HEAD bytes."""

    __slots__ = ("cut_strings", "spans")

    def __init__(self, parsed: dict[str, Any]) -> None:
        super().__init__(parsed)
        self.spans: Spans = {}
        """Where its top-level fields stand in the client's bytes."""
        self.cut_strings: dict[str, int] = {}
        """What stands in this JSON for a string that was cut, with the UTF-8 length of that string."""


async def read_body(
    body: bytes, detectors: Detectors | None = None, recognizer: Recognizer | None = None, *, key_id: str
) -> dict[str, Any]:
    """Parse a body of any size as a JSON object with unique keys. Raise RefusedError, which says what to change.

    Large bodies take turns, of which each key (`key_id`) has its own line, and which pass on while one is read. With
    detectors, a body of more than SEARCHED_AT_ONCE bytes is returned as an ExaminedBody; with a recognizer every body
    is.
    """
    if len(body) <= LARGE:
        parsed = load(body)
        if recognizer is None and (detectors is None or len(body) <= SEARCHED_AT_ONCE):
            return parsed
        return await examined(parsed, detectors, recognizer, key_id=key_id)
    # The steps of several bodies would add up within one turn of the loop.
    async with _LARGE_BODIES.turn(key_id) as turn:
        reading = Reading(body, detectors)
        for _ in reading.steps():
            await turn.step()
    result = reading.result
    result.kinds |= await _recognized(result, recognizer, key_id)
    return result


async def in_thread(key_id: str, work: Callable[..., Made], *arguments: object) -> Made:
    """Return what `work` makes of a parsed body of more than MANY_PARTS bytes, which the key `key_id` sent.

    The thread and the event loop take turns of half a millisecond (SWITCH_INTERVAL_S in runtime/serve.py). One body is
    read after the other, because each thread would have its turn.
    """
    return await _PARTS.in_thread(key_id, work, *arguments)


async def examined(
    parsed: dict[str, Any],
    detectors: Detectors | None,
    recognizer: Recognizer | None = None,
    also: Mapping[str, Any] | None = None,
    *,
    key_id: str,
) -> ExaminedBody:
    """Search a parsed body for private content, step by step, and with it what else `also` holds."""
    result, text = ExaminedBody(parsed), orjson.dumps(parsed)
    result.text_bytes = len(text)
    if detectors is not None:
        searched = text if also is None else orjson.dumps([parsed, also])
        async with _SEARCHED_BODIES.turn(key_id) as turn:
            steps = search_body(detectors, parsed, searched)
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    result.kinds = end.value
                    break
                await turn.step()
    result.kinds |= await _recognized(result, recognizer, key_id)
    return result


async def _recognized(body: ExaminedBody, recognizer: Recognizer | None, key_id: str) -> frozenset[str]:
    """Return what the recognizer says of a body's texts, unless the body is private already."""
    if recognizer is None or body.kinds:
        return frozenset()
    return frozenset(await _RECOGNITION.in_thread(key_id, recognizer.kinds, "\n".join(text_pieces(body))))


_LARGE_BODIES = FairTurns()
_SEARCHED_BODIES = FairTurns()
"""A body that is only searched does not wait for large ones."""
_PARTS = FairTurns()
_RECOGNITION = FairTurns()
_ANSWERS = "answers"
"""Whose turn the large answers of all upstreams take."""


async def read_answer(body: bytes) -> dict[str, Any] | MalformedObject:
    """Parse a whole answer of any size as a JSON object."""
    if len(body) <= LARGE_ANSWER:
        return parse_object(body)
    async with _LARGE_BODIES.turn(_ANSWERS) as turn:
        reading = Reading(body, is_answer=True)
        try:
            for _ in reading.steps():
                await turn.step()
        except RefusedError:  # no valid JSON, an odd key, or too many values
            return await _whole_answer(body, turn)
        return reading.result


async def _whole_answer(body: bytes, turn: Turn) -> dict[str, Any] | MalformedObject:
    """Parse all of an answer, with nothing cut."""
    loading = load_in_steps(body)
    while True:
        try:
            next(loading)
        except StopIteration as end:
            return end.value if isinstance(end.value, dict) else parse_object(body)
        except orjson.JSONDecodeError:
            return parse_object(body)
        await turn.step()


def spans_of(body: Mapping[str, Any]) -> Spans | None:
    """Return the spans of a body that was read in steps; None if it is small enough to be walked."""
    return body.spans if isinstance(body, LargeBody) else None


def whole_body(parsed: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """Return the JSON of a body that `read_body` has parsed, with its long strings whole.

    Where only one string was cut, such as a file in base64, and it is written without escapes, it is taken from the
    body: a second parse would copy all of it twice.
    """
    cut = cut_strings(parsed)
    if len(cut) == 1:
        (shown, size), *_ = cut.items()
        text = _plain_string(body, shown.rpartition("\u2026")[0].encode(), size)
        for member in (parsed, *parsed.values()):
            if text is not None and isinstance(member, dict):
                name = next((name for name, value in member.items() if value == shown), None)
                if name is not None:
                    return _with_member(parsed, member, name, text)
    whole: dict[str, Any] = orjson.loads(body)
    return whole


def _plain_string(body: bytes, head: bytes, size: int) -> str | None:
    """Return the string of `size` bytes that begins with `head`; None if it is written with escapes."""
    start = body.find(b'"' + head) + 1
    end = start + size
    if not start or body[end : end + 1] != b'"' or body.find(b"\\", start, end) >= 0:
        return None
    try:
        return str(memoryview(body)[start:end], "utf-8")
    except UnicodeDecodeError:
        return None


def _with_member(parsed: Mapping[str, Any], holder: Mapping[str, Any], name: str, text: str) -> dict[str, Any]:
    changed = {**holder, name: text}
    if holder is parsed:
        return changed
    return {key: changed if value is holder else value for key, value in parsed.items()}


def cut_strings(body: Mapping[str, Any]) -> Mapping[str, int]:
    """Return what stands in `body` for strings that were cut, with the UTF-8 length of each."""
    return body.cut_strings if isinstance(body, LargeBody) else _NOTHING_CUT


_NOTHING_CUT: Mapping[str, int] = {}


class Reading:
    """One body on its way from bytes to a LargeBody."""

    def __init__(
        self,
        body: bytes,
        detectors: Detectors | None = None,
        slice_bytes: int = SLICE,
        *,
        is_answer: bool = False,
    ) -> None:
        self.result = LargeBody({})
        self._is_answer = is_answer
        self._body = body
        self._detectors = detectors
        self._slice_bytes = slice_bytes
        self._kinds: frozenset[str] = frozenset()
        self._unsearched: list[bytes] = []
        self._scanner = FieldScanner()
        self._parsed: list[bytes] = []
        self._parsed_bytes = 0
        self._keys = 0
        self._containers = 0
        self._strings = 0
        self._values = 0
        self._cut: dict[str, int] = {}
        self._left_out = 0
        """UTF-8 bytes of strings that were cut which are not parsed."""

    def steps(self) -> Iterator[None]:
        """Read the body. Every step is bounded; the caller may do something else between two of them."""
        yield from self._scan()
        text = b"".join(self._parsed)
        self._parsed = []
        yield
        try:
            parsed = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"The request body is not valid JSON: {error.msg}.") from None
        if not isinstance(parsed, dict):
            raise bad_request("The request body must be a JSON object.")
        yield
        keys = yield from _count_keys(parsed)
        if keys != self._keys:
            if len(text) <= LARGE:
                refuse_duplicates(text)
            raise bad_request("An object in the request body has a duplicate key. Send each key once.")
        yield
        text = orjson.dumps(parsed)
        yield
        if self._detectors is not None and not self._kinds:
            self._kinds = yield from search_body(self._detectors, parsed, text)
        if self._detectors is not None and not self._kinds:  # long strings were cut
            self._kinds = yield from search_embedded(self._detectors, self._body)
        self._finish(parsed, len(text))

    def _finish(self, parsed: dict[str, Any], parsed_bytes: int) -> None:
        result = LargeBody(parsed)
        result.spans = self._scanner.trimmed(self._body)
        result.kinds = self._kinds
        result.cut_strings = self._cut
        result.text_bytes = parsed_bytes + self._left_out
        self.result = result

    def _scan(self) -> Iterator[None]:
        body, at = self._body, 0
        while at < len(body):
            end = min(at + self._slice_bytes, len(body))
            match = _TOKENS.match(body, at, end)
            after = at if match is None else match.end()
            if after > at:
                self._take_tokens(at, after)
                yield from self._search_cut()
                at = after
            else:
                at = yield from self._take_long_string(at)
            yield

    def _take_tokens(self, start: int, end: int) -> None:
        """Take whole tokens: count them, and leave out what is base64."""
        part = self._body[start:end]
        if self._is_answer:
            part = _NUMBERS.sub(b"1", part)
        bare = ANY_STRING.sub(b'"', part)
        self._keys += bare.count(b":")
        self._strings += bare.count(b'"')
        self._containers += bare.count(b"[") + bare.count(b"{")
        self._values += bare.count(b",")
        self._refuse_too_many()
        self._scanner.scan(self._body, start, end)
        if len(self._scanner.spans) > MAX_FIELDS and not self._is_answer:
            raise too_many_fields()
        if len(part) > HEAD:
            part = _LONG_BASE64.sub(self._cut_base64, part)
        if self._parsed_bytes > KEPT_TEXT:
            part = _TEXT.sub(self._cut_text, part)
        self._keep(part)

    def _refuse_too_many(self) -> None:
        bounds = (
            (self._keys, MAX_KEYS, "keys"),
            (self._containers, MAX_KEYS, "lists and objects"),
            (self._strings, MAX_STRINGS, "strings"),
            (self._values + self._containers, MAX_VALUES, "JSON values"),
        )
        for count, most, what in bounds:
            if count > most:
                message = f"The request body holds more than {most} {what}."
                raise RefusedError(Refusal(413, "request_too_large", message))

    def _cut_base64(self, match: re.Match[bytes]) -> bytes:
        text = match.group(1)
        self._unsearched.append(text)
        return self._cut_to_head(text[:HEAD], len(text))

    def _cut_text(self, match: re.Match[bytes]) -> bytes:
        text = match.group(1)
        if len(text) <= SHORT or match.group(2) is not None:
            return match.group()
        written = _as_written(text)
        self._unsearched.append(written)
        return self._cut_to_head(text[: _boundary(text, 0, SHORT)], len(written))

    def _cut_to_head(self, head: bytes, size: int) -> bytes:
        """Return the JSON string that stands for a string of `size` bytes, and remember it."""
        marked = b'"%b%b%d"' % (head, _MARK, len(self._cut))
        shown = orjson.loads(marked)
        self._cut[shown] = size
        self._left_out += size - len(orjson.dumps(shown)) + 2
        return marked

    def _keep(self, text: bytes) -> None:
        self._parsed.append(text)
        self._parsed_bytes += len(text)
        if self._parsed_bytes > MAX_PARSED:
            message = f"The request body holds more than {MAX_PARSED} bytes besides long strings."
            raise RefusedError(Refusal(413, "request_too_large", message))

    def _take_long_string(self, start: int) -> Generator[None, None, int]:
        """Take a string that is longer than a slice. Return the index behind it."""
        body, at = self._body, start + 1
        if self._scanner.expects_key:
            raise bad_request(f"A key is longer than {self._slice_bytes} bytes.")
        is_kept = _STARTS_BASE64.match(body, at) is None
        pieces: list[bytes] = []
        size, overlap = 0, b""
        while body[at : at + 1] != b'"':
            after = self._end_of_piece(at)
            piece = body[at:after]
            written = _as_written(piece)
            yield from self._search(written, overlap)
            overlap = written[-OVERLAP:]
            size += len(written)
            is_kept = is_kept and self._parsed_bytes + size <= KEPT_TEXT
            if is_kept or not pieces:
                pieces.append(piece)
            at = after
            yield
        if is_kept:
            self._keep(b'"%b"' % b"".join(pieces))
        else:
            self._keep(self._cut_to_head(pieces[0][: _boundary(pieces[0], 0, HEAD)], size))
        return at + 1

    def _end_of_piece(self, at: int) -> int:
        """Return where the piece of a string ends that begins at `at`: at its quote, or between two characters."""
        after = _boundary(self._body, at, at + self._slice_bytes)
        if after <= at or after >= len(self._body):
            raise bad_request("The request body is not valid JSON: a string is not closed, or it is not valid UTF-8.")
        return after

    def _search_cut(self) -> Generator[None, None, None]:
        for text in self._unsearched:
            yield from self._search(text)
        self._unsearched = []

    def _search(self, text: bytes, overlap: bytes = b"") -> Generator[None, None, None]:
        """Search text for private content, until there is some. `overlap` is the end of the text before it."""
        if self._detectors is not None and not self._kinds:
            self._kinds = yield from search_json(self._detectors, text, overlap)


def _as_written(piece: bytes) -> bytes:
    """Return a piece of a JSON string as orjson would write it. Raise RefusedError if it is not valid."""
    try:
        text = orjson.loads(b'"%b"' % piece)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"The request body is not valid JSON: {error.msg}.") from None
    return piece if b"\\" not in piece else orjson.dumps(text)[1:-1]


def _boundary(text: bytes, start: int, limit: int) -> int:
    """Return where a part of a string ends that begins at `start`: at the string's quote, or else the last index up to
    `limit` that splits no character, escape or pair of surrogates."""
    limit = min(limit, len(text))
    quote = text.find(b'"', start, limit)
    end = limit if quote < 0 else quote
    if text.find(b"\\", start, end) >= 0:
        match = _CHARACTERS.match(text, start, limit)
        end = start if match is None else match.end()
    if end == len(text) or text[end] == 0x22:
        return end
    while end > start and text[end] & 0xC0 == 0x80:
        end -= 1
    last = text.rfind(b"\\", max(start, end - 5), end)
    if last >= 0 and _begins_escape(text, start, last) and text[last + 1 : last + 2] == b"u":
        end = last
    if end - 6 >= start and _HIGH_SURROGATE.match(text, end - 6, end) and _begins_escape(text, start, end - 6):
        end -= 6
    return end


def _begins_escape(text: bytes, start: int, backslash: int) -> bool:
    """Return whether this backslash begins an escape of the string that begins at `start`, and does not end one."""
    before = text[start:backslash]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 0


def _count_keys(parsed: dict[str, Any]) -> Generator[None, None, int]:
    """Count the keys at all levels, step by step. Raise RefusedError if the body is nested too deep."""
    keys = seen = 0
    level: list[Any] = [parsed]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for node in level:
            seen += 1
            if type(node) is dict:
                keys += len(node)
            values = iter(node.values() if type(node) is dict else node)
            for start in range(0, len(node), STEP_VALUES):
                below += [v for v in islice(values, STEP_VALUES) if type(v) is dict or type(v) is list]
                seen += min(len(node) - start, STEP_VALUES)
                if seen > STEP_VALUES:
                    seen = 0
                    yield
        if not below:
            return keys
        level = below
    raise too_deep()

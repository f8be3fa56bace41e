"""A large body is read in bounded steps, to the same fields, spans and sizes as if it were read in one go."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.proxy.request.json_texts import NAMES, TEXT, WRITERS

from spillway_router.aio import fair_turns
from spillway_router.privacy.detectors import Detectors
from spillway_router.proxy.request import large_body
from spillway_router.proxy.request.body import Spans, edit, load, spans
from spillway_router.proxy.request.errors import RefusedError
from spillway_router.proxy.request.json_steps import PIECE
from spillway_router.proxy.request.large_body import (
    HEAD,
    LARGE,
    LARGE_ANSWER,
    SLICE,
    LargeBody,
    Reading,
    in_thread,
    read_answer,
    read_body,
    whole_body,
)
from spillway_router.proxy.request.privacy_marks import privacy_mark
from spillway_router.runtime.serve import SWITCH_INTERVAL_S

BASE64 = "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgAA" * 2000
LONG = st.builds(lambda text, times: text * times, TEXT, st.integers(0, 60)) | st.just(BASE64)
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | TEXT | LONG,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES) | TEXT, VALUES, max_size=6)


def reading(raw: bytes, slice_bytes: int = SLICE, detectors: Detectors | None = None) -> LargeBody:
    """Return what `raw` is read to in steps."""
    work = Reading(raw, detectors, slice_bytes)
    for _ in work.steps():
        pass
    return work.result


def reference_spans(raw: bytes) -> Spans:
    """Find the spans of the top-level fields with the standard library's decoder."""
    text, decode = raw.decode("latin-1"), json.JSONDecoder(strict=False).raw_decode
    space = re.compile(r"[ \t\r\n]*")

    def skip(at: int) -> int:
        spans = space.match(text, at)
        assert spans is not None
        return spans.end()

    spans: Spans = {}
    at = skip(skip(0) + 1)
    while text[at] != "}":
        _, key_end = decode(text, at)
        start = skip(skip(key_end) + 1)
        _, end = decode(text, start)
        spans[orjson.loads(raw[at:key_end])] = (at, start, end)
        at = skip(end)
        at = skip(at + 1) if text[at] == "," else at
    return spans


@settings(max_examples=300, deadline=None)
@given(body=OBJECTS, writer=WRITERS, slice_bytes=st.integers(160, 700))
@example(body={"a": "\U0001f642" * 300, "model": "x"}, writer={}, slice_bytes=161)
@example(body={"a": "\\" * 999, "model": "x"}, writer={}, slice_bytes=163)
@example(body={"a": ['\\"' * 999, "中" * 500], "model": {"model": "x"}}, writer={}, slice_bytes=167)
def test_steps_read_the_same_as_one_go(body: dict[str, Any], writer: dict[str, Any], slice_bytes: int) -> None:
    raw = json.dumps(body, **writer).encode()
    result = reading(raw, slice_bytes)
    assert result.spans == spans(raw) == reference_spans(raw)
    assert result.text_bytes == len(orjson.dumps(body))
    if not result.cut_strings:
        assert result == load(raw)
    changes, drop = {"model": "m", "stream_options": {"include_usage": True}}, frozenset({"provider", ""})
    assert edit(raw, body.keys(), changes, drop, result.spans) == edit(raw, body.keys(), changes, drop)


def test_the_beginning_of_a_picture_stays_and_its_length_is_known() -> None:
    result = reading(orjson.dumps({"model": "m", "url": BASE64, "short": "data:image/png;base64,iVBOR"}))
    assert result["url"].startswith(BASE64[:HEAD])
    assert result.cut_strings == {result["url"]: len(BASE64)}
    assert result["short"] == "data:image/png;base64,iVBOR"


def test_a_client_cannot_write_what_stands_for_a_cut_string() -> None:
    forged = reading(orjson.dumps({"url": BASE64}))["url"]
    result = reading(orjson.dumps({"text": forged[: HEAD + 4], "url": BASE64}))
    assert result["text"] not in result.cut_strings


def test_long_texts_are_kept_until_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["two words " * 10_000] * 9
    assert reading(orjson.dumps({"input": texts}))["input"] == texts
    monkeypatch.setattr(large_body, "KEPT_TEXT", 300_000)
    result = reading(orjson.dumps({"input": texts}))
    assert result["input"][:2] == texts[:2]
    assert sum(result.cut_strings.get(text, 0) for text in result["input"]) == 700_000
    assert result.text_bytes == len(orjson.dumps({"input": texts}))


@pytest.mark.parametrize(
    ("flaw", "message"),
    [
        (b"\x01", "not valid JSON"),
        (b"\\x", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"\xe4\xb8", "not valid JSON"),
        (b"\\ud83d", "not valid JSON"),
        (b'" ', "not valid JSON"),
    ],
)
@pytest.mark.parametrize("before", [0, SLICE - 1, SLICE * 3 // 2])
def test_a_flaw_inside_a_long_string_is_refused(flaw: bytes, message: str, before: int) -> None:
    raw = b'{"a":"' + b"x" * before + flaw + b"y" * SLICE * 2 + b'"}'
    with pytest.raises(RefusedError, match=message):
        reading(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a":"' + b"x" * LARGE, "not valid JSON"),
        (b'{"a":"' + b"x" * LARGE + b"\\", "not valid JSON"),
        (b"[" + b" " * LARGE + b"]", "must be a JSON object"),
        (b'{"a":[' + b"1," * 400_000 + b"1]}", "more than 400000 JSON values"),
        (b'{"a":[' + b"{}," * 50_000 + b"1]}", "50000 lists and objects"),
        (b'{"a":{' + b",".join(b'"%d":1' % i for i in range(50_001)) + b"}}", "50000 keys"),
        (b'{"a":[' + b'"",' * 150_000 + b"1]}", "150000 strings"),
        (b'{"a":' + b"[1," * 100_000, "nested deeper than 200"),
        (b'{"a":' + b"[" * 201 + b"]" * 201 + b"}", "nested deeper than 200"),
        (b'{"a":"' + b"x" * LARGE + b'","b":[{"c":1,"d":{},"c":2}]}', "Duplicate key 'c'"),
        (b'{"a":"' + b"x" * LARGE + b'","\\u0061":1}', "Duplicate key 'a'"),
        (b'{"a":{"b":1, "b":2},"c":[' + b'"text",' * 50_000 + b"1]}", "duplicate key"),
        (b'{"' + b"k" * 2 * SLICE + b'":1}', "key is longer"),
        (b'{"a":"' + b"x" * LARGE + b'",' + b",".join(b'"%d":1' % i for i in range(1_000)) + b"}", "1000 fields"),
    ],
)
def test_a_large_body_that_is_not_one_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        reading(raw)


@pytest.mark.parametrize("at", [0, SLICE - 3, 2 * SLICE - 9, 150_000])
@pytest.mark.parametrize("word", ["Diagnose", "Größe"])
def test_a_keyword_is_found_where_slices_meet(at: int, word: str) -> None:
    detectors = Detectors([word])
    for text in ("a " * SLICE * 3, "ä " * SLICE * 2):
        raw = orjson.dumps({"messages": [f"{text[:at]} {word.upper()} {text[at:]}"]})
        assert reading(raw, detectors=detectors).kinds == {"keyword"}
        escaped = json.dumps({"x": "y" * SLICE, "m": f"{text[:at]} {word} {text[at:]}"}).encode()
        assert reading(escaped, detectors=detectors).kinds == {"keyword"}
        assert not reading(orjson.dumps({"messages": [text]}), detectors=detectors).kinds


async def test_the_loop_goes_on_while_the_parts_of_a_large_body_are_read() -> None:
    turned = threading.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    assert await in_thread("", turned.wait, 30.0)


NAMED = dict.fromkeys([f"name{i}" for i in range(90_000)], 1)
OF_MANY_NAMES: dict[str, dict[str, Any]] = {
    "metadata": {"metadata": NAMED},
    "a message": {"messages": [{"role": "user", "content": "hi", **NAMED}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "", name: 1} for name in NAMED]}]},
    "headers": {"extra_headers": [[name, "a"] for name in NAMED]},
    "inner JSON": {"metadata": dict.fromkeys(NAMED, "[1]")},
}


@pytest.mark.parametrize("kind", OF_MANY_NAMES)
async def test_the_loop_goes_on_while_marks_are_looked_for(kind: str) -> None:
    """Compiled code keeps the interpreter's lock until it returns: the loop would get no turn at all meanwhile."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        looking = asyncio.ensure_future(in_thread("", privacy_mark, {"model": "m", **OF_MANY_NAMES[kind]}))
        turns = 0
        while not looking.done():
            turns += 1
            await asyncio.sleep(0)
    finally:
        sys.setswitchinterval(before)
    assert not await looking
    assert turns > 20


BODIES = {
    "one string": b'{"a":"' + b"x" * (2 << 20) + b'"}',
    "escapes": b'{"a":"' + b'\\":' * (700 << 10) + b'","model":1}',
    "small texts": b'{"a":[' + b'"text",' * (140 << 10) + b'1],"model":{"model":1}}',
    "brackets": b'{"a":[' + (b"[[[]]]," + b" " * 30) * 16_000 + b'1],"model":{"model":1}}',
}


@pytest.mark.parametrize("name", BODIES)
async def test_others_get_a_turn_after_each_slice(name: str) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await asyncio.gather(*(read_body(BODIES[name], key_id="") for _ in range(2)))
    task.cancel()
    assert turns >= 2 * len(BODIES[name]) // SLICE  # the two bodies are read one after the other


async def test_a_step_scans_no_more_than_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    scanned: list[int] = []
    original = large_body.FieldScanner.scan

    def scan(scanner: large_body.FieldScanner, body: bytes, start: int, end: int) -> None:
        scanned.append(end - start)
        original(scanner, body, start, end)

    monkeypatch.setattr(large_body.FieldScanner, "scan", scan)
    for body in BODIES.values():
        await read_body(body, key_id="")
    assert max(scanned) <= SLICE


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=300, deadline=None)
@given(
    vector=st.lists(NUMBERS, min_size=1, max_size=60),
    indent=st.sampled_from([None, 1]),
    slice_bytes=st.integers(40, 90),
)
def test_of_a_list_of_numbers_the_first_and_the_last_are_read(
    vector: list[float], indent: int | None, slice_bytes: int
) -> None:
    answer = {"data": [{"embedding": vector}, {"embedding": vector[::-1]}], "usage": {"prompt_tokens": 7}}
    work = Reading(json.dumps(answer, indent=indent).encode(), slice_bytes=slice_bytes, is_answer=True)
    for _ in work.steps():
        pass
    read, whole = work.result, orjson.loads(json.dumps(answer))
    assert read["usage"] == whole["usage"]
    for ours, theirs in zip(read["data"], whole["data"], strict=True):
        assert (ours["embedding"][0], ours["embedding"][-1]) == (theirs["embedding"][0], theirs["embedding"][-1])


def answer_of(content: str) -> bytes:
    return orjson.dumps({"choices": [{"message": {"content": content}}], "usage": {"prompt_tokens": 3}})


ANSWERS = {
    "a picture": answer_of("QUJD" * (1 << 20)),
    "embeddings": orjson.dumps(
        {"data": [{"embedding": [0.1234567890123] * 1536}] * 200, "usage": {"prompt_tokens": 3}}
    ),
    "a duplicate key": b'{"usage":{"prompt_tokens":0},"a":"%b","usage":{"prompt_tokens":3}}' % (b"x" * LARGE_ANSWER),
    "tiny values": b'{"a":[%b1],"usage":{"prompt_tokens":3}}' % (b'"",' * (1 << 20)),
    "half a character": answer_of("x" * LARGE_ANSWER).replace(b'":"xx', b'":"\\ud83d'),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_large_answer_is_read_whatever_it_holds(name: str) -> None:
    assert len(ANSWERS[name]) > LARGE_ANSWER
    answer = await read_answer(ANSWERS[name])
    assert isinstance(answer, dict)
    assert answer["usage"] == {"prompt_tokens": 3}


async def test_a_large_answer_that_is_no_json_says_so() -> None:
    answer = await read_answer(ANSWERS["a picture"][:-1])
    assert not isinstance(answer, dict)
    assert answer.flaw.startswith("bad JSON")


@pytest.mark.parametrize(
    ("answer", "step_bytes"),
    [
        (ANSWERS["a picture"], SLICE),
        (ANSWERS["embeddings"], SLICE),
        (b'{"a":[%b1],"usage":{"prompt_tokens":3}}' % (b'{"b":[{"c":""}]},' * 600_000), PIECE),
    ],
    ids=["a picture", "embeddings", "tiny values"],
)
async def test_others_get_a_turn_while_a_large_answer_is_read(answer: bytes, step_bytes: int) -> None:
    reading_answer = asyncio.create_task(read_answer(answer))
    turns = 0
    while not reading_answer.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= len(answer) // step_bytes


async def test_a_large_body_of_another_key_is_read_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_turns, "SHARE_S", 0.0)
    done: list[str] = []

    async def read(key_id: str, size: int) -> None:
        text = "12345 67890 " * (size // 12)
        await read_body(orjson.dumps({"messages": [{"role": "user", "content": text}]}), key_id=key_id)
        done.append(key_id)

    await asyncio.gather(read("long", 8 << 20), read("calm", 300_000))
    assert done == ["calm", "long"]


@settings(max_examples=300, deadline=None)
@given(body=OBJECTS, writer=WRITERS, slice_bytes=st.integers(160, 700))
def test_long_strings_are_whole_again(body: dict[str, Any], writer: dict[str, Any], slice_bytes: int) -> None:
    raw = json.dumps(body, **writer).encode()
    assert whole_body(reading(raw, slice_bytes), raw) == body


FILE = "iVBORw0KGgoAAAANSUhEUgAA" * 2000


@pytest.mark.parametrize(
    "raw",
    [
        orjson.dumps({"schema": "x", "file": {"name": "a", "data": FILE}}),
        orjson.dumps({"file": {"data": FILE, "name": FILE[:HEAD]}, "text": FILE[: HEAD - 1]}),
        orjson.dumps({"text": FILE, "file": None}),
        orjson.dumps({"text": "\u2026" + FILE, "a": [FILE[:900]]}),
        orjson.dumps({"text": "\u00fc\u2026" * 30_000}),
        orjson.dumps({"file": {"data": FILE}, "text": FILE + "A"}),
        orjson.dumps({"deep": {"er": {"data": FILE}}}),
        orjson.dumps({"list": [FILE]}),
        orjson.dumps({"file": {"data": FILE}}).replace(b"AA", b"\\/A"),
        orjson.dumps({"file": {"data": FILE}}).replace(b"iVBO", b"\\u0069VBO", 1),
        orjson.dumps({"file": {"data": FILE + "\n"}}),
        orjson.dumps({FILE[:20_000]: "a", "file": {"data": FILE}}),
    ],
)
def test_the_long_string_of_a_file_is_whole_again(raw: bytes) -> None:
    assert whole_body(reading(raw), raw) == orjson.loads(raw)

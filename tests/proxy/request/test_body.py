"""body.edit changes only the named fields and no other byte; body.load accepts a body only if it is unambiguous."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.proxy.request.json_texts import NAMES, TEXT, WRITERS

from spillway_router.proxy.request.body import edit, load, spans
from spillway_router.proxy.request.errors import RefusedError

NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES) | TEXT, VALUES, max_size=6)


@settings(max_examples=400, deadline=None)
@given(
    body=OBJECTS,
    writer=WRITERS,
    changes=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
    drop=st.frozensets(st.sampled_from(NAMES), max_size=3),
)
@example(body={"metadata": {"model": "x"}}, writer={}, changes={"model": "m"}, drop=frozenset())
@example(body={}, writer={}, changes={"model": "m"}, drop=frozenset())
@example(body={"": 1}, writer={}, changes={"model": [1]}, drop=frozenset())
@example(body={"a": 1, "model": None}, writer={}, changes={"b": {"model": "x"}, "model": "m"}, drop=frozenset())
@example(body={"models": [], "a": 1, "provider": {}}, writer={"indent": 2}, changes={}, drop=frozenset({"models"}))
def test_an_edited_body_differs_in_the_named_fields_only(
    body: dict[str, Any], writer: dict[str, Any], changes: dict[str, Any], drop: frozenset[str]
) -> None:
    drop = drop.difference(changes)
    raw = json.dumps(body, **writer).encode()
    edited = edit(raw, load(raw).keys(), changes, drop)
    expected = {k: v for k, v in {**body, **changes}.items() if k not in drop}
    assert json.loads(edited) == expected
    assert len(json.loads(edited, object_pairs_hook=lambda pairs: pairs)) == len(expected)  # no duplicate key


@settings(max_examples=200, deadline=None)
@given(body=OBJECTS, writer=WRITERS, at=st.integers(0, 5))
def test_all_other_bytes_are_kept(body: dict[str, Any], writer: dict[str, Any], at: int) -> None:
    keys = [k for k in body if k != "model"]
    keys.insert(min(at, len(keys)), "model")
    raw = json.dumps({k: "before" if k == "model" else body[k] for k in keys}, **writer).encode()
    after = json.dumps({k: "after!" if k == "model" else body[k] for k in keys}, **writer).encode()
    assert edit(raw, load(raw).keys(), {"model": "after!"}) == after


def test_numbers_escapes_and_order_arrive_as_written() -> None:
    raw = b' { "n":1.0e+02, "z":12345678901234567890123, "s":"\\u00e9\\/" ,"model" : "a", "f":-0.0 } '
    edited = edit(raw, load(raw).keys(), {"model": "b"}, frozenset({"s"}))
    assert edited == b' { "n":1.0e+02, "z":12345678901234567890123 ,"model" : "b", "f":-0.0 } '


def test_an_escaped_key_is_the_same_key() -> None:
    raw = b'{"mod\\u0065l":"a","stream\\u005foptions":{"x":1}}'
    edited = edit(raw, load(raw).keys(), {"model": "b", "stream_options": {}})
    assert edited == b'{"mod\\u0065l":"b","stream\\u005foptions":{}}'


@pytest.mark.parametrize("space", [b"", b" ", b"\n" * 4095, b"\t " * 6000])
def test_white_space_around_a_value_is_no_part_of_it(space: bytes) -> None:
    body = b'{"a":%b1%b,"b":%b[ ]%b}' % (space, space, space, space)
    assert {name: body[start:end] for name, (_, start, end) in spans(body).items()} == {"a": b"1", "b": b"[ ]"}


def test_a_body_of_too_many_fields_is_refused() -> None:
    assert len(load(json.dumps(dict.fromkeys(map(str, range(1_000)))).encode())) == 1_000
    with pytest.raises(RefusedError, match="more than 1000 fields"):
        load(json.dumps(dict.fromkeys(map(str, range(1_001)))).encode())


def test_nothing_to_change_gives_the_same_bytes() -> None:
    raw = b'{"a": 1}'
    assert edit(raw, {"a"}, {}, frozenset({"models"})) is raw


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2}',
        b'{"a":1,"\\u0061":2}',
        b'{"x":{"a":1,"a":1}}',
        b'{"x":[{"deep":[{"a":1, "b":2,\n"a" :3}]}]}',
        b'{"a\\\\":1,"a\\\\":2}',
        b'{"":1,"":2}',
        b'{"a":"\\"b\\":","a":1}',
    ],
)
def test_a_duplicate_key_is_refused(raw: bytes) -> None:
    with pytest.raises(RefusedError, match="Duplicate key"):
        load(raw)


@settings(max_examples=200, deadline=None)
@given(body=OBJECTS, writer=WRITERS)
def test_unique_keys_are_not_refused(body: dict[str, Any], writer: dict[str, Any]) -> None:
    assert load(json.dumps(body, **writer).encode()) == body

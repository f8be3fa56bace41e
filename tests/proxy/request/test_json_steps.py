"""A text is parsed in steps as orjson parses it at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_router.proxy.request import json_steps
from spillway_router.proxy.request.json_steps import PIECE, load_in_steps


def loaded(text: bytes) -> tuple[Any, int]:
    """Return what the text is, and in how many steps it was read."""
    loading, steps = load_in_steps(text), 0
    while True:
        try:
            next(loading)
        except StopIteration as end:
            return end.value, steps
        steps += 1


def value_in_steps(text: bytes) -> Any:
    return loaded(text)[0]


def outcome(load: Callable[[bytes], Any], text: bytes) -> Any:
    """Return what a parser makes of a text: its value, or the error."""
    try:
        return load(text)
    except orjson.JSONDecodeError as error:
        return str(error)


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12) | st.sampled_from(["]}", '",{'])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=6), inner, max_size=6)
)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_steps, "PIECE", 4)


@pytest.mark.usefixtures("small_pieces")
@settings(max_examples=300)
@given(value=VALUES, indent=st.sampled_from([None, 1]), escaped=st.booleans())
def test_a_text_is_what_orjson_makes_of_it(value: Any, indent: int | None, escaped: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=escaped).encode()
    assert value_in_steps(text) == value


@pytest.mark.usefixtures("small_pieces")
@settings(max_examples=500)
@given(value=VALUES, data=st.data())
def test_a_damaged_text_has_the_fate_that_orjson_gives_it(value: Any, data: st.DataObject) -> None:
    text = bytearray(json.dumps(value).encode())
    at = data.draw(st.integers(0, len(text)))
    text[at : at + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([b"", b",", b"]", b"}", b"[", b'"', b" 1"])
    )
    assert outcome(value_in_steps, bytes(text)) == outcome(orjson.loads, bytes(text))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    "text",
    [
        b'{"a":[[1,2,3],4],"b":5,"a":[[6,7,8],9]}',
        b'{"b":1,"a":2,"b":[{"c":[1,2,3]}]}',
        b'[{"a":[1,2,3]},]',
        b'[{"a":[1,2,3]} {"a":[1,2,3]}]',
        b'[{"a":[1,2,3]},{"a":[1,2,3]}}',
        b'[[1,2,3],[4]] 1',
        b'1 [[1,2,3]]',
        b'{"a" [[1,2,3]]}',
        b"[" * 150 + b"]" * 150,
        b"[" * 2000 + b"]" * 2000,
        b'"text"',
        b"",
    ],
)  # fmt: skip
def test_odd_texts(text: bytes) -> None:
    assert outcome(value_in_steps, text) == outcome(orjson.loads, text)


def test_log_probabilities_are_read_in_many_steps() -> None:
    nearest = [{"token": "a", "logprob": -1.5, "bytes": [97]}] * 5
    content = [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": nearest}] * 10_000
    answer = {"id": "1", "choices": [{"index": 0, "message": {"content": "a"}, "logprobs": {"content": content}}]}
    text = json.dumps(answer).encode()
    value, steps = loaded(text)
    assert value == answer
    assert steps > len(text) // PIECE - 2

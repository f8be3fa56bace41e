"""The event decoder: whatever the cuts and line ends, the same events, and every byte accounted for."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spillway_router.providers import sse
from spillway_router.providers.sse import Event, SseDecoder, SseError

# Raw soup of the bytes that matter, and well-formed streams with mixed line ends.
BOM = b"\xef\xbb\xbf"
SOUP = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b":", b" ", b"data", b"data: x", b"event: e", b"\xef\xbb\xbf"]))
LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:  two",
        b"data:",
        b"data",
        b": comment",
        b"event: ping",
        b"id: 1",
        b"retry: 5",
        b"data: \xc3\xa4",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def written(draw: st.DrawFn, mixed: bool) -> bytes:
    """A stream of whole events, its lines ended in one way or (`mixed`) in any; perhaps with a byte order mark."""
    usual = draw(ENDS)
    events = draw(st.lists(st.lists(LINES, min_size=1, max_size=4), max_size=5))
    lines = [line for event in events for line in [*event, b""]]
    text = b"".join(line + (draw(ENDS) if mixed else usual) for line in lines)
    return (b"\xef\xbb\xbf" if draw(st.booleans()) else b"") + text


def feed(chunks: list[bytes]) -> tuple[list[Event], SseDecoder]:
    decoder = SseDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)], decoder


def cut(data: bytes, at: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(i % (len(data) + 1) for i in at)})
    return [data[a:b] for a, b in pairwise(marks)]


def by_the_standard(data: bytes) -> list[tuple[bytes, bytes]]:
    """(name, data) of the dispatched events, by the letter of the WHATWG's line-by-line rules."""
    dispatched = []
    name = b""
    parts: list[bytes] = []
    for line in re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf"))[:-1]:
        if not line:
            if parts:
                dispatched.append((name, b"\n".join(parts)))
            name, parts = b"", []
            continue
        if line.startswith(b":"):
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            parts.append(value)
        elif field == b"event":
            name = value
    return dispatched


@settings(max_examples=600, deadline=None)
@given(st.one_of(SOUP.map(b"".join), written(mixed=True)), st.lists(st.integers(0, 400), max_size=40))
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 9, 10, 11])
@example(b"data: a\n\n\ndata: b\n\n", [9])
@example(b"data: a\r\r\ndata: b\r\n\r\n", [9])
@example(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [1, 2])
def test_any_chunking_gives_the_same_events(data: bytes, at: list[int]) -> None:
    whole, decoder = feed([data])
    parts, other = feed(cut(data, at))
    assert parts == whole
    assert other.pending == decoder.pending
    raw = b"".join(event.raw for event in whole)
    assert data.removeprefix(BOM if whole else b"").startswith(raw)
    dispatched = [(event.name, event.data) for event in whole if event.data is not None]
    if data.endswith(b"\n\r"):  # may be half of a CRLF: only the byte after it can tell
        assert dispatched == by_the_standard(data)[: len(dispatched)]
    else:
        assert dispatched == by_the_standard(data)


@settings(deadline=None)
@given(written(mixed=False))
def test_raw_bytes_of_whole_streams_add_up_to_the_input(data: bytes) -> None:
    bytewise, _ = feed([data[i : i + 1] for i in range(len(data))])
    raw = b"".join(event.raw for event in bytewise)
    text = data.removeprefix(BOM)
    assert text.startswith(raw)
    # Nothing but line ends can be left of a stream of whole events.
    assert not text[len(raw) :].strip(b"\r\n")


def test_every_line_end_in_turn() -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        data = b"event: a" + end + b"data: 1" + end + b"data: 2" + end * 2 + b": still here" + end * 2
        events, decoder = feed([data[i : i + 1] for i in range(len(data))])
        assert [(e.name, e.data) for e in events] == [(b"a", b"1\n2"), (b"", None)], end
        assert b"".join(e.raw for e in events) == data
        assert not decoder.pending


@pytest.mark.parametrize("data", [b"data: [DONE]", b"data: [DONE]\n", b"data: 1\n\ndata: 2\n", b"data: x\r\n", b"d"])
def test_an_unfinished_event_is_pending(data: bytes) -> None:
    events, decoder = feed([data])
    assert decoder.pending
    assert all(event.data != b"[DONE]" for event in events)


def test_an_endless_event_is_refused() -> None:
    decoder = SseDecoder()
    chunk = b"x" * (1024 * 1024)
    for _ in range(sse.MAX_EVENT_BYTES // len(chunk)):
        assert decoder.feed(chunk) == []
    with pytest.raises(SseError, match="larger than"):
        decoder.feed(b"x")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [4093, 65_536, 70_001, 300_000])
@pytest.mark.parametrize("gap", [1, 2])
def test_large_events_are_the_same_whatever_the_cuts(end: bytes, size: int, gap: int) -> None:
    large = b"A" * 150_000
    lines = [
        b"data: 1",
        b"data: " + large,
        b"event: e" + end + b"data: " + large,
        b"data: 2",
        b": c",
        b"data: " + large,
    ]
    data = b"".join(line + end * (1 + gap) for line in lines)
    whole, _ = feed([data])
    for shift in (0, 1, 2, 3, 17):
        first = data[:shift]
        pieces = [data[at : at + size] for at in range(shift, len(data), size)]
        events, _ = feed([first, *pieces] if first else pieces)
        assert [(e.name, e.data) for e in events if e.data] == [(e.name, e.data) for e in whole if e.data]
        assert data.startswith(b"".join(e.raw for e in events))


@pytest.mark.parametrize("back", range(6))
def test_a_large_event_that_ends_at_a_cut_is_whole(back: int) -> None:
    data = b"data: 0\n\ndata: " + b"A" * 200_000 + b"\n\n" + b"data: 1\n\n"
    middle = len(data) - len(b"data: 1\n\n") - back
    events, decoder = feed([data[:100_000], data[100_000:middle], data[middle:]])
    assert [e.data for e in events] == [b"0", b"A" * 200_000, b"1"]
    assert b"".join(e.raw for e in events) == data
    assert not decoder.pending

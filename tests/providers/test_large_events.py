"""Events of several MB: they come out whole wherever they are cut, and nobody else waits for long meanwhile."""

from __future__ import annotations

import time

import pytest

from spillway_router.providers.sse import MAX_EVENT_BYTES, SseDecoder, SseError
from spillway_router.providers.streams import ChatMonitor

SIZE = 8_000_000
MOST_S = 0.05
"""CPU time for which everybody else may wait. It leaves out the time for which the machine did something else."""
BEGIN, END = b'data: {"choices":[{"index":0,"delta":{"content":"', b'"}}]}'
TEXTS = {
    "base64": b"QUJD" * (SIZE // 4),
    "escapes": b'\\n\\"' * (SIZE // 4),
    "letters": "é".encode() * (SIZE // 2),
    "escaped letters": b"\\u00e9" * (SIZE // 6),
}
LINE_ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}
FIRST = b'data: {"choices":[]}\n\n'


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("text", TEXTS)
def test_an_event_of_8_mb_holds_nobody_up(text: str, line_end: str) -> None:
    event = BEGIN + TEXTS[text] + END
    stream = event + LINE_ENDS[line_end] * 2 + FIRST
    best_s = min(longest_s(stream, event) for _ in range(3))
    assert best_s <= MOST_S


def longest_s(stream: bytes, event: bytes) -> float:
    """Return the longest that one packet took, and check what came of all of them."""
    decoder, monitor, worst_s, seen = SseDecoder(), ChatMonitor(1), 0.0, []
    decoder.feed(FIRST)
    for start in range(0, len(stream), 65_536):
        began_s = time.thread_time()
        events = decoder.feed(stream[start : start + 65_536])
        for each in events:
            if each.data is not None:
                assert monitor.check(each.name, each.data) is None
        worst_s = max(worst_s, time.thread_time() - began_s)
        seen += events
    assert [each.data for each in seen if each.data] == [event[6:], FIRST[6:-2]]
    assert b"".join(each.raw for each in seen) == stream
    return worst_s


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_a_large_event_is_the_same_wherever_it_is_cut(line_end: str, bom: bytes) -> None:
    end = LINE_ENDS[line_end]
    lines = [b"event: x", b"data: " + b"a" * 70_000, b"data: b", b": comment", b"id: 1"]
    large = end.join(lines) + end + end
    stream = bom + large + b"data: c" + end + end
    expected = [(b"x", b"a" * 70_000 + b"\nb"), (b"", b"c")]
    for at in [*range(len(bom) + 70_000, len(stream))]:
        decoder = SseDecoder()
        parts = (stream[: at - 69_000], stream[at - 69_000 : at], stream[at:])
        events = [event for part in parts for event in decoder.feed(part)]
        assert [(event.name, event.data) for event in events if event.data is not None] == expected, at
        assert bom + b"".join(event.raw for event in events) == stream, at
        assert not decoder.pending


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_an_event_above_the_bound_is_refused_wherever_it_is_cut(line_end: str) -> None:
    stream = b"data: " + b"a" * (MAX_EVENT_BYTES + 100) + LINE_ENDS[line_end] * 2
    for step in (65_536, 1_000_000):
        with pytest.raises(SseError, match="larger than"):
            fed(stream, step)


def fed(stream: bytes, step: int) -> None:
    decoder = SseDecoder()
    for start in range(0, len(stream), step):
        decoder.feed(stream[start : start + step])

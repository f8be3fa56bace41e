"""The load generator's checks: only the stub's own complete answer passes."""

from __future__ import annotations

import orjson
import pytest
from loadtests.bench.directive import Directive, parse
from loadtests.bench.scenarios import REQUEST_BYTES, chat_body
from loadtests.bench.stub_answers import Frames, StreamShape
from loadtests.bench.verify import check_stream, check_whole

EVENTS = 12


def _stream_body() -> bytes:
    """Return a complete stream's body without the HTTP chunk framing."""
    frames = Frames("demo").stream(StreamShape(EVENTS, 0, True))
    return b"".join(frame.partition(b"\r\n")[2].partition(b"\n\n")[0] + b"\n\n" for frame in frames)


def _whole_body() -> bytes:
    return Frames("demo").whole.partition(b"\r\n\r\n")[2]


def test_the_stubs_own_answers_pass() -> None:
    assert check_whole(200, _whole_body()) == ""
    assert check_stream(200, _stream_body(), EVENTS) == ""
    assert len(_whole_body()) == 1024


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b'"content":"7 "', b'"content":""', "events lost"),
        (b'"content":"7 "', b'"content":"8 "', "events lost"),
        (b"data: [DONE]\n\n", b"", "no [DONE]"),
        (b'"finish_reason":"stop"', b'"finish_reason":null', "no finish_reason"),
        (b'"usage":{', b'"other":{', "no usage"),
        (b'"content":"7 "', b'"content":', "bad event"),
    ],
)
def test_a_damaged_stream_is_found(old: bytes, new: bytes, problem: str) -> None:
    body = _stream_body()
    assert old in body
    assert check_stream(200, body.replace(old, new), EVENTS).startswith(problem)


def test_a_stream_cut_at_any_byte_is_found() -> None:
    body = _stream_body()
    # The last two bytes are the blank line after [DONE]; without them nothing is missing.
    assert [cut for cut in range(len(body) - 2) if check_stream(200, body[:cut], EVENTS) == ""] == []


def test_an_error_event_and_an_error_status_are_found() -> None:
    event = b'data: {"error":{"message":"x","code":"upstream_interrupted"}}\n\n'
    assert check_stream(200, event + _stream_body(), EVENTS) == "error event"
    assert check_stream(503, _stream_body(), EVENTS) == "status 503"


def test_a_wrong_or_short_whole_answer_is_found() -> None:
    body = orjson.loads(_whole_body())
    assert check_whole(500, _whole_body()) == "status 500"
    assert check_whole(200, _whole_body()[:500]) == "not a chat completion"
    assert check_whole(200, orjson.dumps(body | {"usage": {"total_tokens": 1}})) == "usage differs"
    body["choices"][0]["message"]["content"] = "short"
    assert check_whole(200, orjson.dumps(body)) == "text differs"


def test_a_directive_survives_its_way_and_a_request_has_its_size() -> None:
    directive = Directive(delay_ms=5, events=3, pace_ms=7, event_bytes=9, tag="a17")
    sent = chat_body(directive, "demo", stream=True)
    assert len(sent) == REQUEST_BYTES
    assert parse(orjson.loads(sent)["messages"][-1]["content"]) == directive
    assert parse("no marker") == Directive()
    with pytest.raises(ValueError, match="unknown stub fields: colour"):
        parse("[[stub colour=1]]")

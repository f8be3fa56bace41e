"""The judges: an answer cut at any byte is never taken for a whole one, and every kind of flaw is seen."""

from __future__ import annotations

import orjson
import pytest
from tests.providers.recorded import STREAMED, shape

from spillway_router.core.money.tariff import Usage
from spillway_router.providers.interface import StreamMonitor
from spillway_router.providers.sse import SseDecoder
from spillway_router.providers.streams import (
    ChatMonitor,
    MalformedObject,
    MessagesMonitor,
    ResponsesMonitor,
    parse_object,
)
from spillway_router.providers.usage import UsageDialect

MONITORS: dict[str, type[ChatMonitor] | type[ResponsesMonitor] | type[MessagesMonitor]] = {
    "chat": ChatMonitor,
    "responses": ResponsesMonitor,
    "messages": MessagesMonitor,
}
END = {"chat": b'"finish_reason":"stop"', "responses": b"event: response.completed", "messages": b"event: message_stop"}


def chat(*choices: dict[str, object], **extra: object) -> bytes:
    return orjson.dumps({"object": "chat.completion.chunk", "choices": list(choices), **extra})


def delta(content: str | None = None, finish: str | None = None, index: int = 0) -> dict[str, object]:
    return {"index": index, "delta": {} if content is None else {"content": content}, "finish_reason": finish}


def verdict(monitor: StreamMonitor, stream: bytes) -> str | None:
    """What a relay concludes at the end of these bytes; None means a whole answer."""
    for event in SseDecoder().feed(stream):
        flaw = None if event.data is None else monitor.check(event.name, event.data)
        if flaw is not None:
            return flaw
    return monitor.missing()


@pytest.mark.parametrize("name", STREAMED)
def test_cut_at_every_byte(name: str) -> None:
    served = shape(name)
    stream, endpoint = served.stream, served.data["endpoint"]
    at = stream.rindex(END[endpoint])
    blank = b"\r\n\r\n" if b"\r\n" in stream else b"\n\n"
    whole_from = stream.index(blank, at) + len(blank)
    for end in range(len(stream) + 1):
        monitor = MONITORS[endpoint]()
        whole = verdict(monitor, stream[:end]) is None
        assert whole == monitor.finished == (end >= whole_from), (end, stream[max(0, end - 40) : end])


def test_every_choice_must_finish() -> None:
    for order in ([0, 1, 2], [2, 0, 1]):
        monitor = ChatMonitor(3)
        for count, index in enumerate(order):
            assert monitor.missing() is not None
            assert monitor.check(b"", b"[DONE]") is not None
            assert monitor.check(b"", chat(delta("x", "stop", index))) is None
            assert monitor.finished == (count == 2)
        assert monitor.missing() is None
        assert monitor.check(b"", b"[DONE]") is None


def test_one_choice_finishing_twice_is_not_two() -> None:
    monitor = ChatMonitor(2)
    for _ in range(2):
        monitor.check(b"", chat(delta("x", "stop", 0)))
    assert monitor.missing() is not None


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices": [',
        b"\xff\xfe",
        b'{"choices": [{"delta": {"content": "\xc3"}}]}',
        b"[]",
        b"null",
        b"",
        chat({"index": 0, "delta": {}, "finish_reason": "error"}),
        chat({"index": 0, "delta": {}, "finish_reason": "abort"}),
        b'{"error": {"message": "boom"}}',
        b'{"error": "boom"}',
        b'{"message": "boom", "code": 500}',
        b'{"object": "error", "message": "boom"}',
        b'{"choices": [1]}',
        chat(delta("x"), x_groq={"id": "req_1", "error": "over capacity"}),
    ],
)
def test_flaws_of_a_chat_stream(data: bytes) -> None:
    monitor = ChatMonitor(dialect=UsageDialect(elsewhere=("x_groq",)))
    assert monitor.check(b"", data)
    assert not monitor.finished


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"content": "x"}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}},
        {"delta": {"reasoning_content": "hm"}},
        {"delta": {"reasoning": "hm"}},
        {"delta": {"refusal": "no"}},
        {"text": "x"},
        {"delta": {}, "finish_reason": "length"},
    ],
)
def test_what_starts_an_answer(choice: dict[str, object]) -> None:
    monitor = ChatMonitor()
    assert (
        monitor.check(b"", chat({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}))
        is None
    )
    assert not monitor.started
    monitor.check(b"", chat({"index": 0, **choice}))
    assert monitor.started


def test_a_refusal_inside_a_200_is_load_only_before_the_answer_started() -> None:
    early, late = ChatMonitor(), ChatMonitor()
    late.check(b"", chat(delta("x")))
    for monitor in (early, late):
        assert monitor.check(b"", b'{"error": {"message": "queue full", "code": 503}}') == "queue full"
    assert (early.overloaded, late.overloaded) == (True, False)


def test_usage_does_not_finish_an_answer() -> None:
    monitor = ChatMonitor()
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    assert monitor.check(b"", orjson.dumps({"choices": [], "usage": usage})) is None
    assert monitor.usage == Usage(7, 2)
    assert monitor.missing() is not None


def test_the_service_that_answered_is_read_beside_the_usage() -> None:
    chat, responses = ChatMonitor(), ResponsesMonitor()
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    assert chat.check(b"", orjson.dumps({"choices": [], "usage": usage, "service_tier": "flex"})) is None
    assert chat.usage == Usage(3, 1, service="flex")
    whole = {"usage": {"input_tokens": 3, "output_tokens": 1}, "service_tier": "priority"}
    assert responses.check(b"", orjson.dumps({"type": "response.completed", "response": whole})) is None
    assert responses.usage == Usage(3, 1, service="priority")


def test_a_failed_response_and_an_incomplete_one() -> None:
    monitor = ResponsesMonitor()
    failed = {"type": "response.failed", "response": {"error": {"message": "out of luck"}}}
    assert monitor.check(b"response.failed", orjson.dumps(failed)) == "out of luck"
    assert monitor.missing() is not None
    monitor = ResponsesMonitor()
    short = {"type": "response.incomplete", "response": {"usage": {"input_tokens": 3, "output_tokens": 4}}}
    assert monitor.check(b"response.incomplete", orjson.dumps(short)) is None
    assert (monitor.missing(), monitor.usage) == (None, Usage(3, 4))


@pytest.mark.parametrize(
    ("data", "flaw"),
    [(b'{"message": "boom"}', "boom"), (b'{"message": ""}', "error event"), (b'{"error": {"message": "no"}}', "no")],
)
def test_an_event_named_error_says_why(data: bytes, flaw: str) -> None:
    assert ChatMonitor(1).check(b"error", data) == flaw


def test_a_stream_where_json_should_be_is_called_so() -> None:
    malformed = parse_object(b'data: {"choices": []}\n\n')
    assert isinstance(malformed, MalformedObject)
    assert malformed.flaw == "a stream of events came instead of JSON"

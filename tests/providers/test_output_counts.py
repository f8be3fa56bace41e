"""The output in streams and answers is counted as its provider bills it."""

from __future__ import annotations

import orjson
import pytest
from tests.providers.recorded import NAMES, shape

from spillway_router.core.money.estimates import OutputCount
from spillway_router.core.routing.model import Endpoint
from spillway_router.providers.catalogue import load_catalogue, provider_for
from spillway_router.providers.output_counts import count_answer
from spillway_router.providers.sse import SseDecoder

CATALOGUE = load_catalogue()


def counted(endpoint: Endpoint, *bodies: dict[str, object]) -> OutputCount:
    """What a monitor counts in these events."""
    count = OutputCount()
    monitor = provider_for(CATALOGUE["generic"]).stream_monitor(endpoint, 1, count)
    for body in bodies:
        assert monitor.check(b"", orjson.dumps(body)) is None
    return count


def figures(count: OutputCount) -> tuple[int, int, bool, dict[str, int]]:
    return count.events, count.text_bytes, count.has_reasoning, count.calls


def delta(**members: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": members}]}


@pytest.mark.parametrize(
    ("endpoint", "body", "expected"),
    [
        ("chat", delta(role="assistant"), (0, 0, False, {})),
        ("chat", delta(role="assistant", content=""), (0, 0, False, {})),
        ("chat", delta(content="héllo"), (1, 6, False, {})),
        ("chat", delta(content=None, reasoning_content="hm"), (1, 2, True, {})),
        ("chat", delta(reasoning="hm", reasoning_content="hm"), (1, 2, True, {})),
        ("chat", delta(refusal="no"), (1, 2, False, {})),
        ("chat", delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": '{"a'}}]), (1, 4, False, {})),
        ("chat", delta(function_call={"name": "f", "arguments": "{}"}), (1, 3, False, {})),
        ("chat", {"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}, (2, 2, False, {})),
        ("chat", {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}, (0, 0, False, {})),
        ("completions", {"choices": [{"index": 0, "text": "abc"}]}, (1, 3, False, {})),
        ("messages", {"type": "message_start", "message": {"content": []}}, (0, 0, False, {})),
        (
            "messages",
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "abc"}},
            (1, 3, False, {}),
        ),
        (
            "messages",
            {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "ab"}},
            (1, 2, True, {}),
        ),
        (
            "messages",
            {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}},
            (1, 1, False, {}),
        ),
        (
            "messages",
            {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "x" * 500}},
            (0, 0, False, {}),
        ),
        (
            "messages",
            {"type": "content_block_start", "content_block": {"type": "server_tool_use", "name": "web_search"}},
            (1, 10, False, {"web_search": 1}),
        ),
        ("responses", {"type": "response.output_text.delta", "delta": "abc"}, (1, 3, False, {})),
        ("responses", {"type": "response.reasoning_text.delta", "delta": "ab"}, (1, 2, True, {})),
        ("responses", {"type": "response.reasoning_summary_text.delta", "delta": "ab"}, (0, 0, False, {})),
        ("responses", {"type": "response.function_call_arguments.delta", "delta": "{}"}, (1, 2, False, {})),
        ("responses", {"type": "response.output_text.done", "text": "x" * 500}, (0, 0, False, {})),
        (
            "responses",
            {"type": "response.output_item.added", "item": {"type": "web_search_call"}},
            (0, 0, False, {"web_search": 1}),
        ),
    ],
)
def test_one_event(
    endpoint: Endpoint, body: dict[str, object], expected: tuple[int, int, bool, dict[str, int]]
) -> None:
    assert figures(counted(endpoint, body)) == expected


@pytest.mark.parametrize(
    ("answer", "text_bytes"),
    [
        ({"choices": [{"message": {"content": "abc", "reasoning_content": "de"}}]}, 5),
        ({"choices": [{"text": "abc"}, {"text": "d"}]}, 4),
        ({"content": [{"type": "text", "text": "abc"}, {"type": "thinking", "thinking": "de"}]}, 5),
        ({"output": [{"type": "message", "content": [{"type": "output_text", "text": "abc"}]}]}, 3),
        ({"output": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, 3),
        ({"data": [{"embedding": [0.1]}]}, 0),
        ({"choices": "none", "content": 7, "output": [3]}, 0),
    ],
)
def test_whole_answers(answer: dict[str, object], text_bytes: int) -> None:
    count = count_answer(answer)
    assert (count.text_bytes, count.events) == (text_bytes, 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_stream_shows_output(name: str) -> None:
    served = shape(name)
    count = OutputCount()
    monitor = provider_for(CATALOGUE[served.data["provider"]]).stream_monitor(served.data["endpoint"], 1, count)
    for event in SseDecoder().feed(served.stream):
        if event.data is not None:
            monitor.check(event.name, event.data)
    assert (count.events > 0, count.text_bytes > 0) == (monitor.finished, monitor.finished)


def test_the_prompt_of_a_messages_stream_is_told_by_its_first_event() -> None:
    monitor = provider_for(CATALOGUE["anthropic"]).stream_monitor("messages", 1)
    assert monitor.usage is None
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 70, "cache_read_input_tokens": 30}}}
    monitor.check(b"", orjson.dumps(start))
    usage = monitor.usage
    assert usage is not None
    assert not usage.certain
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (100, 30, 0)

"""A stream that falls silent after its first content keeps its connection by comments, never inside an event."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import openai
import pytest

from spillway_router.proxy.client import heartbeat
from spillway_router.proxy.client.heartbeat import PULSE_S, Pulse
from spillway_router.testing import Answer
from spillway_router.testing.harness import LIMIT_S, MESSAGES, pair
from spillway_router.testing.streams import chat, delta

WAITING = b": waiting\n\n"
FIRST = delta({"role": "assistant", "content": "al"})


class Loop:
    """A loop whose timers a test fires itself."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def call_later(self, _seconds: float, callback: Any) -> Any:
        self.timers.append(callback)
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def fire(self) -> None:
        self.timers.pop(0)()


class Reader:
    """A client that counts comments."""

    def __init__(self) -> None:
        self.comments = 0
        self.there = True

    def send_comment(self) -> bool:
        self.comments += self.there
        return self.there


def test_a_comment_follows_two_looks_without_an_event() -> None:
    loop, reader, events = Loop(), Reader(), [3]
    pulse = Pulse(cast("asyncio.AbstractEventLoop", loop), cast("Any", reader), lambda: events[0])
    events[0] = 4
    loop.fire()
    assert reader.comments == 0
    loop.fire()
    loop.fire()
    assert reader.comments == 2
    events[0] = 5
    loop.fire()
    assert reader.comments == 2
    reader.there = False
    loop.fire()
    assert loop.timers == []
    pulse.stop()
    assert 2 * PULSE_S < 15  # the promise


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "PULSE_S", 0.02)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("inside", [0, 7])
async def test_a_silent_stream_gets_comments_between_its_events(inside: int) -> None:
    """The pause is between two events, or after the first bytes of one, of which the client has seen nothing."""
    gate, rest = asyncio.Event(), delta({"content": "pha"}) + chat("!").body
    answer = Answer.stream(FIRST + rest).pausing(len(FIRST) + inside, gate)
    async with pair(answer) as (_, _, router):
        body = {"model": "auto", "messages": MESSAGES, "stream": True}
        received = b""
        async with asyncio.timeout(LIMIT_S), router.client.stream("POST", "/v1/chat/completions", json=body) as reply:
            async for part in reply.aiter_raw():
                received += part
                if received.count(WAITING) >= 2:
                    gate.set()
        assert received.startswith(FIRST + WAITING)
        events = received.replace(WAITING, b"").split(b"\n\n")
        assert received.count(b"data: [DONE]") == 1
        assert all(event.startswith(b"data: ") for event in events if event)


@pytest.mark.usefixtures("quick")
async def test_the_sdk_passes_over_comments() -> None:
    gate = asyncio.Event()
    answer = Answer.stream(FIRST + delta({"content": "pha"}) + chat("!").body).pausing(len(FIRST), gate)
    async with pair(answer) as (_, _, router):
        asyncio.get_running_loop().call_later(0.2, gate.set)
        async with openai.AsyncOpenAI(base_url=router.url + "/v1", api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(model="auto", messages=cast("Any", MESSAGES), stream=True)
            text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
        assert text == "alpha!!"

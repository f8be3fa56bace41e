"""The loads that are compared, and the request that each of them sends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import orjson

from loadtests.bench.directive import Directive

REQUEST_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load: `connections` keep-alive connections, each of which sends its next request when the last one is
    answered.

    It ends after `count` requests or after `seconds`, whichever comes first; requests under way are finished. `pace_ms`
    is the (shortest, longest) duration of a stream; (0, 0) means as fast as possible. With `step_ms` the events of all
    streams leave together at its multiples, otherwise one by one.
    """

    name: str
    what: str
    connections: int
    count: int
    seconds: float
    stream: bool = False
    events: int = 128
    pace_ms: tuple[int, int] = (0, 0)
    step_ms: int = 0

    def quick(self) -> Scenario:
        """Return a short version of the load: good for a first look, too short to quote."""
        count = max(self.connections, self.count // 8)
        return replace(self, count=count, seconds=self.seconds / 3)


NS1 = Scenario(name="ns1", what="non-stream, 1 connection", connections=1, count=6_000, seconds=5.0)
NS32 = Scenario(name="ns32", what="non-stream, 32 connections", connections=32, count=24_000, seconds=6.0)
BURST8 = Scenario(
    name="burst8",
    what="8 streams of 128 events, as fast as possible",
    connections=8,
    count=1_200,
    seconds=6.0,
    stream=True,
)
PACED200 = Scenario(
    name="paced200",
    what="200 streams at a time, 128 events over 2-3 s",
    connections=200,
    count=600,
    seconds=8.0,
    stream=True,
    pace_ms=(2000, 3000),
)
STEPS200 = replace(PACED200, name="steps200", what="the same, events of all streams in steps of 20 ms", step_ms=20)
SCENARIOS = {scenario.name: scenario for scenario in (NS1, NS32, BURST8, PACED200, STEPS200)}


def body(scenario: Scenario, number: int, model: str) -> bytes:
    """Return the `number`-th request of a scenario: 1 KB of JSON. Durations are spread evenly over `pace_ms`."""
    shortest, longest = scenario.pace_ms
    pace = shortest + (number * 37 % 101) * (longest - shortest) // 100
    directive = Directive(events=scenario.events, pace_ms=pace, step_ms=scenario.step_ms)
    return chat_body(directive, model, stream=scenario.stream)


def chat_body(directive: Directive, model: str, *, stream: bool) -> bytes:
    """Return a chat request that carries `directive`, padded with words to `REQUEST_BYTES` bytes."""
    content = "Please answer this. " + directive.text() + " "
    request: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 256}
    if stream:
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    room = REQUEST_BYTES - len(orjson.dumps(request))
    words = ("the quick brown fox jumps over the lazy dog " * 32)[: max(0, room)]
    request["messages"] = [{"role": "user", "content": content + words}]
    return orjson.dumps(request)

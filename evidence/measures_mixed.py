"""Streams of two models that can be distinguished, through everything that may happen to a held stream.

Each request draws how sure the engine is, where its stream is cut and how, what the better backend does, and what the
client asks for. A reply is mixed if it holds words of both models. Everything runs in this process over real sockets.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import uvloop

from evidence.results import Measurement
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, local, routing, settings
from spillway_router.testing.streams import DONE, USAGE, data, delta

MIXED = "confidence.mixed_streams"
STREAMS = 10_000
AT_ONCE = 32
SEED = 20_261_121
MORE = """confidence: {threshold: 0.5, escalate_to: [cloud], hold_tokens: 4}
slo: {ttft_ms: 60}
limits: {first_event_s: 0.15, stall_s: 0.15}
"""
WEAK, STRONG = b"weak", b"strong"

SendRequest = Callable[[Router, dict[str, Any]], Awaitable[bytes]]


async def through_the_router(router: Router, fields: dict[str, Any]) -> bytes:
    """Return the bytes of the reply to one streamed request."""
    return (await router.chat({"stream": True, **fields})).content


def mixed_streams(
    say: Callable[[str], None], streams: int = STREAMS, ask: SendRequest = through_the_router, seed: int = SEED
) -> dict[str, Measurement]:
    """Count how many of `streams` replies held words of both models."""
    logging.disable(logging.WARNING)  # the trial contains thousands of failures
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            mixed, kinds = runner.run(_all(say, streams, ask, random.Random(seed)))
    finally:
        logging.disable(logging.NOTSET)
    return {MIXED: Measurement(mixed, streams, {"replies": dict(sorted(kinds.items())), "seed": seed})}


async def _all(
    say: Callable[[str], None], streams: int, ask: SendRequest, dice: random.Random
) -> tuple[int, Counter[str]]:
    kinds: Counter[str] = Counter()
    left = iter(range(streams))
    async with (
        FaultUpstream() as engine,
        FaultUpstream() as better,
        routing(settings(local(engine), cloud(better), more=MORE)) as router,
    ):

        async def one_after_the_other() -> None:
            for number in left:
                engine.script.append(_weak(dice))
                better.script.append(_strong(dice))
                _close_breakers(router)
                if number % 1000 == 0:
                    engine.seen.clear()
                    better.seen.clear()
                    say(f"  stream {number} of {streams}")
                kinds[_kind(await ask(router, _fields(dice, number)))] += 1

        engine.answer, better.answer = _weak(dice), _strong(dice)
        await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return sum(count for kind, count in kinds.items() if kind.startswith("mixed")), kinds


def _close_breakers(router: Router) -> None:
    """Close them as healthy traffic in between would. What waits at a backend goes on waiting there."""
    now = router.runtime.services.clock()
    for name in router.runtime.board.current(now).backends:
        router.runtime.board.proven(name, True, now)


def _kind(reply: bytes) -> str:
    """Return which model's words a reply holds, and how it ended."""
    weak, strong = WEAK in reply, STRONG in reply
    whose = "mixed" if weak and strong else "weak" if weak else "strong" if strong else "none"
    end = "whole" if reply.endswith(DONE) else "interrupted" if b"upstream_interrupted" in reply else "refused"
    waited = ", waited" if reply.startswith(b": waiting") else ""
    return f"{whose}, {end}{waited}"


def _fields(dice: random.Random, number: int) -> dict[str, Any]:
    # The router gives up on a body that failed several times, so each one is another.
    fields: dict[str, Any] = {"user": f"u{number}"}
    if dice.random() < 0.3:
        fields["stream_options"] = {"include_usage": True}
    if dice.random() < 0.2:
        fields["response_format"] = {"type": "json_object"}
    if dice.random() < 0.2:
        fields["logprobs"] = True
    return fields


def _weak(dice: random.Random) -> Answer:
    """Return the engine's stream: sure or not, sure first and unsure later, cut anywhere or complete."""
    count = dice.randint(1, 24)
    turn = dice.choice((0, count, count, dice.randint(0, count)))
    events = [delta({"role": "assistant", "content": ""})]
    for i in range(count):
        logprob = -0.01 if (i < turn) != (dice.random() < 0.02) else -3.0
        score = {"token": "weak ", "logprob": logprob, "top_logprobs": []}
        choice = {"index": 0, "delta": {"content": "weak "}, "logprobs": {"content": [score]}, "finish_reason": None}
        events.append(data({"id": "w", "choices": [choice]}))
    return _cut(dice, [*events, delta({}, "stop"), USAGE, DONE])


def _strong(dice: random.Random) -> Answer:
    if dice.random() < 0.1:
        return Answer.json({"error": {"message": "no"}}, dice.choice((400, 500)))
    words = [delta({"content": "strong "}) for _ in range(dice.randint(1, 12))]
    return _cut(dice, [delta({"role": "assistant", "content": ""}), *words, delta({}, "stop"), USAGE, DONE])


def _cut(dice: random.Random, events: list[bytes]) -> Answer:
    body = b"".join(events)
    piece = dice.choice((0, 1, 7, 64, 300, len(events[1])))
    if dice.random() < 0.6:
        return Answer.stream(body, piece=piece)
    ends: tuple[Literal["fin", "rst", "hang", "whole"], ...] = ("fin", "rst", "hang", "whole")
    return Answer.stream(body, cut=dice.randint(0, len(body)), end=dice.choice(ends), piece=piece)

"""Conversations through several routers: each turn sends everything said before.

So its prompt begins with the previous one, and the engine that answered the previous turn has it in its prefix cache.
affinity.py judges the outcome of the turns.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx

from loadtests.scaleout.affinity import Turn
from loadtests.scaleout.flow import TIMEOUT_S, exchange
from spillway_server.demo_model.documents import HELD_OUT_SEEDS, generate

ANSWER_TOKENS = 16
_SAID = 110
"""Characters per turn, about 80 tokens of the demo model: 8 turns stay below its 1024."""
_SERIES = re.compile(r"^vllm:prefix_cache_(queries|hits)_total(?:\{[^}]*\})? ([0-9.e+]+)$", re.M)

Reached = Callable[[int], Awaitable[str]]
"""Waits until the turn with this number may be sent; returns the name of its phase."""


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """The conversations of a plan.

    With `alternate` each turn goes through the next router instead of always the same one; with `with_id` it sends
    `x-session-id`. `first` is the number of the first conversation, so that no two plans say the same.
    """

    sessions: int
    turns: int
    first: int = 0
    with_id: bool = True
    alternate: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """vLLM's own counters summed over engines: prompt tokens looked up in the prefix cache, and found there."""

    queries: float
    hits: float

    def since(self, before: Counted) -> Counted:
        """Return what was counted after `before`."""
        return Counted(self.queries - before.queries, self.hits - before.hits)

    @property
    def share(self) -> float:
        """Return the share of prompt tokens found, 0 to 1."""
        return self.hits / self.queries if self.queries else 0.0


async def counted(base_urls: Sequence[str]) -> Counted:
    """Read the counters of these engines.

    Raises:
        httpx.HTTPError: an engine does not answer.
    """
    totals = {"queries": 0.0, "hits": 0.0}
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        for base in base_urls:
            page = (await client.get(f"{base.removesuffix('/v1')}/metrics")).raise_for_status().text
            for name, value in _SERIES.findall(page):
                totals[name] += float(value)
    return Counted(**totals)


async def at_once(_turn: int) -> str:
    """Let no turn wait for anything but the previous one."""
    return ""


async def hold(
    urls: Sequence[str], model: str, plan: SessionPlan, together: int, reached: Reached = at_once
) -> list[Turn]:
    """Hold the conversations of a plan, `together` of them at a time; every other one is streamed."""
    turns: list[Turn] = []
    room = asyncio.Semaphore(together)
    limits = httpx.Limits(max_connections=together, keepalive_expiry=4)
    clients = [httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits, trust_env=False) for url in urls]

    async def one(number: int) -> None:
        async with room:
            said: list[dict[str, str]] = []
            for turn in range(plan.turns):
                phase = await reached(turn)
                router = (number + turn if plan.alternate else number) % len(clients)
                said.append({"role": "user", "content": _text(number, turn)})
                body = {"model": model, "messages": said, "temperature": 0, "max_tokens": ANSWER_TOKENS}
                headers = {"x-session-id": f"session-{number}"} if plan.with_id else {}
                reply = await exchange(clients[router], {**body, "stream": bool(number % 2)}, headers)
                turns.append(
                    Turn(
                        session=number,
                        number=turn,
                        router=router,
                        phase=phase,
                        backend=reply.backend,
                        fault=reply.fault,
                    )
                )
                said.append({"role": "assistant", "content": reply.text})

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(plan.first, plan.first + plan.sessions):
                group.create_task(one(number))
    finally:
        for client in clients:
            await client.aclose()
    return turns


def _text(session: int, turn: int) -> str:
    """Return the text of a turn: the beginning of a report. Conversations begin with their number, so that no two share
    a prefix.
    """
    seed = HELD_OUT_SEEDS[210_000 + (31 * session + turn) % 5000]
    return f"{session:06d}\n{generate(seed).text}"[:_SAID]

"""Every way to an embedding, asked while backends are busy, limited, down or broken, through a whole router with
sockets.

Each backend answers with a vector that names its space, so that the answer itself says where it was made. Which space
a request must get is said here once more, by what was asked for, and not by the router's functions.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spillway_router.providers.catalogue import load_catalogue
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing import openai_wire as wire
from spillway_router.testing.harness import Router, routing, settings
from spillway_router.testing.upstream import Arrival

AT_ONCE = 8
SPACES: Mapping[str, int] = {"engine": 1, "twin": 1, "cloud": 1, "other": 2, "third": 3, "own": 4}
"""Each backend with the number of its space. The last one is reached with keys of the caller's own."""
RULES = """
aliases: {embed: {chain: [engine, twin, cloud]}, second: {chain: [other]}, auto: {chain: [engine, cloud, third]}}
confidence: {threshold: 0.9, escalate_to: [other, third, cloud]}
retention: {minutes: 5}
privacy: {keywords: [patient]}
cache: {enabled: true}
policy:
  rules:
    - name: long ones
      when: {endpoint: embeddings, alias: embed, prompt_tokens: {at_least: 50}}
      chain: [cloud, other]
    - {name: waiting, when: {endpoint: embeddings, alias: embed, waiting: {at_least: 1}}, prefer: [cloud]}
    - {name: no twin, when: {tier: paid}, forbid: [twin]}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask, and the number of the space in which the answer must lie, if there is one."""

    name: str
    space: int
    fields: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


WAYS = (
    Way("alias", 1, {"model": "embed"}),
    Way("alias of one", 2, {"model": "second"}),
    Way("fastest", 1, {"model": "embed:fastest"}),
    Way("cheapest", 1, {"model": "embed:cheapest"}),
    Way("backend", 1, {"model": "cloud"}),
    Way("pin", 3, {"model": "third/third-m"}),
    Way("models", 1, {"model": "embed", "models": ["other", "third"]}),
    Way("models first", 2, {"model": "none", "models": ["other", "embed"]}),
    Way("provider.order", 1, {"model": "auto", "provider": {"order": ["third", "cloud"]}}),
    Way("provider.only", 1, {"model": "auto", "provider": {"only": ["third", "cloud"]}}),
    Way("provider.ignore", 1, {"model": "embed", "models": ["third"], "provider": {"ignore": ["engine", "twin"]}}),
    Way("provider.sort", 1, {"model": "auto", "provider": {"sort": "price"}}),
    Way("hint of a route", 1, {"model": "auto"}, {"x_spillway_route": "cloud"}),
    Way("hint of a latency", 1, {"model": "auto"}, {"x_spillway_slo_ttft_ms": "1"}),
    Way("hint of a confidence", 1, {"model": "auto"}, {"x_spillway_min_confidence": "1"}),
    Way("session", 1, {"model": "embed"}, {"x_session_id": "s"}),
    Way("private", 2, {"model": "second", "input": "the patient"}),
    Way("private, with engines", 1, {"model": "embed", "input": "the patient"}),
    Way("rule on length", 1, {"model": "embed", "input": "long " * 80}),
    Way("cache", 1, {"model": "auto"}, {"x_spillway_cache": "sampled"}),
    Way("batch", 1, {"model": "embed", "input": ["a", "b", "c"]}),
    Way("better than", 1, {"model": "auto"}),
    Way("retry", 1, {"model": "auto"}),
    Way("own key", 4, {"model": "x"}, {"x_spillway_provider": "together", "x_spillway_provider_key": "k"}),
)
STATES: tuple[Mapping[str, str], ...] = (
    {},
    {"engine": "down"},
    {"engine": "down", "twin": "down"},
    {"engine": "full", "twin": "broken"},
    {"engine": "limited", "twin": "down", "cloud": "down"},
    {"engine": "broken", "twin": "broken", "cloud": "limited"},
    {"cloud": "down", "other": "down"},
)
"""What is wrong with which backend: every way meets every state, as their numbers have no factor in common."""


@dataclass(slots=True)
class Mixed:
    """What was asked, and which vectors lay in another space than the one asked for.

    `served`: vectors by space; without all of them, the promise would be tried on nothing. `refused`: answers that are
    errors, by status. `cached`: answers from the cache.
    """

    requests: int = 0
    mixed: list[str] = field(default_factory=list)
    served: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    cached: int = 0


async def try_spaces(requests: int, *, fault: bool = False) -> Mixed:
    """Ask so many times, on all ways and in all states. `fault`: all backends claim the same space."""
    seen, state = Mixed(), dict[str, str]()
    async with (
        FaultUpstream() as engine,
        FaultUpstream() as twin,
        FaultUpstream() as cloud,
        FaultUpstream() as other,
        FaultUpstream() as third,
        FaultUpstream() as own,
    ):
        upstreams = dict(zip(SPACES, (engine, twin, cloud, other, third, own), strict=True))
        for name, upstream in upstreams.items():
            upstream.choose = lambda arrival, name=name: _answer(arrival, SPACES[name], state.get(name, ""))
        catalogue = dict(load_catalogue())
        catalogue["together"] = replace(catalogue["together"], base_url=own.url)
        async with routing(_settings(upstreams, fault=fault), catalogue=catalogue) as router:
            await _ask_all(router, seen, state, requests)
    return seen


def _settings(upstreams: Mapping[str, FaultUpstream], *, fault: bool) -> str:
    lines = []
    for name, upstream in upstreams.items():
        if name == "own":
            continue
        local = name in ("engine", "twin")
        kind = "provider: vllm, local: true, model: m" if local else f"provider: generic, model: {name}-m, api_key: k"
        # With a price of output, a chain that has one of them besides is taken for one of chats, and not refused.
        price = "" if local else ", price: {input_per_million: '1', output_per_million: '1'}"
        declared = ", embedding_space: one" if fault or SPACES[name] == 1 else ""
        lines.append(f"{{name: {name}, {kind}, base_url: '{upstream.url}', max_inputs: 2{price}{declared}}}")
    return settings(*lines, more=RULES)


async def _ask_all(router: Router, seen: Mixed, state: dict[str, str], requests: int) -> None:
    states, ways = itertools.cycle(STATES), itertools.cycle(WAYS)
    while seen.requests < requests:
        state.clear()
        state |= next(states)
        router.forget_calls()
        for _ in range(len(WAYS) // AT_ONCE + 1):
            batch = list(itertools.islice(ways, AT_ONCE))
            await asyncio.gather(*(_ask(router, way, seen) for way in batch))
            seen.requests += AT_ONCE


async def _ask(router: Router, way: Way, seen: Mixed) -> None:
    """Ask once, and judge the vectors by the space that they name."""
    body = {"input": "text", **way.fields}
    headers = dict(way.headers)
    if way.name == "better than":
        before = await router.post(body, "/v1/embeddings")
        headers["x_spillway_better_than"] = before.headers["x-request-id"]
    reply = await router.post(body, "/v1/embeddings", **headers)
    if way.name == "retry":
        rating = {"request_id": reply.headers["x-request-id"], "rating": 1, "retry": True}
        reply = await router.post(rating, "/v1/feedback")
        answer = reply.json().get("better", {}).get("answer", {})
    else:
        answer = reply.json()
    seen.cached += reply.headers.get("x-spillway-decision") == "cache"
    if reply.status_code != 200:
        seen.refused[reply.status_code] += 1
    for vector in answer.get("data", ()):
        space = int(vector["embedding"][0])
        seen.served[space] += 1
        if space != way.space:
            seen.mixed.append(f"{way.name}: a vector of space {space}, not {way.space}")


def _answer(arrival: Arrival, space: int, trouble: str) -> Answer:
    if trouble == "down":
        return Answer.json(wire.error("down"), 500)
    if trouble == "limited":
        return Answer.json(wire.error("slow down"), 429, {"retry-after": "1"})
    if trouble == "full":
        return Answer.json(wire.error("the queue is full"), 503)
    inputs = arrival.json["input"]
    count = len(inputs) if isinstance(inputs, list) else 1
    vectors = [[float(space), 0.5]] * count
    answer = Answer.json(wire.embeddings(arrival.json["model"], vectors, count))
    return replace(answer, cut=10, end="rst") if trouble == "broken" else answer

"""Private requests on every path to a cloud, through a whole router with sockets, with both guards or one of them."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spillway_router.runtime.router import Runtime
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, local, routing, settings

CANARY = "CANARY-of-a-patient"
AT_ONCE = 8
_MARKS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, str]]] = {
    "header": ({}, {"x_spillway_privacy": "local-only"}),
    "metadata": ({"metadata": {"privacy": "local-only"}}, {}),
    "keyword": ({"user": "topsecret"}, {}),
    "session": ({}, {"x_session_id": "private"}),
}
_WAYS: Mapping[str, Mapping[str, Any]] = {
    "alias": {"model": "auto"},
    "pinned": {"model": "cloud/cloud-m"},
    "named": {"model": "cloud"},
    "cheapest": {"model": "auto:cheapest"},
    "fastest": {"model": "auto:fastest"},
    "models": {"model": "auto", "models": ["cloud"]},
    "provider": {"model": "auto", "provider": {"order": ["cloud"]}},
    "stream": {"model": "auto", "stream": True},
}
_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/responses/input_tokens")
_TOKEN = {"token": "hi", "logprob": -5.0, "top_logprobs": [{"token": "hi", "logprob": -5.0}]}
_CHOICE = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}
_ENGINES: Mapping[str, Answer] = {
    "down": Answer.json({"error": {"message": "down"}}, 500),
    "full": Answer.json({"error": {"message": "full", "code": 503}}, 503),
    "unsure": Answer.json({"choices": [{**_CHOICE, "logprobs": {"content": [_TOKEN]}}]}),
}
_ANSWER = Answer.json({"choices": [_CHOICE], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
_RULES = "privacy: {keywords: [topsecret]}\nconfidence: {threshold: 0.9, escalate_to: [cloud]}\n"


@dataclass(slots=True)
class Leaks:
    """What was sent, and what of it the cloud saw. `controls`: requests without a mark, which must arrive there."""

    requests: int = 0
    controls: int = 0
    controls_at_cloud: int = 0
    leaked_bytes: int = 0
    by_engine: Counter[str] = field(default_factory=Counter)


async def send_private(
    folder: Path, requests: int, switch_off: Callable[[Runtime], None] | None = None, most_in_a_state: int = 400
) -> Leaks:
    """Send so many private requests over all paths, ways, marks and states of the engine. `switch_off` removes a
    guard."""
    leaks = Leaks()
    engines = itertools.cycle(_ENGINES.items())
    async with (
        FaultUpstream() as engine,
        FaultUpstream(_ANSWER) as other,
        routing(settings(local(engine), cloud(other), more=_RULES), folder) as router,
    ):
        engine.answer = _ENGINES["down"]
        leaks.controls, leaks.controls_at_cloud = await _controls(router, other)
        await router.chat(x_session_id="private", x_spillway_privacy="local-only")
        if switch_off is not None:
            switch_off(router.runtime)
        combinations = _combinations()
        while leaks.requests < requests:
            name, engine.answer = next(engines)
            count = min(most_in_a_state, requests - leaks.requests)
            router.forget_failures()
            batch = list(itertools.islice(combinations, count))
            for at in range(0, count, AT_ONCE):
                await asyncio.gather(*(_send(router, *one) for one in batch[at : at + AT_ONCE]))
            leaks.requests += count
            leaks.by_engine[name] += count
            leaks.leaked_bytes += sum(len(seen.body) for seen in other.seen if CANARY.encode() in seen.body)
            other.seen.clear()
            engine.seen.clear()
    return leaks


async def _controls(router: Router, other: FaultUpstream) -> tuple[int, int]:
    """Send what is not private: it must reach the cloud, or the measurement would see no leak."""
    other.seen.clear()
    count = 20
    for _ in range(count):
        await router.chat()
    arrived = len(other.seen)
    other.seen.clear()
    return count, arrived


def _combinations() -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, str]]]:
    for path, way, mark in itertools.cycle(itertools.product(_PATHS, _WAYS, _MARKS)):
        fields, headers = _MARKS[mark]
        content = {"messages": [{"role": "user", "content": CANARY}], "prompt": CANARY, "input": CANARY}
        yield path, {**content, **_WAYS[way], **fields}, headers


async def _send(router: Router, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    await router.post(body, path, **headers)

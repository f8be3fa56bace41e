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
_PATHS = (
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"),
    *("/v1/responses/input_tokens", "/v1/messages/count_tokens", "/v1/documents/extract"),
)
_EXTRACT = _PATHS[-1]
_TOKEN = {"token": "hi", "logprob": -5.0, "top_logprobs": [{"token": "hi", "logprob": -5.0}]}
_CHOICE = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}
_STATES: Mapping[str, Answer] = {
    "down": Answer.json({"error": {"message": "down"}}, 500),
    "full": Answer.json({"error": {"message": "full", "code": 503}}, 503),
    "unsure": Answer.json({"choices": [{**_CHOICE, "logprobs": {"content": [_TOKEN]}}]}),
    "sure": Answer.json({"choices": [{**_CHOICE, "logprobs": {"content": [{**_TOKEN, "logprob": -0.001}]}}]}),
}
"""The states of the engine; `slow` is one more."""
_ANSWER = Answer.json({"choices": [_CHOICE], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
_EVENTS = (
    b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}\n\ndata: [DONE]\n\n'
)
_SLOW = "slow"
_SLOW_S = 0.08
"""How long a slow engine says nothing: longer than until a hedge is sent."""
_RULES = """privacy: {keywords: [topsecret]}
confidence: {threshold: 0.9, escalate_to: [cloud], audit_share: 1}
hedging: {enabled: true, after: 1, shortest_ms: 20, share: 1, burst: 100000, usd_per_second: 1}
experiments: [{name: e, by: request, arms: [{name: s, share: 1, shadow: asked, budget_usd_per_day: '1000',
  chain: [cloud]}]}]
"""
"""Besides overflow, fallback and escalation: audits, hedges and shadows."""


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
    states = itertools.cycle((*_STATES, _SLOW))
    async with (
        FaultUpstream() as engine,
        FaultUpstream(_ANSWER) as other,
        routing(settings(local(engine), cloud(other), more=_RULES), folder) as router,
    ):
        leaks.controls, leaks.controls_at_cloud = await _controls(router, engine, other)
        await router.chat(x_session_id="private", x_spillway_privacy="local-only")
        if switch_off is not None:
            switch_off(router.runtime)
        combinations = _combinations()
        while leaks.requests < requests:
            name = next(states)
            count = min(most_in_a_state, requests - leaks.requests)
            router.forget_failures()
            batch = list(itertools.islice(combinations, count))
            for at in range(0, count, AT_ONCE):
                _set(engine, name)
                await asyncio.gather(*(_send(router, *one) for one in batch[at : at + AT_ONCE]))
            await router.runtime.shadows.settled()
            await router.runtime.audits.settled()
            leaks.requests += count
            leaks.by_engine[name] += count
            leaks.leaked_bytes += sum(len(seen.body) for seen in other.seen if CANARY.encode() in seen.body)
            other.seen.clear()
            engine.seen.clear()
    return leaks


def _set(engine: FaultUpstream, state: str) -> None:
    """Have the engine answer as in this state."""
    if state != _SLOW:
        engine.answer = _STATES[state]
        return
    gate = asyncio.Event()
    asyncio.get_running_loop().call_later(_SLOW_S, gate.set)
    engine.answer = Answer.stream(_EVENTS).after(gate)


async def _controls(router: Router, engine: FaultUpstream, other: FaultUpstream) -> tuple[int, int]:
    """Send what is not private to an engine in every state, and return the number of states, and in how many of them
    the cloud got something, as a fallback, an escalation, a shadow, an audit or a hedge. It must in all of them, or the
    measurement would see no leak."""
    count = arrived = 0
    for state in (*_STATES, _SLOW):
        router.forget_failures()
        other.seen.clear()
        _set(engine, state)
        for _ in range(4):
            await router.chat({"stream": state == _SLOW})
        await router.runtime.shadows.settled()
        await router.runtime.audits.settled()
        count += 1
        arrived += bool(other.seen)
    other.seen.clear()
    return count, arrived


def _combinations() -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, str]]]:
    for path, way, mark in itertools.cycle(itertools.product(_PATHS, _WAYS, _MARKS)):
        fields, headers = _MARKS[mark]
        if path == _EXTRACT:
            yield path, _document(fields), headers
            continue
        content: dict[str, Any] = {"messages": [{"role": "user", "content": CANARY}], "prompt": CANARY, "input": CANARY}
        if path == "/v1/messages":
            content["max_tokens"] = 9
        yield path, {**content, **_WAYS[way], **fields}, headers


def _document(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document to extract, with a mark that it may have: it knows no `user`."""
    schema = {"type": "object", "properties": {"eye": {"type": "string"}}}
    text = f"{CANARY} {fields.get('user', '')}"
    marks = {name: value for name, value in fields.items() if name == "metadata"}
    return {"text": text, "schema": schema, "review": False, **marks}


async def _send(router: Router, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    await router.post(body, path, **headers)

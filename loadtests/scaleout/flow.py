"""Clients of several routers. Each request is followed to its end; an end without a complete answer counts as lost."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from spillway_server.demo_model.documents import HELD_OUT_SEEDS, exact, generate, prompt

TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Fate:
    """The outcome of one request.

    `fault` is empty for a complete answer; `backend` served it; `cost_usd` comes from its header; `moment` is the time
    of its end in seconds of the loop's clock; `router` is the number of the router that was asked.
    """

    number: int
    router: int
    fault: str
    backend: str
    request_id: str
    status: int
    cost_usd: float
    right: bool
    moment: float


def document(number: int) -> tuple[list[dict[str, str]], dict[str, object]]:
    """Return messages that ask for a held-out document, and its truth; the documents repeat after 2000."""
    generated = generate(HELD_OUT_SEEDS[200_000 + number % 2000])
    return prompt(generated.text), generated.truth


@dataclass(frozen=True, slots=True)
class FlowReply:
    """A reply: the answer's text, or why there is no complete one; status 0 if there was no reply; headers."""

    text: str
    fault: str
    status: int
    headers: httpx.Headers

    @property
    def backend(self) -> str:
        """Return the backend that answered, as the router reports it."""
        return str(self.headers.get("x-spillway-backend", ""))


async def exchange(client: httpx.AsyncClient, body: Mapping[str, Any], headers: Mapping[str, str]) -> FlowReply:
    """Send one chat request and follow it to its end."""
    text, fault, status, reply_headers = "", "", 0, httpx.Headers()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
                status, reply_headers = answer.status_code, answer.headers
                raw = (await answer.aread()).decode("utf-8", "replace")
        text, fault = _judge(status, raw, stream=bool(body.get("stream")))
    except (httpx.HTTPError, TimeoutError) as error:
        fault = f"{type(error).__name__}: {error}"
    return FlowReply(text, fault, status, reply_headers)


async def ask(client: httpx.AsyncClient, router: int, number: int, model: str) -> Fate:
    """Send one document; every other one is streamed."""
    messages, truth = document(number)
    # Limits differ, so that the fake engine's answers, which use their whole limit, don't all end in one step.
    most = 140 + 37 * number % 120
    body: dict[str, Any] = {"model": model, "messages": messages, "temperature": 0, "max_tokens": most}
    if number % 2:
        body["stream"] = True
    reply = await exchange(client, body, {})
    return Fate(
        number=number,
        router=router,
        fault=reply.fault,
        backend=reply.backend,
        request_id=reply.headers.get("x-request-id", ""),
        status=reply.status,
        cost_usd=float(reply.headers.get("x-spillway-cost-usd", 0)),
        right=not reply.fault and exact(reply.text, truth),
        moment=asyncio.get_running_loop().time(),
    )


def _judge(status: int, raw: str, *, stream: bool) -> tuple[str, str]:
    """Return the text of a complete answer and no fault, or no text and the fault."""
    if status != 200:
        return "", f"{status} {raw[:160]}"
    try:
        if not stream:
            choice = json.loads(raw)["choices"][0]
            return str(choice["message"]["content"]), "" if choice["finish_reason"] else "no finish_reason"
        return _judge_stream([line[6:] for line in raw.splitlines() if line.startswith("data: ")])
    except (ValueError, LookupError, TypeError) as error:
        return "", f"no chat completion ({error!r}): {raw[:160]}"


def _judge_stream(events: Sequence[str]) -> tuple[str, str]:
    text, finished = "", False
    for event in events:
        if event == "[DONE]":
            return text, "" if finished else "[DONE] without finish_reason"
        parsed = json.loads(event)
        if "error" in parsed:
            return "", f"broken off: {parsed['error'].get('code')}"
        for choice in parsed["choices"]:
            text += choice["delta"].get("content") or ""
            finished = finished or choice["finish_reason"] is not None
    return "", "the stream has no end"


async def flow(
    urls: Sequence[str], at_once: int, model: str, enough: Callable[[Sequence[Fate]], bool], first: int = 0
) -> list[Fate]:
    """Keep `at_once` requests in flight, through the routers in turns, until `enough` returns True for those that have
    ended.
    """
    fates: list[Fate] = []
    numbers = itertools.count(first)
    limits = httpx.Limits(max_connections=at_once, keepalive_expiry=4)
    clients = [httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits, trust_env=False) for url in urls]

    async def one_after_another() -> None:
        while not enough(fates):
            number = next(numbers)
            router = number % len(clients)
            fates.append(await ask(clients[router], router, number, model))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(one_after_another())
    finally:
        for client in clients:
            await client.aclose()
    return fates

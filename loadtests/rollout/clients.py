"""Clients as applications write them: the openai SDK, half of the answers streamed, each followed to its end.

A stream that breaks off after its first content ends with the error event of the stream promise, which asks for the
request again; the SDK raises it and sends nothing again by itself, so the application does, once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
import openai

TIMEOUT_S = 120.0
WORDS = 12
INTERRUPTED = "upstream_interrupted"
"""The code of the one error event that ends a broken stream (docs/stream-promise.md, 3)."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a request. `fault` is empty for a whole answer. `interrupted` is the error of a stream that broke
    off after its first content and said so; the other fields tell of the request that was sent in its place."""

    number: int
    streamed: bool
    fault: str
    backend: str
    tokens: int
    interrupted: str = ""


async def ask(client: openai.AsyncOpenAI, number: int, private: bool) -> Fate:
    """Send one request, once more if its stream breaks off and says so, and say what became of it."""
    first, interrupted = await _ask_once(client, number, private)
    if not interrupted:
        return first
    second, _ = await _ask_once(client, number, private)
    return dataclasses.replace(second, interrupted=f"{first.backend} {first.fault}")


async def _ask_once(client: openai.AsyncOpenAI, number: int, private: bool) -> tuple[Fate, bool]:
    """Send one request. Returns what became of it, and whether its stream broke off after content and said so."""
    most = 24 + 17 * number % 48
    streamed, backend, tokens, finish, interrupted = number % 2 == 1, "", 0, None, False
    try:
        async with asyncio.timeout(TIMEOUT_S):
            sent = await client.chat.completions.with_raw_response.create(
                model="auto",
                messages=[{"role": "user", "content": f"Question {number}: " + "why " * WORDS}],
                max_tokens=most,
                stream=streamed,
                extra_headers={"x-spillway-privacy": "local-only"} if private else {},
            )
            backend, answer = sent.headers.get("x-spillway-backend", ""), sent.parse()
            if isinstance(answer, openai.AsyncStream):
                async for event in answer:
                    for choice in event.choices:
                        tokens += bool(choice.delta.content)
                        finish = choice.finish_reason or finish
            else:
                finish = answer.choices[0].finish_reason
                tokens = 0 if answer.usage is None else answer.usage.completion_tokens
    except (openai.OpenAIError, httpx.HTTPError, TimeoutError) as error:
        fault = f"{type(error).__name__}: {str(error)[:160]}"
        interrupted = streamed and tokens > 0 and getattr(error, "code", None) == INTERRUPTED
    else:
        fault = "" if finish and tokens else f"not whole: finish {finish}, {tokens} tokens"
    return Fate(number=number, streamed=streamed, fault=fault, backend=backend, tokens=tokens), interrupted


async def flow(
    url: str, numbers: itertools.count[int], at_once: int, retries: int, enough: Callable[[Sequence[Fate]], bool]
) -> list[Fate]:
    """Keep so many requests in flight until `enough` says so. `retries` is the SDK's own setting (its default is 2)."""
    fates: list[Fate] = []

    async def one_after_another(place: int) -> None:
        # A client of its own each, as each application has one; its connection is kept and used again.
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=retries) as client:
            while not enough(fates):
                fates.append(await ask(client, next(numbers), private=place == 0))

    async with asyncio.TaskGroup() as group:
        for place in range(at_once):
            group.create_task(one_after_another(place))
    return fates

"""Clients as applications write them: the openai SDK, half of the answers streamed, each followed to its end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
import openai

TIMEOUT_S = 120.0
WORDS = 12


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a request. `fault` is empty for a whole answer, `begun` says whether a client had any of it."""

    number: int
    streamed: bool
    fault: str
    begun: bool
    backend: str
    tokens: int


async def ask(client: openai.AsyncOpenAI, number: int, private: bool) -> Fate:
    """Send one request, and say what became of it."""
    most = 24 + 17 * number % 48
    streamed, begun, backend, tokens, finish = number % 2 == 1, False, "", 0, None
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
                        begun = begun or bool(choice.delta.content)
                        tokens += bool(choice.delta.content)
                        finish = choice.finish_reason or finish
            else:
                finish, begun = answer.choices[0].finish_reason, True
                tokens = 0 if answer.usage is None else answer.usage.completion_tokens
    except (openai.OpenAIError, httpx.HTTPError, TimeoutError) as error:
        fault = f"{type(error).__name__}: {str(error)[:160]}"
    else:
        fault = "" if finish and tokens else f"not whole: finish {finish}, {tokens} tokens"
    return Fate(number=number, streamed=streamed, fault=fault, begun=begun, backend=backend, tokens=tokens)


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

"""Finds out whether a local engine fails for everybody, by a request for one token that nobody else has a hand in.

An engine that answers 500 may be broken, or somebody sends what it can't read. Its health page does not tell which, and
an idle engine shows no progress either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

import httpx

from spillway_router.aio.tasks import end
from spillway_router.core.routing.model import Endpoint, Outcome
from spillway_router.http_client.types import Reply
from spillway_router.signals.abilities import PROBE_HEADER
from spillway_router.signals.answers import freed

TIMEOUT_S = 5.0
_MOST_BYTES = 256 * 1024


class EngineProof:
    """Asks one engine when it is told to. `client` belongs to the caller.

    `outcome` says what a reply means; `on_answer` gets True if the engine answered, and False if it failed. It is not
    called if the reply leaves that open.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        body: Mapping[str, Any],
        outcome: Callable[[Reply], Outcome],
        on_answer: Callable[[bool], None],
    ) -> None:
        self._client, self._url, self._body = client, url, body
        self._outcome, self._on_answer = outcome, on_answer
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Ask now, unless a request is under way."""
        if not self.in_progress:
            self._task = asyncio.get_running_loop().create_task(self._ask(), name="proof")

    @property
    def in_progress(self) -> bool:
        """Whether a request is under way."""
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """Cancel the request under way."""
        task, self._task = self._task, None
        await end(task)

    async def _ask(self) -> None:
        try:
            headers = {PROBE_HEADER: "proof"}
            asked = self._client.stream("POST", self._url, json=self._body, headers=headers, timeout=None)
            async with asyncio.timeout(TIMEOUT_S), freed(asked) as response:
                content = await response.aread()
        except (TimeoutError, httpx.HTTPError):
            return  # the prober notices an engine that is hung or gone
        reply = Reply(response.status_code, dict(response.headers), content[:_MOST_BYTES])
        outcome = self._outcome(reply)
        if outcome.kind in ("ok", "failed"):
            self._on_answer(outcome.kind == "ok")


def proof_of(model: str, endpoints: Collection[Endpoint]) -> tuple[str, Mapping[str, Any]] | None:
    """Return the path and the body that ask an engine for one token; None if it has no endpoint for that."""
    if "chat" in endpoints:
        messages = [{"role": "user", "content": "a"}]
        return "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 1, "temperature": 0}
    if "completions" in endpoints:
        return "/v1/completions", {"model": model, "prompt": "a", "max_tokens": 1, "temperature": 0}
    if "embeddings" in endpoints:
        return "/v1/embeddings", {"model": model, "input": "a"}
    return None

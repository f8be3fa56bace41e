"""Finds out whether a local engine fails for everybody, by a request for one token that nobody else has a hand in.

An engine that answers 500 may be broken, or somebody sends what it can't read. Its health page does not tell which, and
an idle engine shows no progress either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

from spillway_router.aio.tasks import end
from spillway_router.core.routing.model import Endpoint, Outcome
from spillway_router.http_client.connection import TransportError
from spillway_router.http_client.types import Reply
from spillway_router.signals.engine_client import EngineClient

TIMEOUT_S = 5.0
_MOST_BYTES = 256 * 1024


class EngineProof:
    """Asks one engine when it is told to. `client` belongs to the caller.

    `outcome` says what a reply means; `on_answer` gets True if the engine answered, and False if it failed. It is not
    called if the reply leaves that open.
    """

    def __init__(
        self,
        client: EngineClient,
        path: str,
        body: Mapping[str, Any],
        outcome: Callable[[Reply], Outcome],
        on_answer: Callable[[bool], None],
    ) -> None:
        self._client, self._path, self._body = client, path, body
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
            async with asyncio.timeout(TIMEOUT_S):
                reply = await self._client.post(self._path, self._body, "proof", _MOST_BYTES)
        except (TimeoutError, TransportError):
            return  # the prober notices an engine that is hung or gone
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

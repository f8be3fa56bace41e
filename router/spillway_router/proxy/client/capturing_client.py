"""A client inside the router: it keeps a whole answer instead of sending it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from spillway_router.aio.outbox import Outbox
from spillway_router.core.routing.model import Endpoint
from spillway_router.proxy.client.client import Client
from spillway_router.proxy.client.document_step import StepJudge, StepJudgement
from spillway_router.proxy.client.replies import Lines


class CapturingClient(Client):
    """Never streams and never leaves by itself: who asked is cancelled instead. `judge` is told of a whole answer."""

    __slots__ = ("_judge", "reply", "status")

    def __init__(
        self, endpoint: Endpoint, headers: dict[str, str], body: bytes, request_id: str, judge: StepJudge | None = None
    ) -> None:
        nowhere = cast("Any", None)  # `whole` below uses neither
        super().__init__(endpoint, headers, nowhere, nowhere, Outbox(asyncio.get_running_loop()), lambda: None)
        self.body, self.request_id = body, request_id
        self._judge = judge
        self.status, self.reply = 500, b""

    def judged(self, answer: Mapping[str, Any]) -> StepJudgement | None:
        """See Client.judged."""
        return None if self._judge is None else self._judge(answer)

    def whole(self, status: int, _lines: Lines, body: bytes) -> None:
        """See Client.whole."""
        self.started = self.response_complete = True
        self.status, self.reply = status, body

"""A client inside the router: it captures a whole answer instead of sending it.

It has a module of its own because a subclass of a compiled class must be compiled, too, and its users, the routes of
FastAPI, must not be (decisions/0016).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from spillway_router.aio.outbox import Outbox
from spillway_router.core.routing.model import Endpoint
from spillway_router.proxy.client.client import Client
from spillway_router.proxy.client.judgement import AnswerJudge, AnswerJudgement
from spillway_router.proxy.client.replies import Lines


class CapturingClient(Client):
    """Captures `status` and `reply`, and lets `judge` judge a whole answer.

    It never streams, and never leaves by itself: whoever waits for the answer is cancelled instead.
    """

    __slots__ = ("_judge", "reply", "status")

    def __init__(
        self,
        endpoint: Endpoint,
        headers: dict[str, str],
        body: bytes,
        request_id: str,
        judge: AnswerJudge | None = None,
    ) -> None:
        nowhere = cast("Any", None)  # `whole` below uses neither
        super().__init__(endpoint, headers, nowhere, nowhere, Outbox(asyncio.get_running_loop()), lambda: None)
        self.body, self.request_id = body, request_id
        self._judge = judge
        self.status, self.reply = 500, b""

    def judged(self, answer: Mapping[str, Any]) -> AnswerJudgement | None:
        return None if self._judge is None else self._judge(answer)

    def whole(self, status: int, _lines: Lines, body: bytes) -> None:
        self.started = self.response_complete = True
        self.status, self.reply = status, body

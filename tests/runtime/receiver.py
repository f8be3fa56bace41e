"""A receiver of the alert webhook."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

HANGS = 0


@dataclass
class Receiver:
    """An ASGI receiver that answers with the statuses in order, then with 204. With status 0 it hangs."""

    statuses: list[int] = field(default_factory=list)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    """If given, answers wait until it is set."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        self.seen.append(({k.decode(): v.decode() for k, v in scope["headers"]}, body))
        if self.gate is not None:
            await self.gate.wait()
        status = self.statuses.pop(0) if self.statuses else 204
        if status == HANGS:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await send({"type": "http.response.start", "status": status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b""})

"""The yardstick relay: bare ASGI on uvicorn, aiohttp towards the upstream. It runs in an environment of its own.

    python relay_asgi.py PORT UPSTREAM

It does the least that a router must do: it reads the body for `model` and `stream`, forwards it, relays raw chunks,
keeps a tail to find the usage in, and stops when the client leaves. It has no keys, no decision and no ledger.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import aiohttp  # type: ignore[import-not-found]  # only in the relay's own environment
import orjson
import uvicorn

HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}


class Relay:
    """The ASGI application."""

    def __init__(self, upstream: str) -> None:
        self._url = f"{upstream}/v1/chat/completions"
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=120)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        orjson.loads(body).get("model")
        relaying = asyncio.ensure_future(self._relay(self._session, body, send))
        leaving = asyncio.ensure_future(receive())
        await asyncio.wait((relaying, leaving), return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not relaying.done():
            relaying.cancel()
            return
        relaying.result()

    async def _relay(self, session: aiohttp.ClientSession, body: bytes, send: Any) -> None:
        async with session.post(self._url, data=body, headers=HEADERS) as answer:
            kind = answer.headers.get("content-type", "application/json").encode()
            await send({"type": "http.response.start", "status": answer.status, "headers": [(b"content-type", kind)]})
            tail = b""
            async for chunk in answer.content.iter_any():
                tail = (tail + chunk)[-4096:]
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            tail.rfind(b'"usage"')
            await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(
        Relay(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="error",
    )

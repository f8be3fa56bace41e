"""Answers of httpx that are freed as soon as they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx


@asynccontextmanager
async def freed(opened: AbstractAsyncContextManager[httpx.Response]) -> AsyncIterator[httpx.Response]:
    """Give the answer of `client.stream(...)`, and free it with its request at the end of the block.

    httpx binds an answer and its stream to each other, so without this every answer waits for the garbage collector.
    Engines are asked several times a second, and the router collects rarely: about 500 answers waited at a time.
    """
    response: httpx.Response | None = None
    try:
        async with opened as response:
            yield response
    finally:
        if response is not None:
            del response.stream

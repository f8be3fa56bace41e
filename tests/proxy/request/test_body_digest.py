"""The digest of a body, whatever its size."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest

from spillway_router.proxy.request.body_digest import AT_ONCE_BYTES, body_digest


@pytest.mark.parametrize("size", [0, AT_ONCE_BYTES, AT_ONCE_BYTES + 1])
async def test_it_is_the_sha_256(size: int) -> None:
    body = b"x" * size
    assert await body_digest(body) == sha256(body).digest()


async def test_the_loop_has_turns_while_a_large_body_is_hashed() -> None:
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await body_digest(b"x" * (AT_ONCE_BYTES + 1))
    assert turns

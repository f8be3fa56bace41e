"""What tests of the control API share: a whole answer, new keys, GET requests."""

from __future__ import annotations

import secrets
from typing import Any

import httpx

from spillway_router.ledger.records import Role
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing import Answer
from spillway_router.testing.harness import Router

WHOLE = Answer.json(
    {
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
)


def bearer(router: Router, role: Role, name: str = "", **more: Any) -> dict[str, str]:
    """Create a key; return the headers that send it."""
    spec = KeySpec(name or role, role=role, **more)
    key = KeyStore(router.ledger.keys).create(spec, secrets.token_bytes(6), secrets.token_bytes(32), 0)
    return {"authorization": f"Bearer {key.token}"}


async def get(router: Router, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return await router.client.get(path, headers=headers)

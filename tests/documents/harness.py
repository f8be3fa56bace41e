"""A router with a local engine and a cloud, and requests to its document routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, local, routing, settings

COST, FREE = "0.000200", "0.000000"
"""100 tokens at 1 USD and 50 at 2 USD per million."""
PATH = "/v1/documents/extract"


@asynccontextmanager
async def setup(
    first: Answer, second: Answer | None = None, more: str = "", folder: Path | None = None
) -> AsyncIterator[tuple[FaultUpstream, FaultUpstream, Router]]:
    async with (
        FaultUpstream(first) as engine,
        FaultUpstream(second) as other,
        routing(settings(local(engine), cloud(other), more=more), folder) as router,
    ):
        yield engine, other, router


async def ask(router: Router, text: str, fields: dict[str, Any] | None = None, **headers: str) -> dict[str, Any]:
    reply = await router.post({"text": text, **(fields or {})}, PATH, **headers)
    assert reply.status_code == 200, reply.text
    extraction: dict[str, Any] = reply.json()
    assert reply.headers["x-request-id"] == extraction["id"]
    assert reply.headers["x-spillway-cost-usd"] == extraction["cost_usd"]
    return extraction


def steps(extraction: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["step"], step["outcome"]) for step in extraction["steps"]]


def rows(router: Router, extraction: dict[str, Any]) -> list[tuple[int, str, str, bool, str]]:
    """Return attempt, backend, status, document flag and task of every charge of a document."""
    kept = [e for e in router.ledger.entries_of(extraction["id"]) if e.kind != "reserved"]
    return [(e.attempt_no, e.backend, e.status, e.document, e.task) for e in kept]


def documents(router: Router) -> int:
    """Count documents as reports do: by the answered charges that are marked as one."""
    return sum(total.answers for total in router.ledger.totals(0, 2**42) if total.group.document)

"""`POST /v1/feedback`: what a person thinks of an answer, and the better answer if one is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request

from spillway_router.aio.tasks import unless_gone
from spillway_router.core.frozen import dataclass
from spillway_router.core.routing.model import Caller, Refusal, RequestRecord
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.feedback import MOST_REASON, FeedbackRecord
from spillway_router.proxy.client.capturing_client import CapturingClient
from spillway_router.proxy.control.api import RefusedError
from spillway_router.proxy.control.gateway import ControlGateway
from spillway_router.proxy.control.rating import FIELDS, RatingError, stars
from spillway_router.proxy.exchange.better_answer import BETTER
from spillway_router.proxy.exchange.exchange import INFERENCE_ROLES, Admitted, serve
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request import body as wire

_FIELDS = FIELDS | {"request_id", "reason", "retry"}


@dataclass(frozen=True, slots=True)
class _Rated:
    """The answer that is rated: whose it is, and who gave it."""

    request_id: str
    key_id: str
    backend: str
    model: str


Stored = Callable[[str], list[Mapping[str, Any]]]
"""Ledger entries of a request that memory no longer holds. Raises LedgerError."""


def add_feedback_routes(api: FastAPI, desk: ControlGateway, s: Services, stored: Stored) -> None:
    """`POST /v1/feedback`."""

    @api.post("/v1/feedback")
    async def feedback(request: Request) -> dict[str, Any]:
        """`{"request_id", "rating": 1 to 5, "up", "down", true or false, "reason"?: text, "retry"?: true}`: keeps the
        rating; with `retry` the request is answered again one tier up, for which `retention` must be on. Instead of
        `rating`: `"score": -1, 0 or 1, "scale": "thumbs"` (or 0 and 1 on `binary`, 1 to 5 on `stars`)."""
        caller = desk.caller(request, INFERENCE_ROLES)
        body = await desk.body(request)
        rated = await _known(s, stored, caller, body)
        rating, reason = _rating(body), _reason(body)
        ts = int(s.wall() * 1000)
        kept = FeedbackRecord(rated.request_id, ts, rated.key_id, rated.backend, rated.model, rating, reason)
        try:
            await asyncio.to_thread(s.feedback.put, kept)
        except LedgerError as error:
            raise RefusedError(Refusal(503, "overloaded", f"Not kept: {error}", retry_after_s=5)) from None
        said: dict[str, Any] = {"request_id": kept.request_id, "recorded": True}
        if _flag(body):
            said["better"] = await _better(s, caller, rated.request_id, request)
        return said


async def _better(s: Services, caller: Caller, request_id: str, request: Request) -> dict[str, Any]:
    retained = s.memory.retained.get(request_id, s.clock())
    if retained is None:
        told = "The request is not kept"
        told += " any more." if s.memory.retained.on else ": `retention` is off, or it was private."
        told += f" Send its body again with the header {BETTER}: {request_id}."
        raise RefusedError(Refusal(409, "not_retained", told, "retry"))
    parsed = wire.load(retained.body)
    raw = wire.edit(retained.body, parsed.keys(), {"stream": False}, frozenset({"stream_options"}))
    client = CapturingClient(retained.endpoint, {**retained.headers, BETTER: request_id}, raw, s.new_id())
    await _served(s, Admitted(s.live(), caller, s.clock()), client, request)
    content = orjson.loads(client.reply)
    if client.status != 200:
        e = content["error"]
        raise RefusedError(Refusal(client.status, e["code"], e["message"], e["param"]))
    found = s.records.get(client.request_id)
    told_of = {} if found is None else {"backend": found.backend, "decision": found.decided, "reasons": found.reasons}
    return {"request_id": client.request_id, **told_of, "answer": content}


async def _served(s: Services, admitted: Admitted, client: CapturingClient, request: Request) -> None:
    """Answer, but for nobody: who leaves stops the upstream."""

    def leave() -> None:
        client.disconnected = True

    await unless_gone(request.receive, serve(s, admitted, client), leave)
    if client.disconnected:
        raise RefusedError(Refusal(499, "client_left", "The client left."))


async def _known(s: Services, stored: Stored, caller: Caller, body: dict[str, Any]) -> _Rated:
    unknown = sorted(body.keys() - _FIELDS)
    if unknown:
        raise _bad(f"{unknown[0]!r} is not known here; use {', '.join(sorted(_FIELDS))}.", unknown[0])
    request_id = body.get("request_id")
    if not isinstance(request_id, str) or not request_id:
        raise _bad("'request_id' must be the x-request-id of the answer.", "request_id")
    record = s.records.get(request_id)
    found = await _from_ledger(stored, request_id) if record is None else _from_memory(s, record)
    if found is None or (caller.role != "admin" and found.key_id != caller.key_id):
        told = f"No request {request_id[:80]} of yours is known. Send the x-request-id of an answer."
        raise RefusedError(Refusal(404, "request_not_found", told, "request_id"))
    if not found.backend:
        raise _bad("This request got no answer that could be rated.", "request_id")
    return found


def _from_memory(s: Services, record: RequestRecord) -> _Rated:
    backend = s.live().policy.backends.get(record.backend)
    model = "" if backend is None else backend.model
    return _Rated(record.facts.request_id, record.facts.caller.key_id, record.backend, model)


async def _from_ledger(stored: Stored, request_id: str) -> _Rated | None:
    """People rate minutes later, when memory has forgotten: the charged row of the answer knows who gave it."""
    try:
        rows = await asyncio.to_thread(stored, request_id)
    except LedgerError as error:
        raise RefusedError(Refusal(503, "overloaded", f"Not kept: {error}", retry_after_s=5)) from None
    if not rows:
        return None
    answered = next((row for row in rows if row["kind"] == "charged" and row["status"] == "ok"), None)
    row = answered or {**rows[0], "backend": "", "model": ""}
    return _Rated(request_id, str(row["key_id"]), str(row["backend"]), str(row["model"]))


def _rating(body: dict[str, Any]) -> int | None:
    try:
        rating = stars(body)
    except RatingError as error:
        raise _bad(str(error), error.param) from None
    if rating is None and not _flag(body):
        raise _bad("Send a 'rating': 1 to 5, up, down, true or false; or `retry: true`.", "rating")
    return rating


def _reason(body: dict[str, Any]) -> str:
    value = body.get("reason") or ""
    if not isinstance(value, str) or len(value) > MOST_REASON:
        raise _bad(f"'reason' must be text of at most {MOST_REASON} characters.", "reason")
    return value


def _flag(body: dict[str, Any]) -> bool:
    value = body.get("retry", False)
    if not isinstance(value, bool):
        raise _bad("'retry' must be true or false.", "retry")
    return value


def _bad(message: str, param: str) -> RefusedError:
    return RefusedError(Refusal(400, "invalid_request", message, param))

"""`POST /v1/feedback`: take a person's rating of an answer, and give a better answer on request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI, Request

from spillway_router.aio.tasks import unless_gone
from spillway_router.core.routing.model import Caller, Refusal, RequestRecord
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.feedback import MOST_REASON, FeedbackRecord
from spillway_router.proxy.client.capturing_client import CapturingClient
from spillway_router.proxy.control.rating import FIELDS, stars
from spillway_router.proxy.control.requests import caller_of, json_body
from spillway_router.proxy.exchange.better_answer import BETTER_THAN
from spillway_router.proxy.exchange.exchange import Admitted, serve
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.auth import INFERENCE_ROLES
from spillway_router.proxy.request.body import edit
from spillway_router.proxy.request.errors import RefusedError, bad_request
from spillway_router.proxy.request.large_body import read_body, spans_of

_FIELDS = FIELDS | {"request_id", "reason", "retry"}


@dataclass(frozen=True, slots=True)
class _RatedAnswer:
    """The answer that is rated: whose request it was, and which backend gave it ("": no backend answered)."""

    request_id: str
    key_id: str
    backend: str
    model: str


Stored = Callable[[str], list[Mapping[str, Any]]]
"""Return the ledger entries of a request that memory no longer holds. Raise LedgerError."""


def add_feedback_routes(api: FastAPI, services: Services, stored: Stored) -> None:
    """Add `POST /v1/feedback`."""

    @api.post("/v1/feedback")
    async def feedback(request: Request) -> dict[str, Any]:
        """Store the rating of an answer: `{"request_id", "rating": 1 to 5, "up", "down", true or false, "reason"?:
        text, "retry"?: true}`. With `retry` the request is answered again one tier up, for which `retention` must be
        on. Instead of `rating`: `"score": -1, 0 or 1, "scale": "thumbs"` (or 0 and 1 on `binary`, 1 to 5 on
        `stars`)."""
        caller = caller_of(services, request, INFERENCE_ROLES)
        body = await json_body(services, request, caller)
        rated = await _rated_answer(services, stored, caller, body)
        record = FeedbackRecord(
            request_id=rated.request_id,
            ts=int(services.wall() * 1000),
            key_id=rated.key_id,
            backend=rated.backend,
            model=rated.model,
            rating=_rating(body),
            reason=_reason(body),
        )
        try:
            await LEDGER_CALLS.run(services.feedback.put, record, limit_s=CLIENT_LIMIT_S)
        except LedgerError as error:
            raise _not_stored(error) from None
        response: dict[str, Any] = {"request_id": record.request_id, "recorded": True}
        if _retry(body):
            response["better"] = await _better_answer(services, caller, rated.request_id, request)
        return response


async def _better_answer(services: Services, caller: Caller, request_id: str, request: Request) -> dict[str, Any]:
    retained = services.memory.retained.get(request_id, services.clock())
    if retained is None:
        problem = "it is too old, or private" if services.memory.retained.enabled else "`retention` is off"
        message = (
            f"The request is not retained: {problem}. Send its body again with the header {BETTER_THAN}: {request_id}."
        )
        raise RefusedError(Refusal(409, "not_retained", message, "retry"))
    parsed = await read_body(retained.body, key_id=caller.key_id)
    raw = edit(retained.body, parsed.keys(), {"stream": False}, frozenset({"stream_options"}), spans_of(parsed))
    client = CapturingClient(retained.endpoint, {**retained.headers, BETTER_THAN: request_id}, raw, services.new_id())
    await _serve_unless_gone(services, Admitted(services.config(), caller, services.clock()), client, request)
    content = orjson.loads(client.content)
    if client.status != 200:
        error = content["error"]
        raise RefusedError(Refusal(client.status, error["code"], error["message"], error.get("param")))
    record = services.records.get(client.request_id)
    summary: dict[str, Any] = {}
    if record is not None:
        summary = {"backend": record.backend, "decision": record.decided, "reasons": record.reasons}
    return {"request_id": client.request_id, **summary, "answer": content}


async def _serve_unless_gone(services: Services, admitted: Admitted, client: CapturingClient, request: Request) -> None:
    """Answer into `client`. If the person who waits for it leaves, stop the upstream."""

    def on_gone() -> None:
        client.disconnected = True

    await unless_gone(request.receive, serve(services, admitted, client), on_gone)
    if client.disconnected:
        raise RefusedError(Refusal(499, "client_left", "The client left."))


async def _rated_answer(services: Services, stored: Stored, caller: Caller, body: dict[str, Any]) -> _RatedAnswer:
    """Find the answer that the body names. Raise RefusedError if it is not the caller's own, or there is none."""
    unknown = sorted(body.keys() - _FIELDS)
    if unknown:
        raise bad_request(f"Unknown field {unknown[0]!r}. Use {', '.join(sorted(_FIELDS))}.", unknown[0])
    request_id = body.get("request_id")
    if not isinstance(request_id, str) or not request_id:
        raise bad_request("'request_id' must be the x-request-id of the answer.", "request_id")
    record = services.records.get(request_id)
    answer = await _from_ledger(stored, request_id) if record is None else _from_memory(record)
    if answer is None or (caller.role != "admin" and answer.key_id != caller.key_id):
        message = f"This key sent no request {request_id[:80]}. Send the x-request-id of an answer."
        raise RefusedError(Refusal(404, "request_not_found", message, "request_id"))
    if not answer.backend:
        raise bad_request("This request was not answered, so there is nothing to rate.", "request_id")
    return answer


def _from_memory(record: RequestRecord) -> _RatedAnswer:
    return _RatedAnswer(
        request_id=record.facts.request_id,
        key_id=record.facts.caller.key_id,
        backend=record.backend,
        model=record.model,
    )


async def _from_ledger(stored: Stored, request_id: str) -> _RatedAnswer | None:
    """Find an answer by its charged row: people rate minutes later, when memory has forgotten the request."""
    try:
        rows = await LEDGER_CALLS.run(stored, request_id, limit_s=CLIENT_LIMIT_S)
    except LedgerError as error:
        raise _not_stored(error) from None
    if not rows:
        return None
    answered = next((row for row in rows if row["kind"] == "charged" and row["status"] == "ok"), None)
    row = answered or {**rows[0], "backend": "", "model": ""}
    return _RatedAnswer(
        request_id=request_id, key_id=str(row["key_id"]), backend=str(row["backend"]), model=str(row["model"])
    )


def _not_stored(error: LedgerError) -> RefusedError:
    return RefusedError(Refusal(503, "ledger_unavailable", f"The rating was not stored: {error}", retry_after_s=5))


def _rating(body: dict[str, Any]) -> int | None:
    rating = stars(body)
    if rating is None and not _retry(body):
        raise bad_request("Send a 'rating': 1 to 5, up, down, true or false; or `retry: true`.", "rating")
    return rating


def _reason(body: dict[str, Any]) -> str:
    value = body.get("reason") or ""
    if not isinstance(value, str) or len(value) > MOST_REASON:
        raise bad_request(f"'reason' must be text of at most {MOST_REASON} characters.", "reason")
    return value


def _retry(body: dict[str, Any]) -> bool:
    value = False if body.get("retry") is None else body["retry"]
    if not isinstance(value, bool):
        raise bad_request("'retry' must be true or false.", "retry")
    return value

"""`POST /v1/documents/extract`: the HTTP side of the cascade. Reviews: review_routes.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from spillway_router.aio.tasks import unless_gone
from spillway_router.core.money.tariff import usd
from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.documents.extract import Extraction, ExtractionRequest, extract
from spillway_router.documents.repeats import HEADER, MOST_KEY, KeyTakenError
from spillway_router.documents.request import read_extraction_request
from spillway_router.documents.review_routes import add_review_routes
from spillway_router.documents.reviews import Queued, Waiting
from spillway_router.documents.services import DocumentServices
from spillway_router.proxy.client.document_step import DocumentExchange

EXTRACTORS = frozenset({"inference", "admin"})


def add_document_routes(api: FastAPI, desk: DocumentServices) -> None:
    """Serve documents and reviews."""
    _add_extract(api, desk)
    add_review_routes(api, desk)


def _add_extract(api: FastAPI, desk: DocumentServices) -> None:
    @api.post("/v1/documents/extract")
    async def extract_document(request: Request) -> Response:
        """Read values out of a document: `text` or `messages`; `schema` (a name or a JSON schema), `parser` (auto, none
        or a name), `min_confidence` (0 to 1, instead of the configured thresholds), `model`, `review` (false: not to
        the queue). The reply tells every step, the confidence of every field, and what it cost. With an
        `idempotency-key` a document that may leave is read, and paid, once: see repeats.py."""
        caller = desk.door.caller(request, EXTRACTORS)
        rules = desk.rules()
        if desk.in_progress >= rules.most_at_once:
            message = "Too many documents in progress here (documents.most_at_once)."
            raise desk.door.refused(Refusal(503, "overloaded", message, retry_after_s=1.0))
        body = await desk.door.body(request)
        order = read_extraction_request(desk, body, rules)
        review = body.get("review", True)
        if not isinstance(review, bool):
            raise desk.bad("'review' must be true or false.", "review")
        content = {
            "model": order.model,
            "messages": order.messages or order.schema.messages(order.text, local=False),
            **({"metadata": body["metadata"]} if "metadata" in body else {}),
        }
        exchange = desk.door.open(request, caller, content, order.schema.name)
        if order.min_confidence is None:
            order = replace(order, min_confidence=exchange.least_confidence)

        async def answer() -> Response:
            desk.in_progress += 1
            try:
                return await _answer(desk, exchange, order, caller, review)
            finally:
                desk.in_progress -= 1

        found = await unless_gone(request.receive, _once(desk, request, caller, body, exchange, answer))
        return Response(status_code=204) if found is None else found  # a 204 that nobody reads


async def _once(
    desk: DocumentServices,
    request: Request,
    caller: Caller,
    body: Mapping[str, Any],
    exchange: DocumentExchange,
    answer: Callable[[], Awaitable[Response]],
) -> Response:
    """The answer, or that of the same request before. A private document costs nothing and is not kept, so its key says
    nothing."""
    key = request.headers.get(HEADER)
    if key is None:
        return await answer()
    if not 0 < len(key) <= MOST_KEY:
        raise desk.bad(f"{HEADER} must have 1 to {MOST_KEY} characters.", HEADER)
    if not exchange.privacy.may_leave:
        return await answer()
    try:
        return await desk.repeats.once((caller.key_id, key), orjson.dumps(body, option=orjson.OPT_SORT_KEYS), answer)
    except KeyTakenError:
        told = (
            "This idempotency-key came with another document or other fields before. Use a new key for a new request."
        )
        raise desk.door.refused(Refusal(409, "idempotency_conflict", told, HEADER)) from None


async def _answer(
    desk: DocumentServices, exchange: DocumentExchange, order: ExtractionRequest, caller: Caller, review: bool
) -> Response:
    status, code = 499, "client_left"
    try:
        found = await extract(exchange, order, desk.rules().cascade)
        queued = Queued(None, "the request asks for no review")
        if found.status == "unsure" and review:
            waiting = Waiting(exchange.request_id, caller.key_id, not exchange.privacy.may_leave, order, found)
            queued = await desk.queue.put(waiting)
        status, code = 200, ""
    except Exception:
        status, code = 500, "internal_error"
        raise
    finally:
        exchange.close(status, code)
    return _reply(exchange, order, found, queued)


def _reply(exchange: DocumentExchange, order: ExtractionRequest, found: Extraction, queued: Queued) -> Response:
    draft, cost = found.draft, usd(found.cost_nano)
    answered = found.status == "answered"
    state = "answered" if answered else "unsure" if queued.id is None else "review"
    body = {
        "id": exchange.request_id,
        "object": "document.extraction",
        "status": state,
        "step": draft.step if answered and draft is not None else state,
        "values": None if draft is None else draft.values,
        "confidence": None if draft is None else draft.confidence,
        "calibrated": draft is not None and draft.calibrated,
        "fields": {
            pointer: {
                "value": read.value,
                "confidence": read.confidence,
                "span": None if read.place is None else [read.place.start, read.place.end],
                "why": read.why,
            }
            for pointer, read in (draft.fields if draft is not None else {}).items()
        },
        "read_by": None if draft is None else {"step": draft.step, "backend": draft.backend, "model": draft.model},
        "schema": order.schema.name,
        "steps": [
            {
                "step": told.step,
                "outcome": told.verb,
                "backend": told.backend,
                "model": told.model,
                "confidence": told.confidence,
                "threshold": told.threshold,
                "why": told.why,
                "cost_usd": usd(told.cost_nano),
            }
            for told in found.steps
        ],
        "private": not exchange.privacy.may_leave,
        "privacy_reasons": exchange.privacy.reasons,
        "review_id": queued.id,
        "review_why": "" if answered else queued.why,
        "cost_usd": cost,
    }
    headers = {"x-request-id": exchange.request_id, "x-spillway-cost-usd": cost}
    if draft is not None:
        headers["x-spillway-backend"] = draft.backend
        if draft.confidence is not None:
            headers["x-spillway-confidence"] = f"{draft.confidence:.4f}"
    return JSONResponse(body, headers=headers)

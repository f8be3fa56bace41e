"""`POST /v1/documents/extract`, `/v1/reviews`: the HTTP side of documents."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from spillway_router.core.extraction import DocumentExchange
from spillway_router.core.model import Caller, Refusal
from spillway_router.core.tariff import usd
from spillway_router.documents.cascade import CascadeRules, Extraction, Order, extract
from spillway_router.documents.reviews import Queued, ReviewError, ReviewQueue, Waiting, shown, summary
from spillway_router.documents.schemas import Schema, SchemaError, chosen
from spillway_router.ledger.base import LedgerError
from spillway_router.ledger.reviews import MOST_AT_ONCE, ReviewFilter, ReviewRecord

EXTRACTORS = frozenset({"inference", "admin"})
READERS = frozenset({"viewer", "admin"})
DECIDERS = frozenset({"admin"})
_FIELDS = frozenset({"text", "messages", "schema", "parser", "min_confidence", "model", "metadata", "review"})
_STATES = ("open", "accepted", "corrected", "dismissed")
_LIST_PARAMS = frozenset({"state", "schema", "since_ms", "limit", "after"})
_T = TypeVar("_T")


class Door(Protocol):
    """What documents ask of the proxy. Methods raise what ends the request with a refusal."""

    def caller(self, request: Request, roles: frozenset[str]) -> Caller:
        """Who asks, if one of the roles."""

    async def body(self, request: Request) -> dict[str, Any]:
        """The JSON object that was sent."""

    def refused(self, refusal: Refusal) -> Exception:
        """What to raise to end the request with this refusal."""

    def open(self, request: Request, caller: Caller, content: Mapping[str, Any], task: str) -> DocumentExchange:
        """A document's way through the exchange."""


@dataclass(frozen=True, slots=True)
class DocumentRules:
    """What a configuration says of documents. `most_at_once`: above it 503 at once. `max_chars`: of one document."""

    cascade: CascadeRules
    schemas: Mapping[str, Schema]
    default_schema: str = "biometry"
    max_chars: int = 200_000
    most_at_once: int = 64


def add_document_routes(api: FastAPI, door: Door, rules: Callable[[], DocumentRules], queue: ReviewQueue) -> None:
    """Serve documents and reviews."""
    desk = _Desk(door, rules, queue)
    _add_extract(api, desk)
    _add_reviews(api, desk)


class _Desk:
    """What the handlers share."""

    def __init__(self, door: Door, rules: Callable[[], DocumentRules], queue: ReviewQueue) -> None:
        self.door, self.rules, self.queue = door, rules, queue
        self.in_progress = 0

    def bad(self, message: str, param: str | None = None) -> Exception:
        """A 400."""
        return self.door.refused(Refusal(400, "invalid_request", message, param))

    async def kept(self, work: Awaitable[_T]) -> _T:
        """What the queue's table says; 503 while it can't be used."""
        try:
            return await work
        except LedgerError as error:
            message = f"Reviews can't be read or written now: {error}. Try again."
            raise self.door.refused(Refusal(503, "overloaded", message, retry_after_s=5.0)) from None

    def order(self, body: Mapping[str, Any], rules: DocumentRules) -> Order:
        """What a request asks to read. Raises a 400."""
        unknown = sorted(body.keys() - _FIELDS)
        if unknown:
            raise self.bad(f"'{unknown[0]}' is not known here; use {', '.join(sorted(_FIELDS))}.", unknown[0])
        text, messages = body.get("text"), body.get("messages")
        if (text is None) == (messages is None):
            raise self.bad("Send the document as 'text', or as 'messages', and not both.", "text")
        if messages is not None:
            text = _text_of(messages)
        if not isinstance(text, str) or not text.strip():
            raise self.bad("The document has no text.", "text" if messages is None else "messages")
        if len(text) > rules.max_chars:
            told = f"The document has {len(text)} characters; documents.max_chars allows {rules.max_chars}."
            raise self.door.refused(Refusal(413, "request_too_large", told, "text"))
        try:
            schema = chosen(body.get("schema", rules.default_schema), rules.schemas)
        except SchemaError as error:
            raise self.bad(f"{error}.", "schema") from None
        return Order(text, schema, messages, self._parser(body, rules, schema), self._least(body), self._model(body))

    def _parser(self, body: Mapping[str, Any], rules: DocumentRules, schema: Schema) -> str:
        name = body.get("parser", "auto")
        if name in ("auto", "none"):
            return str(name)
        known = sorted(parser.name for parser in rules.cascade.parsers() if parser.schema == schema.name)
        if not isinstance(name, str) or name not in known:
            names = ", ".join(("auto", "none", *known))
            raise self.bad(f"'parser' must be one of {names} for the schema {schema.name}.", "parser")
        return name

    def _least(self, body: Mapping[str, Any]) -> float | None:
        least = body.get("min_confidence")
        if least is None:
            return None
        if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
            raise self.bad("'min_confidence' must be a number from 0 to 1.", "min_confidence")
        return float(least)

    def _model(self, body: Mapping[str, Any]) -> str:
        model = body.get("model", "auto")
        if not isinstance(model, str) or not model:
            raise self.bad("'model' must be the name of a model, such as auto.", "model")
        return model

    async def one(self, review_id: str) -> ReviewRecord:
        """A review, or a 404."""
        found = await self.kept(self.queue.get(review_id))
        if found is None:
            message = f"No review {review_id} is known. GET /v1/reviews lists them."
            raise self.door.refused(Refusal(404, "review_not_found", message))
        return found


def _text_of(messages: object) -> str | None:
    """The text of all user messages, one after the other."""
    if not isinstance(messages, list):
        return None
    found: list[str] = []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        found.extend(p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str))
    return "\n".join(found)


def _add_extract(api: FastAPI, desk: _Desk) -> None:
    @api.post("/v1/documents/extract")
    async def extract_document(request: Request) -> Response:
        """Read values out of a document: `text` or `messages`; `schema` (a name or a JSON schema), `parser` (auto, none
        or a name), `min_confidence` (0 to 1, instead of the configured thresholds), `model`, `review` (false: not to
        the queue). The reply tells every step, the confidence of every field, and what it cost."""
        caller = desk.door.caller(request, EXTRACTORS)
        rules = desk.rules()
        if desk.in_progress >= rules.most_at_once:
            message = "Too many documents in progress here (documents.most_at_once)."
            raise desk.door.refused(Refusal(503, "overloaded", message, retry_after_s=1.0))
        body = await desk.door.body(request)
        order = desk.order(body, rules)
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
        desk.in_progress += 1
        try:
            return await _unless_gone(request, _answer(desk, exchange, order, caller, review))
        finally:
            desk.in_progress -= 1


async def _answer(desk: _Desk, exchange: DocumentExchange, order: Order, caller: Caller, review: bool) -> Response:
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


def _reply(exchange: DocumentExchange, order: Order, found: Extraction, queued: Queued) -> Response:
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


async def _unless_gone(request: Request, work: Awaitable[Response]) -> Response:
    """The work's result; cancelled when the client leaves, as otherwise a GPU or a cloud would be paid for nobody."""
    doing = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({doing, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return Response(status_code=204)  # nobody reads it
        return doing.result()
    finally:
        for task in (doing, gone):
            task.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_reviews(api: FastAPI, desk: _Desk) -> None:
    @api.get("/v1/reviews")
    async def list_reviews(request: Request) -> dict[str, Any]:
        """Documents that waited for a person, newest first: `state` (open, accepted, corrected, dismissed), `schema`,
        `since_ms`, `limit` (50, at most 500), `after` (`next` of the page before)."""
        desk.door.caller(request, READERS)
        wanted = _filter(desk, request.query_params)
        found = await desk.kept(desk.queue.list(wanted))
        more = len(found) == min(wanted.limit, MOST_AT_ONCE)
        following = f"{found[-1].created_ms}.{found[-1].id}" if more else None
        return {"object": "list", "data": [summary(record) for record in found], "next": following}

    @api.get("/v1/reviews/{review_id}")
    async def show_review(review_id: str, request: Request) -> dict[str, Any]:
        """One review: the document cut at the places of its values (`highlighted`), each value with confidence."""
        desk.door.caller(request, READERS)
        return shown(await desk.one(review_id))

    @api.post("/v1/reviews/{review_id}")
    async def decide_review(review_id: str, request: Request) -> dict[str, Any]:
        """Close a review: `{"action": "accept"}`, `{"action": "correct", "values": {field: value}}` or
        `{"action": "dismiss"}`. Accepted and corrected values become labels for `spillway calibrate`."""
        caller = desk.door.caller(request, DECIDERS)
        body = await desk.door.body(request)
        unknown = sorted(body.keys() - {"action", "values"})
        if unknown:
            raise desk.bad(f"'{unknown[0]}' is not known here; use action and values.", unknown[0])
        record = await desk.one(review_id)
        try:
            after = await desk.kept(
                desk.queue.decide(record, str(body.get("action")), body.get("values"), caller.key_id)
            )
        except ReviewError as error:
            status, code = (409, "conflict") if error.conflict else (400, "invalid_request")
            raise desk.door.refused(Refusal(status, code, f"{error}.")) from None
        return shown(after)


def _filter(desk: _Desk, asked: Mapping[str, str]) -> ReviewFilter:
    unknown = sorted(asked.keys() - _LIST_PARAMS)
    if unknown:
        raise desk.bad(f"{unknown[0]} is not known here; use {', '.join(sorted(_LIST_PARAMS))}", unknown[0])
    state = asked.get("state", "")
    if state not in ("", *_STATES):
        raise desk.bad(f"state must be one of {', '.join(_STATES)}", "state")
    after = asked.get("after", "")
    created, dot, review_id = after.partition(".")
    if after and not (dot and created.isdecimal()):
        raise desk.bad("after must be the `next` of the page before", "after")
    numbers = {name: asked[name] for name in ("since_ms", "limit") if name in asked}
    for name, text in numbers.items():
        if not text.isdecimal() or len(text) > 15:
            raise desk.bad(f"{name} must be a whole number", name)
    return ReviewFilter(
        state,
        asked.get("schema", ""),
        int(numbers["since_ms"]) if "since_ms" in numbers else None,
        (int(created), review_id) if after else None,
        int(numbers.get("limit", 50)),
    )

"""`/v1/reviews`: the HTTP side of the review queue."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import FastAPI, Request

from spillway_router.core.routing.model import Refusal
from spillway_router.documents.reviews import ReviewError, review_summary, review_with_document
from spillway_router.documents.services import DocumentServices
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.reviews import MOST_AT_ONCE, ReviewFilter, ReviewRecord
from spillway_router.proxy.control.requests import caller_of, json_body
from spillway_router.proxy.request.auth import ADMIN_ROLES, REVIEW_ROLES
from spillway_router.proxy.request.errors import RefusedError, bad_request

_STATES = ("open", "accepted", "corrected", "dismissed")
_LIST_PARAMS = frozenset({"state", "schema", "since_ms", "limit", "after"})
_MOST_DIGITS = 15
_T = TypeVar("_T")


def add_review_routes(api: FastAPI, documents: DocumentServices) -> None:
    """Add `/v1/reviews`: list, show, decide."""

    @api.get("/v1/reviews")
    async def list_reviews(request: Request) -> dict[str, Any]:
        """List the documents that were queued for a person, newest first. Parameters: `state` (open, accepted,
        corrected, dismissed), `schema`, `since_ms`, `limit` (50 by default, at most 500), and `after` (the `next` of
        the previous page)."""
        caller = caller_of(documents.proxy, request, REVIEW_ROLES)
        page_filter = _filter(request.query_params)
        records = await _from_table(documents.reviews.list(page_filter))
        full = len(records) == min(page_filter.limit, MOST_AT_ONCE)
        next_page = f"{records[-1].created_ms}.{records[-1].id}" if full else None
        shown = [review_summary(_for_role(record, caller.role)) for record in records]
        return {"object": "list", "data": shown, "next": next_page}

    @api.get("/v1/reviews/{review_id}")
    async def show_review(review_id: str, request: Request) -> dict[str, Any]:
        """Show one review: each value with its confidence, and the document cut at the places of its values
        (`highlighted`). A viewer gets neither the document nor what was read from it."""
        caller = caller_of(documents.proxy, request, REVIEW_ROLES)
        return review_with_document(_for_role(await _review(documents, review_id), caller.role))

    @api.post("/v1/reviews/{review_id}")
    async def decide_review(review_id: str, request: Request) -> dict[str, Any]:
        """Close a review: `{"action": "accept"}`, `{"action": "correct", "values": {field: value}}` or
        `{"action": "dismiss"}`. Accepted and corrected values become labels for `spillway calibrate`."""
        caller = caller_of(documents.proxy, request, ADMIN_ROLES)
        body = await json_body(documents.proxy, request, caller)
        unknown = sorted(body.keys() - {"action", "values"})
        if unknown:
            raise bad_request(f"Unknown field {unknown[0]!r}. Use action and values.", unknown[0])
        record = await _review(documents, review_id)
        decision = documents.reviews.decide(record, str(body.get("action")), body.get("values"), caller.key_id)
        try:
            decided = await _from_table(decision)
        except ReviewError as error:
            message = f"{str(error)[0].upper()}{str(error)[1:]}."
            if error.param is None:
                raise RefusedError(Refusal(409, "conflict", message)) from None
            raise bad_request(message, error.param) from None
        return review_with_document(decided)


def _for_role(record: ReviewRecord, role: str) -> ReviewRecord:
    """Return what a role may read of a review: only an administrator reads documents, and what private ones led to."""
    if role in ADMIN_ROLES:
        return record
    return replace(record, content=None, outcome=None, why="" if record.private else record.why)


async def _from_table(query: Awaitable[_T]) -> _T:
    """Return the result of a query; raise RefusedError with a 503 while the table is unavailable."""
    try:
        return await query
    except LedgerError as error:
        message = f"Reviews are not available now: {error}. Try again."
        raise RefusedError(Refusal(503, "overloaded", message, retry_after_s=5.0)) from None


async def _review(documents: DocumentServices, review_id: str) -> ReviewRecord:
    """Return a review; raise RefusedError with a 404 if there is none."""
    record = await _from_table(documents.reviews.get(review_id))
    if record is None:
        message = f"Unknown review {review_id[:80]}. GET /v1/reviews lists the reviews."
        raise RefusedError(Refusal(404, "review_not_found", message))
    return record


def _is_number(text: str) -> bool:
    """Return whether a parameter is a whole number that a database column holds."""
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def _filter(params: Mapping[str, str]) -> ReviewFilter:
    unknown = sorted(params.keys() - _LIST_PARAMS)
    if unknown:
        raise bad_request(f"Unknown parameter {unknown[0]!r}. Use {', '.join(sorted(_LIST_PARAMS))}.", unknown[0])
    state = params.get("state", "")
    if state not in ("", *_STATES):
        raise bad_request(f"'state' must be one of {', '.join(_STATES)}.", "state")
    after = params.get("after", "")
    created, dot, review_id = after.partition(".")
    if after and not (dot and _is_number(created)):
        raise bad_request("'after' must be the `next` of the previous page.", "after")
    numbers = {name: params[name] for name in ("since_ms", "limit") if name in params}
    for name, text in numbers.items():
        if not _is_number(text):
            raise bad_request(f"'{name}' must be a whole number.", name)
    if int(numbers.get("limit", 1)) == 0:
        raise bad_request("'limit' must be 1 or more.", "limit")
    return ReviewFilter(
        state=state,
        schema_name=params.get("schema", ""),
        since_ms=int(numbers["since_ms"]) if "since_ms" in numbers else None,
        before=(int(created), review_id) if after else None,
        limit=int(numbers.get("limit", 50)),
    )

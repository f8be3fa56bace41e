"""`/v1/reviews`: the HTTP side of the review queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request

from spillway_router.core.routing.model import Refusal
from spillway_router.documents.reviews import ReviewError, shown, summary
from spillway_router.documents.services import DocumentServices
from spillway_router.ledger.tables.reviews import MOST_AT_ONCE, ReviewFilter, ReviewRecord

READERS = frozenset({"viewer", "admin"})
DECIDERS = frozenset({"admin"})
_STATES = ("open", "accepted", "corrected", "dismissed")
_LIST_PARAMS = frozenset({"state", "schema", "since_ms", "limit", "after"})


def add_review_routes(api: FastAPI, desk: DocumentServices) -> None:
    """`/v1/reviews`: list, show, decide."""

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
        return shown(await _one(desk, review_id))

    @api.post("/v1/reviews/{review_id}")
    async def decide_review(review_id: str, request: Request) -> dict[str, Any]:
        """Close a review: `{"action": "accept"}`, `{"action": "correct", "values": {field: value}}` or
        `{"action": "dismiss"}`. Accepted and corrected values become labels for `spillway calibrate`."""
        caller = desk.door.caller(request, DECIDERS)
        body = await desk.door.body(request)
        unknown = sorted(body.keys() - {"action", "values"})
        if unknown:
            raise desk.bad(f"'{unknown[0]}' is not known here; use action and values.", unknown[0])
        record = await _one(desk, review_id)
        try:
            after = await desk.kept(
                desk.queue.decide(record, str(body.get("action")), body.get("values"), caller.key_id)
            )
        except ReviewError as error:
            message = f"{str(error)[0].upper()}{str(error)[1:]}."
            if error.param is None:
                raise desk.door.refused(Refusal(409, "conflict", message)) from None
            raise desk.bad(message, error.param) from None
        return shown(after)


async def _one(desk: DocumentServices, review_id: str) -> ReviewRecord:
    """A review, or a 404."""
    found = await desk.kept(desk.queue.get(review_id))
    if found is None:
        message = f"No review {review_id[:80]} is known. GET /v1/reviews lists them."
        raise desk.door.refused(Refusal(404, "review_not_found", message))
    return found


def _filter(desk: DocumentServices, asked: Mapping[str, str]) -> ReviewFilter:
    unknown = sorted(asked.keys() - _LIST_PARAMS)
    if unknown:
        raise desk.bad(f"'{unknown[0]}' is not known here; use {', '.join(sorted(_LIST_PARAMS))}.", unknown[0])
    state = asked.get("state", "")
    if state not in ("", *_STATES):
        raise desk.bad(f"'state' must be one of {', '.join(_STATES)}.", "state")
    after = asked.get("after", "")
    created, dot, review_id = after.partition(".")
    if after and not (dot and created.isdecimal()):
        raise desk.bad("'after' must be the `next` of the page before.", "after")
    numbers = {name: asked[name] for name in ("since_ms", "limit") if name in asked}
    for name, text in numbers.items():
        if not text.isdecimal() or len(text) > 15:
            raise desk.bad(f"'{name}' must be a whole number.", name)
    return ReviewFilter(
        state,
        asked.get("schema", ""),
        int(numbers["since_ms"]) if "since_ms" in numbers else None,
        (int(created), review_id) if after else None,
        int(numbers.get("limit", 50)),
    )

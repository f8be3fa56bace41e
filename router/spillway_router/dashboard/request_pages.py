"""The addresses of the pages about requests: the list with its filters, one request's story, and the own usage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from spillway_router.core.routing.model import Refusal
from spillway_router.dashboard.desk import Desk, wants_json
from spillway_router.dashboard.times import duration
from spillway_router.dashboard.viewer import Viewer
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.proxy.control.request_list import RequestLine, filter_of, line_values, listed
from spillway_router.proxy.request.auth import READER_ROLES, REVIEW_ROLES
from spillway_router.proxy.request.errors import RefusedError

if TYPE_CHECKING:
    from spillway_router.dashboard.now import RequestRow

FILTERS = ("key", "model", "backend", "decision", "ended", "slow_ms", "cost_usd", "before")
PER_PAGE = 50
_DECISIONS = ("local", "overflow", "escalated", "fallback", "routed", "pinned", "byok", "cache")
_ENDED = ("ok", "refused", "error", "aborted", "open")


class RequestPages:
    """The pages about requests of one router."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add_to(self, api: FastAPI) -> None:
        """Add the addresses."""

        @api.get("/requests", include_in_schema=False)
        async def requests(request: Request) -> Response:
            return await self._desk.shown(request, READER_ROLES, self._list)

        @api.get("/requests.json", include_in_schema=False)
        async def requests_json(request: Request) -> Response:
            return await self._desk.shown(request, READER_ROLES, self._list)

        @api.get("/requests/{request_id}", include_in_schema=False)
        async def story(request: Request) -> Response:
            return await self._desk.shown(request, READER_ROLES, self._story)

        @api.get("/my-usage", include_in_schema=False)
        async def my_usage(request: Request) -> Response:
            return await self._desk.shown(request, READER_ROLES, self._my_usage)

        @api.get("/my-usage.json", include_in_schema=False)
        async def my_usage_json(request: Request) -> Response:
            return await self._desk.shown(request, READER_ROLES, self._my_usage)

    async def _list(self, request: Request, viewer: Viewer) -> Response:
        parts = self._desk.parts
        chosen = {name: text for name in FILTERS if (text := request.query_params.get(name, ""))}
        page = await listed(parts.services, parts.entries_before, filter_of(chosen, viewer.caller), PER_PAGE)
        if wants_json(request):
            lines = [line_values(line) for line in page.lines]
            return JSONResponse({"requests": lines, "next": page.following, "notice": page.notice})
        names = parts.key_names()
        kept = {name: text for name, text in chosen.items() if name != "before"}
        values: dict[str, Any] = {
            "requests": [row_of_line(line, names) for line in page.lines],
            "notice": page.notice,
            "chosen": chosen,
            "query": urlencode(kept),
            "older": urlencode({**kept, "before": page.following}) if page.following else "",
            "decisions": _DECISIONS,
            "ends": _ENDED,
            "backends": sorted(parts.services.config().policy.backends),
            "keys": sorted((name, key_id) for key_id, name in names.items()) if viewer.sees_all else (),
        }
        return self._desk.page(request, viewer, "requests.html", values)

    async def _story(self, request: Request, viewer: Viewer) -> Response:
        from spillway_router.dashboard.story import rows_of, story_of
        from spillway_router.proxy.control.api import describe

        parts, name = self._desk.parts, request.path_params["request_id"]
        request_id = name.removesuffix(".json")
        record = parts.services.records.get(request_id)
        entries = await LEDGER_CALLS.run(parts.entries_of, request_id, limit_s=CLIENT_LIMIT_S)
        owners = {entry.key_id for entry in entries} | ({record.facts.caller.key_id} if record is not None else set())
        sees_it = viewer.caller.role in REVIEW_ROLES or owners == {viewer.caller.key_id}
        if not owners or not sees_it:
            message = f"Unknown request {request_id[:80]}. Memory holds the newest, the ledger those that were charged."
            raise RefusedError(Refusal(404, "request_not_found", message))
        details = viewer.is_admin or owners == {viewer.caller.key_id}
        if name != request_id:
            values_of = {"id": request_id} if record is None else describe(record, details=details)
            return JSONResponse({**values_of, "entries": [entry._asdict() for entry in entries]})
        story = None if record is None else story_of(record, parts.key_names(), details=details)
        values = {"id": request_id, "story": story, "rows": rows_of(entries)}
        return self._desk.page(request, viewer, "request.html", values)

    async def _my_usage(self, request: Request, viewer: Viewer) -> Response:
        from spillway_router.dashboard.windows import NAMES, window_of, words
        from spillway_router.ledger.tables.key_terms import shown

        parts, today = self._desk.parts, self._desk.today()
        window = window_of(request.query_params, today)
        report = await parts.report(window.query("key", "backend"))
        here = {row.backend for row in report.fixed.rows}
        mine = [row for row in report.groups if row.keys["key"] == viewer.caller.key_id and not row.idle]
        answers = sum(row.served.answers for row in mine)
        money = report.amounts.money
        key = parts.valid_key(viewer.caller.key_id, parts.services.clock())
        listing = filter_of({}, viewer.caller)
        page = await listed(parts.services, parts.entries_before, listing, 10) if viewer.caller.key_id else None
        values: dict[str, Any] = {
            "answers": answers,
            "local": sum(row.served.answers for row in mine if row.keys["backend"] in here),
            "cloud": money(sum(row.cloud_nano for row in mine)),
            "tokens": (
                sum(row.served.prompt_tokens for row in mine),
                sum(row.served.completion_tokens for row in mine),
            ),
            "rows": [
                (row.keys["backend"], f"{row.served.answers:,}", money(row.used_nano), money(row.cloud_nano))
                for row in mine
            ],
            "terms": {} if key is None else shown(key),
            "requests": [] if page is None else [row_of_line(line, parts.key_names()) for line in page.lines],
        }
        if wants_json(request):
            lines = [asdict(row) for row in values["requests"]]
            return JSONResponse({**values, "requests": lines, "from": str(window.first), "to": str(window.last)})
        days = {"window": window, "windows": NAMES, "days_words": words(window, today)}
        return self._desk.page(request, viewer, "my_usage.html", {**values, **days})


def row_of_line(line: RequestLine, key_names: Mapping[str, str]) -> RequestRow:
    """Return the row of a list for a line from memory or from the ledger."""
    from spillway_router.core.money.currency import IN_USD
    from spillway_router.dashboard.now import RequestRow, tone_of

    at = "-" if line.arrived_ms is None else f"{datetime.fromtimestamp(line.arrived_ms / 1000, UTC):%d %b %H:%M:%S}"
    decision = {"refused": "refused", "error": "failed"}.get(line.ended, line.decision or line.ended)
    return RequestRow(
        id=line.id,
        at=at,
        key=key_names.get(line.key_id, line.key_id) or "-",
        asked=line.alias or "-",
        decision=decision,
        tone=tone_of(decision),
        reasons=", ".join(reason for reason in line.reasons if reason != decision),
        model=line.model or "-",
        first_token=duration(_seconds(line.first_token_ms)),
        total=duration(_seconds(line.total_ms)),
        cost=IN_USD.money(line.cost_nano) if line.cost_nano else "-",
        status="-" if line.status is None else str(line.status),
    )


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000

"""The addresses of the pages that change something: API keys, the setup with its reload, and reviews."""

from __future__ import annotations

import asyncio
import difflib
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from spillway_router.core.routing.model import Backend, Refusal
from spillway_router.dashboard.checkup import Checkup, checkup_of
from spillway_router.dashboard.desk import Desk, form_fields, wants_json
from spillway_router.dashboard.viewer import Viewer
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.ledger.errors import LastAdminError, LedgerUnavailableError
from spillway_router.ledger.tables.keys import ID_BYTES, SECRET_BYTES, KeySpec, KeySpecError
from spillway_router.proxy.request.auth import ADMIN_ROLES, REVIEW_ROLES
from spillway_router.proxy.request.errors import RefusedError, bad_request

if TYPE_CHECKING:
    from spillway_router.ledger.reports.model import Report

GRACE_MS = 24 * 3_600_000
MOST_REVIEWS = 100
ALWAYS = "1970-01-01"
"""The first day of a price that names none."""
CHECK_S = 15.0
"""The time limit of a check; each backend has 3 s, all at once."""
_KEY_TERMS = ("role", "tier", "privacy", "expires", "budget")


class AdminPages:
    """The pages of one router for its administrators, and the reviews."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._checking = asyncio.Lock()

    def add_to(self, api: FastAPI) -> None:
        """Add the addresses."""

        @api.get("/keys", include_in_schema=False)
        async def keys(request: Request) -> Response:
            return await self._desk.shown(request, ADMIN_ROLES, self._keys)

        @api.get("/keys.json", include_in_schema=False)
        async def keys_json(request: Request) -> Response:
            return await self._desk.shown(request, ADMIN_ROLES, self._keys)

        @api.post("/keys", include_in_schema=False)
        async def create_key(request: Request) -> Response:
            return await self._desk.shown(request, ADMIN_ROLES, self._create_key)

        @api.post("/keys/{key_id}/{action}", include_in_schema=False)
        async def change_key(request: Request) -> Response:
            return await self._desk.shown(request, ADMIN_ROLES, self._change_key)

        @api.get("/setup", include_in_schema=False)
        async def setup(request: Request) -> Response:
            return await self._desk.shown(request, ADMIN_ROLES, self._setup)

        @api.get("/setup.json", include_in_schema=False)
        async def setup_json(request: Request) -> Response:
            return await self._desk.shown(request, ADMIN_ROLES, self._setup)

        @api.post("/setup", include_in_schema=False)
        async def reload(request: Request) -> Response:
            return await self._desk.shown(request, ADMIN_ROLES, self._change_setup)

        @api.get("/reviews", include_in_schema=False)
        async def reviews(request: Request) -> Response:
            return await self._desk.shown(request, REVIEW_ROLES, self._reviews)

        @api.get("/reviews.json", include_in_schema=False)
        async def reviews_json(request: Request) -> Response:
            return await self._desk.shown(request, REVIEW_ROLES, self._reviews)

        @api.get("/reviews/{review_id}", include_in_schema=False)
        async def review(request: Request) -> Response:
            return await self._desk.shown(request, ADMIN_ROLES, self._review)

        @api.post("/reviews/{review_id}", include_in_schema=False)
        async def decide(request: Request) -> Response:
            return await self._desk.shown(request, ADMIN_ROLES, self._decide)

    # keys

    async def _keys(self, request: Request, viewer: Viewer, token: str = "", status: int = 200) -> Response:
        from spillway_router.dashboard.windows import window_of
        from spillway_router.ledger.tables.key_terms import shown

        parts = self._desk.parts
        records = await LEDGER_CALLS.run(parts.keys.list, limit_s=CLIENT_LIMIT_S)
        month = window_of({}, self._desk.today())
        report = await parts.report(month.query("key"))
        used = {row.keys["key"]: row for row in report.groups if not row.idle and not row.other}
        last_day = _last_days(await parts.report(month.query("key", "day")))
        money = report.amounts.money
        rows = [
            {
                **shown(record),
                "last_used": last_day.get(record.id, "not this month"),
                "answers": f"{used[record.id].served.answers:,}" if record.id in used else "0",
                "cloud": money(used[record.id].cloud_nano) if record.id in used else money(0),
                "rent": money(used[record.id].used_nano + used[record.id].idle_share_nano)
                if record.id in used
                else money(0),
            }
            for record in records
        ]
        if wants_json(request):
            return JSONResponse({"keys": rows})
        values = {
            "valid": [row for row in rows if row["revoked"] is None],
            "revoked": [row for row in rows if row["revoked"] is not None],
            "token": token,
        }
        return self._desk.page(request, viewer, "keys.html", values, status)

    async def _create_key(self, request: Request, viewer: Viewer) -> Response:
        from spillway_router.ledger.tables.key_terms import spec_fields

        form = await form_fields(request)
        self._desk.check_post(request, viewer, form)
        now_ms = int(self._desk.parts.services.wall() * 1000)
        terms: dict[str, Any] = {term: form[term] for term in _KEY_TERMS if form.get(term)}
        terms["may_route"] = form.get("may_route") == "yes"
        random = (secrets.token_bytes(ID_BYTES), secrets.token_bytes(SECRET_BYTES))
        by = f"key {viewer.caller.key_id}"
        store = self._desk.parts.keys
        try:
            spec = KeySpec(name=form.get("name", "").strip(), **spec_fields(terms, now_ms))
            new = await LEDGER_CALLS.run(lambda: store.create(spec, *random, now_ms, by), limit_s=CLIENT_LIMIT_S)
        except KeySpecError as error:
            raise bad_request(f"{error}.") from None
        return await self._keys(request, viewer, new.token, 201)

    async def _change_key(self, request: Request, viewer: Viewer) -> Response:
        self._desk.check_post(request, viewer, await form_fields(request))
        key_id, action = request.path_params["key_id"], request.path_params["action"]
        store, now_ms = self._desk.parts.keys, int(self._desk.parts.services.wall() * 1000)
        by = f"key {viewer.caller.key_id}"
        if action == "rotate":
            secret = secrets.token_bytes(SECRET_BYTES)
            token = await LEDGER_CALLS.run(store.rotate, key_id, secret, now_ms + GRACE_MS, by, limit_s=CLIENT_LIMIT_S)
            if token is not None:
                return await self._keys(request, viewer, token)
        elif action == "revoke":
            try:
                done = await LEDGER_CALLS.run(lambda: store.revoke(key_id, now_ms, by=by), limit_s=CLIENT_LIMIT_S)
            except LastAdminError as error:
                raise RefusedError(Refusal(409, "conflict", f"{error}.")) from None
            if done:
                return RedirectResponse("/keys", 303, {"cache-control": "no-store"})
        raise RefusedError(Refusal(404, "key_not_found", f"No valid key has the id {key_id[:80]}."))

    # setup

    async def _setup(
        self,
        request: Request,
        viewer: Viewer,
        problems: Sequence[str] = (),
        done: bool = False,
        checkup: Checkup | None = None,
    ) -> Response:
        from spillway_router.config.load import ConfigError
        from spillway_router.config.shown import settings_yaml, shown_settings

        parts, config = self._desk.parts, self._desk.parts.config()
        loaded, assembly = config.loaded, config.assembly
        in_force = settings_yaml(shown_settings(loaded.settings, whole=True))
        changes: list[str] = []
        try:
            written = await LEDGER_CALLS.run(loaded.again, limit_s=CLIENT_LIMIT_S)
        except ConfigError as error:
            problems = problems or [str(problem) for problem in error.problems]
        else:
            new = settings_yaml(shown_settings(written.settings, whole=True))
            lines = difflib.unified_diff(in_force.splitlines(), new.splitlines(), "in force", "file", lineterm="", n=1)
            changes = list(lines)[2:]
        values = {
            "file": str(loaded.path) if loaded.path is not None else "",
            "settings": settings_yaml(shown_settings(loaded.settings, whole=False)),
            "whole": in_force,
            "changes": changes,
            "problems": problems,
            "done": done,
            "findings": [("disabled", f"{one.where} {one.problem}") for one in assembly.disabled]
            + [("warning", f"{one.where} {one.problem}") for one in assembly.warnings],
            "prices": [(one.name, one.model, price_words(one)) for one in assembly.backends],
            "log": list(parts.log_lines()),
            "engine_log": await self._engine_log(),
            "checkup": None if checkup is None else asdict(checkup),
            "check_s": f"{CHECK_S:g}",
            "versions": [
                ("Spillway", parts.version),
                ("Python", sys.version.split()[0]),
                ("policy", assembly.policy.version),
            ],
        }
        if wants_json(request):
            return JSONResponse(values)
        return self._desk.page(request, viewer, "setup.html", values, 400 if problems and not changes else 200)

    async def _change_setup(self, request: Request, viewer: Viewer) -> Response:
        form = await form_fields(request)
        self._desk.check_post(request, viewer, form)
        if form.get("action") == "check":
            return await self._check(request, viewer)
        problems = await self._desk.parts.reload(f"key {viewer.caller.key_id}")
        return await self._setup(request, viewer, problems, done=not problems)

    async def _engine_log(self) -> list[str] | None:
        try:
            lines = await LEDGER_CALLS.run(self._desk.parts.engine_lines, limit_s=CLIENT_LIMIT_S)
        except LedgerUnavailableError:  # its disk hangs
            return [f"The log could not be read within {CLIENT_LIMIT_S:g} s."]
        return None if lines is None else list(lines)

    async def _check(self, request: Request, viewer: Viewer) -> Response:
        if self._checking.locked():
            raise RefusedError(Refusal(409, "conflict", "A check is running already.", retry_after_s=CHECK_S))
        async with self._checking:
            started_s = self._desk.parts.services.clock()
            try:
                report = await LEDGER_CALLS.run(self._desk.parts.checked, limit_s=CHECK_S)
            except LedgerUnavailableError:
                message = f"The check took longer than {CHECK_S:g} s. `spillway check` has no such limit."
                raise RefusedError(Refusal(503, "overloaded", message, retry_after_s=CHECK_S)) from None
            took_s = self._desk.parts.services.clock() - started_s
        cut = self._desk.parts.services.config().redactor.cut
        return await self._setup(request, viewer, checkup=checkup_of(report, took_s, cut))

    # reviews

    async def _reviews(self, request: Request, viewer: Viewer) -> Response:
        from datetime import UTC, datetime

        from spillway_router.ledger.tables.reviews import ReviewFilter

        records = await self._desk.parts.reviews.list(ReviewFilter(state="open", limit=MOST_REVIEWS))
        rows = [
            {
                "id": record.id,
                "at": f"{datetime.fromtimestamp(record.created_ms / 1000, UTC):%d %b %H:%M}",
                "schema": record.schema_name,
                "confidence": "-" if record.confidence is None else f"{record.confidence:.0%}",
                "why": "" if record.private and not viewer.is_admin else record.why,
            }
            for record in records
        ]
        if wants_json(request):
            return JSONResponse({"reviews": rows})
        return self._desk.page(request, viewer, "reviews.html", {"rows": rows, "most": MOST_REVIEWS})

    async def _review(self, request: Request, viewer: Viewer, problem: str = "", status: int = 200) -> Response:
        from spillway_router.documents.reviews import review_with_document

        record = await self._desk.parts.reviews.get(request.path_params["review_id"])
        if record is None:
            raise RefusedError(Refusal(404, "review_not_found", "There is no such review."))
        values = {"review": review_with_document(record), "problem": problem}
        return self._desk.page(request, viewer, "review.html", values, status)

    async def _decide(self, request: Request, viewer: Viewer) -> Response:
        from spillway_router.documents.reviews import ReviewError, review_with_document
        from spillway_router.ledger.tables.reviews import ReviewFilter

        form = await form_fields(request)
        self._desk.check_post(request, viewer, form)
        queue = self._desk.parts.reviews
        record = await queue.get(request.path_params["review_id"])
        if record is None:
            raise RefusedError(Refusal(404, "review_not_found", "There is no such review."))
        action = form.get("action", "")
        changes = (
            changed_values(review_with_document(record).get("values") or {}, form) if action == "correct" else None
        )
        try:
            await queue.decide(record, action, changes, viewer.caller.key_id)
        except ReviewError as error:
            return await self._review(request, viewer, f"{error}.", 400)
        left = await queue.list(ReviewFilter(state="open", limit=1))
        target = f"/reviews/{left[0].id}" if left else "/reviews"
        return RedirectResponse(target, 303, {"cache-control": "no-store"})


def changed_values(values: Mapping[str, Any], form: Mapping[str, str]) -> dict[str, Any]:
    """Return the top-level fields that a form sets to other values. A field is written as JSON, or as plain text where
    the text is no JSON."""
    changes: dict[str, Any] = {}
    for name, before in values.items():
        text = form.get(f"value:{name}")
        if text is None or text == field_text(before):
            continue
        try:
            changes[name] = orjson.loads(text)
        except orjson.JSONDecodeError:
            changes[name] = text
    return changes


def price_words(backend: Backend) -> str:
    """Return where the price of a backend is from, and of which day."""
    if backend.local:
        return "the GPU's rent"
    if backend.tariff is None:
        return "no price"
    if not backend.tariff.ref.startswith("config@"):
        return backend.tariff.ref
    since = backend.tariff.ref.removeprefix("config@").partition("#")[0]
    return "this configuration" if since == ALWAYS else f"this configuration, from {since}"


def field_text(value: Any) -> str:
    """Return a value as the form shows it: a text as it is, everything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _last_days(report: Report) -> dict[str, str]:
    """Return the last day of use of each API key, of a report by key and day."""
    days: dict[str, str] = {}
    for row in report.groups:
        if not row.idle and not row.other and row.served.attempts:
            days[row.keys["key"]] = max(days.get(row.keys["key"], ""), row.keys["day"])
    return days

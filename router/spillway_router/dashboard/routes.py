"""The addresses of the pages. What renders them is imported with the first page, so that a router that nobody looks at
stays small."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse

from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.dashboard.admin_pages import AdminPages
from spillway_router.dashboard.desk import Desk, download, form_fields, is_secure, own_address
from spillway_router.dashboard.fleet_pages import FleetPages
from spillway_router.dashboard.live import Feed
from spillway_router.dashboard.parts import Parts
from spillway_router.dashboard.planning_pages import PlanningPages
from spillway_router.dashboard.quality_pages import QualityPages
from spillway_router.dashboard.request_pages import RequestPages
from spillway_router.dashboard.sessions import COOKIE, LIFE_S
from spillway_router.dashboard.traffic import Traffic
from spillway_router.dashboard.viewer import Viewer, check_same_site, session_of, viewer_of
from spillway_router.proxy.control.requests import host_of
from spillway_router.proxy.request.auth import KEYLESS, READER_ROLES, USAGE_ROLES
from spillway_router.proxy.request.errors import RefusedError

if TYPE_CHECKING:
    from spillway_router.dashboard.now import Present
    from spillway_router.dashboard.windows import Window
    from spillway_router.ledger.reports.model import Report


class Dashboard:
    """The pages of one router. `traffic` is a hook of its requests; `close` ends the live pages."""

    def __init__(self, parts: Parts, traffic: Traffic) -> None:
        self._parts = parts
        self._traffic = traffic
        self._desk = Desk(parts)
        self._feed = Feed(self._board)
        self._requests = RequestPages(self._desk)
        self._admin = AdminPages(self._desk)
        self._quality = QualityPages(self._desk)
        self._fleet = FleetPages(self._desk)
        self._planning = PlanningPages(self._desk)

    def close(self) -> None:
        """End the live pages, which would keep the router from stopping."""
        self._feed.close()

    async def home(self, request: Request) -> Response:
        """Answer `GET /` of a browser: the Now page, or the own usage of somebody who may not see it."""
        current = session_of(self._parts.services, self._desk.sessions, request)
        if current is not None and current[1].role not in USAGE_ROLES:
            return RedirectResponse("/my-usage", 303, {"cache-control": "no-store"})
        return await self._desk.shown(request, USAGE_ROLES, self._now)

    def add_to(self, api: FastAPI) -> None:
        """Add the addresses."""
        self._add_sign_in(api)
        self._requests.add_to(api)
        self._admin.add_to(api)
        self._quality.add_to(api)
        self._fleet.add_to(api)
        self._planning.add_to(api)

        @api.get("/static/{name}", include_in_schema=False)
        async def static(name: str) -> Response:
            from spillway_router.dashboard.pages import MEDIA_TYPES, STATIC

            if name not in MEDIA_TYPES:
                raise RefusedError(Refusal(404, "not_found", f"There is no file {name[:80]!r} here."))
            headers = {"cache-control": "public, max-age=31536000, immutable"}
            return FileResponse(STATIC / name, media_type=MEDIA_TYPES[name], headers=headers)

        @api.get("/now", include_in_schema=False)
        async def now(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._live)

        @api.get("/now.json", include_in_schema=False)
        async def now_json(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._now_json)

        @api.get("/money", include_in_schema=False)
        async def money(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._money)

        @api.get("/money.json", include_in_schema=False)
        async def money_json(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._money_json)

        @api.get("/money.csv", include_in_schema=False)
        async def money_csv(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._money_csv)

        @api.get("/money.focus.csv", include_in_schema=False)
        async def money_focus(request: Request) -> Response:
            return await self._desk.shown(request, USAGE_ROLES, self._money_focus)

    def _add_sign_in(self, api: FastAPI) -> None:
        @api.get("/sign-in", include_in_schema=False)
        async def sign_in_page(request: Request) -> Response:
            values = {"problem": "", "next": own_address(request.query_params.get("next", ""))}
            return self._desk.page(request, None, "sign_in.html", values)

        @api.post("/sign-in", include_in_schema=False)
        async def sign_in(request: Request) -> Response:
            check_same_site(request, self._desk.origins)
            form = await form_fields(request)
            target, token = own_address(form.get("next", "")), form.get("key", "").strip()
            caller = self._caller_of(request, token)
            if isinstance(caller, Refusal):
                values = {"problem": caller.message, "next": target}
                return self._desk.refused(request, caller, "sign_in.html", values)
            return self._begin(request, caller, target)

        @api.post("/sign-out", include_in_schema=False)
        async def sign_out(request: Request) -> Response:
            current = session_of(self._parts.services, self._desk.sessions, request)
            if current is not None:
                session, caller, name = current
                self._desk.check_post(request, Viewer(caller, name, session.csrf), await form_fields(request))
                self._desk.sessions.end(session.id)
            answer = RedirectResponse("/sign-in", 303, {"cache-control": "no-store"})
            answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
            return answer

    def _caller_of(self, request: Request, token: str) -> Caller | Refusal:
        if not token:
            return Refusal(400, "invalid_request", "Enter an API key: it begins with sk-spill-.")
        services = self._parts.services
        headers = {"authorization": f"Bearer {token}"}
        caller = services.config().auth.permitted(headers, services.clock(), host_of(request), READER_ROLES)
        if isinstance(caller, Caller) and caller.role == KEYLESS:  # a text that is no key of ours, where none is needed
            return Refusal(401, "invalid_api_key", "This is no API key of this router: one begins with sk-spill-.")
        return caller

    def _begin(self, request: Request, caller: Caller, target: str) -> Response:
        now_s = self._parts.services.clock()
        key = self._parts.valid_key(caller.key_id, now_s)
        if key is None:  # revoked in this moment
            raise RefusedError(Refusal(401, "invalid_api_key", "The API key is not valid or was revoked."))
        before = session_of(self._parts.services, self._desk.sessions, request)
        if before is not None:  # the browser forgets its cookie
            self._desk.sessions.end(before[0].id)
        session = self._desk.sessions.begin(key, now_s)
        answer = RedirectResponse(target, 303, {"cache-control": "no-store"})
        answer.set_cookie(
            COOKIE,
            session.id,
            max_age=LIFE_S,
            path="/",
            secure=is_secure(request),
            httponly=True,
            samesite="strict",
        )
        return answer

    # Now

    async def _now(self, request: Request, viewer: Viewer) -> Response:
        from markupsafe import Markup

        board = Markup(self._board())  # noqa: S704 - rendered by our own template
        is_empty = not self._parts.services.records.recent(1)
        return self._desk.page(request, viewer, "now.html", {"board": board, "is_empty": is_empty})

    async def _live(self, request: Request, viewer: Viewer) -> Response:
        if "text/event-stream" not in request.headers.get("accept", ""):
            return await self._now_json(request, viewer)
        if self._feed.is_full:
            raise RefusedError(Refusal(503, "overloaded", "Too many live pages are open.", retry_after_s=30))
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._events(request), headers=headers, media_type="text/event-stream")

    def _events(self, request: Request) -> AsyncIterator[bytes]:
        def may_see() -> bool:
            try:
                return viewer_of(self._parts.services, self._desk.sessions, request).sees_all
            except RefusedError:
                return False

        return self._feed.events(may_see)

    async def _now_json(self, request: Request, viewer: Viewer) -> Response:  # noqa: ARG002 - a Handler
        from dataclasses import asdict

        from spillway_router.dashboard.now import now_page

        return JSONResponse(asdict(now_page(self._present())))

    def _board(self) -> str:
        from spillway_router.dashboard.now import now_page

        return self._desk.rendered("now_board.html", {"page": now_page(self._present())})

    def _present(self) -> Present:
        from spillway_router.dashboard.now import SHOWN_REQUESTS, Present

        services = self._parts.services
        monotonic_s, policy = services.clock(), services.config().policy
        return Present(
            wall_s=services.wall(),
            monotonic_s=monotonic_s,
            signals=services.board.current(monotonic_s),
            in_flight=services.board.in_flight(),
            backends=policy.backends,
            slo=policy.slo,
            steps=self._traffic.steps(services.wall()),
            records=services.records.recent(SHOWN_REQUESTS),
            budgets=services.accounts.balances(),
            ledger=self._parts.ledger_health(),
            gpus=self._parts.gpus(),
            key_names=self._parts.key_names(),
            is_leaving=self._parts.is_leaving(),
        )

    # Money

    def _window(self, request: Request) -> Window:
        from spillway_router.dashboard.windows import window_of

        return window_of(request.query_params, self._desk.today())

    async def _reports(self, window: Window) -> tuple[Report, Report]:
        by_day = await self._parts.report(window.query("day"))
        return by_day, await self._parts.report(window.query("key", "backend"))

    async def _money(self, request: Request, viewer: Viewer) -> Response:
        from spillway_router.dashboard.money import money_page
        from spillway_router.dashboard.windows import NAMES, words

        window, today = self._window(request), self._desk.today()
        by_day, by_key = await self._reports(window)
        page = money_page(by_day, by_key, today, idle_apart=request.query_params.get("idle") == "apart")
        values = {
            "page": page,
            "users": [(row.name, row.answers, row.local, row.cloud, row.rent, row.total) for row in page.users],
            "window": window,
            "windows": NAMES,
            "days_words": words(window, today),
            "timezone": by_day.period.timezone,
            "today": today,
            "links": True,
            "draws": True,
        }
        return self._desk.page(request, viewer, "money.html", values)

    async def _money_json(self, request: Request, viewer: Viewer) -> Response:  # noqa: ARG002 - a Handler
        from spillway_router.ledger.reports.json_report import report_values
        from spillway_router.ledger.reports.verdict import verdict_of

        by_day, by_key = await self._reports(self._window(request))
        verdict = verdict_of(by_day)
        values = {
            "verdict": verdict.sentence,
            "support": verdict.support,
            "by_day": report_values(by_day),
            "by_key_and_backend": report_values(by_key)["groups"],
        }
        return JSONResponse(values)

    async def _money_csv(self, request: Request, viewer: Viewer) -> Response:  # noqa: ARG002 - a Handler
        from spillway_router.ledger.reports.csv_file import report_csv

        window = self._window(request)
        report = await self._parts.report(window.query("day", "key"))
        return download(report_csv(report), f"spillway-{window.first}-{window.last}.csv")

    async def _money_focus(self, request: Request, viewer: Viewer) -> Response:  # noqa: ARG002 - a Handler
        window = self._window(request)
        text = await self._parts.focus(window.query())
        return download(text, f"spillway-{window.first}-{window.last}.focus.csv")

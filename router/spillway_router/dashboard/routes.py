"""The addresses of the pages. What renders them is imported with the first page, so that a router that nobody looks at
stays small."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse

from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.dashboard.live import Feed
from spillway_router.dashboard.parts import Parts
from spillway_router.dashboard.sessions import COOKIE, LIFE_S, Sessions
from spillway_router.dashboard.traffic import Traffic
from spillway_router.dashboard.viewer import Viewer, check_post, check_same_site, session_of, viewer_of
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.reports.days import RangeError
from spillway_router.proxy.control.requests import host_of
from spillway_router.proxy.request.auth import KEYLESS, READER_ROLES, USAGE_ROLES
from spillway_router.proxy.request.errors import RefusedError, bad_request

if TYPE_CHECKING:
    from spillway_router.dashboard.now import Present
    from spillway_router.dashboard.pages import Pages
    from spillway_router.dashboard.windows import Window
    from spillway_router.ledger.reports.model import Report

FORM_BYTES = 64 << 10
FORM_S = 10.0
Handler = Callable[[Request, Viewer], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Link:
    """A page in the navigation."""

    path: str
    name: str


LINKS = (Link("/", "Now"), Link("/money", "Money"))
"""The pages for whoever may read all usage."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What surrounds a page: who looks (None if nobody is signed in), its path, the navigation, the address of the
    router as the browser has it, and the version."""

    viewer: Viewer | None
    path: str
    links: tuple[Link, ...]
    url: str
    version: str


class Dashboard:
    """The pages of one router. `traffic` is a hook of its requests; `close` ends the live pages."""

    def __init__(self, parts: Parts, traffic: Traffic) -> None:
        self._parts = parts
        self._traffic = traffic
        self._sessions = Sessions(parts.valid_key, lambda: secrets.token_urlsafe(32))
        self._feed = Feed(self._board)
        self._pages: Pages | None = None

    def close(self) -> None:
        """End the live pages, which would keep the router from stopping."""
        self._feed.close()

    async def home(self, request: Request) -> Response:
        """Answer `GET /` of a browser: the Now page, or the own usage of somebody who may not see it."""
        return await self._shown(request, USAGE_ROLES, self._now)

    def add_to(self, api: FastAPI) -> None:
        """Add the addresses."""
        self._add_sign_in(api)

        @api.get("/static/{name}", include_in_schema=False)
        async def static(name: str) -> Response:
            from spillway_router.dashboard.pages import MEDIA_TYPES, STATIC

            if name not in MEDIA_TYPES:
                raise RefusedError(Refusal(404, "not_found", f"There is no file {name[:80]!r} here."))
            headers = {"cache-control": "public, max-age=31536000, immutable"}
            return FileResponse(STATIC / name, media_type=MEDIA_TYPES[name], headers=headers)

        @api.get("/now", include_in_schema=False)
        async def now(request: Request) -> Response:
            return await self._shown(request, USAGE_ROLES, self._live)

        @api.get("/now.json", include_in_schema=False)
        async def now_json(request: Request) -> Response:
            return await self._shown(request, USAGE_ROLES, self._now_json)

        @api.get("/money", include_in_schema=False)
        async def money(request: Request) -> Response:
            return await self._shown(request, USAGE_ROLES, self._money)

        @api.get("/money.json", include_in_schema=False)
        async def money_json(request: Request) -> Response:
            return await self._shown(request, USAGE_ROLES, self._money_json)

        @api.get("/money.csv", include_in_schema=False)
        async def money_csv(request: Request) -> Response:
            return await self._shown(request, USAGE_ROLES, self._money_csv)

        @api.get("/money.focus.csv", include_in_schema=False)
        async def money_focus(request: Request) -> Response:
            return await self._shown(request, USAGE_ROLES, self._money_focus)

    # who looks

    async def _shown(self, request: Request, roles: frozenset[str], handler: Handler) -> Response:
        """Answer with a page for a viewer whose role is one of `roles`. Others get a page that says what to do if they
        are a browser, and a refusal otherwise."""
        try:
            viewer = viewer_of(self._parts.services, self._sessions, request)
            refusal = self._parts.services.config().auth.admit(viewer.caller, roles)
            if refusal is not None:
                raise RefusedError(refusal)
            return await handler(request, viewer)
        except RangeError as error:
            failure = bad_request(str(error), error.param)
        except LedgerError as error:
            message = f"This page needs the ledger, which is away: {error}"
            failure = RefusedError(Refusal(503, "ledger_unavailable", message, retry_after_s=5))
        except RefusedError as error:
            failure = error
        if not wants_html(request):
            raise failure
        return self._problem(request, failure.refusal)

    def _problem(self, request: Request, refusal: Refusal) -> Response:
        signed_in = session_of(self._parts.services, self._sessions, request) is not None
        if refusal.status == 401 and not signed_in:
            return RedirectResponse(f"/sign-in?next={quote(_address(request))}", 303, {"cache-control": "no-store"})
        heading = {401: "Sign in again", 403: "This page is not for this key", 503: "Not available now"}
        values = {"heading": heading.get(refusal.status, "That can't be shown"), "message": refusal.message}
        return self._page(request, None, "problem.html", values, refusal.status)

    def _add_sign_in(self, api: FastAPI) -> None:
        @api.get("/sign-in", include_in_schema=False)
        async def sign_in_page(request: Request) -> Response:
            values = {"problem": "", "next": own_address(request.query_params.get("next", ""))}
            return self._page(request, None, "sign_in.html", values)

        @api.post("/sign-in", include_in_schema=False)
        async def sign_in(request: Request) -> Response:
            check_same_site(request)
            form = await form_fields(request)
            target, token = own_address(form.get("next", "")), form.get("key", "").strip()
            caller = self._caller_of(request, token)
            if isinstance(caller, Refusal):
                values = {"problem": caller.message, "next": target}
                return self._page(request, None, "sign_in.html", values, caller.status)
            return self._begin(request, caller, target)

        @api.post("/sign-out", include_in_schema=False)
        async def sign_out(request: Request) -> Response:
            current = session_of(self._parts.services, self._sessions, request)
            if current is not None:
                session, caller, name = current
                check_post(request, Viewer(caller, name, session.csrf), await form_fields(request))
                self._sessions.end(session.id)
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
        session = self._sessions.begin(key, now_s)
        answer = RedirectResponse(target, 303, {"cache-control": "no-store"})
        answer.set_cookie(
            COOKIE,
            session.id,
            max_age=LIFE_S,
            path="/",
            secure=_is_secure(request),
            httponly=True,
            samesite="strict",
        )
        return answer

    # pages

    def _rendered(self, template: str, values: Mapping[str, Any]) -> str:
        if self._pages is None:
            from spillway_router.dashboard.pages import Pages

            self._pages = Pages()
        return self._pages.render(template, values)

    def _page(
        self, request: Request, viewer: Viewer | None, template: str, values: Mapping[str, Any], status: int = 200
    ) -> Response:
        from spillway_router.dashboard.pages import HEADERS

        text = self._rendered(template, {**values, "frame": self._frame(request, viewer)})
        return Response(text, status, dict(HEADERS), "text/html; charset=utf-8")

    def _frame(self, request: Request, viewer: Viewer | None) -> Frame:
        scheme = "https" if _is_secure(request) else "http"
        return Frame(
            viewer=viewer,
            path=request.url.path,
            links=LINKS if viewer is not None and viewer.sees_all else (),
            url=f"{scheme}://{request.headers.get('host', '')}",
            version=self._parts.version,
        )

    def _today(self) -> date:
        return datetime.fromtimestamp(self._parts.services.wall(), self._parts.zone()).date()

    # Now

    async def _now(self, request: Request, viewer: Viewer) -> Response:
        from markupsafe import Markup

        board = Markup(self._board())  # noqa: S704 - rendered by our own template
        is_empty = not self._parts.services.records.recent(1)
        return self._page(request, viewer, "now.html", {"board": board, "is_empty": is_empty})

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
                return viewer_of(self._parts.services, self._sessions, request).sees_all
            except RefusedError:
                return False

        return self._feed.events(may_see)

    async def _now_json(self, request: Request, viewer: Viewer) -> Response:  # noqa: ARG002 - a Handler
        from dataclasses import asdict

        from spillway_router.dashboard.now import now_page

        return JSONResponse(asdict(now_page(self._present())))

    def _board(self) -> str:
        from spillway_router.dashboard.now import now_page

        return self._rendered("now_board.html", {"page": now_page(self._present())})

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

        return window_of(request.query_params, self._today())

    async def _reports(self, window: Window) -> tuple[Report, Report]:
        by_day = await self._parts.report(window.query("day"))
        return by_day, await self._parts.report(window.query("key", "backend"))

    async def _money(self, request: Request, viewer: Viewer) -> Response:
        from spillway_router.dashboard.money import money_page
        from spillway_router.dashboard.windows import NAMES, words

        window, today = self._window(request), self._today()
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
        }
        return self._page(request, viewer, "money.html", values)

    async def _money_json(self, request: Request, viewer: Viewer) -> Response:  # noqa: ARG002 - a Handler
        from spillway_router.dashboard.verdict import verdict_of
        from spillway_router.ledger.reports.json_report import report_values

        by_day, by_key = await self._reports(self._window(request))
        verdict = verdict_of(by_day, self._today())
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
        return _download(report_csv(report), f"spillway-{window.first}-{window.last}.csv")

    async def _money_focus(self, request: Request, viewer: Viewer) -> Response:  # noqa: ARG002 - a Handler
        window = self._window(request)
        text = await self._parts.focus(window.query())
        return _download(text, f"spillway-{window.first}-{window.last}.focus.csv")


def wants_html(request: Request) -> bool:
    """Return whether a browser asks for a page."""
    return "text/html" in request.headers.get("accept", "")


async def form_fields(request: Request) -> Mapping[str, str]:
    """Read the fields of a form. Raise RefusedError if it is too large or late."""
    body = b""
    try:
        async with asyncio.timeout(FORM_S):
            async for part in request.stream():
                body += part
                if len(body) > FORM_BYTES:
                    raise RefusedError(Refusal(413, "request_too_large", f"A form has at most {FORM_BYTES:,} bytes."))
    except TimeoutError:
        raise RefusedError(Refusal(408, "invalid_request", f"The form did not arrive within {FORM_S:g} s.")) from None
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100))


def own_address(text: str) -> str:
    """Return an address of this router to go on to, the start page for any other text."""
    parts = urlsplit(text)
    is_own = text.startswith("/") and not text.startswith(("//", "/\\")) and not parts.netloc and text.isprintable()
    return text if is_own else "/"


def _address(request: Request) -> str:
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")


def _is_secure(request: Request) -> bool:
    """Return whether the browser speaks TLS, to this router or to a proxy in front of it."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", "").strip().lower())


def _download(text: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(text, 200, headers, "text/csv; charset=utf-8")

"""The desk: who looks at a page, what they may see, and how a page is rendered and sent."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from spillway_router.core.routing.model import Refusal
from spillway_router.dashboard.parts import Parts
from spillway_router.dashboard.sessions import Sessions
from spillway_router.dashboard.viewer import Viewer, check_post, session_of, viewer_of
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.reports.days import RangeError
from spillway_router.proxy.request.auth import ADMIN_ROLES, READER_ROLES, REVIEW_ROLES, USAGE_ROLES
from spillway_router.proxy.request.errors import RefusedError, bad_request

if TYPE_CHECKING:
    from spillway_router.dashboard.pages import Pages

FORM_BYTES = 64 << 10
FORM_S = 10.0
FORM_FIELDS = 1000
"""The most fields of a form; that of a review has one for each value of its document."""
Handler = Callable[[Request, Viewer], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Link:
    """A page in the navigation, for viewers of some roles."""

    path: str
    name: str
    roles: frozenset[str]


LINKS = (
    Link("/", "Now", USAGE_ROLES),
    Link("/money", "Money", USAGE_ROLES),
    Link("/what-if", "What if", USAGE_ROLES),
    Link("/quality", "Quality", USAGE_ROLES),
    Link("/experiments", "Experiments", USAGE_ROLES),
    Link("/fleet", "Fleet", USAGE_ROLES),
    Link("/my-usage", "My usage", frozenset({"inference"})),
    Link("/requests", "Requests", READER_ROLES),
    Link("/reviews", "Reviews", REVIEW_ROLES),
    Link("/keys", "Keys", ADMIN_ROLES),
    Link("/setup", "Setup", ADMIN_ROLES),
)


@dataclass(frozen=True, slots=True)
class Frame:
    """What surrounds a page: who looks (None if nobody is signed in), its path, the navigation, the address of the
    router as the browser has it, and the version."""

    viewer: Viewer | None
    path: str
    links: tuple[Link, ...]
    url: str
    version: str


class Desk:
    """Answers with pages. The templates are read with the first one."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.sessions = Sessions(parts.valid_key, lambda: secrets.token_urlsafe(32))
        self._pages: Pages | None = None

    @property
    def origins(self) -> frozenset[str]:
        """The origins under which browsers see the pages, besides the router's own Host."""
        return self.parts.services.config().page_origins

    def check_post(self, request: Request, viewer: Viewer, form: Mapping[str, str]) -> None:
        """Raise RefusedError unless a form was sent by a page of this router to the viewer who sends it back."""
        check_post(request, viewer, form, self.origins)

    async def shown(self, request: Request, roles: frozenset[str], handler: Handler) -> Response:
        """Answer with a page for a viewer whose role is one of `roles`. Others get a page that says what to do if they
        are a browser, and a refusal otherwise."""
        try:
            viewer = viewer_of(self.parts.services, self.sessions, request)
            refusal = self.parts.services.config().auth.admit(viewer.caller, roles)
            if refusal is not None:
                raise RefusedError(refusal)
            answer = await handler(request, viewer)
            answer.headers.setdefault("cache-control", "no-store")  # what one viewer may see is for no cache
            return answer
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
        signed_in = session_of(self.parts.services, self.sessions, request) is not None
        if refusal.status == 401 and not signed_in:
            return RedirectResponse(f"/sign-in?next={quote(_address(request))}", 303, {"cache-control": "no-store"})
        heading = {401: "Sign in again", 403: "This page is not for this key", 503: "Not available now"}
        values = {"heading": heading.get(refusal.status, "That can't be shown"), "message": refusal.message}
        return self.refused(request, refusal, "problem.html", values)

    def refused(self, request: Request, refusal: Refusal, template: str, values: Mapping[str, Any]) -> Response:
        """Return a page that tells a refusal, with its status and the time after which to try again."""
        answer = self.page(request, None, template, values, refusal.status)
        if refusal.retry_after_s:
            answer.headers["retry-after"] = str(math.ceil(refusal.retry_after_s))
        return answer

    def rendered(self, template: str, values: Mapping[str, Any]) -> str:
        if self._pages is None:
            from spillway_router.dashboard.pages import Pages

            self._pages = Pages()
        return self._pages.render(template, values)

    def page(
        self, request: Request, viewer: Viewer | None, template: str, values: Mapping[str, Any], status: int = 200
    ) -> Response:
        from spillway_router.dashboard.pages import HEADERS

        text = self.rendered(template, {**values, "frame": self._frame(request, viewer)})
        return Response(text, status, dict(HEADERS), "text/html; charset=utf-8")

    def _frame(self, request: Request, viewer: Viewer | None) -> Frame:
        scheme = "https" if is_secure(request) else "http"
        return Frame(
            viewer=viewer,
            path=request.url.path,
            links=tuple(link for link in LINKS if viewer is not None and viewer.caller.role in link.roles),
            url=f"{scheme}://{request.headers.get('host', '')}",
            version=self.parts.version,
        )

    def today(self) -> date:
        return datetime.fromtimestamp(self.parts.services.wall(), self.parts.zone()).date()


def wants_html(request: Request) -> bool:
    """Return whether a browser asks for a page."""
    return "text/html" in request.headers.get("accept", "")


def wants_json(request: Request) -> bool:
    """Return whether the figures of a page are asked for, and not the page."""
    return request.url.path.endswith(".json")


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
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FORM_FIELDS))
    except ValueError:
        raise bad_request(f"A form has at most {FORM_FIELDS} fields.") from None


def own_address(text: str) -> str:
    """Return an address of this router to go on to, the start page for any other text."""
    is_own = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if is_own else "/"


def _address(request: Request) -> str:
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")


def is_secure(request: Request) -> bool:
    """Return whether the browser speaks TLS, to this router or to a proxy in front of it."""
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", "").strip().lower())


def download(text: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return Response(text, 200, headers, "text/csv; charset=utf-8")

"""Who looks at a page: by the cookie of a session, by a key in the headers, or as a program on this machine."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.requests import Request

from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.dashboard.sessions import COOKIE, Session, Sessions
from spillway_router.proxy.control.requests import caller_of
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.auth import ADMIN_ROLES, KEYLESS, READER_ROLES, USAGE_ROLES, sends_key
from spillway_router.proxy.request.errors import RefusedError

CSRF_FIELD = "csrf"


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who looks at pages. `name` is that of their key; `csrf` goes into their forms, empty without a
    session."""

    caller: Caller
    name: str
    csrf: str

    @property
    def sees_all(self) -> bool:
        """Return whether the pages of the whole router are for them."""
        return self.caller.role in USAGE_ROLES

    @property
    def is_admin(self) -> bool:
        """Return whether they may change something."""
        return self.caller.role in ADMIN_ROLES

    @property
    def is_keyless(self) -> bool:
        """Return whether they came without a key, from this machine."""
        return self.caller.role == KEYLESS


def viewer_of(services: Services, sessions: Sessions, request: Request) -> Viewer:
    """Return who sent a request. Raise RefusedError if nobody that may read anything did."""
    current = session_of(services, sessions, request)
    if current is not None:
        session, caller, name = current
        request.state.key_id = caller.key_id
        return Viewer(caller, name, session.csrf)
    if "text/html" in request.headers.get("accept", "") and not sends_key(request.headers):
        unknown = services.config().auth.caller(request.headers, services.clock())
        if isinstance(unknown, Refusal):  # a browser that has not signed in yet: no failed login
            raise RefusedError(unknown)
    caller = caller_of(services, request, READER_ROLES)
    return Viewer(caller, "this machine" if caller.role == KEYLESS else caller.key_id, "")


def session_of(services: Services, sessions: Sessions, request: Request) -> tuple[Session, Caller, str] | None:
    """Return the session of a request's cookie with its caller and the name of its key; None without a valid one."""
    current = sessions.get(_cookie(request.headers), services.clock())
    if current is None:
        return None
    session, key = current
    caller = Caller(
        key_id=key.id,
        role=key.role,
        tier=key.tier,
        may_route=key.may_route,
        local_only=key.privacy == "local-only",
    )
    return session, caller, key.name


def check_post(request: Request, viewer: Viewer, form: Mapping[str, str], origins: Collection[str]) -> None:
    """Raise RefusedError unless a form was sent by a page of this router to the viewer who sends it back. `origins`:
    under which browsers see its pages, besides its own Host."""
    check_same_site(request, origins)
    if not viewer.csrf or not hmac.compare_digest(form.get(CSRF_FIELD, "").encode(), viewer.csrf.encode()):
        message = "This form has expired. Go back, reload the page and send it again."
        raise RefusedError(Refusal(403, "permission_denied", message))


def check_same_site(request: Request, origins: Collection[str]) -> None:
    """Raise RefusedError for a form that a page of another site sent."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    site = request.headers.get("sec-fetch-site", "")
    is_own = origin is None or origin in origins or origin.partition("://")[2] == host
    if is_own and site in ("", "same-origin", "none"):
        return
    message = "This form was sent by a page of another site."
    if site == "same-origin" and origin is not None:  # the browser saw one site, the router is told of two
        message = (
            f"The browser sent this form from {origin[:200]}, but the router was asked as {host[:200]!r}. If a proxy "
            f"in front of it changes Host, let it pass Host on, or add {origin[:200]} to dashboard.origins."
        )
    raise RefusedError(Refusal(403, "permission_denied", message))


def _cookie(headers: Mapping[str, str]) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value

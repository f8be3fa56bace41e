"""Ask every route of a running router, by every method, as every kind of caller, and compare with the table of roles.

The routes are read from the router itself, so that a new one without a row in the table counts as unexpected.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.routing import Route

from spillway_router.ledger.records import Role
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.proxy.entry.targets import ROUTES
from spillway_router.testing import Answer
from spillway_router.testing.harness import Router, pair

EVERYBODY = frozenset({"nobody", "inference", "viewer", "admin"})
ANY_KEY = frozenset({"inference", "viewer", "admin"})
ASKERS = frozenset({"inference", "admin"})
READERS = frozenset({"viewer", "admin"})
ADMINS = frozenset({"admin"})
FORMS = frozenset[str]()
"""Nobody by an API key: a form needs the token of the session that it was shown in."""
PERMITTED: Mapping[tuple[str, str], frozenset[str]] = {
    ("GET", "/"): EVERYBODY,
    ("GET", "/health"): EVERYBODY,
    ("GET", "/ready"): EVERYBODY,
    ("GET", "/ping"): EVERYBODY,
    ("GET", "/metrics"): READERS,
    ("GET", "/docs"): ANY_KEY,
    ("GET", "/static/{name}"): EVERYBODY,
    ("GET", "/sign-in"): EVERYBODY,
    ("POST", "/sign-in"): EVERYBODY,
    ("POST", "/sign-out"): EVERYBODY,
    ("GET", "/now"): READERS,
    ("GET", "/requests"): ANY_KEY,
    ("GET", "/requests.json"): ANY_KEY,
    ("GET", "/requests/{request_id}"): ANY_KEY,
    **{("GET", f"/my-usage{end}"): ANY_KEY for end in ("", ".json")},
    **{("GET", f"/{page}{end}"): ADMINS for page in ("keys", "setup") for end in ("", ".json")},
    **{("GET", f"/reviews{end}"): READERS for end in ("", ".json")},
    ("GET", "/reviews/{review_id}"): ADMINS,
    ("POST", "/keys"): FORMS,
    ("POST", "/keys/{key_id}/{action}"): FORMS,
    ("POST", "/setup"): FORMS,
    ("POST", "/reviews/{review_id}"): FORMS,
    **{
        ("GET", f"/{page}{end}"): READERS
        for page in ("quality", "experiments", "fleet", "what-if")
        for end in ("", ".json")
    },
    ("GET", "/what-if/replay.json"): READERS,
    ("GET", "/now.json"): READERS,
    ("GET", "/money"): READERS,
    ("GET", "/money.json"): READERS,
    ("GET", "/money.csv"): READERS,
    ("GET", "/money.focus.csv"): READERS,
    ("GET", "/openapi.json"): ANY_KEY,
    ("GET", "/v1/models"): ANY_KEY,
    ("GET", "/v1/models/{model_id:path}"): ANY_KEY,
    ("GET", "/v1/requests"): ANY_KEY,
    ("GET", "/v1/requests/{request_id}"): ANY_KEY,
    ("GET", "/v1/usage"): READERS,
    ("GET", "/v1/rentals"): READERS,
    ("GET", "/v1/prices"): READERS,
    ("GET", "/v1/reviews"): READERS,
    ("GET", "/v1/reviews/{review_id}"): READERS,
    ("POST", "/v1/reviews/{review_id}"): ADMINS,
    ("POST", "/admin/reload"): ADMINS,
    ("GET", "/admin/keys"): ADMINS,
    ("POST", "/admin/keys"): ADMINS,
    ("GET", "/admin/keys/{key_id}"): ADMINS,
    ("PATCH", "/admin/keys/{key_id}"): ADMINS,
    ("DELETE", "/admin/keys/{key_id}"): ADMINS,
    ("POST", "/admin/keys/{key_id}/rotate"): ADMINS,
    ("GET", "/admin/keys/{key_id}/provider-keys"): ADMINS,
    ("PUT", "/admin/keys/{key_id}/provider-keys/{provider}"): ADMINS,
    ("DELETE", "/admin/keys/{key_id}/provider-keys/{provider}"): ADMINS,
    ("POST", "/admin/rentals"): ADMINS,
    ("POST", "/admin/rentals/{rental_id}/stop"): ADMINS,
    ("PATCH", "/admin/rentals/{rental_id}"): ADMINS,
    ("POST", "/v1/route/explain"): ANY_KEY,
    ("POST", "/v1/feedback"): ASKERS,
    ("POST", "/v1/documents/extract"): ASKERS,
    ("POST", "/v1/messages/count_tokens"): ASKERS,
    ("POST", "/v1/responses/input_tokens"): ASKERS,
    ("POST", "/v1/responses/compact"): ASKERS,
    ("GET", "/v1/responses/{response_id}"): ASKERS,
    ("DELETE", "/v1/responses/{response_id}"): ASKERS,
    ("POST", "/v1/responses/{response_id}/cancel"): ASKERS,
    ("GET", "/v1/responses/{response_id}/input_items"): ASKERS,
    **{("POST", path.decode()): ASKERS for path in ROUTES},
    # Read as the ids of stored responses.
    ("GET", "/v1/responses/compact"): ASKERS,
    ("DELETE", "/v1/responses/compact"): ASKERS,
    ("GET", "/v1/responses/input_tokens"): ASKERS,
    ("DELETE", "/v1/responses/input_tokens"): ASKERS,
}
"""The callers whom each route lets in where keys are required."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
ROLES: tuple[Role, ...] = ("inference", "viewer", "admin")
IN_A_BROWSER, SIGNED_OUT = " in a browser", "signed out"
"""A browser that signed in is known by its cookie, on pages only."""
_NO_PAGES = ("/v1", "/admin", "/metrics", "/docs", "/openapi.json")
FOREIGN = {"host": "llm.example.com", "x-forwarded-for": "203.0.113.9"}
_NOT_IN = {401, 403, 405, 500}
"""Whoever is let in may meet a backend that fails, or a thing that does not exist."""
_WHOLE = Answer.json({"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]})


@dataclass(frozen=True, slots=True)
class Cell:
    """One question and its answer."""

    mode: str
    method: str
    path: str
    caller: str
    status: int
    expected: str

    def __str__(self) -> str:
        return f"{self.mode}: {self.method} {self.path} as {self.caller}: {self.status}, expected {self.expected}"


async def access_matrix(
    folder: Path,
    permitted: Mapping[tuple[str, str], frozenset[str]] = PERMITTED,
    methods: Sequence[str] = METHODS,
) -> tuple[int, list[Cell]]:
    """Return the number of questions, and the unexpected answers."""
    count, unexpected = 0, []
    for mode, required in (("keys required", "true"), ("no key needed", "false"), ("behind a proxy", "false")):
        place = folder / mode.replace(" ", "-")
        place.mkdir()
        # Hundreds of questions fail here, as they should, and each must get its own status.
        more = f"keys: {{required: {required}, failed_logins_per_minute: 0}}\n"
        async with _running(place, more) as (router, callers):
            for method, path in _routes(router, methods):
                for caller, headers in callers.items():
                    sent = {**headers, **(FOREIGN if mode == "behind a proxy" else {})}
                    status = await _ask(router, method, path, sent)
                    expected = _expected(permitted, mode, method, path, caller)
                    count += 1
                    if not _fits(status, expected):
                        cell = Cell(
                            mode=mode, method=method, path=path, caller=caller, status=status, expected=expected
                        )
                        unexpected.append(cell)
    return count, unexpected


@asynccontextmanager
async def _running(folder: Path, more: str) -> AsyncIterator[tuple[Router, dict[str, dict[str, str]]]]:
    async with pair(_WHOLE, _WHOLE, folder=folder, more=more) as (_, _, router):
        store = KeyStore(router.ledger.keys)

        def key(role: Role, expires: int | None = None) -> tuple[str, dict[str, str]]:
            spec = KeySpec(role, role=role, may_route=True, expires=expires)
            new = store.create(spec, secrets.token_bytes(6), secrets.token_bytes(32), 0)
            return new.record.id, {"authorization": f"Bearer {new.token}"}

        callers: dict[str, dict[str, str]] = {role: key(role)[1] for role in ROLES}
        revoked, callers["revoked"] = key("admin")
        store.revoke(revoked, 1)
        callers["expired"] = key("admin", expires=1)[1]
        callers["wrong"] = {"authorization": callers["admin"]["authorization"][:-1] + "x"}
        callers["foreign text"] = {"authorization": "Bearer sk-something-else"}
        callers["nobody"] = {}
        for role in ROLES:
            callers[f"{role}{IN_A_BROWSER}"] = await _signed_in(router, callers[role])
        ended = await _signed_in(router, callers["admin"])
        await _sign_out(router, ended)
        callers[SIGNED_OUT] = ended
        yield router, callers


async def _signed_in(router: Router, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the cookie of a browser that signed in with a key."""
    token = headers["authorization"].removeprefix("Bearer ")
    reply = await router.client.post("/sign-in", data={"key": token})
    cookie = reply.headers["set-cookie"].partition(";")[0]
    router.client.cookies.clear()
    return {"cookie": cookie}


async def _sign_out(router: Router, cookie: Mapping[str, str]) -> None:
    page = await router.client.get("/money", headers={**cookie, "accept": "text/html"})
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert csrf is not None, "the page has a form to sign out"
    reply = await router.client.post("/sign-out", data={"csrf": csrf.group(1)}, headers=dict(cookie))
    assert reply.status_code == 303, reply.text
    router.client.cookies.clear()


def _routes(router: Router, methods: Sequence[str]) -> Iterator[tuple[str, str]]:
    routes = router.runtime.control.routes
    unknown = [route for route in routes if not isinstance(route, Route)]
    assert not unknown, f"the matrix can't ask mounts and web sockets: {unknown}"
    paths = {route.path for route in routes if isinstance(route, Route)}
    paths |= {path.decode() for path in ROUTES}
    for path in sorted(paths):
        yield from ((method, path) for method in methods)


async def _ask(router: Router, method: str, path: str, headers: dict[str, str]) -> int:
    target = path.replace("{model_id:path}", "auto").replace("{", "").replace("}", "")
    body = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x", "max_tokens": 1}
    content = {"json": body} if method in ("POST", "PUT", "PATCH") else {}
    reply = await router.client.request(method, target, headers=headers, **content)  # type: ignore[arg-type]
    return reply.status_code


def _expected(
    permitted: Mapping[tuple[str, str], frozenset[str]], mode: str, method: str, path: str, caller: str
) -> str:
    """Return what a question should meet: in, a 401, a 403, or no such method."""
    if method == "OPTIONS":
        return "in"
    roles = permitted.get(("GET" if method == "HEAD" else method, path))
    if roles is None:
        return "no such method"
    if "nobody" in roles:
        # A session is ended by its own form only.
        return "403" if path == "/sign-out" and caller.endswith(IN_A_BROWSER) else "in"
    if caller in ROLES:
        return "in" if caller in roles else "403"
    role = caller.removesuffix(IN_A_BROWSER)
    if role != caller and not path.startswith(_NO_PAGES):
        return "in" if role in roles else "403"
    no_key = caller in ("nobody", "foreign text", SIGNED_OUT) or role != caller
    return "in" if mode == "no key needed" and no_key and roles not in (ADMINS, FORMS, _REVIEWS.get(path)) else "401"


_REVIEWS = dict.fromkeys(("/v1/reviews", "/v1/reviews/{review_id}", "/reviews", "/reviews.json"), READERS)
"""Routes of reviews, which need a key everywhere."""


def _fits(status: int, expected: str) -> bool:
    if expected == "in":
        return status not in _NOT_IN
    if expected == "no such method":
        return status in (404, 405)
    return status == int(expected)


def run(folder: Path) -> tuple[int, list[Cell]]:
    """Return what `access_matrix` returns."""
    return asyncio.run(access_matrix(folder))

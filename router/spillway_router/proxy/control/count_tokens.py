"""The tokens of a prompt, counted by the backend that would get it, or estimated: two routes, one for each protocol.

    POST /v1/messages/count_tokens      {"input_tokens": 14}
    POST /v1/responses/input_tokens     {"object": "response.input_tokens", "input_tokens": 14}

It costs nothing and makes no attempt. A backend whose provider counts tokens is asked, in the order of the alias. The
filters of access, privacy and preferences hold as for an answer, so private content is counted by local engines only.
Without such a backend the router's own estimate is the answer, and a header says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from spillway_router.core.routing.filters import expected_prompt_tokens
from spillway_router.core.routing.model import (
    Backend,
    BackendSignals,
    Caller,
    Endpoint,
    Outcome,
    Refusal,
    RequestFacts,
)
from spillway_router.core.routing.policy import backends_to_count
from spillway_router.proxy.client.replies import request_id_lines
from spillway_router.proxy.control.requests import bounded_body, caller_of
from spillway_router.proxy.control.unpaid_calls import UnpaidCall, call_unpaid, refusal_of
from spillway_router.proxy.exchange.active_config import BackendRoute
from spillway_router.proxy.exchange.byok import byok_route
from spillway_router.proxy.exchange.departure import renewed
from spillway_router.proxy.exchange.passed_headers import passed_to_backend
from spillway_router.proxy.exchange.ruling import under_rules, with_traits
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.exchange.stored_context import with_maker
from spillway_router.proxy.request.auth import INFERENCE_ROLES
from spillway_router.proxy.request.body import edit
from spillway_router.proxy.request.errors import RefusedError, bad_request
from spillway_router.proxy.request.facts import read_facts
from spillway_router.proxy.request.large_body import in_thread, read_body, spans_of

ESTIMATED = "x-spillway-estimated"
"""Header of an answer that no backend counted."""


@dataclass(frozen=True, slots=True)
class CountingRoute:
    """One of the routes: the endpoint whose bodies it takes, its path below a base URL, and what its answer says beside
    the number."""

    endpoint: Endpoint
    path: str
    more: dict[str, str] = field(default_factory=dict)


OF_MESSAGES = CountingRoute("messages", "/messages/count_tokens")
OF_RESPONSES = CountingRoute("responses", "/responses/input_tokens", {"object": "response.input_tokens"})
_STORED = ("previous_response_id", "conversation", "prompt")
"""Fields of /v1/responses that stand for input which only its provider knows."""


def add_count_tokens(api: FastAPI, services: Services) -> None:
    """Add the routes."""

    @api.post("/v1/messages/count_tokens")
    async def count_tokens(request: Request) -> Response:
        """Count the input tokens of a body of /v1/messages. Costs nothing; `max_tokens` is not needed."""
        return await _counted(services, request, OF_MESSAGES)

    @api.post("/v1/responses/input_tokens")
    async def count_input_tokens(request: Request) -> Response:
        """Count the input tokens of a body of /v1/responses. Costs nothing."""
        return await _counted(services, request, OF_RESPONSES)


async def _counted(services: Services, request: Request, counting: CountingRoute) -> Response:
    caller = caller_of(services, request, INFERENCE_ROLES)
    config = services.config()
    raw = await bounded_body(services, request, caller)
    body = await read_body(raw, config.privacy.detectors, config.privacy.recognizer, key_id=caller.key_id)
    facts = await _facts(services, request, body, caller, counting.endpoint)
    routes = _routes(services, request, facts)
    passed = passed_to_backend(counting.endpoint, request.headers, own_key="x-spillway-provider" in request.headers)
    for route in routes:
        if counting.endpoint not in route.provider.entry.counts_tokens:
            continue
        # The verdict is renewed for each backend, as the one before it may have taken its time.
        if not route.pool.local:
            facts = await renewed(services, facts, raw) or _gone()
        private = not facts.privacy.may_leave or facts.caller.local_only
        call = UnpaidCall(
            method="POST",
            path=counting.path,
            private=private,
            body=_for_backend(raw, body, route),
            headers=passed,
        )
        reply = await call_unpaid(services, route, call)
        if isinstance(reply, Outcome):
            if reply.kind == "rejected":
                raise RefusedError(refusal_of(route.backend.name, reply))
            continue
        headers = _headers(facts, route.backend)
        return Response(reply.body, media_type="application/json", headers=headers)
    stored = next((name for name in _STORED if counting is OF_RESPONSES and body.get(name) is not None), None)
    if stored is not None:
        raise bad_request(f"No backend that can be asked now counts what '{stored}' stands for.", stored)
    answer = {**counting.more, "input_tokens": _estimate(services, facts, routes)}
    return JSONResponse(answer, headers=_headers(facts, None))


async def _facts(
    services: Services, request: Request, body: dict[str, Any], caller: Caller, endpoint: Endpoint
) -> RequestFacts:
    rule = services.config().privacy
    facts = await in_thread(caller.key_id, read_facts, services.new_id(), endpoint, request.headers, body, caller, rule)
    facts = await services.memory.sessions.joined(facts)
    facts = await in_thread(caller.key_id, with_traits, services.config(), facts, body)
    if endpoint != "responses":
        return facts
    followed = await with_maker(services, facts, body)
    if isinstance(followed, Refusal):
        raise RefusedError(followed)
    return followed


def _routes(services: Services, request: Request, facts: RequestFacts) -> list[BackendRoute]:
    """Return how to reach the backends that may count the tokens. Raises RefusedError."""
    config = under_rules(services, services.config(), facts)
    if "x-spillway-provider" in request.headers:
        route = byok_route(services, request.headers, facts, config)
        if isinstance(route, Refusal):
            raise RefusedError(route)
        return [route] if facts.privacy.may_leave and not facts.caller.local_only else []
    backends = backends_to_count(facts, services.board.current(services.clock()), config.policy)
    if isinstance(backends, Refusal):
        raise RefusedError(backends)
    stored_at = facts.stored_at
    return [config.route_to(b) for b in backends if stored_at is None or b.name in stored_at]


def _for_backend(raw: bytes, body: dict[str, Any], route: BackendRoute) -> bytes:
    changes = {} if body.get("model") == route.backend.model else {"model": route.backend.model}
    entry = route.provider.entry
    dropped = (entry.drops_fields | entry.withheld_fields).intersection(body)
    return edit(raw, body.keys(), changes, dropped, spans_of(body))


def _estimate(services: Services, facts: RequestFacts, routes: list[BackendRoute]) -> int:
    """Return the expected tokens of the prompt at the first backend; like all estimates here it is biased high."""
    signals = services.board.current(services.clock()).backends
    return expected_prompt_tokens(facts, signals.get(routes[0].backend.name, _UNKNOWN) if routes else _UNKNOWN)


_UNKNOWN = BackendSignals()


def _headers(facts: RequestFacts, counted_by: Backend | None) -> dict[str, str]:
    lines = request_id_lines(facts.endpoint, facts.request_id).decode().splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    if counted_by is None:
        return {**headers, ESTIMATED: "true"}
    return {**headers, "x-spillway-backend": counted_by.name}


def _gone() -> NoReturn:
    raise RefusedError(Refusal(401, "invalid_api_key", "The API key is not valid any more."))

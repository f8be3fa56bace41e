"""`/v1/responses/{id}`: what a provider has stored is read, cancelled and deleted at the backend that made it.

Only the key that a response was made for may do so; everybody else gets a 404, as for an id that does not exist.
"""

from __future__ import annotations

import logging
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import Response

from spillway_router.core.routing.model import Caller, Outcome, Refusal
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.stored_responses import StoredResponse
from spillway_router.proxy.control.requests import caller_of
from spillway_router.proxy.control.unpaid_calls import UnpaidCall, call_unpaid, refusal_of
from spillway_router.proxy.exchange.active_config import BackendRoute
from spillway_router.proxy.exchange.passed_headers import passed_to_backend
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.memory.stored_responses import LONGEST_ID
from spillway_router.proxy.request.auth import INFERENCE_ROLES
from spillway_router.proxy.request.errors import RefusedError, bad_request

log = logging.getLogger("spillway")
_PASSED_QUERY = frozenset({"include", "include[]", "after", "before", "limit", "order"})


def add_response_routes(api: FastAPI, services: Services) -> None:
    """Add the routes of stored responses."""

    @api.post("/v1/responses/compact", include_in_schema=False)
    async def compact_response(request: Request) -> Response:
        """Refuse to compact a conversation: it is a paid call whose cost nothing bounds."""
        caller_of(services, request, INFERENCE_ROLES)
        message = (
            "POST /v1/responses/compact is not offered, because nothing bounds what it costs. Shorten the input, or "
            "ask a model for a summary through /v1/responses."
        )
        raise RefusedError(Refusal(404, "not_found", message))

    @api.get("/v1/responses/{response_id}")
    async def get_response(response_id: str, request: Request) -> Response:
        """Read a response from the backend that made it."""
        return await _passed_on(services, request, "GET", response_id)

    @api.delete("/v1/responses/{response_id}")
    async def delete_response(response_id: str, request: Request) -> Response:
        """Delete a response at the backend that made it."""
        response = await _passed_on(services, request, "DELETE", response_id)
        try:
            await services.responses.forget(response_id)
        except LedgerError as error:
            log.warning("a deleted response is not forgotten: %s", error)
        return response

    @api.post("/v1/responses/{response_id}/cancel")
    async def cancel_response(response_id: str, request: Request) -> Response:
        """Cancel a response at the backend that made it."""
        return await _passed_on(services, request, "POST", response_id, "/cancel")

    @api.get("/v1/responses/{response_id}/input_items")
    async def list_input_items(response_id: str, request: Request) -> Response:
        """List the input of a response at the backend that made it."""
        return await _passed_on(services, request, "GET", response_id, "/input_items")


async def _passed_on(services: Services, request: Request, method: str, response_id: str, more: str = "") -> Response:
    caller = caller_of(services, request, INFERENCE_ROLES)
    route, private = await _maker(services, caller, response_id)
    if request.query_params.get("stream", "").lower() == "true":
        raise bad_request("A stored response can't be streamed. Omit 'stream', and get it whole.", "stream")
    query = urlencode([(k, v) for k, v in request.query_params.multi_items() if k in _PASSED_QUERY])
    path = f"/responses/{response_id}{more}" + (f"?{query}" if query else "")
    headers = passed_to_backend("responses", request.headers)
    reply = await call_unpaid(services, route, UnpaidCall(method, path, private, headers=headers))
    if isinstance(reply, Outcome):
        raise RefusedError(refusal_of(route.backend.name, reply))
    return Response(reply.body, media_type="application/json", headers={"x-spillway-backend": route.backend.name})


async def _maker(services: Services, caller: Caller, response_id: str) -> tuple[BackendRoute, bool]:
    """Return how to reach the backend that made the response for this key, and whether the response is private. Raises
    RefusedError."""
    try:
        stored = await services.responses.get(response_id)
    except LedgerError as error:
        message = f"The ledger can't say now who made the response: {error}"
        raise RefusedError(Refusal(503, "ledger_unavailable", message, "response_id", retry_after_s=5.0)) from None
    route = None if stored is None else services.config().backend_routes.get(stored.backend)
    if stored is None or route is None or not _may_ask(caller, stored):
        message = (
            f"Unknown response {response_id[:LONGEST_ID]!r}. The router knows those of the last 30 days that it passed "
            "on for this key."
        )
        raise RefusedError(Refusal(404, "response_not_found", message, "response_id"))
    return route, stored.private


def _may_ask(caller: Caller, stored: StoredResponse) -> bool:
    """Return whether the response was made for this key, by a backend that the key may still use."""
    rules = caller.rules
    return stored.key_id == caller.key_id and (rules is None or not rules.backends or stored.backend in rules.backends)

"""The door of the control API for what is not the proxy's own: who asks, their JSON body, a document's exchange."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.proxy.control.api import RefusedError, bounded_body, caller_of
from spillway_router.proxy.exchange.exchange import Admitted
from spillway_router.proxy.exchange.internal_exchange import InternalExchange
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request import body as wire


class ControlGateway:
    """See the module docstring. Every method may raise what ends the request with a refusal."""

    def __init__(self, s: Services) -> None:
        self._s = s

    def caller(self, request: Request, roles: frozenset[str]) -> Caller:
        """Who asks, if one of the roles."""
        return caller_of(self._s, request, roles)

    async def body(self, request: Request) -> dict[str, Any]:
        """The JSON object that was sent."""
        limit = self._s.live().limits.body_bytes
        flaw = wire.head_flaw(request.headers, limit)
        if flaw is not None:
            raise RefusedError(flaw)
        try:
            return wire.load(await bounded_body(request, limit))
        except wire.BadRequestError as error:
            raise RefusedError(error.refusal) from None

    def refused(self, refusal: Refusal) -> Exception:
        """What to raise to end the request with this refusal."""
        return RefusedError(refusal)

    def open(self, request: Request, caller: Caller, content: Mapping[str, Any], task: str) -> InternalExchange:
        """A document's way through the exchange. `content`: all of it as a chat body, by which privacy is judged."""
        admitted = Admitted(self._s.live(), caller, self._s.clock())
        try:
            return InternalExchange.open(self._s, admitted, dict(request.headers), content, task)
        except wire.BadRequestError as error:
            raise RefusedError(error.refusal) from None

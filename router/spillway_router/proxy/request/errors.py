"""The one exception that ends a request with a refusal."""

from __future__ import annotations

from spillway_router.core.routing.model import Refusal


class RefusedError(Exception):
    """The request is refused; `refusal` is what the client gets."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def bad_request(message: str, param: str | None = None) -> RefusedError:
    """Return the error of an invalid request: status 400; `param` names the field or header."""
    return RefusedError(Refusal(400, "invalid_request", message, param))

"""What the routes of documents and reviews share: the proxy's door, the configuration, the queue, refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from fastapi import Request

from spillway_router.core.frozen import dataclass
from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.documents.extract import CascadeRules
from spillway_router.documents.repeats import Repeats
from spillway_router.documents.reviews import ReviewQueue
from spillway_router.documents.schemas import Schema
from spillway_router.ledger.errors import LedgerError
from spillway_router.proxy.client.document_step import DocumentExchange

_T = TypeVar("_T")


class Door(Protocol):
    """What documents ask of the proxy. Methods raise what ends the request with a refusal."""

    def caller(self, request: Request, roles: frozenset[str]) -> Caller:
        """Who asks, if one of the roles."""

    async def body(self, request: Request) -> dict[str, Any]:
        """The JSON object that was sent."""

    def refused(self, refusal: Refusal) -> Exception:
        """What to raise to end the request with this refusal."""

    def open(self, request: Request, caller: Caller, content: Mapping[str, Any], task: str) -> DocumentExchange:
        """A document's way through the exchange."""


@dataclass(frozen=True, slots=True)
class DocumentRules:
    """What a configuration says of documents. `most_at_once`: above it 503 at once. `max_chars`: of one document."""

    cascade: CascadeRules
    schemas: Mapping[str, Schema]
    default_schema: str = "biometry"
    max_chars: int = 200_000
    most_at_once: int = 64


class DocumentServices:
    """See the module docstring. `repeats` remembers what was asked with an idempotency key."""

    def __init__(self, door: Door, rules: Callable[[], DocumentRules], queue: ReviewQueue, repeats: Repeats) -> None:
        self.door, self.rules, self.queue, self.repeats = door, rules, queue, repeats
        self.in_progress = 0

    def bad(self, message: str, param: str | None = None) -> Exception:
        """A 400."""
        return self.door.refused(Refusal(400, "invalid_request", message, param))

    async def kept(self, work: Awaitable[_T]) -> _T:
        """What the queue's table says; 503 while it can't be used."""
        try:
            return await work
        except LedgerError as error:
            message = f"Reviews can't be read or written now: {error}. Try again."
            raise self.door.refused(Refusal(503, "overloaded", message, retry_after_s=5.0)) from None

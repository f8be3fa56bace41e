"""What the routes of documents and reviews work with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from spillway_router.core.routing.model import Refusal
from spillway_router.documents.extract import CascadeRules
from spillway_router.documents.idempotency import IdempotentExtractions
from spillway_router.documents.reviews import ReviewQueue
from spillway_router.documents.schemas import Schema
from spillway_router.documents.uploads import FileReader, FileRules
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.errors import RefusedError


@dataclass(frozen=True, slots=True)
class DocumentRules:
    """What a configuration says of documents.

    Above `max_in_progress` documents the route answers 503 at once. `max_chars` bounds the text of one document.
    """

    cascade: CascadeRules
    schemas: Mapping[str, Schema]
    default_schema: str = "biometry"
    max_chars: int = 200_000
    max_in_progress: int = 64
    files: FileRules = FileRules()


class DocumentServices:
    """The proxy's services, the rules in force, the review queue and the keyed extractions."""

    def __init__(
        self,
        proxy: Services,
        rules: Callable[[], DocumentRules],
        reviews: ReviewQueue,
        extractions: IdempotentExtractions,
    ) -> None:
        self.proxy, self.rules, self.reviews, self.extractions = proxy, rules, reviews, extractions
        self.files = FileReader()
        self._in_progress: Counter[str] = Counter()

    def refuse_without_room(self, key_id: str) -> None:
        """Raise RefusedError if there is no place for one more document of a key.

        A key may hold as many places as are left, so that one key can't take all of them. Without keys ("") all are one
        caller.
        """
        left = self.rules().max_in_progress - self._in_progress.total()
        if left <= 0:
            message = "Too many documents in progress here (documents.most_at_once)."
            raise RefusedError(Refusal(503, "overloaded", message, retry_after_s=1.0))
        if key_id and self._in_progress[key_id] >= left:
            message = "This key has its share of the documents that may be in progress here. Wait for some of them."
            raise RefusedError(Refusal(429, "rate_limited", message, retry_after_s=1.0))

    @contextmanager
    def place(self, key_id: str) -> Iterator[None]:
        """Hold one of the places for documents in progress. Raise RefusedError if there is none."""
        self.refuse_without_room(key_id)
        self._in_progress[key_id] += 1
        try:
            yield
        finally:
            self._in_progress[key_id] -= 1
            if not self._in_progress[key_id]:
                del self._in_progress[key_id]

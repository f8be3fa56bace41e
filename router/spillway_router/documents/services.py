"""What the routes of documents and reviews work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spillway_router.documents.extract import CascadeRules
from spillway_router.documents.idempotency import IdempotentExtractions
from spillway_router.documents.reviews import ReviewQueue
from spillway_router.documents.schemas import Schema
from spillway_router.documents.uploads import FileReader, FileRules
from spillway_router.proxy.exchange.services import Services


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
    """The proxy's services, the rules in force, the review queue and the keyed extractions. `in_progress` counts the
    documents that are being read."""

    def __init__(
        self,
        proxy: Services,
        rules: Callable[[], DocumentRules],
        reviews: ReviewQueue,
        extractions: IdempotentExtractions,
    ) -> None:
        self.proxy, self.rules, self.reviews, self.extractions = proxy, rules, reviews, extractions
        self.files = FileReader()
        self.in_progress = 0

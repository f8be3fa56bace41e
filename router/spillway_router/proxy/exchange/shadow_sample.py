"""What shadows are given: a request that has its answer, and who answered it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spillway_router.core.routing.model import RequestFacts


@dataclass(frozen=True, slots=True)
class ShadowSample:
    """A request that a shadow decides on or asks again (bytes and their JSON), with the backend that answered it.

    `answer` is the text that the client got; None if it is not known.
    """

    facts: RequestFacts
    raw: bytes
    body: dict[str, Any]
    backend: str
    answer: str | None
    attempt_no: int
    """The number of the shadow's own attempt."""

"""What audits are given: a local answer that was drawn, and what the local model read in a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from spillway_router.core.routing.model import RequestFacts

AuditKind = Literal["chat", "document"]
AUDIT_KINDS: tuple[AuditKind, ...] = ("chat", "document")


@dataclass(frozen=True, slots=True)
class DocumentComparison:
    """What a better answer says of a draft: whether it is right as a whole, and each field by JSON pointer. It holds no
    value of either."""

    right: bool
    fields: Mapping[str, bool]


Compare = Callable[[Mapping[str, Any]], DocumentComparison | None]
"""Compare a better model's whole answer with the draft; None if the answer can't be read, or is not sure itself."""


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """What an answer's label needs: who gave it, how sure it was, and its scores. `task` is the key of calibrations."""

    task: str
    backend: str
    model: str
    confidence: float | None
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LocalReading:
    """What the local model read in a document. `scored` has its scores and its confidence.

    `threshold` is the configured one that held for it, and `used` says whether the reading became the document's
    answer. `external` is what the external step of the same document said of it; None if that step was not run.
    """

    scored: ScoredAnswer
    threshold: float
    used: bool
    external: DocumentComparison | None


@dataclass(frozen=True, slots=True)
class DocumentAudit:
    """The part of a sample that only documents have.

    `threshold` is the configured one that held for the answer; `used` is False for a probe, whose answer was not used.
    `judges` are the backends that may judge the answer, and `compare` reads their verdict.
    """

    threshold: float
    used: bool
    judges: tuple[str, ...]
    compare: Compare


@dataclass(frozen=True, slots=True)
class AuditSample:
    """A local answer that was drawn for an audit: the request for the stronger model (bytes and their JSON), and the
    text of the local answer."""

    facts: RequestFacts
    raw: bytes
    body: dict[str, Any]
    answer: str
    attempt_no: int
    """The number of the audit's own attempt."""
    scored: ScoredAnswer | None = None
    """None if the answer was not judged whole, so that it yields no label."""
    document: DocumentAudit | None = None

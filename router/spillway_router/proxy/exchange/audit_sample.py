"""A local answer that was drawn for an audit (audits.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spillway_router.core.frozen import dataclass
from spillway_router.core.routing.model import RequestFacts
from spillway_router.proxy.client.document_step import Compare


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """What an answer's label needs: who gave it, how sure it was, and its scores. `task` as calibrations are keyed."""

    task: str
    backend: str
    model: str
    confidence: float | None
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class DocumentAudit:
    """What is different where the answer is a document's: the configured threshold it stood under, whether it was kept
    (else it is a probe), which backends may judge it, and how."""

    bar: float
    kept: bool
    judges: tuple[str, ...]
    compare: Compare


@dataclass(frozen=True, slots=True)
class AuditSample:
    """What is asked of the stronger model (bytes and their JSON), and the text that the local one gave."""

    facts: RequestFacts
    raw: bytes
    body: dict[str, Any]
    answer: str
    attempt_no: int
    """That of the audit's own attempt."""
    scored: ScoredAnswer | None = None
    """None: it was not judged whole, so that it makes no label."""
    document: DocumentAudit | None = None

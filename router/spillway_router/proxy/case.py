"""A local answer that was drawn for an audit (audits.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spillway_router.core.model import RequestFacts


@dataclass(frozen=True, slots=True)
class Case:
    """What was asked (the client's bytes and their JSON), and the text it got."""

    facts: RequestFacts
    raw: bytes
    body: dict[str, Any]
    answer: str
    attempt_no: int
    """That of the audit's own attempt."""

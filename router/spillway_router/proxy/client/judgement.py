"""What the side that asked thinks of a whole answer, for the answer's ledger row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class AnswerJudgement:
    """Confidence in [0, 1], or None without a signal; and whether the answer will be used."""

    confidence: float | None
    used: bool


AnswerJudge = Callable[[Mapping[str, Any]], AnswerJudgement]
"""Judge the JSON of a whole answer."""

"""Whether a client took a truncated answer for a whole one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from evidence.streams.judging import Verdict

Judged = Literal[
    "whole",  # the client saw all of an answer, and how it ended
    "loud",  # the client's library raised, or reported an error
    "silent",  # neither: the caller can't tell that something is missing
]


def judged(verdict: Verdict, references: Collection[tuple[str, str]]) -> Judged:
    """Judge what a client told its caller. `references`: content and reason to finish of the answers that are whole."""
    if verdict.error is not None:
        return "loud"
    return "whole" if (verdict.content, verdict.finish) in references else "silent"

"""An obstacle: an expected result, not an exception."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why the server will not do something, and what the user can change. Both are texts to be printed as they are."""

    reason: str
    fix: str

"""The value that says no: an expected result, not an exception."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something the server will not do: why, and what the user can change. Both are whole sentences without units
    left out, fit to be printed as they are."""

    reason: str
    fix: str

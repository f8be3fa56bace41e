"""Times for people: milliseconds below a second, seconds above."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """Return a time as `43 ms` or `1.27 s`, a dash for None."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:,.0f} ms"
    return f"{seconds:,.2f} s"

"""Days of the ledger: UTC dates and the milliseconds at which they start."""

from __future__ import annotations

from datetime import UTC, date, datetime

DAY_MS = 86_400_000


def day_of(ms: int) -> str:
    """UTC day of a moment, as ISO date."""
    return datetime.fromtimestamp(ms / 1000, UTC).date().isoformat()


def start_of(day: date) -> int:
    """First millisecond of a UTC day (epoch)."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000

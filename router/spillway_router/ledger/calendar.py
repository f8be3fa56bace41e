"""UTC dates, and the epoch milliseconds at which they start."""

from __future__ import annotations

from datetime import UTC, date, datetime

DAY_MS = 86_400_000


def day_of(epoch_ms: int) -> str:
    """Return the UTC date of a time, in ISO form."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).date().isoformat()


def start_of(day: date) -> int:
    """Return the first millisecond (epoch) of a UTC day."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000

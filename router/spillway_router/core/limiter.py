"""Rate limits that providers tell us: Retry-After and x-ratelimit-* headers -> when a backend may be asked again.

Pure: header values and `now` in, seconds out. Wall time comes as an argument because Retry-After may be a date.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST_WAIT_S = 3600.0
DEFAULT_WAIT_S = 1.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def retry_after_s(value: str | None, wall: float) -> float | None:
    """Seconds a Retry-After header asks for: delta-seconds, a fraction, or an HTTP date (`wall` = epoch seconds).

    None for an absent or unreadable header; negative and past values are 0; bounded to an hour.
    """
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - wall
        except (ValueError, TypeError, OverflowError):
            return None
    if seconds != seconds:  # NaN
        return None
    return min(LONGEST_WAIT_S, max(0.0, seconds))


def duration_s(value: str) -> float | None:
    """Seconds of a reset value: `1.5`, `7.66s`, `2m59.56s`, `120ms`. None if unreadable."""
    text = value.strip()
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    parts = _DURATION.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def exhausted_for_s(headers: Mapping[str, str]) -> float:
    """Seconds to stay away because a remaining-count reached 0; 0 if none did or nothing is told."""
    waits = [0.0]
    for unit in ("requests", "tokens"):
        remaining = headers.get(f"x-ratelimit-remaining-{unit}")
        reset = headers.get(f"x-ratelimit-reset-{unit}")
        if remaining is None or reset is None:
            continue
        try:
            left = float(remaining)
        except ValueError:
            continue
        if left < 1:
            waits.append(duration_s(reset) or DEFAULT_WAIT_S)
    return min(LONGEST_WAIT_S, max(waits))

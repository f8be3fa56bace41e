"""Rate limits that providers tell us: Retry-After and x-ratelimit-* headers -> when a backend may be asked again.

Pure: header values and `now` in, seconds out. Wall time comes as an argument because Retry-After may be a date.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT_S = 3600.0
DEFAULT_WAIT_S = 1.0
_UNITS = ("requests", "tokens", "requests-minute", "requests-hour", "requests-day", "tokens-minute", "tokens-hour")
_ANTHROPIC_UNITS = ("requests", "tokens", "input-tokens", "output-tokens")
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
            then = parsedate_to_datetime(text)
            # The asctime form names no zone; HTTP dates are always UTC.
            seconds = (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - wall
        except (ValueError, TypeError, OverflowError):
            return None
    if seconds != seconds:  # NaN
        return None
    return min(LONGEST_WAIT_S, max(0.0, seconds))


def wait_s(headers: Mapping[str, str], wall: float) -> float | None:
    """Seconds an error answer asks us to wait: `retry-after-ms` (OpenAI's, finer) before `retry-after`."""
    finer = headers.get("retry-after-ms")
    if finer is not None:
        try:
            ms = float(finer)
        except ValueError:
            ms = math.nan
        if math.isfinite(ms):
            return min(LONGEST_WAIT_S, max(0.0, ms / 1000))
    return retry_after_s(headers.get("retry-after"), wall)


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


def exhausted_for_s(headers: Mapping[str, str], wall: float | None = None) -> float:
    """Seconds to stay away because a remaining-count reached 0; 0 if none did or nothing is told.

    Reads `x-ratelimit-remaining-tokens` and its kin, Cerebras' per-window forms (`-tokens-minute`), and, where `wall`
    (epoch seconds) is given, Anthropic's `anthropic-ratelimit-tokens-remaining`, whose resets are RFC 3339 times.
    """
    waits = [0.0]
    for unit in _UNITS:
        if _used_up(headers.get(f"x-ratelimit-remaining-{unit}")):
            reset = headers.get(f"x-ratelimit-reset-{unit}")
            if reset is not None:
                waits.append(duration_s(reset) or DEFAULT_WAIT_S)
    for unit in _ANTHROPIC_UNITS if wall is not None else ():
        if _used_up(headers.get(f"anthropic-ratelimit-{unit}-remaining")):
            then = _rfc3339(headers.get(f"anthropic-ratelimit-{unit}-reset"))
            waits.append(DEFAULT_WAIT_S if then is None or wall is None else then - wall)
    return min(LONGEST_WAIT_S, max(waits))


def _used_up(remaining: str | None) -> bool:
    try:
        return remaining is not None and float(remaining) < 1
    except ValueError:
        return False


def _rfc3339(value: str | None) -> float | None:
    """Epoch seconds of a time like `2026-11-20T12:00:00Z`; None if absent or unreadable."""
    try:
        then = datetime.fromisoformat(value or "")
    except ValueError:
        return None
    return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()

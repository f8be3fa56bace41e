"""Read the rate limits in a provider's headers (Retry-After, x-ratelimit-*): for how many seconds to send nothing.

Pure: header values in, seconds out. The functions take the wall clock because Retry-After may be a date.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT_S = 3600.0
DEFAULT_WAIT_S = 1.0
"""Wait for a limit that is used up but whose reset is missing or can't be read."""
_UNITS = ("requests", "tokens", "requests-minute", "requests-hour", "requests-day", "tokens-minute", "tokens-hour")
_ANTHROPIC_UNITS = ("requests", "tokens", "input-tokens", "output-tokens")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = r"\d+(?:\.\d+)? ?(?:ms|milliseconds?|s|sec(?:ond)?s?|m|min(?:ute)?s?|h|hours?|d|days?)\b"
_HINT = re.compile(
    rf"(?:again|retry|wait)(?: (?:after|in|for|another))* ((?:{_TIME}|{_TIME[:-2]}(?=\d))+)", re.IGNORECASE
)
_HINT_PART = re.compile(r"(\d+(?:\.\d+)?) ?(ms|milli|[smhd])", re.IGNORECASE)
_EPOCH_S = 1e8
"""Larger numbers are times since 1970, not durations."""
_EPOCH_MS = 1e11
"""Larger numbers are such times in milliseconds."""


def retry_after_s(value: str | None, wall_s: float) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or an HTTP date (`wall_s` = epoch seconds now).

    None for a missing or unreadable header. A negative or past value gives 0; an hour is the maximum.
    """
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            then = parsedate_to_datetime(text)
            # The asctime form has no time zone; HTTP dates are always UTC.
            seconds = (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - wall_s
        except (ValueError, TypeError, OverflowError):
            return None
    if seconds != seconds:  # NaN
        return None
    return min(LONGEST_WAIT_S, max(0.0, seconds))


def wait_s(headers: Mapping[str, str], wall_s: float) -> float | None:
    """Return the seconds to wait after an error: from OpenAI's finer `retry-after-ms`, else from `retry-after`."""
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None:
        try:
            ms = float(milliseconds)
        except ValueError:
            ms = math.nan
        if math.isfinite(ms):
            return min(LONGEST_WAIT_S, max(0.0, ms / 1000))
    return retry_after_s(headers.get("retry-after"), wall_s)


def duration_s(value: str) -> float | None:
    """Return the seconds of a reset value such as `1.5`, `7.66s`, `2m59.56s` or `120ms`; None if it is unreadable."""
    text = value.strip()
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    parts = _DURATION.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def text_wait_s(text: str) -> float | None:
    """Return the seconds that an error message asks to wait, as in Groq's "Please try again in 7m12.3s"; else None."""
    hint = _HINT.search(text[:2000])
    if hint is None:
        return None
    parts = _HINT_PART.findall(hint.group(1))
    seconds = sum(float(number) * _SECONDS["ms" if unit.lower() == "milli" else unit.lower()] for number, unit in parts)
    return min(LONGEST_WAIT_S, seconds)


def reset_s(value: str, wall_s: float | None) -> float | None:
    """Return the seconds until a limit is reset: a duration, or a time in seconds or milliseconds since 1970.

    None if it is unreadable, or a time while `wall_s` (epoch seconds now) is unknown.
    """
    seconds = duration_s(value)
    if seconds is None or seconds < _EPOCH_S:
        return seconds
    if wall_s is None or not math.isfinite(seconds):
        return None
    return max(0.0, (seconds / 1000 if seconds >= _EPOCH_MS else seconds) - wall_s)


def exhausted_for_s(headers: Mapping[str, str], wall_s: float | None = None) -> float:
    """Return the seconds to send nothing because a limit is used up; 0 if none is, or the headers name none.

    Reads the `x-ratelimit-remaining-*` headers, Cerebras' per-window forms of them (`-tokens-minute`), OpenRouter's
    `x-ratelimit-remaining` without a unit and, where `wall_s` (epoch seconds now) is given,
    `anthropic-ratelimit-*-remaining`, whose resets are RFC 3339 times.
    """
    waits = [0.0]
    if _used_up(headers.get("x-ratelimit-remaining")):
        waits.append(reset_s(headers.get("x-ratelimit-reset", ""), wall_s) or DEFAULT_WAIT_S)
    for unit in _UNITS:
        if _used_up(headers.get(f"x-ratelimit-remaining-{unit}")):
            waits.append(reset_s(headers.get(f"x-ratelimit-reset-{unit}", ""), wall_s) or DEFAULT_WAIT_S)
    for unit in _ANTHROPIC_UNITS if wall_s is not None else ():
        if _used_up(headers.get(f"anthropic-ratelimit-{unit}-remaining")):
            then = _rfc3339(headers.get(f"anthropic-ratelimit-{unit}-reset"))
            waits.append(DEFAULT_WAIT_S if then is None or wall_s is None else then - wall_s)
    return min(LONGEST_WAIT_S, max(waits))


def _used_up(remaining: str | None) -> bool:
    try:
        return remaining is not None and float(remaining) < 1
    except ValueError:
        return False


def _rfc3339(value: str | None) -> float | None:
    """Return the epoch seconds of a time like `2026-11-20T12:00:00Z`; None if it is missing or unreadable."""
    try:
        then = datetime.fromisoformat(value or "")
    except ValueError:
        return None
    return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()

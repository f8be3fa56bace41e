"""The range and the grouping of a report: from what people write to days of their time zone."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from spillway_router.ledger.calendar import QUARTER_MS, Days, days_of, start_of

GroupKey = Literal["day", "month", "backend", "provider", "model", "key", "tier", "task", "decision"]
GROUP_KEYS: tuple[GroupKey, ...] = get_args(GroupKey)
_MOST_DAYS = 3660
_NAMED_DAYS = {"today": 0, "yesterday": 1}
_DAYS_BACK = re.compile(r"([1-9][0-9]{0,3})d")
"""So many days that end with today, as in `7d`."""


class RangeError(ValueError):
    """A day, month or grouping can't be used; the message says how to write it, and `param` names the parameter."""

    def __init__(self, param: str, message: str) -> None:
        self.param = param
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class ReportRange:
    """Whole days of a time zone from `first` up to but excluding `after`; `name` is for people: 2026-11-20, 2026-11 or
    first..last."""

    first: date
    after: date
    name: str
    zone: tzinfo = UTC

    @property
    def start_ms(self) -> int:
        """First millisecond of the range (epoch)."""
        return start_of(self.first, self.zone)

    @property
    def end_ms(self) -> int:
        """First millisecond after the range (epoch)."""
        return start_of(self.after, self.zone)

    @property
    def days(self) -> int:
        """The number of days."""
        return (self.after - self.first).days

    @property
    def calendar(self) -> Days:
        """The days with their starts."""
        return days_of(self.first, self.after, self.zone)


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """The parameters as a person wrote them, empty if not exclusive. `first` and `last` form a range that includes
    `last`, `timezone` is a name such as Europe/Berlin, `against` that of a priced model that groups are compared
    with."""

    day: str = ""
    month: str = ""
    first: str = ""
    last: str = ""
    by: tuple[str, ...] = ()
    timezone: str = ""
    against: str = ""


def one_day(day: date, zone: tzinfo = UTC) -> ReportRange:
    """Return the range of one day."""
    return ReportRange(day, day + timedelta(days=1), day.isoformat(), zone)


def read_zone(name: str) -> tzinfo:
    """Return the time zone of a name, UTC for none. Raises RangeError."""
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found, not a name of a zone, not a file of one
        raise RangeError("timezone", f"timezone {name!r} is unknown; write one like Europe/Berlin, or UTC") from None


def zone_name(zone: tzinfo) -> str:
    """Return the name by which `read_zone` knows a time zone."""
    return "UTC" if zone is UTC else str(zone)


def read_range(query: ReportQuery, now_ms: int, default_zone: tzinfo = UTC) -> ReportRange:
    """Return the requested range, or today if none is exclusive. Raises RangeError."""
    zone = read_zone(query.timezone) if query.timezone else default_zone
    today = datetime.fromtimestamp(now_ms / 1000, zone).date()
    days = _read_days(query, today)
    days = replace(days, zone=zone)
    if any(edge % QUARTER_MS for edge in days.calendar.edges):
        raise RangeError(
            "timezone", f"the days of {zone_name(zone)} don't start with a quarter of an hour there; use UTC"
        )
    return days


def _read_days(query: ReportQuery, today: date) -> ReportRange:
    exclusive = [name for name in ("day", "month") if getattr(query, name)]
    if query.first or query.last:
        exclusive.append("from")
    if len(exclusive) > 1:
        raise RangeError(
            exclusive[-1], f"{' and '.join(exclusive)} exclude each other; use one of day, month, from and to"
        )
    if query.month:
        first = _month(query.month, today)
        return ReportRange(first, (first + timedelta(days=32)).replace(day=1), f"{first:%Y-%m}")
    if not query.first and not query.last:
        return one_day(_day("day", query.day or "today", today))
    if not query.first:
        raise RangeError("from", "to needs from, the first day, such as from=2026-11-01")
    first, last = _day("from", query.first, today), _day("to", query.last or "today", today)
    if last < first:
        raise RangeError("to", f"to ({last}) is before from ({first})")
    if (last - first).days >= _MOST_DAYS:
        raise RangeError("to", f"a report covers at most {_MOST_DAYS} days")
    return ReportRange(first, last + timedelta(days=1), f"{first}..{last}" if last > first else first.isoformat())


def read_by(by: tuple[str, ...]) -> tuple[GroupKey, ...]:
    """Return the group keys of some words, each holding one key or several separated by commas. Raises RangeError."""
    words = [word.strip() for text in by for word in text.split(",") if word.strip()]
    keys: list[GroupKey] = []
    for word in words:
        key = next((key for key in GROUP_KEYS if key == word), None)
        if key is None:
            raise RangeError("by", f"by {word!r} is unknown; use one or more of {', '.join(GROUP_KEYS)}")
        if key not in keys:
            keys.append(key)
    return tuple(keys)


def _day(param: str, text: str, today: date) -> date:
    if text in _NAMED_DAYS:
        return today - timedelta(days=_NAMED_DAYS[text])
    back = _DAYS_BACK.fullmatch(text)
    if back is not None and param == "from":
        return today - timedelta(days=int(back[1]) - 1)
    try:
        return date.fromisoformat(text)
    except ValueError:
        words = "today, yesterday, or 7d for the last seven days" if param == "from" else "today or yesterday"
        raise RangeError(param, f"{param} {text!r} is not a date; write it like 2026-11-20, {words}") from None


def _month(text: str, today: date) -> date:
    if text == "this":
        return today.replace(day=1)
    if text == "last":
        return (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    try:
        return date.fromisoformat(f"{text}-01")
    except ValueError:
        raise RangeError("month", f"month {text!r} is not a month; write it like 2026-11, this or last") from None

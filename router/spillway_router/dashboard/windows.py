"""The days of a page: a window such as yesterday or this month, any that somebody chose, or so many until now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from urllib.parse import urlencode

from spillway_router.ledger.reports.days import ReportQuery

DEFAULT = "month"
NAMES: Mapping[str, str] = {
    "today": "Today",
    "yesterday": "Yesterday",
    "7d": "Last 7 days",
    "month": "This month",
    "last-month": "Last month",
}
_AGO = {"1d": ("Last day", 1), "7d": ("Last 7 days", 7), "4w": ("Last 4 weeks", 28), "12w": ("Last 12 weeks", 84)}
"""What `since` may be: its text for links, and days."""


@dataclass(frozen=True, slots=True)
class LookBack:
    """How far back a page may look, as `since` names it, and how far it does if it is not said."""

    choices: tuple[str, ...]
    usual: str

    def since(self, parameters: Mapping[str, str]) -> str:
        """Return the choice that the parameters of a page name."""
        since = parameters.get("since", self.usual)
        return since if since in self.choices else self.usual

    @property
    def links(self) -> Mapping[str, str]:
        """The text of the link for each choice."""
        return {name: _AGO[name][0] for name in self.choices}


def days_of(since: str) -> int:
    """Return the days of a choice."""
    return _AGO[since][1]


@dataclass(frozen=True, slots=True)
class Window:
    """Some days, their name for a link ("" if somebody chose them), and the model to compare with ("" for the
    cheapest)."""

    name: str
    first: date
    last: date
    against: str = ""

    def query(self, *by: str) -> ReportQuery:
        """Return the query of their report, in groups."""
        return ReportQuery(first=self.first.isoformat(), last=self.last.isoformat(), by=by, against=self.against)

    def link(self, **changes: str) -> str:
        """Return the parameters of a page about these days, with changes; an empty value leaves a parameter out."""
        values = {"window": self.name} if self.name else {"from": str(self.first), "to": str(self.last)}
        values |= {"against": self.against}
        values |= changes
        return urlencode({name: value for name, value in values.items() if value})


def window_of(parameters: Mapping[str, str], today: date) -> Window:
    """Return the days that the parameters of a page name: `window`, or `from` and `to`. What can't be read is this
    month."""
    against = parameters.get("against", "")
    first, last = _day(parameters.get("from", "")), _day(parameters.get("to", ""))
    if first is not None:
        last = min(last or today, today)
        return Window("", min(first, last), last, against)
    name = parameters.get("window", DEFAULT)
    ends = _ends(name, today) or _ends(DEFAULT, today)
    assert ends is not None
    return Window(name if name in NAMES else DEFAULT, *ends, against)


def _ends(name: str, today: date) -> tuple[date, date] | None:
    yesterday = today - timedelta(days=1)
    this_month = today.replace(day=1)
    before = this_month - timedelta(days=1)
    return {
        "today": (today, today),
        "yesterday": (yesterday, yesterday),
        "7d": (today - timedelta(days=6), today),
        "month": (this_month, today),
        "last-month": (before.replace(day=1), before),
    }.get(name)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def words(window: Window, today: date) -> str:
    """Return the days in words: `November 2026, 1st to 28th, still running`."""
    first, last = window.first, window.last
    running = ", still running" if last >= today else ""
    if first == last:
        return f"{first:%A}, {first.day} {first:%B %Y}{running}"
    if (first.year, first.month) == (last.year, last.month):
        return f"{first.day} to {last.day} {first:%B %Y}{running}"
    return f"{first.day} {first:%B %Y} to {last.day} {last:%B %Y}{running}"

"""The terms of an API key as people write and read them, on the command line and over HTTP alike.

role, tier, may_route     as KeySpec has them
privacy                   any, or local-only: its requests stay on the engines of this machine
models, backends          lists of names; empty: every one
expires                   90d, 12h or 30m from now, or a time such as 2027-01-31T00:00:00Z; never
rpm, tpm                  requests and tokens per minute; 0: any number
concurrent                requests in progress at one router; 0: any number
budget, user_budget       5/day, 0.50/hour or 100/month in USD, of the key and of each of its end users; none
user_credits, user_better  1000/month: how many requests, and better answers, each of its end users may have; none
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from spillway_router.core.money.tariff import TariffError, amount_of, usd
from spillway_router.ledger.records import KeyRecord
from spillway_router.ledger.tables.keys import KeySpecError

_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NANO = 10**9
_MOST_DAYS = 36_500
_MOST_USD = 10**9
_AS_THEY_ARE = {
    "name": "name",
    "role": "role",
    "tier": "tier",
    "privacy": "privacy",
    "may_route": "may_route",
    "rpm": "per_minute",
    "tpm": "tokens_per_minute",
    "concurrent": "concurrent",
}
"""Terms that a KeySpec has as they are written, with its name for each."""
_OF_USERS = ("user_budget", "user_credits", "user_better")


def spec_fields(terms: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """Return terms as fields of a KeySpec; what is None or left out is not set. Raises KeySpecError."""
    given = {name: value for name, value in terms.items() if value is not None}
    fields = {field: given[term] for term, field in _AS_THEY_ARE.items() if term in given}
    fields |= {term: tuple(given[term]) for term in ("models", "backends") if term in given}
    if "expires" in given:
        fields["expires"] = _expiry_ms(given["expires"], now_ms)
    for term in _OF_USERS:
        if term in given:
            fields[term] = "" if given[term] == "none" else given[term]
    if "budget" in given:
        fields["budget_nano"], fields["budget_period"] = _budget(given["budget"])
    return fields


def duration_ms(text: str, term: str) -> int:
    """Return a duration such as 90d in milliseconds. Raises KeySpecError, which names the term."""
    match = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    if match is None:
        raise KeySpecError(f"{term}: {text!r} is no time; write it like 30m, 12h, 90d or 4w")
    seconds = int(match.group(1)) * _SECONDS[match.group(2)]
    if seconds > _MOST_DAYS * _SECONDS["d"]:
        raise KeySpecError(f"{term}: {text} is longer than {_MOST_DAYS}d")
    return seconds * 1000


def shown(record: KeyRecord) -> dict[str, Any]:
    """Return all that may be shown of a key, in the terms in which it can be set; times are in ISO 8601."""
    return {
        "id": record.id,
        "name": record.name,
        "role": record.role,
        "tier": record.tier,
        "privacy": record.privacy,
        "may_route": record.may_route,
        "models": _names(record.models),
        "backends": _names(record.backends),
        "expires": _time(record.expires),
        "rpm": record.per_minute,
        "tpm": record.tokens_per_minute,
        "concurrent": record.concurrent,
        "budget": None if record.budget_nano is None else f"{usd(record.budget_nano)}/{record.budget_period}",
        **{term: getattr(record, term) or None for term in _OF_USERS},
        "created": _time(record.created),
        "revoked": _time(record.revoked),
        "old_secret_until": _time(record.old_until),
    }


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def time_text(at_ms: int) -> str:
    """Return epoch milliseconds as a time in ISO 8601, UTC, to the second."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else time_text(at_ms)


def _expiry_ms(text: str, now_ms: int) -> int | None:
    if text == "never":
        return None
    if "T" not in text:
        return now_ms + duration_ms(text, "expires")
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise KeySpecError(f"expires: {text!r} is no time with a zone; write it like 2027-01-31T00:00:00Z")
    at_ms = int(at.timestamp() * 1000)
    if not 0 <= at_ms <= now_ms + _MOST_DAYS * _SECONDS["d"] * 1000:
        raise KeySpecError(f"expires: {text} is before 1970, or more than {_MOST_DAYS}d away")
    return at_ms


def _budget(text: str) -> tuple[int | None, str]:
    if text == "none":
        return None, ""
    amount, slash, period = text.partition("/")
    try:
        nano = int(amount_of(amount) * _NANO)
    except TariffError:
        slash, nano = "", 0
    if not slash or abs(nano) > _MOST_USD * _NANO:
        raise KeySpecError(f"budget: {text!r} is no budget; write USD per period, such as 5/day, or none")
    return nano, period

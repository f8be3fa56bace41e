"""The recorded requests under another policy, as values for the page What if."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from spillway_router.core.money.currency import IN_USD
from spillway_router.core.routing.policy import Policy
from spillway_router.replay.rows import PolicyRow
from spillway_router.replay.trials import NOW, ORDERS, Trial, TrialError, TrialResult

HEAD = (
    "policy", "here", "overflow", "routed", "escalated", "other", "refused", "cloud, $", "first token p50", "p95",
    "later than promised", "right",
)  # fmt: skip
MOST_TTFT_MS = 10_000.0
_TONES = (
    ("here", "used"),
    ("overflow", "cloud"),
    ("routed", "idle"),
    ("escalated", "escalated"),
    ("other", "other"),
    ("refused", "fallback"),
)


@dataclass(frozen=True, slots=True)
class TrialPage:
    """Everything on the page about a trial, in words and figures for people."""

    sentence: str
    basis: str
    rows: tuple[tuple[str, ...], ...]
    chart: Mapping[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slider:
    """A slider: what is in force, its ends, and a step at which it can stand on what is in force."""

    value: str
    most: str
    step: str


def sliders(policy: Policy) -> Mapping[str, Slider]:
    """Return the sliders of the form, each standing on what the policy has in force."""
    ttft_ms, threshold = policy.slo.ttft_s * 1000, policy.confidence.threshold
    return {
        "ttft_ms": Slider(f"{ttft_ms:.0f}", f"{max(MOST_TTFT_MS, ttft_ms):.0f}", "50" if ttft_ms % 50 == 0 else "1"),
        "threshold": Slider(f"{threshold:.4g}", "1", "0.01" if round(threshold, 2) == threshold else "0.0001"),
    }


def trial_of(fields: Mapping[str, str], policy: Policy) -> Trial:
    """Return what the fields of the form try; a slider that stands on what is in force tries nothing. Raises
    TrialError, which names the field."""
    order = fields.get("order", "")
    if order not in ("", *ORDERS):
        raise TrialError(f"order is {order[:40]!r}; use one of {', '.join(ORDERS)}")
    stands = {name: slider.value for name, slider in sliders(policy).items()}
    changed = {name: fields.get(name, "") for name in stands if fields.get(name, "") != stands[name]}
    return Trial(
        ttft_ms=_number(changed, "ttft_ms", 1.0, MOST_TTFT_MS),
        threshold=_number(changed, "threshold", 0.0, 1.0),
        order=order,
    )


def _number(fields: Mapping[str, str], name: str, least: float, most: float) -> float | None:
    text = fields.get(name, "")
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise TrialError(f"{name} is {text[:40]!r}; write a number from {least:g} to {most:,.0f}")
    return number


def trial_page(result: TrialResult, zone: tzinfo) -> TrialPage:
    """Return the page of a trial, with its days in a time zone."""
    return TrialPage(
        sentence=_sentence(result),
        basis=_basis(result, zone),
        rows=tuple(_cells(row) for row in result.rows),
        chart=_chart(result.rows),
        notes=result.notes,
    )


def trial_values(result: TrialResult) -> Mapping[str, Any]:
    """Return a trial as JSON values, with the rows of `spillway replay --json`."""
    from spillway_router.ledger.reports.json_report import with_usd

    return {
        "requests": result.requests,
        "first_ms": result.first_ms,
        "last_ms": result.last_ms,
        "older_left_out": result.older_left_out,
        "policies": with_usd(list(result.rows)),
        "notes": list(result.notes),
    }


def _sentence(result: TrialResult) -> str:
    rows = {row.name: row for row in result.rows}
    now, last = rows[NOW], result.rows[-1]
    requests = f"these {result.requests:,} requests" if result.requests != 1 else "this request"
    cost = IN_USD.money(last.cloud_nano)
    if last is now:
        here = f"{now.shares.local:.1%} of {requests} on the GPU"
        return f"As configured, the replay answers {here} and pays the clouds {cost}."
    return (
        f"{result.trial.words()}, {requests} would have cost {cost} in the cloud instead of "
        f"{IN_USD.money(now.cloud_nano)}, and the GPU would have answered {last.shares.local:.1%} instead of "
        f"{now.shares.local:.1%}."
    )


def _basis(result: TrialResult, zone: tzinfo) -> str:
    first, last = (datetime.fromtimestamp(ms / 1000, zone) for ms in (result.first_ms, result.last_ms))
    which = "the newest that are on record; older ones were left out" if result.older_left_out else "all on record"
    days = f"{first.day} {first:%B %Y %H:%M} to {last.day} {last:%B %Y %H:%M}"
    return f"Replayed: {result.requests:,} requests from {days}, {which}. Nothing was sent."


def _cells(row: PolicyRow) -> tuple[str, ...]:
    quality = "-" if row.quality is None else f"{row.quality:.1%} of {row.judged:,}"
    return (
        row.name,
        *(f"{share:.1%}" for share in row.shares.all()),
        IN_USD.money(row.cloud_nano),
        _seconds(row.p50_s),
        _seconds(row.p95_s),
        "-" if row.late is None else f"{row.late:.1%}",
        quality,
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _chart(rows: tuple[PolicyRow, ...]) -> Mapping[str, Any]:
    shares = [row.shares.all() for row in rows]
    series = [
        {"name": name, "kind": "bar", "tone": tone, "values": [round(one[place], 6) for one in shares]}
        for place, (name, tone) in enumerate(_TONES)
        if any(one[place] for one in shares)
    ]
    return {"x": [row.name for row in rows], "unit": "%", "series": series}

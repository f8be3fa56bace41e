"""How a report puts its figures into words: money, shares, times, names of groups, and what a reader must know."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

from spillway_router.core.money.tariff import NANO, usd
from spillway_router.ledger.reports.model import Alternative, ForecastRow, GroupRow, RentalRow, Report

FORECAST_METHODS = {
    "linear": "linear by elapsed time",
    "weekdays": "by the means of the weekdays",
}


def money(nano: int) -> str:
    """Nano-dollars for a table: `$1.390000`, rounded half up to a millionth of a dollar."""
    millionths = (abs(nano) + 500) // 1000
    return f"{'-' if nano < 0 and millionths else ''}${usd(millionths * 1000)}"


def maybe_money(nano: int | None) -> str:
    """Money, or a dash where there is nothing to divide by."""
    return "-" if nano is None else money(nano)


def about(nano: int) -> str:
    """Money of an estimate: whole cents from a dollar on, `$1,031.03`."""
    if abs(nano) < NANO:
        return money(nano)
    cents = (abs(nano) + 5 * 10**6) // 10**7
    return f"{'-' if nano < 0 else ''}${cents // 100:,}.{cents % 100:02}"


def share(part: int, whole: int) -> str:
    """A part in percent of a whole."""
    return f"{100 * part / whole:.1f}%" if whole else "-"


def moment(ms: int) -> str:
    """An epoch millisecond as UTC date and minute."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def title(report: Report) -> str:
    """The report's first line."""
    return (
        f"Spillway, {report.period.name} (UTC): {report.requests:,} requests, {report.served.answers:,} answered, "
        f"{money(report.total_nano)} in all"
    )


def group_name(row: GroupRow, key: str) -> str:
    """What stands for one key of a group: its value, or a word where it has none."""
    value = row.keys[key]
    if not row.idle:
        label = row.labels.get(key)
        return (value or "(none)") if label is None else f"{label} ({value})"
    first = next(name for name in row.keys if name not in ("day", "month"))
    return "(idle GPU time)" if key == first else value


def rental_name(row: RentalRow) -> str:
    """One rental: how many of what at which price, and in which way."""
    gpu = row.gpu or "GPU"
    return f"{row.count} x {gpu} at ${row.price_per_hour_usd}/h, {row.kind}"


def break_even_words(alternative: Alternative, answers: int) -> tuple[str, str]:
    """From which volume and which utilisation the GPU is cheaper than an alternative."""
    found = alternative.break_even
    if found.requests_per_day is None or found.utilisation is None:
        return ("never: it is free", "-") if answers else ("-", "-")
    volume = f"{found.requests_per_day:,.0f} requests/day"
    if not found.reachable:
        return f"never ({volume})", f"{found.utilisation:,.0%} of capacity"
    return volume, f"{found.utilisation:.1%} of capacity"


def forecast_words(row: ForecastRow) -> str:
    """The forecast in one sentence, with its method."""
    text = (
        f"Forecast: {row.month} will have cost {about(row.total_nano)}: GPU {about(row.fixed_nano)} "
        f"({about(row.fixed_so_far_nano)} so far, running rentals go on) + cloud {about(row.cloud_nano)} "
        f"({about(row.cloud_so_far_nano)} so far, then {FORECAST_METHODS[row.method]}, "
        f"{row.days_of_history} full days of history)."
    )
    if row.budget_nano is None:
        return text
    part = float(Fraction(row.cloud_nano, row.budget_nano)) if row.budget_nano else 1.0
    return f"{text} That is {part:.0%} of the month's cloud budget of {about(row.budget_nano)}."


def notes(report: Report) -> list[str]:
    """What a reader must know to judge the figures."""
    fixed, found = report.fixed, []
    if fixed.overcommitted:
        found.append(
            "The work coefficients claim more GPU time than was billed; all of the bill counts as used. "
            "Set gpu.name or measured rates under gpu.work for true shares."
        )
    if not fixed.gpu_hours and fixed.rows:
        found.append("No GPU time was billed in this time: local answers carry no fixed cost.")
    if fixed.gpu_hours and not fixed.billed_nano:
        found.append("The GPU costs nothing by its price; set gpu.price_per_hour, or `spillway rentals start`.")
    if report.cloud.unsettled:
        found.append(
            f"{report.cloud.unsettled:,} cloud attempts are not settled (in flight, or lost in a crash); "
            f"they count at their bound of {money(report.cloud.unsettled_nano)}."
        )
    if report.alternatives:
        found.append(
            "All-cloud uses the token counts of the backend that answered and no cache discount; "
            "break-even is for the mean request of this time."
        )
    return found

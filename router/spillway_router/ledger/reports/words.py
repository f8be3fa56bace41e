"""The words of a report: money, shares, times, names of groups, and the notes that a reader must know."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from fractions import Fraction

from spillway_router.core.money.currency import Amounts
from spillway_router.core.money.forecast import is_guess
from spillway_router.ledger.reports.model import Alternative, ForecastRow, GroupRow, RentalRow, Report

FORECAST_METHODS = {
    "linear": "linear by elapsed time",
    "weekdays": "by the means of the weekdays",
}


def share(part: int, whole: int) -> str:
    """Return a part of a whole in percent."""
    return f"{100 * part / whole:.1f}%" if whole else "-"


def moment(epoch_ms: int, zone: tzinfo = UTC) -> str:
    """Return a time as date and minute, with the name of its zone."""
    return datetime.fromtimestamp(epoch_ms / 1000, zone).strftime("%Y-%m-%d %H:%M %Z")


def title(report: Report) -> str:
    """Return the first line of the report."""
    return (
        f"Spillway, {report.period.name} ({report.period.timezone}): {report.requests:,} "
        f"{'request' if report.requests == 1 else 'requests'}, "
        f"{report.served.answers:,} answered, {report.amounts.money(report.total_nano)} in total"
    )


def difference(saved_nano: int | None, amounts: Amounts) -> str:
    """Return how much more or less than what was paid something would have cost; None is not known."""
    if saved_nano is None:
        return "unknown"
    if not saved_nano:
        return "the same"
    return f"{amounts.money(abs(saved_nano))} {'more' if saved_nano > 0 else 'less'}"


def unpriced(report: Report) -> str:
    """Return what a report must begin with if the price of a GPU is unknown, else an empty text."""
    if not report.unpriced_gpu_hours:
        return ""
    return (
        f"THE PRICE OF THE GPU IS UNKNOWN: {report.unpriced_gpu_hours:,.3f} GPU-hours are in this report at $0. Set "
        'gpu.price_per_hour (for a GPU of your own "0"), and put right what is booked: spillway rentals correct ID '
        "--price USD."
    )


def group_name(row: GroupRow, key: str) -> str:
    """Return the text for one key of a group: its value, or a word if it has none."""
    value = row.keys[key]
    if not row.idle and not row.other:
        label = row.labels.get(key)
        return (value or "(none)") if label is None else f"{label} ({value})"
    first = next(name for name in row.keys if name not in ("day", "month"))
    return ("(idle GPU time)" if row.idle else "(other fixed costs)") if key == first else value


def rental_name(row: RentalRow) -> str:
    """Return the name of a rental: the number of GPUs, their price, and the kind of rental."""
    price = f"${row.price_per_hour_usd}/h" if row.price_per_month_usd is None else f"${row.price_per_month_usd}/month"
    return f"{row.count} x {row.gpu or 'GPU'} at {price}, {row.kind}"


def break_even_words(alternative: Alternative, answers: int) -> tuple[str, str]:
    """Return the volume and the utilisation from which on the GPU is cheaper than an alternative."""
    point = alternative.break_even
    if alternative.savings_nano is None:
        return ("unknown", "-")
    if point.requests_per_day is None or point.utilisation is None:
        return ("never: it is free", "-") if answers else ("-", "-")
    volume = f"{point.requests_per_day:,.0f} requests/day"
    if not point.reachable:
        return f"never ({volume})", f"{point.utilisation:,.0%} of capacity"
    return volume, f"{point.utilisation:.1%} of capacity"


def forecast_words(row: ForecastRow, amounts: Amounts) -> str:
    """Return the forecast in one sentence, with its method; a guess from less than a day says so, and is no sharper."""
    money = amounts.money
    guess = is_guess(row.minutes_of_history) and row.cloud_so_far_nano > 0
    shown = amounts.about if guess else money
    began = f"Forecast: {row.month} will have cost {money(row.total_nano)}"
    history = f"{FORECAST_METHODS[row.method]}, {row.days_of_history:,} full days of history"
    if guess:
        began = (
            f"Forecast: a guess from {_minutes(row.minutes_of_history)}: {row.month} may cost {shown(row.total_nano)}"
        )
        history = "as in these"
    text = (
        f"{began}: GPU {money(row.fixed_nano)} ({money(row.fixed_so_far_nano)} so far, running rentals continue) + "
        f"cloud {shown(row.cloud_nano)} ({money(row.cloud_so_far_nano)} so far, then {history})"
        f"{f' + other fixed costs {money(row.other_nano)}' if row.other_nano else ''}."
    )
    if row.budget_nano is None:
        return text
    part = float(Fraction(row.cloud_nano, row.budget_nano)) if row.budget_nano else 1.0
    percent = f"about {100 * float(f'{part:.1g}'):,.0f}%" if guess else f"{part:,.0%}"
    return f"{text} That is {percent} of the month's cloud budget of {money(row.budget_nano)}."


def _minutes(minutes: int) -> str:
    """Return a short time in words."""
    if minutes < 120:
        return f"{minutes} minute{'' if minutes == 1 else 's'}"
    return f"{minutes // 60} hours"


def notes(report: Report) -> list[str]:
    """Return what a reader must know to judge the figures."""
    fixed, money, texts = report.fixed, report.amounts.money, []
    if fixed.overcommitted:
        texts.append(
            "The work coefficients claim more GPU time than was billed, so the whole bill counts as used. "
            "Set gpu.name, or measured rates under gpu.work, for accurate shares."
        )
    if not fixed.gpu_hours and fixed.rows:
        texts.append("No GPU time was billed in this period, so local answers carry no fixed cost.")
    if report.cloud.unsettled:
        texts.append(
            f"{report.cloud.unsettled:,} cloud attempts are unsettled (in flight, or lost in a crash); "
            f"they count at their bound of {money(report.cloud.unsettled_nano)}."
        )
    if report.cloud.unsure:
        cloud, calls = report.cloud, "call" if report.cloud.unsure == 1 else "calls"
        texts.append(
            f"Not known for sure: {cloud.unsure:,} {calls}, estimated {money(cloud.estimated_nano)}, "
            f"at most {money(cloud.at_most_nano)}. `spillway ledger unknown` lists them."
        )
    if report.cache.answers:
        cache, times = report.cache, "request" if report.cache.answers == 1 else "requests"
        texts.append(
            f"The cache answered {cache.answers:,} {times} with {cache.completion_tokens:,} tokens, which had cost "
            f"{money(cache.saved_nano)} in the cloud. They cost nothing, and no comparison counts them."
        )
    if report.alternatives:
        texts.append(
            "All-cloud uses the token counts of the backend that answered, at the price of each day and prompt length, "
            "without a cache discount; break-even is for the mean request of this period."
        )
    if report.not_compared and report.served.answers:
        texts.append(
            f"Not compared: {', '.join(report.not_compared)} (for other requests than these, or billed by a time that "
            "was not measured)."
        )
    if report.currency is not None:
        rate = report.currency
        texts.append(
            f"Amounts are in {rate.code} at {rate.per_usd} per US dollar, the rate of {rate.as_of}. The ledger, the "
            "GPU's price per hour, CSV and JSON are in US dollars."
        )
    return texts

"""The rows of the report's tables, shared by the terminal and HTML: headings, and cells as plain text."""

from __future__ import annotations

from spillway_router.core.money.currency import Amounts
from spillway_router.ledger.reports.model import GroupRow, Report
from spillway_router.ledger.reports.words import break_even_words, difference, group_name, share

Row = tuple[str, ...]

CLOUD_HEAD = ("why", "answers", "tokens in + out", "cost", "per answer")
UNITS_HEAD = ("", "total", "per answered request", "per 1,000 tokens", "per document")
GROUP_HEAD = ("answers", "GPU used", "GPU idle", "cloud", "total", "per request")
ALTERNATIVES_HEAD = ("everything to", "would have cost", "which is", "the GPU pays from", "at utilisation")
OTHER_HEAD = ("other fixed costs", "per month", "cost")
PRESSED_HEAD = ("key", "tier", "user", "better answers", "rated both", "stars gained")
CREDITS_HEAD = ("who", "what", "period", "began", "used", "of")
STEPS_HEAD = ("escalated to", "asked", "answered", "gain", "not sure", "cost", "per answer")
FEEDBACK_HEAD = ("model", "ratings", "mean of 5", "satisfied", "better asked")


def cloud_rows(report: Report, always: tuple[str, ...] = ()) -> list[Row]:
    """Return the decisions that had attempts or cost something or are in `always`, the unsettled attempts, and last the
    sum of all."""
    cloud, money, money_or_dash = report.cloud, report.amounts.money, report.amounts.or_dash
    rows = [
        (
            row.decision,
            f"{row.served.answers:,}",
            f"{row.served.prompt_tokens:,} + {row.served.completion_tokens:,}",
            money(row.cost_nano),
            money_or_dash(row.per_answer_nano),
        )
        for row in cloud.rows
        if row.served.attempts or row.cost_nano or row.decision in always
    ]
    if cloud.unsettled:
        rows.append(("unsettled", f"{cloud.unsettled:,} attempts", "", money(cloud.unsettled_nano), ""))
    tokens = f"{cloud.served.prompt_tokens:,} + {cloud.served.completion_tokens:,}"
    per_answer = money_or_dash(cloud.units.per_request_nano)
    return [*rows, ("all", f"{cloud.served.answers:,}", tokens, money(cloud.cost_nano), per_answer)]


def step_rows(report: Report) -> list[Row]:
    """Return the steps of escalation. The gain of a step is the share of what it was asked that ended with its
    answer."""
    money, money_or_dash = report.amounts.money, report.amounts.or_dash
    return [
        (
            f"{row.backend} ({row.model}{', referee' if row.referee else ''})",
            f"{row.asked:,}",
            "" if row.referee else f"{row.answered:,}",
            "" if row.referee else share(row.answered, row.asked),
            "" if row.referee else f"{row.discarded:,}",
            money(row.cost_nano),
            money_or_dash(row.per_answer_nano),
        )
        for row in report.steps
    ]


def unit_rows(report: Report) -> list[Row]:
    """Return the cost per unit of each side, and of both together."""
    money, money_or_dash = report.amounts.money, report.amounts.or_dash
    sides = (
        ("fixed (GPU)", report.fixed.billed_nano, report.fixed.units),
        ("per request (cloud)", report.cloud.cost_nano, report.cloud.units),
        ("together", report.fixed.billed_nano + report.cloud.cost_nano, report.units),
    )
    return [
        (
            label,
            money(total),
            *map(money_or_dash, (units.per_request_nano, units.per_1k_tokens_nano, units.per_document_nano)),
        )
        for label, total, units in sides
    ]


def group_row(row: GroupRow, by: tuple[str, ...], amounts: Amounts) -> Row:
    """Return the row of one group: its names, then the figures of GROUP_HEAD."""
    costs = (row.used_nano, row.idle_nano, row.cloud_nano, row.total_nano)
    names = (group_name(row, key) for key in by)
    per_request = amounts.or_dash(row.units.per_request_nano)
    return (*names, f"{row.served.answers:,}", *map(amounts.money, costs), per_request)


def alternative_rows(report: Report) -> list[Row]:
    """Return the rows for everything on the GPU and for everything at each priced model."""
    money = report.amounts.money
    rows: list[Row] = []
    if report.all_local is not None:
        local = report.all_local
        label = f"the GPU ({local.gpus_needed:,} needed on average)"
        rows.append((label, money(local.cost_nano), difference(local.savings_nano, report.amounts), "-", "-"))
    for one in report.alternatives:
        costs = (money(one.all_cloud_nano), difference(one.savings_nano, report.amounts))
        left_out = report.served.answers - one.answers
        name = f"{one.name}: {one.answers:,} of {report.served.answers:,} answers" if left_out else one.name
        rows.append((name, *costs, *break_even_words(one, one.answers)))
    return rows


def other_rows(report: Report) -> list[Row]:
    """Return the rows of the fixed costs that are no GPU, and last their sum."""
    money = report.amounts.money
    rows = [(row.name, f"${row.price_per_month_usd}", money(row.billed_nano)) for row in report.other.rows]
    return [*rows, ("all", "", money(report.other.billed_nano))]


def pressed_rows(report: Report) -> list[Row]:
    """Return who had answers given better, and what that gained."""
    return [
        (
            row.key_id or "none",
            row.tier,
            row.user_id or "nobody named",
            f"{row.asked:,}",
            f"{row.compared:,}",
            "-" if row.mean_gain is None else f"{row.mean_gain:+.1f}",
        )
        for row in report.pressed
    ]


def credit_rows(report: Report) -> list[Row]:
    """Return who used how many credits."""
    return [
        (row.scope, row.counted, row.period, row.starts, f"{row.used:,}", f"{row.limit:,}") for row in report.credits
    ]


def feedback_rows(report: Report) -> list[Row]:
    """Return the rows of what people thought of each model's answers."""
    return [
        (
            f"{row.backend}/{row.model}",
            str(row.ratings),
            "-" if row.mean_rating is None else f"{row.mean_rating:.1f}",
            "-" if row.satisfied_share is None else f"{row.satisfied_share:.0%}",
            str(row.better_asked) + ("" if row.better_share is None else f" ({row.better_share:.1%})"),
        )
        for row in report.feedback
    ]

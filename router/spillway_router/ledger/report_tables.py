"""The report for people (rich tables, the two sides beside each other) and for programs (JSON).

Tables round money to a millionth of a dollar; JSON has exact integer nano-dollars and the same as decimal
text.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from spillway_router.core.tariff import usd
from spillway_router.ledger.reports import Alternative, CloudSide, FixedSide, Report, UnitCosts

_ALWAYS_SHOWN = ("overflow", "escalated", "fallback")


def render_report(report: Report, console: Console) -> None:
    """Print the report: fixed and per-request cost side by side, then what the alternatives would have
    cost."""
    title = (
        f"Spillway, {report.day} (UTC): {report.requests:,} requests, {report.served.answers:,} answered, "
        f"{money(report.total_nano)} in all"
    )
    console.print(Text(title, style="bold"))
    console.print(Columns([_fixed_panel(report.fixed), _cloud_panel(report.cloud)], padding=(0, 1)))
    console.print(_units_table(report))
    if report.alternatives or report.all_local is not None:
        console.print(_alternatives_table(report))
    for note in notes(report):
        console.print(Text(note, style="dim"))


def report_json(report: Report) -> str:
    """The report as JSON text: every `*_nano` (integer nano-dollars) has a `*_usd` (decimal text) beside
    it."""
    return json.dumps(_with_usd(asdict(report)), indent=2)


def money(nano: int) -> str:
    """Nano-dollars for a table: `$1.390000`, rounded half up to a millionth of a dollar."""
    millionths = (abs(nano) + 500) // 1000
    return f"{'-' if nano < 0 and millionths else ''}${usd(millionths * 1000)}"


def notes(report: Report) -> list[str]:
    """What a reader must know to judge the figures."""
    found = []
    if report.fixed.overcommitted:
        found.append(
            "The work coefficients claim more GPU time than was billed; all of the bill counts as used. "
            "Measure the engine's rates for true shares."
        )
    if not report.fixed.gpu_hours and report.fixed.rows:
        found.append("No GPU time was billed on this day: local answers carry no fixed cost.")
    if report.cloud.unsettled:
        found.append(
            f"{report.cloud.unsettled:,} cloud attempts are not settled (in flight, or lost in a crash); "
            f"they count at their bound of {money(report.cloud.unsettled_nano)}."
        )
    if report.alternatives:
        found.append(
            "All-cloud uses the token counts of the backend that answered and no cache discount; "
            "break-even is for this day's mean request."
        )
    return found


def _fixed_panel(fixed: FixedSide) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_row("price", f"${fixed.price_per_hour_usd} per GPU-hour x {fixed.gpus}")
    table.add_row("billed", f"{fixed.gpu_hours:.3f} GPU-hours  {money(fixed.billed_nano)}")
    table.add_row("  used", f"{fixed.utilisation:.1%}  {money(fixed.used_nano)}")
    table.add_row("  idle", f"{1 - fixed.utilisation:.1%}  {money(fixed.idle_nano)}")
    table.add_row("answered", f"{fixed.served.answers:,} requests")
    tokens = fixed.served.prompt_tokens, fixed.served.completion_tokens
    table.add_row("tokens", f"{tokens[0]:,} in + {tokens[1]:,} out")
    for row in fixed.rows:
        drafts = f", {row.discarded:,} drafts discarded" if row.discarded else ""
        label = f"{row.served.answers:,} answers, {row.gpu_seconds:,.1f} GPU-s{drafts}"
        table.add_row(f"{row.backend} ({row.model})", f"{label}  {money(row.used_nano)}")
    return Panel(Group(table), title="Fixed: rented GPU", expand=False)


def _cloud_panel(cloud: CloudSide) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("why")
    for heading in ("answers", "tokens in + out", "cost", "per answer"):
        table.add_column(heading, justify="right")
    for row in cloud.rows:
        if row.served.attempts or row.decision in _ALWAYS_SHOWN:
            table.add_row(
                row.decision,
                f"{row.served.answers:,}",
                f"{row.served.prompt_tokens:,} + {row.served.completion_tokens:,}",
                money(row.cost_nano),
                _maybe(row.per_answer_nano),
            )
    if cloud.unsettled:
        table.add_row("unsettled", f"{cloud.unsettled:,} attempts", "", money(cloud.unsettled_nano), "")
    table.add_row(
        "all",
        f"{cloud.served.answers:,}",
        f"{cloud.served.prompt_tokens:,} + {cloud.served.completion_tokens:,}",
        money(cloud.cost_nano),
        _maybe(cloud.units.per_request_nano),
        style="bold",
    )
    return Panel(table, title="Per request: cloud", expand=False)


def _units_table(report: Report) -> Table:
    table = Table(title="Cost per unit", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in ("total", "per answered request", "per 1,000 tokens", "per document"):
        table.add_column(heading, justify="right")
    sides: list[tuple[str, int, UnitCosts]] = [
        ("fixed (GPU)", report.fixed.billed_nano, report.fixed.units),
        ("per request (cloud)", report.cloud.cost_nano, report.cloud.units),
        ("together", report.total_nano, report.units),
    ]
    for label, total, units in sides:
        values = (units.per_request_nano, units.per_1k_tokens_nano, units.per_document_nano)
        table.add_row(label, money(total), *(_maybe(value) for value in values))
    return table


def _alternatives_table(report: Report) -> Table:
    table = Table(title="Instead of both", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("everything to")
    for heading in ("would have cost", "saved", "GPU pays from", "at utilisation"):
        table.add_column(heading, justify="right")
    if report.all_local is not None:
        local = report.all_local
        label = f"the GPU ({local.gpus_needed:,} needed on average)"
        table.add_row(label, money(local.cost_nano), money(local.savings_nano), "", "")
    for alternative in report.alternatives:
        table.add_row(
            alternative.name,
            money(alternative.all_cloud_nano),
            money(alternative.savings_nano),
            *_break_even(alternative, report.served.answers),
        )
    return table


def _break_even(alternative: Alternative, answers: int) -> tuple[str, str]:
    found = alternative.break_even
    if found.requests_per_day is None or found.utilisation is None:
        return ("never: it is free", "-") if answers else ("-", "-")
    volume = f"{found.requests_per_day:,.0f} requests/day"
    if not found.reachable:
        return f"never ({volume})", f"{found.utilisation:,.0%} of capacity"
    return volume, f"{found.utilisation:.1%} of capacity"


def _maybe(nano: int | None) -> str:
    return "-" if nano is None else money(nano)


def _with_usd(value: Any) -> Any:
    if isinstance(value, dict):
        shown: dict[str, Any] = {}
        for key, each in value.items():
            shown[key] = _with_usd(each)
            if key.endswith("_nano"):
                shown[key.removesuffix("_nano") + "_usd"] = None if each is None else usd(each)
        return shown
    if isinstance(value, (list, tuple)):
        return [_with_usd(each) for each in value]
    return value

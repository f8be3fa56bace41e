"""A comparison as one HTML file: the tables, and a plot of dollars against waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from spillway_router.core.money.currency import IN_USD
from spillway_router.core.money.tariff import NANO
from spillway_router.ledger.reports.html import document, text_table
from spillway_router.replay import charts
from spillway_router.replay.rows import PolicyRow
from spillway_router.replay.table import percent, quality, seconds

HEAD = (
    "policy", "requests", "local %", "overflow %", "routed %", "escalated %", "other %", "refused %", "cloud", "GPU",
    "GPU busy h", "GPU idle h", "p50 s", "p95 s", "late %", "right",
)  # fmt: skip


def replay_page(rows: Sequence[PolicyRow], notes: Iterable[str]) -> str:
    """Return the whole page. Every text is escaped."""
    parts = [
        "<h1>Replay: the same requests under each policy</h1>",
        text_table(HEAD, [_cells(row) for row in rows]),
        f"<figure>{_dollars_and_waits(rows)}</figure><figure>{_shares(rows)}</figure>",
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
    ]
    return document("Spillway, replay", parts)


def _cells(row: PolicyRow) -> tuple[str, ...]:
    busy = row.gpu_busy_hours
    return (
        row.name,
        f"{row.requests:,}",
        *map(percent, row.shares.all()),
        IN_USD.money(row.cloud_nano),
        "-" if busy is None else IN_USD.money(row.fixed_nano),
        "-" if busy is None else f"{busy:,.2f}",
        "-" if busy is None else f"{row.gpu_hours - busy:,.2f}",
        seconds(row.p50_s),
        seconds(row.p95_s),
        percent(row.late),
        quality(row),
    )


def _dollars_and_waits(rows: Sequence[PolicyRow]) -> str:
    series = {row.name: [(row.cloud_nano / NANO, row.p95_s)] for row in rows if row.p95_s is not None}
    return charts.lines(
        "Dollars for clouds against the wait", series, charts.Axes("cloud, USD", "p95 of the first token, s")
    )


def _shares(rows: Sequence[PolicyRow]) -> str:
    groups = {
        row.name: {
            "overflow": 100 * row.shares.overflow,
            "escalated": 100 * row.shares.escalated,
            "refused": 100 * row.shares.refused,
        }
        for row in rows
    }
    return charts.bars("Where requests went", groups, charts.Axes("policy", "% of requests"))

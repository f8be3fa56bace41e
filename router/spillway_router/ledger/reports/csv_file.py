"""The report for spreadsheets: one line per group, with money as decimal text in USD and time in UTC.

The columns are the keys of the grouping, followed by `COLUMNS`, always in this order. All lines, including those of
idle time and of other fixed costs, sum to the report.
"""

from __future__ import annotations

import csv
from io import StringIO

from spillway_router.core.money.tariff import usd
from spillway_router.core.printable import spreadsheet_text
from spillway_router.ledger.reports.model import GroupRow, Report

COLUMNS = (
    "idle",
    "attempts",
    "answers",
    "documents",
    "prompt_tokens",
    "completion_tokens",
    "fixed_used_usd",
    "fixed_idle_usd",
    "cloud_usd",
    "other_fixed_usd",
    "total_usd",
    "per_request_usd",
    "per_1k_tokens_usd",
    "per_document_usd",
    "all_cloud_usd",
    "not_known_for_sure",
    "estimated_usd",
    "at_most_usd",
)


def report_csv(report: Report) -> str:
    """Return the groups of a report as CSV text with a header line."""
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*report.by, *COLUMNS])
    for row in report.groups:
        table.writerow([*(spreadsheet_text(row.keys[key]) for key in report.by), *_figures(row)])
    return text.getvalue()


def _figures(row: GroupRow) -> tuple[str, ...]:
    served, units = row.served, row.units
    counts = (served.attempts, served.answers, served.documents, served.prompt_tokens, served.completion_tokens)
    amounts = (row.used_nano, row.idle_nano, row.cloud_nano, row.other_nano, row.total_nano)
    optional = (units.per_request_nano, units.per_1k_tokens_nano, units.per_document_nano, row.all_cloud_nano)
    return (
        "yes" if row.idle else "no",
        *map(str, counts),
        *map(usd, amounts),
        *("" if nano is None else usd(nano) for nano in optional),
        str(row.unsure),
        usd(row.estimated_nano),
        usd(row.at_most_nano),
    )

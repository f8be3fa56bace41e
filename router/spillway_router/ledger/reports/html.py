"""The report as one HTML file: without scripts and external resources, readable on a phone, light and dark.

Every text from the ledger or the configuration is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from spillway_router.ledger.reports.days import read_zone
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.reports.rows import (
    ALTERNATIVES_HEAD,
    CLOUD_HEAD,
    CREDITS_HEAD,
    FEEDBACK_HEAD,
    GROUP_HEAD,
    OTHER_HEAD,
    PRESSED_HEAD,
    STEPS_HEAD,
    UNITS_HEAD,
    Row,
    alternative_rows,
    cloud_rows,
    credit_rows,
    feedback_rows,
    group_row,
    other_rows,
    pressed_rows,
    step_rows,
    unit_rows,
)
from spillway_router.ledger.reports.verdict import verdict_of
from spillway_router.ledger.reports.words import (
    forecast_words,
    moment,
    notes,
    rental_name,
    share,
    title,
    unpriced,
)

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --used: #2a9d62; --idle: #d9a441; --cloud: #3a86c8; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 72rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
.sides { display: grid; gap: 0 2rem; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td.word { text-align: left; white-space: normal; }
td:first-child, td.word { min-width: 7rem; overflow-wrap: break-word; }
tr.all td { font-weight: 600; } .note { opacity: .75; font-size: .9rem; }
.bar { display: flex; height: .9rem; min-width: 6rem; } .bar i { display: block; min-width: 2px; }
.used { background: var(--used); } .idle { background: var(--idle); } .cloud { background: var(--cloud); }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } .scroll { overflow: visible; } }
.key span { margin-right: 1.2rem; } .key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .3rem; }
"""


def report_html(report: Report) -> str:
    """Return the report as a complete HTML document."""
    name, verdict, warning = escape(title(report)), verdict_of(report), unpriced(report)
    support = " ".join(sentence for sentence in verdict.support if sentence != warning)
    cloud = text_table(CLOUD_HEAD, cloud_rows(report), last_is_sum=True)
    parts = [
        f"<h1>{escape(verdict.sentence)}</h1>",
        *((f"<p>{escape(support)}</p>",) if support else ()),
        f"<p>{name}</p>",
        *((f"<p><strong>{escape(warning)}</strong></p>",) if warning else ()),
        _whole(report),
        f'<div class="sides"><section><h2>Fixed: rented GPU</h2>{_fixed(report)}</section>',
        f"<section><h2>Per request: cloud</h2>{cloud}</section></div>",
        *((text_table(OTHER_HEAD, other_rows(report), last_is_sum=True),) if report.other.rows else ()),
        *((text_table(STEPS_HEAD, step_rows(report)),) if report.steps else ()),
        f"<h2>Cost per unit</h2>{text_table(UNITS_HEAD, unit_rows(report), last_is_sum=True)}",
    ]
    if report.groups:
        parts.append(f"<h2>By {escape(', '.join(report.by))}</h2>{_groups(report)}")
    if report.alternatives or report.all_local is not None:
        parts.append(f"<h2>Instead of both</h2>{text_table(ALTERNATIVES_HEAD, alternative_rows(report))}")
    if report.pressed:
        parts.append(f"<h2>Who asked for better answers</h2>{text_table(PRESSED_HEAD, pressed_rows(report))}")
    if report.credits:
        parts.append(
            f"<h2>Requests and better answers that are counted</h2>{text_table(CREDITS_HEAD, credit_rows(report))}"
        )
    if report.feedback:
        parts.append(f"<h2>What people thought of the answers</h2>{text_table(FEEDBACK_HEAD, feedback_rows(report))}")
    if report.forecast is not None:
        parts.append(f"<h2>Forecast</h2><p>{escape(forecast_words(report.forecast, report.amounts))}</p>")
    parts += [f'<p class="note">{escape(note)}</p>' for note in notes(report)]
    unit = "" if report.currency is not None else " All amounts are in US dollars."
    parts.append(f'<p class="note">Created {moment(report.made_ms, read_zone(report.period.timezone))}.{unit}</p>')
    return document(title(report), parts)


def document(name: str, parts: Iterable[str]) -> str:
    """Return a complete page with this title and these parts, which are HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _bar(used: int, idle: int, cloud: int, whole: int) -> str:
    amounts = (("used", used), ("idle", idle), ("cloud", cloud))
    cells = (
        f'<i class="{name}" style="width:{100 * nano / whole:.2f}%"></i>' for name, nano in amounts if nano and whole
    )
    return f'<div class="bar">{"".join(cells)}</div>'


def _whole(report: Report) -> str:
    money = report.amounts.money
    used, idle, cloud = report.fixed.used_nano, report.fixed.idle_nano, report.cloud.cost_nano
    whole_nano = used + idle + cloud  # other fixed costs have a table of their own
    words = (("used", "GPU used", used), ("idle", "GPU idle", idle), ("cloud", "cloud", cloud))
    key = "".join(
        f'<span><i class="{css}"></i>{word} {money(nano)} ({share(nano, whole_nano)})</span>'
        for css, word, nano in words
    )
    return f'{_bar(used, idle, cloud, whole_nano)}<p class="key">{key}</p>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1, last_is_sum: bool = False) -> str:
    """Return a table of cells that are HTML already; the first `words` columns are text."""
    heading = "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in head)
    body = list(rows)
    lines = []
    for number, cells in enumerate(body):
        css = ' class="all"' if last_is_sum and number == len(body) - 1 else ""
        row = "".join(f'<td class="word">{c}</td>' if i < words else f"<td>{c}</td>" for i, c in enumerate(cells))
        lines.append(f"<tr{css}>{row}</tr>")
    top = f"<thead><tr>{heading}</tr></thead>" if head else ""
    return f'<div class="scroll" tabindex="0"><table>{top}<tbody>{"".join(lines)}</tbody></table></div>'


def _fixed(report: Report) -> str:
    fixed, money = report.fixed, report.amounts.money
    rows = [("price", f"${escape(fixed.price_per_hour_usd)} per GPU-hour x {fixed.gpus}", "")]
    rows += [
        (escape(rental_name(rental)), f"{rental.gpu_hours:,.3f} GPU-hours", money(rental.billed_nano))
        for rental in fixed.rentals
    ]
    rows += [
        ("billed", f"{fixed.gpu_hours:,.3f} GPU-hours", money(fixed.billed_nano)),
        ("used", f"{fixed.utilisation:.1%}", money(fixed.used_nano)),
        ("idle", f"{1 - fixed.utilisation:.1%}", money(fixed.idle_nano)),
    ]
    rows += [
        (
            escape(f"{row.backend} ({row.model})"),
            f"{row.served.answers:,} answers, {row.gpu_seconds:,.1f} GPU-s",
            money(row.used_nano),
        )
        for row in fixed.rows
    ]
    return _table((), rows)


def text_table(head: Sequence[str], rows: Iterable[Row], *, last_is_sum: bool = False) -> str:
    """Return a table of plain texts."""
    return _table(head, [tuple(map(escape, row)) for row in rows], last_is_sum=last_is_sum)


def _groups(report: Report) -> str:
    most_nano = max(row.total_nano for row in report.groups)
    rows = [
        (
            *map(escape, group_row(row, report.by, report.amounts)),
            _bar(row.used_nano, row.idle_nano, row.cloud_nano, most_nano),
        )
        for row in report.groups
    ]
    return _table((*map(escape, report.by), *GROUP_HEAD, ""), rows, words=len(report.by))

"""A plain HTML document with tables, without scripts and external resources: readable on a phone, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from spillway_router.ledger.reports.rows import Row

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


def document(name: str, parts: Iterable[str]) -> str:
    """Return a complete page with this title and these parts, which are HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


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


def text_table(head: Sequence[str], rows: Iterable[Row], *, last_is_sum: bool = False) -> str:
    """Return a table of plain texts."""
    return _table(head, [tuple(map(escape, row)) for row in rows], last_is_sum=last_is_sum)

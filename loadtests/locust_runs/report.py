"""The report: one self-contained HTML page, and the same figures as JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtests.locust_runs.samples import RunFigures
from loadtests.locust_runs.scenarios import SCALE
from loadtests.locust_runs.session import ScenarioRun, Session, SweepPoint
from spillway_router.replay import charts

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1240px;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:1rem 0;font-size:13px}td,th{padding:.25rem .45rem;border-bottom:1px solid #ddd;
text-align:right}td:first-child,th:first-child{text-align:left}.green{color:#1a7f37}.red{color:#b3261e}
td:first-child{white-space:nowrap}th[colspan]{text-align:center;border-left:1px solid #ddd}.wide{overflow-x:auto}
figure{display:inline-block;vertical-align:top;margin:.4rem}h2{margin-top:2rem}.note{color:#57606a;font-size:13px}
"""
_COLUMNS = (
    ("requests", ("sent", "failed", "per s")),
    ("first token, s", ("p50", "p95", "p99")),
    ("whole answer, s", ("p50", "p95")),
    ("per token, ms", ("p50", "p95")),
    ("between events, ms", ("p95",)),
    ("output", ("tokens/s",)),
    ("share of requests", ("cloud", "in time", "first token late", "tokens slow")),
    ("cost, USD", ("per 1000",)),
    ("sent late, ms", ("p99",)),
)
_GLOSSARY = """<ul class=note>
<li><b>In time</b>: answered whole, the first token and the pace after it both within the promise. What is not is either
<b>first token late</b>, <b>tokens slow</b> (more time per token, on average over the answer, than promised), or failed;
a few are both late and slow. An answer that is not streamed has to be whole by when a stream at the promised pace would
have ended.</li>
<li><b>Cloud</b>: share of the answers that came from the cloud. <b>USD per 1000</b> requests: the cloud's charges and
the GPU's price for the time of the run, used or idle.</li>
<li><b>Per token</b>: (last token - first token) / (tokens - 1) of an answer. <b>Between events</b>: mean pause between
two events of a stream (inter-token latency). Percentiles are over answers.</li>
<li><b>Sent late</b>: how far the load generator was behind its schedule; latencies count from the schedule all the
same.</li></ul>"""


def write(folder: Path, session: Session, machine: Mapping[str, Any], versions: Mapping[str, str], date: str) -> Path:
    """Write report.html and report.json; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    page.write_text(render(session, machine, versions, date), encoding="utf-8")
    data = {
        "date": date,
        "machine": machine,
        "versions": versions,
        "capacity_chats_per_s": session.capacity,
        "missing": session.missing,
        "failed": session.failed,
        "promise_s": asdict(session.settings.promise),
        "scenarios": [
            {"name": r.name, "planned": r.planned, "wrong": r.wrong, **asdict(r.figures)} for r in session.runs
        ],
        "sweep": [
            {"system": p.system, "multiple": p.multiple, "simulated": p.simulated, **asdict(p.figures)}
            for p in session.points
        ],
    }
    (folder / "report.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return page


def render(session: Session, machine: Mapping[str, Any], versions: Mapping[str, str], date: str) -> str:
    """Return the page."""
    promise = session.settings.promise
    about = ", ".join(f"{k} {v}" for k, v in {**machine, **versions}.items())
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Spillway load tests</title>",
        f"<style>{_STYLE}</style><h1>Spillway load tests</h1>",
        f"<p>{html.escape(date)}. {html.escape(about)}.</p>",
        "<p>Engine: a fake one that batches by iteration on the step times of an A100 with Llama-3-8B, "
        f"{SCALE:g} times slower; alone it holds {session.capacity:.2f} chats/s with 99% in time (simulated): "
        f"the load called 1 x. Promise: first token within {promise.ttft_s:g} s, then {1000 * promise.tpot_s:g} ms "
        "per token. "
        "Router, cloud stand-in and load generator are real processes on the same machine; arrivals are "
        f"{session.settings.loop}-loop and times count from the moment a request was due.</p>",
    ]
    if session.missing:
        parts.append(f"<p class=red>Incomplete. Without a result: {html.escape(', '.join(session.missing))}.</p>")
    parts += [f"<p class=red>{html.escape(name)}: {html.escape(why)}</p>" for name, why in session.failed.items()]
    parts += ["<h2>How to read it</h2>", _GLOSSARY]
    parts += ["<h2>Scenarios</h2>", _table([(r.name, r.figures, r.wrong) for r in session.runs])]
    about_runs = "".join(f"<li>{html.escape(run.name)}: {html.escape(run.about)}</li>" for run in session.runs)
    parts.append(f"<ul class=note>{about_runs}</ul>")
    parts += [_run_chart(run, promise.ttft_s) for run in session.runs if any(s.stream for s in run.samples)]
    if session.points:
        parts += _sweep(session)
    return "\n".join(parts) + "</html>\n"


def _sweep(session: Session) -> list[str]:
    live = [p for p in session.points if not p.simulated]
    promise = session.settings.promise
    x = f"offered load (1 x = {session.capacity:.2f} chats/s)"
    pace = 1000 * promise.tpot_s
    attained: dict[str, dict[str, float]] = {}
    for point in session.points:
        name = point.system + (" [sim]" if point.simulated else "")
        attained.setdefault(f"{point.multiple:g} x", {})[name] = 100 * point.figures.slo_share

    def by_load(title: str, value: Callable[[RunFigures], float], y: str, guide: float | None = None) -> str:
        log = guide is not None
        return charts.lines(
            title,
            _series(live, value),
            charts.Axes(x=x, y=y, guide=guide, guide_name="promise" if log else "", log=log),
        )

    figures = [
        by_load("Time to first token, median", lambda f: f.ttft_p50_s, "time (s)", promise.ttft_s),
        by_load("Time to first token, 99th percentile", lambda f: f.ttft_p99_s, "time (s)", promise.ttft_s),
        by_load("Time per output token, 95th percentile", lambda f: 1000 * f.tpot_p95_s, "time (ms)", pace),
        by_load("Pause between events (ITL), 95th percentile", lambda f: 1000 * f.itl_p95_s, "time (ms)", pace),
        by_load("Overflow: sent to the cloud", lambda f: 100 * f.cloud_share, "% of answers"),
        by_load("Cost, GPU hour included", lambda f: f.usd_per_1000, "USD per 1000 requests"),
        by_load("Promise kept (SLO attainment)", lambda f: 100 * f.slo_share, "% of requests"),
        charts.bars("Promise kept (SLO attainment), by policy", attained, charts.Axes("offered load", "% of requests")),
    ]
    rows = [(f"{p.multiple:g} x {p.system}", p.figures, ()) for p in live]
    return [
        "<h2>Offered load against capacity</h2>",
        "<p class=note>The same chats at the same moments for every system. [sim]: other overflow rules on these "
        "arrivals, through the simulator; requests sent to the cloud count as in time there. "
        "Scales of times are logarithmic.</p>",
        *(f"<figure>{figure}</figure>" for figure in figures),
        _table(rows),
        _simulated([p for p in session.points if p.simulated]),
    ]


def _series(points: Sequence[SweepPoint], value: Callable[[RunFigures], float]) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        series.setdefault(point.system, []).append((point.multiple, value(point.figures)))
    return series


def _run_chart(run: ScenarioRun, guide: float) -> str:
    by_place: dict[str, list[tuple[float, float]]] = {}
    for sample in run.samples:
        if sample.stream and not sample.fault:
            by_place.setdefault(sample.backend or "?", []).append((sample.due_s, sample.ttft_s))
    title = f"{run.name}: each stream, by who answered"
    axes = charts.Axes(
        x="moment the request was due (s)", y="time to first token (s)", guide=guide, guide_name="promise"
    )
    return f"<figure>{charts.dots(title, dict(sorted(by_place.items(), reverse=True)), axes)}</figure>"


def _table(rows: Sequence[tuple[str, RunFigures, Sequence[str]]]) -> str:
    groups = "".join(f"<th colspan={len(names)}>{group}</th>" for group, names in _COLUMNS)
    head = "".join(f"<th>{name}</th>" for _, names in _COLUMNS for name in names)
    body = []
    for name, f, wrong in rows:
        streamed = (
            f"{f.ttft_p50_s:.3f}", f"{f.ttft_p95_s:.3f}", f"{f.ttft_p99_s:.3f}", f"{f.done_p50_s:.2f}",
            f"{f.done_p95_s:.2f}", f"{1000 * f.tpot_p50_s:.1f}", f"{1000 * f.tpot_p95_s:.1f}",
            f"{1000 * f.itl_p95_s:.1f}",
        )  # fmt: skip
        if not f.ttft_p99_s:  # nothing was streamed
            streamed = ("-", "-", "-", *streamed[3:5], "-", "-", "-")
        cells = (
            f.requests, f.failed, f"{f.offered_per_s:.2f}", *streamed, f"{f.output_tokens_per_s:.0f}",
            f"{f.cloud_share:.1%}", f"{f.slo_share:.1%}", f"{f.late_share:.1%}", f"{f.slow_share:.1%}",
            f"{f.usd_per_1000:.3f}", f"{1000 * f.lag_p99_s:.0f}",
        )  # fmt: skip
        verdict = "<td class=green>ok</td>" if not wrong else f"<td class=red>{html.escape('; '.join(wrong))}</td>"
        body.append(f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{c}</td>" for c in cells) + verdict + "</tr>")
    return (
        f"<div class=wide><table><tr><th></th>{groups}<th></th></tr><tr><th></th>{head}<th></th></tr>"
        f"{''.join(body)}</table></div>"
    )


def _simulated(points: Sequence[SweepPoint]) -> str:
    multiples = list(dict.fromkeys(p.multiple for p in points))
    head = "".join(f"<th>{m:g} x: cloud / in time</th>" for m in multiples)
    names = list(dict.fromkeys(p.system for p in points))
    figures = {(p.system, p.multiple): p.figures for p in points}
    rows = []
    for name in names:
        cells = [figures[name, m] for m in multiples]
        shown = "".join(f"<td>{f.cloud_share:.1%} / {f.slo_share:.1%}</td>" for f in cells)
        rows.append(f"<tr><td>{html.escape(name)} [sim]</td>{shown}</tr>")
    return f"<table><tr><th>rule</th>{head}</tr>{''.join(rows)}</table>"

"""The report: one HTML page that needs nothing else, and the same figures as JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtests.swarm import charts
from loadtests.swarm.samples import Figures
from loadtests.swarm.scenarios import SCALE
from loadtests.swarm.session import Point, Run, Session

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:1rem 0;font-size:13px}td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;
text-align:right}td:first-child,th:first-child{text-align:left}.green{color:#1a7f37}.red{color:#b3261e}
figure{display:inline-block;margin:.4rem}h2{margin-top:2rem}.note{color:#57606a;font-size:13px}
"""
_COLUMNS = (
    "requests", "failed", "offered /s", "first token p50 s", "p95 s", "p99 s",
    "whole answer p50 s", "p95 s", "per token p50 ms", "p95 ms",
    "between events p95 ms", "output tokens/s", "cloud", "in time", "USD per 1000", "sent late p99 ms",
)  # fmt: skip


def write(folder: Path, session: Session, machine: Mapping[str, Any], versions: Mapping[str, str], date: str) -> Path:
    """Write report.html and report.json; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    page.write_text(render(session, machine, versions, date), encoding="utf-8")
    data = {
        "date": date,
        "machine": machine,
        "versions": versions,
        "capacity_chats_per_s": session.capacity,
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
    """The page."""
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
    parts += ["<h2>Scenarios</h2>", _table([(r.name, r.figures, r.wrong) for r in session.runs])]
    parts += [f"<p class=note>{html.escape(run.name)}: {html.escape(run.about)}.</p>" for run in session.runs]
    parts += [_run_chart(run, promise.ttft_s) for run in session.runs if any(s.stream for s in run.samples)]
    if session.points:
        parts += _sweep(session)
    return "\n".join(parts) + "</html>\n"


def _sweep(session: Session) -> list[str]:
    live = [p for p in session.points if not p.simulated]
    promise = session.settings.promise
    x = "offered load (x capacity)"
    attained: dict[str, dict[str, float]] = {}
    for point in session.points:
        name = point.system + (" [sim]" if point.simulated else "")
        attained.setdefault(f"{point.multiple:g} x", {})[name] = 100 * point.figures.slo_share
    figures = [
        charts.lines("First token, p50", _series(live, lambda f: f.ttft_p50_s), x, "s", guide=promise.ttft_s),
        charts.lines("First token, p99", _series(live, lambda f: f.ttft_p99_s), x, "s", guide=promise.ttft_s),
        charts.lines("Sent to the cloud", _series(live, lambda f: 100 * f.cloud_share), x, "% of answers"),
        charts.lines("Cost, GPU hour included", _series(live, lambda f: f.usd_per_1000), x, "USD per 1000 requests"),
        charts.lines("In time", _series(live, lambda f: 100 * f.slo_share), x, "% of requests"),
        charts.bars("In time, by policy", attained, "% of requests"),
    ]
    rows = [(f"{p.multiple:g} x {p.system}", p.figures, ()) for p in live]
    return [
        "<h2>Offered load against capacity</h2>",
        "<p class=note>The same chats at the same moments for every system. [sim]: other overflow rules on these "
        "arrivals, through the simulator; requests sent to the cloud count as in time there.</p>",
        *(f"<figure>{figure}</figure>" for figure in figures),
        _table(rows),
        _simulated([p for p in session.points if p.simulated]),
    ]


def _series(points: Sequence[Point], value: Any) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        found.setdefault(point.system, []).append((point.multiple, value(point.figures)))
    return found


def _run_chart(run: Run, guide: float) -> str:
    by_place: dict[str, list[tuple[float, float]]] = {}
    for sample in run.samples:
        if sample.stream and not sample.fault:
            by_place.setdefault(sample.backend or "?", []).append((sample.due_s, sample.ttft_s))
    title = f"{run.name}: first token by moment due"
    return f"<figure>{charts.dots(title, dict(sorted(by_place.items(), reverse=True)), 's', 's', guide=guide)}</figure>"


def _table(rows: Sequence[tuple[str, Figures, Sequence[str]]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("", *_COLUMNS, ""))
    body = []
    for name, f, wrong in rows:
        cells = (
            f.requests, f.failed, f"{f.offered_per_s:.2f}", f"{f.ttft_p50_s:.3f}", f"{f.ttft_p95_s:.3f}",
            f"{f.ttft_p99_s:.3f}", f"{f.done_p50_s:.2f}", f"{f.done_p95_s:.2f}",
            f"{1000 * f.tpot_p50_s:.1f}", f"{1000 * f.tpot_p95_s:.1f}",
            f"{1000 * f.itl_p95_s:.1f}", f"{f.output_tokens_per_s:.0f}", f"{f.cloud_share:.1%}", f"{f.slo_share:.1%}",
            f"{f.usd_per_1000:.3f}", f"{1000 * f.lag_p99_s:.0f}",
        )  # fmt: skip
        verdict = "<td class=green>ok</td>" if not wrong else f"<td class=red>{html.escape('; '.join(wrong))}</td>"
        body.append(f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{c}</td>" for c in cells) + verdict + "</tr>")
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


def _simulated(points: Sequence[Point]) -> str:
    multiples = list(dict.fromkeys(p.multiple for p in points))
    head = "".join(f"<th>{m:g} x: cloud / in time</th>" for m in multiples)
    names = list(dict.fromkeys(p.system for p in points))
    found = {(p.system, p.multiple): p.figures for p in points}
    rows = []
    for name in names:
        cells = [found[name, m] for m in multiples]
        shown = "".join(f"<td>{f.cloud_share:.1%} / {f.slo_share:.1%}</td>" for f in cells)
        rows.append(f"<tr><td>{html.escape(name)} [sim]</td>{shown}</tr>")
    return f"<table><tr><th>rule</th>{head}</tr>{''.join(rows)}</table>"

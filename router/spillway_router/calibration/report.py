"""The report of a calibration: three drawings (PNG), and one self-contained HTML page with the drawings and figures."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from spillway_router.calibration.build import Built
from spillway_router.calibration.measures import Floats, auroc, brier, ece, reliability

mpl.use("Agg")
from matplotlib.figure import Figure as Drawing

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2733}"
    "img{max-width:100%}table{border-collapse:collapse}td,th{padding:.2rem .8rem;border-bottom:1px solid #d5dce4;"
    "text-align:right}td:first-child,th:first-child{text-align:left}"
)


def write(built: Built, folder: Path, stem: str) -> list[Path]:
    """Write `stem`-reliability.png, -risk-coverage.png, -cost-quality.png and `stem`.html; return their paths."""
    p = np.array(built.confidences, dtype=np.float64)
    right = np.array([float(row.right) for row in built.certifying])
    drawings = {
        "reliability": _reliability(p, right),
        "risk-coverage": _risk_coverage(built, p, right),
        "cost-quality": _cost_quality(built, p, right),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths, pictures = [], {}
    for name, drawing in drawings.items():
        buffer = io.BytesIO()
        drawing.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        pictures[name] = buffer.getvalue()
        paths.append(folder / f"{stem}-{name}.png")
        paths[-1].write_bytes(pictures[name])
    page = folder / f"{stem}.html"
    page.write_text(_page(built, p, right, pictures), encoding="utf-8")
    return [*paths, page]


def _axes(title: str, x: str, y: str) -> tuple[Drawing, Any]:
    drawing = Drawing(figsize=(6.4, 4.4))
    axes = drawing.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return drawing, axes


def _reliability(p: Floats, right: Floats) -> Drawing:
    drawing, axes = _axes("Reliability", "confidence", "share of answers right")
    points = reliability(p, right)
    axes.plot([0, 1], [0, 1], color="#8a97a5", linestyle="--", label="perfect")
    x, y, n = zip(*points, strict=True)
    axes.scatter(x, y, s=[20 + 400 * size / len(p) for size in n], color="#1663c7", label="answers, by size")
    axes.legend(loc="upper left")
    return drawing


def _risk_by_coverage(score: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Return the coverages of the surest 1, 2, ..., n answers, and the error rate at each coverage."""
    wrong = 1.0 - right[np.argsort(-score, kind="stable")]
    answers = np.arange(1, len(wrong) + 1)
    return answers / len(wrong), np.cumsum(wrong) / answers


def _best_single_score(built: Built) -> Floats:
    """Return the best single score of every certifying answer."""
    name = built.fitted.best_single
    fill = built.fitted.stage.fill[built.fitted.stage.features.index(name)]
    return np.array([row.scores.get(name, fill) for row in built.certifying])


def _risk_coverage(built: Built, p: Floats, right: Floats) -> Drawing:
    drawing, axes = _axes("Risk and coverage", "share of answers kept local", "share of the kept answers wrong")
    axes.plot(*_risk_by_coverage(p, right), color="#1663c7", label="calibrated confidence")
    single_label = f"best single score ({built.fitted.best_single})"
    axes.plot(*_risk_by_coverage(_best_single_score(built), right), color="#c76a16", label=single_label)
    axes.axhline(built.data["certificate"]["alpha"], color="#8a97a5", linestyle="--", label="alpha")
    if built.certified.threshold is not None:
        axes.axvline(built.certified.coverage, color="#2b8a3e", linestyle=":", label="certified")
    axes.legend(loc="upper left")
    return drawing


def _cost_quality(built: Built, p: Floats, right: Floats) -> Drawing:
    drawing, axes = _axes(
        "Cost and quality, if every escalated answer were right", "share of requests paid for", "share of answers right"
    )
    for score, name, colour in (
        (p, "calibrated confidence", "#1663c7"),
        (_best_single_score(built), "best single score", "#c76a16"),
    ):
        coverage, risk = _risk_by_coverage(score, right)
        axes.plot(1.0 - coverage, 1.0 - coverage * risk, color=colour, label=name)
    axes.plot([0, 1], [right.mean(), 1.0], color="#8a97a5", linestyle="--", label="escalating by chance")
    axes.legend(loc="lower right")
    return drawing


def _page(built: Built, p: Floats, right: Floats, pictures: dict[str, bytes]) -> str:
    certificate = built.data["certificate"]
    rows = [("Answers used to fit", f"{built.data['made']['fitted_on']}"), ("Answers used to certify", f"{len(p)}")]
    rows += [
        ("Share of right answers", f"{right.mean():.1%}"),
        ("Model", built.fitted.chosen),
        ("AUROC", f"{auroc(p, right):.4f}"),
    ]
    rows += [
        (
            f"AUROC of the best single score, {built.fitted.best_single}",
            f"{auroc(_best_single_score(built), right):.4f}",
        )
    ]
    rows += [("Expected calibration error", f"{ece(p, right):.4f}"), ("Brier score", f"{brier(p, right):.4f}")]
    threshold = certificate["threshold"]
    if threshold is None:
        promise = (
            f"No threshold could be certified for alpha {certificate['alpha']:g}. "
            "Provide more labels, or choose a larger alpha."
        )
    else:
        promise = (
            f"The router keeps answers at or above {threshold:.4f}: {certificate['coverage']:.1%} of them. "
            f"With probability {1 - certificate['delta']:.0%}, at most {certificate['alpha']:.1%} of the kept answers "
            f"are wrong (observed: {certificate['errors']} of {built.certified.kept}), "
            "for traffic like the labelled answers."
        )
    lines = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in rows)
    images = "".join(
        f'<h2>{name.replace("-", " ").capitalize()}</h2><img alt="{name}" '
        f'src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        for name, picture in pictures.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Calibration</title><style>{STYLE}</style>'
        f"<h1>Calibration</h1><p>{html.escape(promise)}</p><table>{lines}</table>{images}</html>\n"
    )

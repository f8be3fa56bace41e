"""`spillway calibrate`: turn labelled answers into a calibration file with a certified threshold, and a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spillway_router.commands.common import JsonOption, fail, rows_of

if TYPE_CHECKING:
    from spillway_router.calibration.build import Built
    from spillway_router.calibration.labelled import Labelled

MISSING_EXTRA = (
    "calibrating needs scikit-learn and matplotlib ({error}): in the checkout, run pip install '.[calibrate]'"
)

LabelledArgument = Annotated[
    list[Path], typer.Argument(help="JSON lines with the scores or tokens of an answer, and whether it was right.")
]


def calibrate(
    labelled: LabelledArgument,
    out: Annotated[Path, typer.Option("--output", "--out", help="The calibration file to write.")] = Path(
        "calibration.json"
    ),
    model: Annotated[str, typer.Option(help="The served model name that the calibration holds for; * for any.")] = "*",
    weights: Annotated[
        Path | None,
        typer.Option(help="The model's folder; the file records marks of its weights and chat template."),
    ] = None,
    quantisation: Annotated[
        str, typer.Option(help="The quantisation that it holds for, such as awq or bfloat16; * for any.")
    ] = "*",
    task: Annotated[str, typer.Option(help="chat, json, code or a document schema's name; * for any.")] = "*",
    alpha: Annotated[
        float, typer.Option(min=0.0001, max=0.9999, help="The share of kept answers that may be wrong.")
    ] = 0.05,
    delta: Annotated[
        float, typer.Option(min=0.0001, max=0.9999, help="The probability that the promise is broken.")
    ] = 0.1,
    report: Annotated[Path | None, typer.Option(help="Folder for the charts and the HTML page.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit confidence on labelled answers and certify a threshold: at most ALPHA of the kept answers wrong.

    Each line is one JSON object: {"right": true, "scores": {"mean": -0.01, ...}}, or {"right": true, "text": "...",
    "tokens": [["token", logprob, [best alternatives]], ...], "source": "...", "schema": {...}}. Optional: "group" (rows
    that belong together, such as one document), "values" ({"/field": true}), "self_check" ({"p_true": 0.9}, where the
    model checked its own answer). 60% of the groups fit the curve, the rest certify the threshold.
    """
    try:
        from spillway_router.calibration.build import Promise, build
        from spillway_router.calibration.fit import FitError
    except ImportError as error:
        fail(MISSING_EXTRA.format(error=error))
    from spillway_router.calibration.fingerprint import FingerprintError, fingerprint
    from spillway_router.core.confidence.calibration import ANY, CalibrationKey

    rows = _read(labelled)
    try:
        marks = fingerprint(weights) if weights is not None else {}
        key = CalibrationKey(
            model=model,
            quantisation=quantisation,
            template=marks.get("template", ANY),
            task=task,
            weights=marks.get("weights", ANY),
        )
        provenance = {"on": datetime.now(UTC).date().isoformat(), "labelled": len(rows)}
        built = build(rows, key, Promise(alpha, delta), provenance)
    except (FitError, FingerprintError) as error:
        fail(str(error))
    try:
        out.write_text(built.text, encoding="utf-8")
    except OSError as error:
        fail(f"can't write {out}: {error.strerror}; choose another --output")
    charts = _report(built, report, out.stem)
    _print_result(built, out, charts, as_json)


def _read(paths: Sequence[Path]) -> list[Labelled]:
    from spillway_router.calibration.labelled import LabelError, read

    return rows_of(paths, read, LabelError)


def _report(built: Built, folder: Path | None, stem: str) -> list[Path]:
    if folder is None:
        return []
    from spillway_router.calibration.report import write

    return write(built, folder, stem)


def _print_result(built: Built, out: Path, charts: Sequence[Path], as_json: bool) -> None:
    certificate = built.data["certificate"]
    summary: dict[str, Any] = {
        "file": str(out),
        "model": built.fitted.chosen,
        "best_single": built.fitted.best_single,
        "certificate": certificate,
        "report": [str(path) for path in charts],
    }
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    typer.echo(f"{out}: fitted on {built.data['made']['fitted_on']} answers ({built.fitted.chosen})")
    alpha, delta = certificate["alpha"], certificate["delta"]
    n, threshold = certificate["n"], certificate["threshold"]
    if threshold is None:
        fewest = certificate["labels_needed_at_least"]
        typer.echo(
            f"No threshold could be certified on {n} answers: at most {alpha:.1%} wrong needs more labels (no fewer "
            f"than {fewest} kept answers without an error) or a larger --alpha."
        )
    else:
        typer.echo(
            f"Certified on {n} answers: at a confidence of {threshold:.4f} or more, {certificate['coverage']:.1%} are "
            f"kept, and at most {alpha:.1%} of those are wrong with probability {1 - delta:.0%}."
        )
    for path in charts:
        typer.echo(f"  {path}")
    typer.echo(f"Put it into spillway.yaml:  confidence: {{calibration: {out}}}")

"""`spillway.json` beside a converted model: its origin, how it was converted, what the quality gate measured, its
verdict.

A verification holds for the weight files that were judged, so their names and sizes are part of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "spillway.json"


@dataclass(frozen=True, slots=True)
class Verification:
    """The verdict on a converted model.

    `figures` are the gate's (see convert/gate.py); `reasons` say what fell short; `weights` maps file names to bytes.
    """

    verified: bool
    reasons: tuple[str, ...]
    figures: dict[str, Any]
    source: dict[str, Any]
    recipe: dict[str, Any]
    weights: dict[str, int] = field(default_factory=dict)
    format: int = 2


def weight_sizes(folder: Path) -> dict[str, int]:
    """Return the folder's weight files and their sizes in bytes."""
    return {file.name: file.stat().st_size for file in sorted(folder.glob("*.safetensors"))}


def write(folder: Path, verification: Verification) -> None:
    """Write the verdict beside the model, atomically."""
    partial = folder / f"{FILE}.partial"
    partial.write_text(json.dumps(asdict(verification), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / FILE)


def warning(folder: Path) -> str | None:
    """Return what `serve` should warn of, None for a verified model and for one that Spillway did not convert."""
    file = folder / FILE
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        # Format 1 called the verdict `blessed`.
        verified = bool(content["verified"] if "verified" in content else content["blessed"])
        weights, reasons = dict(content["weights"]), [str(reason) for reason in content["reasons"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{file} can't be read ({error!r}): convert the model again, its quality is unknown."
    if not verified:
        return f"{folder.name} did not pass its quality gate: {' '.join(reasons)} The figures are in {file}."
    if weights != weight_sizes(folder):
        return f"the weights in {folder} are not the ones that passed the quality gate: convert the model again."
    return None

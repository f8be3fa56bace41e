"""`spillway.json` beside a converted model: where it came from, how it was made, what the gate measured, its verdict.

A blessing holds for the very weight files that were judged: their names and sizes are part of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "spillway.json"


@dataclass(frozen=True, slots=True)
class Blessing:
    """The verdict on a converted model. `figures` are the gate's (see gate.py), `reasons` say what fell short;
    `weights` maps file names to bytes."""

    blessed: bool
    reasons: tuple[str, ...]
    figures: dict[str, Any]
    source: dict[str, Any]
    recipe: dict[str, Any]
    weights: dict[str, int] = field(default_factory=dict)
    format: int = 1


def weight_sizes(folder: Path) -> dict[str, int]:
    """The folder's weight files and their sizes in bytes."""
    return {file.name: file.stat().st_size for file in sorted(folder.glob("*.safetensors"))}


def write(folder: Path, blessing: Blessing) -> None:
    """Write the verdict beside the model, whole or not at all."""
    partial = folder / f"{FILE}.partial"
    partial.write_text(json.dumps(asdict(blessing), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / FILE)


def warning(folder: Path) -> str | None:
    """What `serve` should say of this model, None when there is nothing: a foreign checkpoint, or a blessed one."""
    file = folder / FILE
    if not file.exists():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        blessed, weights, reasons = bool(found["blessed"]), dict(found["weights"]), [str(r) for r in found["reasons"]]
    except (ValueError, KeyError, TypeError) as error:
        return f"{file} can't be read ({error!r}): convert the model again, its quality is unknown."
    if not blessed:
        return f"{folder.name} did not pass its quality gate: {' '.join(reasons)} The figures are in {file}."
    if weights != weight_sizes(folder):
        return f"the weights in {folder} are not those that passed the quality gate: convert the model again."
    return None

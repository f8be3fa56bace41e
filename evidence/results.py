"""Results: what was measured, judged against its promise, one JSON file per id, committed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evidence.promises import Promise


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a measure function found. `value` None: it could not be measured, and `details["reason"]` says why.

    `n` counts the samples behind `value`; `versions` names what was measured besides Spillway itself.
    """

    value: float | None
    n: int
    details: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def not_measured(reason: str) -> Measurement:
    """A measurement that failed to happen: it never holds, and the reason is published."""
    return Measurement(None, 0, {"reason": reason})


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When and where a measurement was taken, and how to take it again. `date` is UTC, ISO 8601."""

    command: str
    date: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """One published result; its fields are the JSON file's."""

    id: str
    value: float | None
    unit: str
    n: int
    holds: bool
    command: str
    date: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    details: Mapping[str, Any]


def judge(promise: Promise, found: Measurement, taken: Circumstances) -> Result:
    """The result of one measurement: `holds` comes from the promise's bound and least n, from nothing else."""
    return Result(
        id=promise.id,
        value=found.value,
        unit=promise.unit,
        n=found.n,
        holds=promise.holds(found.value, found.n),
        command=taken.command,
        date=taken.date,
        machine=taken.machine,
        versions={**taken.versions, **found.versions},
        details=found.details,
    )


def write_result(result: Result, folder: Path) -> Path:
    """Writes `folder/<id>.json` and returns its path."""
    file = folder / f"{result.id}.json"
    file.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return file


def read_results(folder: Path, promises: Mapping[str, Promise]) -> dict[str, Result]:
    """The results of the known promises that have a file.

    Raises:
        ValueError: a file whose fields are not exactly a result's.
    """
    found: dict[str, Result] = {}
    for name in promises:
        file = folder / f"{name}.json"
        if not file.exists():
            continue
        try:
            found[name] = Result(**json.loads(file.read_text(encoding="utf-8")))
        except TypeError as error:
            raise ValueError(f"{file}: {error}") from error
    return found

"""The results: measured values, judged against their promises and committed as one JSON file per id."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from evidence.promises import Promise


@dataclass(frozen=True, slots=True)
class Measurement:
    """The outcome of a measure function. A `value` of None means it failed, and `details["reason"]` says why.

    `n` counts the samples behind `value`; `versions` names the software that took part besides Spillway itself.
    """

    value: float | None
    n: int
    details: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def not_measured(reason: str) -> Measurement:
    """Return the outcome of a measurement that could not be taken. It never holds, and the page shows the reason."""
    return Measurement(None, 0, {"reason": reason})


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The time and place of a measurement and the command that repeats it. `date` is UTC in ISO 8601."""

    command: str
    date: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Result:
    """One published result, with exactly the fields of its JSON file."""

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


def judge(promise: Promise, measurement: Measurement, taken: Circumstances) -> Result:
    """Return the result of one measurement. `holds` follows from the promise's bound and smallest n alone."""
    return Result(
        id=promise.id,
        value=measurement.value,
        unit=promise.unit,
        n=measurement.n,
        holds=promise.holds(measurement.value, measurement.n),
        command=taken.command,
        date=taken.date,
        machine=taken.machine,
        versions={**taken.versions, **measurement.versions},
        details=measurement.details,
    )


def rejudge(promise: Promise, result: Result) -> Result:
    """Return a published result with `holds` computed from today's bound, which may have moved since."""
    return replace(result, holds=promise.holds(result.value, result.n))


def write_result(result: Result, folder: Path) -> Path:
    """Write `folder/<id>.json` and return its path."""
    file = folder / f"{result.id}.json"
    file.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return file


def read_results(folder: Path, promises: Mapping[str, Promise]) -> dict[str, Result]:
    """Read the results of those promises that have a file, by id.

    Raises:
        ValueError: the fields of a file are not exactly those of a result.
    """
    results: dict[str, Result] = {}
    for name in promises:
        file = folder / f"{name}.json"
        if not file.exists():
            continue
        try:
            results[name] = Result(**json.loads(file.read_text(encoding="utf-8")))
        except TypeError as error:
            raise ValueError(f"{file}: {error}") from error
    return results

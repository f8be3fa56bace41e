"""Result files of measured engines, and which of them applies to a plan.

measured/<hardware>-<model>[-<quantisation>].json: {"format": 2, "hardware", "device", "devices", "model",
"quantisation", "runs": [...]}, with one run per set of vLLM flags, and its date, machine, versions and rates. `python
-m loadtests.gpu_profile measure --save` writes them; they are shipped with this package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spillway_server.planning import arguments

FORMAT = 2
FOLDER = Path(__file__).resolve().parent / "measured"
# Where an engine listened and what it was called does not change what was measured.
_ADDRESS = {"--host", "--port", "--uds", "--served-model-name", "--model"}
# Kinds of device that are not one product: a CPU, and a GPU without a profile. Their hardware must match by name.
_UNNAMED = ("cpu", "other")


class ResultError(ValueError):
    """The file is not a result file; the message says why."""


@dataclass(frozen=True, slots=True)
class MeasuredRates:
    """The rates of an engine: tokens/s, seconds, and microseconds of the whole engine per token.

    The formulas are in loadtests/gpu_profile/fit.py.
    """

    prefill_tokens_per_s: float
    step_time_s: float
    step_time_s_per_sequence: float
    kv_s_per_token: float
    best_sequences: int
    prefill_us: float
    decode_us: float
    kv_us: float


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: the hardware by name, the kind of device (a profile's key), the number of devices, the model as
    it is served, and its quantisation (None: none)."""

    hardware: str
    device: str
    devices: int
    model: str
    quantisation: str | None

    def covers(self, other: Subject) -> bool:
        """Return whether a measurement of this subject applies to the other: the same model on the same kind of
        device."""
        same_kind = self.hardware == other.hardware if self.device in _UNNAMED else True
        mine = (self.device, self.devices, self.model, self.quantisation)
        return same_kind and mine == (other.device, other.devices, other.model, other.quantisation)


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One measurement: its date, vLLM's version and flags, and the rates."""

    subject: Subject
    date: str
    engine_version: str
    flags: tuple[str, ...]
    rates: MeasuredRates


def path_of(subject: Subject, folder: Path = FOLDER) -> Path:
    """Return the path of a subject's result file."""
    parts = (subject.hardware, subject.model, *([subject.quantisation] if subject.quantisation else []))
    return folder / ("-".join(re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-") for part in parts) + ".json")


def load(path: Path) -> dict[str, Any]:
    """Return a result file's content. Raises `ResultError` or `OSError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.get("runs"):
        raise ResultError(f"{path} is not a result file of format {FORMAT}")
    return content


def runs_of(content: Mapping[str, Any]) -> tuple[MeasuredRun, ...]:
    """Return the runs of a file, oldest first. Raises `ResultError` where something is missing."""
    try:
        subject = Subject(**{name: content[name] for name in Subject.__dataclass_fields__})
        return tuple(
            MeasuredRun(
                subject=subject,
                date=run["date"],
                engine_version=run["versions"]["engine"],
                flags=tuple(run["flags"]),
                rates=MeasuredRates(**run["rates"]),
            )
            for run in content["runs"]
        )
    except (KeyError, TypeError) as error:
        raise ResultError(f"a result file lacks {error}") from error


def shipped(folder: Path = FOLDER) -> tuple[MeasuredRun, ...]:
    """Return all runs of all result files of a folder; other files are ignored."""
    runs: list[MeasuredRun] = []
    for path in sorted(folder.glob("*.json")):
        try:
            runs += runs_of(load(path))
        except (ResultError, OSError):
            continue
    return tuple(runs)


@dataclass(frozen=True, slots=True)
class ClosestRun:
    """The run that applies to a plan, and the names of the vLLM flags in which the two differ."""

    run: MeasuredRun
    differing_flags: tuple[str, ...]


def closest(runs: Iterable[MeasuredRun], subject: Subject, flags: Sequence[str]) -> ClosestRun | None:
    """Return the run of the subject whose flags differ least from these vLLM arguments, and of those the newest.

    None when nothing of this kind was measured.
    """
    applicable = sorted((run for run in runs if run.subject.covers(subject)), key=lambda run: run.date)
    planned = _by_name(flags)
    compared = [ClosestRun(run, _difference(_by_name(run.flags), planned)) for run in applicable]
    fewest = min((len(candidate.differing_flags) for candidate in compared), default=0)
    return next((c for c in reversed(compared) if len(c.differing_flags) == fewest), None)


def _by_name(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    parsed = arguments.parse(tuple(words))
    flags = () if isinstance(parsed, arguments.StrayWord) else parsed
    return {flag.name: flag.values for flag in flags if flag.name not in _ADDRESS}


def _difference(old: Mapping[str, tuple[str, ...]], new: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)))

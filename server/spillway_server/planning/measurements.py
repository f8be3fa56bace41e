"""Result files of engines that were measured, and which of them speaks for a plan.

measured/<hardware>-<model>[-<quantisation>].json: {"format": 2, "hardware", "device", "devices", "model",
"quantisation", "runs": [...]}, one run per set of vLLM flags with its date, machine, versions and rates. They are
written by `python -m loadtests.gpu_profile measure --save` and shipped with this package.
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
# What an engine was measured at says nothing of where it listened and what it was called.
_ADDRESS = {"--host", "--port", "--uds", "--served-model-name", "--model"}
# Kinds that stand for one product; the others (a CPU, a GPU without a profile) are only themselves.
_UNNAMED = ("cpu", "other")


class ResultError(ValueError):
    """The file is no result file; the message says why."""


@dataclass(frozen=True, slots=True)
class MeasuredRates:
    """What an engine can do: tokens/s; seconds; microseconds of the whole engine per token. The formulas are in
    loadtests/gpu_profile/fit.py."""

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
    """What was, or shall be, measured: hardware by name, kind of device (a profile's key), devices, model as it is
    served, quantisation (None: none)."""

    hardware: str
    device: str
    devices: int
    model: str
    quantisation: str | None

    def covers(self, other: Subject) -> bool:
        """Whether a measurement of this speaks for the other: the same model on the same kind of device."""
        same_kind = self.hardware == other.hardware if self.device in _UNNAMED else True
        mine = (self.device, self.devices, self.model, self.quantisation)
        return same_kind and mine == (other.device, other.devices, other.model, other.quantisation)


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One measurement: when, with which vLLM, with which flags, what came out."""

    subject: Subject
    date: str
    engine_version: str
    flags: tuple[str, ...]
    rates: MeasuredRates


def path_of(subject: Subject, folder: Path = FOLDER) -> Path:
    """Where the results of a subject are kept."""
    parts = (subject.hardware, subject.model, *([subject.quantisation] if subject.quantisation else []))
    return folder / ("-".join(re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-") for part in parts) + ".json")


def load(path: Path) -> dict[str, Any]:
    """A result file's content. Raises ResultError, OSError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT or not found.get("runs"):
        raise ResultError(f"{path} is no result file of format {FORMAT}")
    return found


def runs_of(found: Mapping[str, Any]) -> tuple[MeasuredRun, ...]:
    """The runs of a file, oldest first. Raises ResultError where something is missing."""
    try:
        subject = Subject(**{name: found[name] for name in Subject.__dataclass_fields__})
        return tuple(
            MeasuredRun(
                subject, one["date"], one["versions"]["engine"], tuple(one["flags"]), MeasuredRates(**one["rates"])
            )
            for one in found["runs"]
        )
    except (KeyError, TypeError) as error:
        raise ResultError(f"a result file lacks {error}") from error


def shipped(folder: Path = FOLDER) -> tuple[MeasuredRun, ...]:
    """All runs of all files of a folder; files that are none are left out."""
    found: list[MeasuredRun] = []
    for path in sorted(folder.glob("*.json")):
        try:
            found += runs_of(load(path))
        except (ResultError, OSError):
            continue
    return tuple(found)


def best(
    runs: Iterable[MeasuredRun], wanted: Subject, flags: Sequence[str]
) -> tuple[MeasuredRun, tuple[str, ...]] | None:
    """The run that speaks for these vLLM arguments and the flags that differ: the fewest differences, then the newest.

    None when nothing of this kind was measured.
    """
    fitting = [run for run in runs if run.subject.covers(wanted)]
    if not fitting:
        return None
    mine = _by_name(flags)
    compared = [(_difference(_by_name(run.flags), mine), run) for run in sorted(fitting, key=lambda r: r.date)]
    fewest = min(len(differing) for differing, _ in compared)
    differing, run = [pair for pair in compared if len(pair[0]) == fewest][-1]
    return run, differing


def _by_name(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    parsed = arguments.parse(tuple(words))
    flags = () if isinstance(parsed, str) else parsed
    return {flag.name: flag.values for flag in flags if flag.name not in _ADDRESS}


def _difference(old: Mapping[str, tuple[str, ...]], new: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)))

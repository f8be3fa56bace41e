"""Writes the result file of an engine on its hardware; spillway_server.planning.measurements describes and reads it.

A run replaces an older one with the same flags.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from loadtests.gpu_profile.probe import Probed
from spillway_server.planning import speed
from spillway_server.planning.measurements import FORMAT, MeasuredRates, ResultError, Subject, load, runs_of


def run_of(
    flags: list[str],
    probed: Probed,
    rates: MeasuredRates,
    date: str,
    machine: Mapping[str, Any],
    versions: Mapping[str, str],
) -> dict[str, Any]:
    """Return one run as plain data."""
    return {
        "date": date,
        "flags": flags,
        "machine": dict(machine),
        "versions": dict(versions),
        "rates": asdict(rates),
        "prefill_alone": [{"prompt_tokens": tokens, "ttft_s": seconds} for tokens, seconds in probed.alone],
        "loads": [asdict(row) for row in probed.rows],
    }


def add(path: Path, subject: Subject, run: Mapping[str, Any]) -> None:
    """Write a run into its file.

    Raises:
        ResultError: the file holds something else.
    """
    stored = load(path) if path.exists() else {"format": FORMAT, **asdict(subject), "runs": []}
    if any(stored[name] != value for name, value in asdict(subject).items()):
        raise ResultError(f"{path} holds {stored['hardware']} with {stored['model']}")
    others = [old for old in stored["runs"] if old["flags"] != run["flags"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**stored, "runs": [*others, run]}, indent=1) + "\n", encoding="utf-8")


def settings_of(stored: Mapping[str, Any], number: int = -1, backend: str = "local") -> str:
    """Return the part of spillway.yaml that follows from a run (the newest if no number is given).

    Raises:
        IndexError: there is no such run.
        ResultError: the file holds something else.
    """
    run = runs_of(stored)[number]
    basis = (
        f"measured on {run.subject.hardware} with {run.subject.model}, {run.date}; flags: {' '.join(run.flags) or '-'}"
    )
    measured = speed.Speed(speed.MEASURED, basis, run.rates, run.subject.devices)
    words = dict(zip(run.flags, run.flags[1:], strict=False))
    part = speed.settings(measured, backend, int(words.get("--max-num-seqs", run.rates.best_sequences)))
    return f"# {basis}\n{yaml.safe_dump(part, sort_keys=False)}"

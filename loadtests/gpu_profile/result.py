"""The result file of a hardware and a model, one run per set of flags, and the settings that follow from a run.

loadtests/gpu_profiles/<hardware>-<model>.json: {"format": 1, "hardware", "model", "runs": [...]}. A run of flags that
are there already replaces the older one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from loadtests.gpu_profile.fit import Rates
from loadtests.gpu_profile.probe import Probed

FORMAT = 1
FOLDER = Path(__file__).resolve().parents[1] / "gpu_profiles"


class ResultError(ValueError):
    """The file is no result file; the message says why."""


def path_of(hardware: str, model: str, folder: Path = FOLDER) -> Path:
    """Where the results of a hardware and a model are kept."""
    name = "-".join(re.sub(r"[^a-z0-9.]+", "-", part.lower()).strip("-") for part in (hardware, model))
    return folder / f"{name}.json"


def run_of(
    flags: list[str], probed: Probed, rates: Rates, date: str, machine: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, Any]:
    """One run as plain data."""
    return {
        "date": date,
        "flags": flags,
        "machine": dict(machine),
        "versions": dict(versions),
        "rates": asdict(rates),
        "prefill_alone": [{"prompt_tokens": tokens, "ttft_s": seconds} for tokens, seconds in probed.alone],
        "loads": [asdict(row) for row in probed.rows],
    }


def add(path: Path, hardware: str, model: str, run: Mapping[str, Any]) -> None:
    """Write a run into its file. Raises ResultError for a file of something else."""
    found = load(path) if path.exists() else {"format": FORMAT, "hardware": hardware, "model": model, "runs": []}
    if (found["hardware"], found["model"]) != (hardware, model):
        raise ResultError(f"{path} holds {found['hardware']} with {found['model']}")
    others = [old for old in found["runs"] if old["flags"] != run["flags"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**found, "runs": [*others, run]}, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    """A result file. Raises ResultError, OSError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT or not found.get("runs"):
        raise ResultError(f"{path} is no result file of format {FORMAT}")
    return found


def settings_of(found: Mapping[str, Any], number: int = -1) -> str:
    """The part of spillway.yaml that follows from a run (the newest if no number is given)."""
    run = found["runs"][number]
    rates = run["rates"]
    work = {name: str(rates[name]) for name in ("prefill_us", "decode_us", "kv_us")}
    backend = {
        "name": "local",
        "provider": "vllm",
        "local": True,
        "base_url": "http://127.0.0.1:8001/v1",
        "model": found["model"],
        "prefill_tokens_per_s": rates["prefill_tokens_per_s"],
        "max_sequences": rates["best_sequences"],
    }
    flags = " ".join(run["flags"]) or "-"
    lead = f"# Measured on {found['hardware']} with {found['model']}, {run['date']}; flags: {flags}\n"
    return lead + yaml.safe_dump({"gpu": {"work": work}, "backends": [backend]}, sort_keys=False)

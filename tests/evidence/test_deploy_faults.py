"""The measurement of the dry runs can fail: with each seeded fault the target is not green."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from evidence.deploy_commands import TARGETS, CommandResult
from evidence.measures_deploy import DRY_RUNS, SECRETS, dry_runs
from tests.deploy.in_process import dry_run


def quiet(line: str) -> None:
    """Print nothing."""


def measured(target: str, fault: str) -> tuple[float | None, str]:
    """Return how many of one target are green, and its problems, with a fault in every dry run."""

    def run(folder: Path, name: str, *more: str, env: Mapping[str, str] | None = None) -> CommandResult:
        done = dry_run(folder, name, *more, env=env)
        if fault == "writes":
            (folder / "left").write_text("x")
        return dataclasses.replace(done, **_FAULTS[fault](done.out))

    measurement = dry_runs(quiet, run, {target: TARGETS[target]})[DRY_RUNS]
    return measurement.value, json.dumps(measurement.details["problems"])


def _body(text: str, old: str, new: str) -> dict[str, str]:
    assert old in text or not text.startswith("{")
    return {"out": text.replace(old, new) if text.startswith("{") else text}


_FAULTS = {
    "none": lambda out: {},
    "writes": lambda out: {},
    "fails": lambda out: {"status": 1, "err": "no"},
    "price last": lambda out: {"out": out if out.startswith("{") else "\n".join(reversed(out.splitlines()))},
    "secret": lambda out: {"out": out if out.startswith("{") else out + SECRETS["GROQ_API_KEY"]},
    "v1 field": lambda out: _body(out, '"image":', '"imageName":'),
    "no parameter": lambda out: _body(out, "InstanceType=", "Instance="),
    "bad model": lambda out: _body(out, "AWQ", "GPTQ"),
    "unbounded price": lambda out: _body(out, "dph_total<=", "dph<="),
}


@pytest.mark.parametrize("target", TARGETS)
def test_without_a_fault_it_is_green(target: str) -> None:
    assert measured(target, "none") == (1, json.dumps({target: []}))


@pytest.mark.parametrize(
    ("target", "fault", "said"),
    [
        ("runpod", "fails", "status 1"),
        ("runpod", "v1 field", "image"),
        ("runpod", "secret", "a secret is shown"),
        ("vast", "price last", "isn't first"),
        ("vast", "unbounded price", "dph_total"),
        ("aws", "no parameter", "no parameter Instance"),
        ("kubernetes", "writes", "something was written"),
        ("kubernetes", "bad model", "another model"),
    ],
)
def test_a_fault_costs_the_green(target: str, fault: str, said: str) -> None:
    green, problems = measured(target, fault)
    assert green == 0
    assert said in problems

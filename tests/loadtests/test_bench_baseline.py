"""Another checkout of Spillway as a system of the benchmark: which checkouts are comparable, and the memory ratio."""

from __future__ import annotations

from pathlib import Path

import pytest
from loadtests.bench import systems
from loadtests.bench.install import Unavailable
from loadtests.bench.processes import ROOT
from loadtests.bench.report import memory_ratio
from loadtests.bench.systems import SYSTEMS, Baseline

HAS_OWN_ENVIRONMENT = pytest.mark.skipif(not (ROOT / ".venv").exists(), reason="this checkout has no .venv")


def test_a_checkout_without_an_environment_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="is not installed"):
        Baseline(tmp_path).prepare()


@HAS_OWN_ENVIRONMENT
def test_this_checkout_is_comparable_with_itself() -> None:
    assert Baseline(ROOT).prepare().startswith(SYSTEMS["spillway"].prepare())


@HAS_OWN_ENVIRONMENT
def test_a_compiled_checkout_is_not_compared_with_an_interpreted_one(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter(("compiled", "interpreted (not compiled)"))
    monkeypatch.setattr(systems, "hot_path", lambda _python: next(states))
    with pytest.raises(Unavailable, match="not comparable"):
        Baseline(ROOT).prepare()


def test_the_memory_ratio_needs_both_systems() -> None:
    run = {"systems": {"spillway": {"idle_rss_mib": 90.0}, "baseline": {"idle_rss_mib": 60.0}}}
    assert memory_ratio(run, "spillway", "baseline") == 1.5
    assert memory_ratio(run, "spillway", "nginx") is None

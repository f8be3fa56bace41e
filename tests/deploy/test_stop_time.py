"""One time to stop in, wherever something waits for Spillway to end: the code's own, and what is added to it."""

from __future__ import annotations

import re
from datetime import date

import pytest
import yaml
from evidence.deploy_commands import ROOT

from spillway_router.config.assemble import Assembly, assemble
from spillway_router.config.load import parse
from spillway_router.config.settings import LimitsPart

ANSWERS_S = int(LimitsPart().stop_s)
WHOLE_S = ANSWERS_S + 30 + 20
"""With the last rows and the engine, as docs/configuration.md counts it."""
PLACES = {
    "deploy/systemd/spillway.service": r"TimeoutStopSec=(\d+)",
    "deploy/systemd/spillway-router.service": r"TimeoutStopSec=(\d+)",
    "deploy/systemd/spillway-engine.service": r"TimeoutStopSec=(\d+)",
    "deploy/compose/compose.yaml": r"stop_grace_period: (\d+)s",
    "deploy/aws/template.yaml": r"docker stop --time (\d+)",
    "docs/deploy/containers.md": r"(?:--stop-timeout|allow) (\d+)",
    "docs/deploy/systemd.md": r"waits up to (\d+) s",
    "docs/configuration.md": r"engine stops as well: (\d+) s",
}


@pytest.mark.parametrize("file", PLACES)
def test_everything_that_stops_it_waits_long_enough(file: str) -> None:
    times = re.findall(PLACES[file], (ROOT / file).read_text(encoding="utf-8"))
    assert times
    assert {int(time) for time in times} == {WHOLE_S}


def test_a_pod_has_the_same_time_after_its_service_dropped_it() -> None:
    chart = ROOT / "deploy/kubernetes/spillway"
    values = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    asleep = re.search(r'"sleep", "(\d+)"', (chart / "templates/statefulset.yaml").read_text(encoding="utf-8"))
    assert asleep is not None
    assert values["terminationGracePeriodSeconds"] == WHOLE_S + int(asleep[1])


def test_pages_say_how_long_answers_have() -> None:
    for page in ("docs/deploy/kubernetes.md", "docs/deploy/containers.md"):
        assert f"{ANSWERS_S} s" in (ROOT / page).read_text(encoding="utf-8"), page


@pytest.mark.parametrize(
    ("limits", "warnings"), [("{}", 0), ("{answer_s: 300}", 1), ("{answer_s: 300, stop_s: 300}", 0)]
)
def test_answers_that_a_stop_would_cut_off_are_warned_of(limits: str, warnings: int) -> None:
    assembly = assemble(parse(f"limits: {limits}\n", {}), {}, date(2026, 11, 28))
    assert isinstance(assembly, Assembly)
    assert len([warning for warning in assembly.warnings if warning.where == "limits.stop_s"]) == warnings

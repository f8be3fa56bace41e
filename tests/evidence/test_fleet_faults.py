"""The measurements of orders and of the review's faults can fail: a seeded fault is counted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from evidence.measures_faults import FAULTS, left_of, outcomes_of
from evidence.measures_misfits import MISFITS, misfits_accepted

from spillway_server.obstacle import Obstacle
from spillway_server.planning.models import Sources
from spillway_server.planning.plan import EnginePlan
from spillway_server.planning.rented import RentedMachine, plan_for


def quiet(line: str) -> None:
    """Print nothing."""


def test_no_order_that_can_not_serve_is_accepted() -> None:
    measurement = misfits_accepted(quiet)[MISFITS]
    assert measurement.value == 0
    assert measurement.n >= 300
    assert measurement.details["orders_accepted"] > 300, "a check that refuses everything would pass as well"


def test_a_check_that_looks_at_larger_machines_is_found_out() -> None:
    def generous(rented: RentedMachine, model: str, sources: Sources) -> EnginePlan | Obstacle:
        larger = dataclasses.replace(rented, gpu="h100", gpus=min(2 * rented.gpus, 8), disk_gb=4000)
        return plan_for(larger, model, sources)

    assert (misfits_accepted(quiet, generous)[MISFITS].value or 0) > 100


def test_a_fault_is_left_if_a_test_fails_is_skipped_or_is_gone(tmp_path: Path) -> None:
    names = {name for tests in FAULTS.values() for _, name in tests}
    assert left_of({name: [True, True] for name in names}) == []
    report = tmp_path / "tests.xml"
    for inside in ("<failure/>", "<skipped/>", None):
        case = (
            '<testcase name="test_serverless"/>'
            if inside is None
            else f'<testcase name="test_serverless">{inside}</testcase>'
        )
        report.write_text(f"<testsuites><testsuite>{case}</testsuite></testsuites>")
        outcomes = {**{name: [True] for name in names - {"test_serverless"}}, **outcomes_of(report)}
        assert len(left_of(outcomes)) == (0 if inside is None else 1)
    assert len(left_of({name: [True] for name in names - {"test_serverless"}})) == 1


def test_every_fault_names_tests_of_files_that_exist() -> None:
    root = Path(__file__).resolve().parents[2]
    assert len(FAULTS) == 36
    for tests in FAULTS.values():
        for file, name in tests:
            assert (root / file).exists(), file
            assert f"def {name}(" in (root / file).read_text(encoding="utf-8"), name

"""The evidence itself: judged by its bounds, able to fail, and shown as it is."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from evidence.measures_overflow import overflow
from evidence.page import PAGE, TOPICS, render, status, topic
from evidence.promises import FOLDER, Promise, load_promises
from evidence.registry import GROUPS, groups_for, measured_ids
from evidence.results import (
    Circumstances,
    Measurement,
    Result,
    judge,
    not_measured,
    read_results,
    rejudge,
    write_result,
)
from loadtests.simulator.table import TraceLoad

PROMISE = Promise(
    id="relay.disconnect_close", area="built", op="<=", bound=50, unit="ms", what="client leaves", min_n=200
)
TAKEN = Circumstances("make evidence ONLY=x", "2026-01-01T00:00:00Z", {"cpu": "c", "cores": 2}, {"spillway": "0"})
FIELDS = ["id", "value", "unit", "n", "holds", "command", "date", "machine", "versions", "details"]


@pytest.mark.parametrize(
    ("op", "bound", "value", "holds"),
    [
        ("<=", 50, 50.0, True),
        ("<=", 50, 50.01, False),
        (">=", 0.97, 0.97, True),
        (">=", 0.97, 0.969, False),
        (">", 0, 0.0, False),
        (">", 0, 1e-9, True),
        ("<", 1, 1.0, False),
        ("==", 0, 0.0, True),
        ("==", 0, 1.0, False),
        ("<=", 50, math.nan, False),
        ("==", 0, None, False),
    ],
)
def test_the_bound_decides(op: str, bound: float, value: float | None, holds: bool) -> None:
    assert Promise(id="x", area="built", op=op, bound=bound, unit="ms", what="").holds(value, 1) is holds


def test_too_few_samples_never_hold() -> None:
    assert judge(PROMISE, Measurement(10.0, 199), TAKEN).holds is False
    assert judge(PROMISE, Measurement(10.0, 200), TAKEN).holds is True


def test_a_failed_measurement_is_published_as_failing_with_its_reason(tmp_path: Path) -> None:
    result = judge(PROMISE, not_measured("it did not start"), TAKEN)
    write_result(result, tmp_path)
    published = read_results(tmp_path, {PROMISE.id: PROMISE})
    assert published == {PROMISE.id: result}
    page = render({PROMISE.id: PROMISE}, published)
    assert "| **failing** |" in page
    assert "measured no value (n 0), on fewer than 200 samples. it did not start" in page


def test_a_file_holds_exactly_the_promised_fields(tmp_path: Path) -> None:
    file = write_result(judge(PROMISE, Measurement(1.0, 200, {"a": 1}, {"peer": "2"}), TAKEN), tmp_path)
    written = json.loads(file.read_text(encoding="utf-8"))
    assert list(written) == FIELDS
    assert written["versions"] == {"spillway": "0", "peer": "2"}
    file.write_text(json.dumps(written | {"extra": 1}), encoding="utf-8")
    with pytest.raises(ValueError, match="extra"):
        read_results(tmp_path, {PROMISE.id: PROMISE})


def test_promises_are_well_formed_and_a_bad_file_is_refused(tmp_path: Path) -> None:
    promises = load_promises()
    assert measured_ids() <= promises.keys()
    first = dataclasses.asdict(PROMISE)
    bad = tmp_path / "promises.json"
    bad.write_text(json.dumps([first, first]), encoding="utf-8")
    with pytest.raises(ValueError, match="duplicate"):
        load_promises(bad)
    bad.write_text(json.dumps([first | {"op": "~"}]), encoding="utf-8")
    with pytest.raises(ValueError, match="compares with '~'"):
        load_promises(bad)


def test_every_promise_of_what_is_built_has_a_measure_function() -> None:
    built = {name for name, promise in load_promises().items() if promise.area == "built"}
    assert built <= measured_ids()
    assert len([name for group in GROUPS for name in group.ids]) == len(measured_ids())
    assert [group.ids for group in groups_for("relay.slow")] == [("relay.slow_reader_growth",)]
    assert groups_for("nothing") == []


def test_published_results_are_judged_by_todays_bounds_and_the_page_is_up_to_date() -> None:
    promises = load_promises()
    results = read_results(FOLDER, promises)
    strangers = {file.stem for file in FOLDER.glob("*.json")} - promises.keys()
    assert strangers == set()
    for name, result in results.items():
        assert list(dataclasses.asdict(result)) == FIELDS
        assert result.holds is promises[name].holds(result.value, result.n), name
        assert result.unit == promises[name].unit
        assert result.command.startswith("make evidence")
    assert PAGE.read_text(encoding="utf-8") == render(promises, results), "run: python -m evidence --page"


def test_a_tampered_or_stale_verdict_does_not_reach_the_page() -> None:
    failing = judge(PROMISE, Measurement(60.0, 200), TAKEN)
    tampered = Result(**(dataclasses.asdict(failing) | {"holds": True}))
    assert status(PROMISE, tampered) == "failing"
    assert rejudge(PROMISE, tampered) == failing
    assert "60 | 200 | 2026-01-01 | **failing** |" in render({PROMISE.id: PROMISE}, {PROMISE.id: tampered})


def test_the_page_keeps_measured_promises_apart_from_those_that_are_not() -> None:
    planned = dataclasses.replace(PROMISE, id="wire.health_wait_max")
    page = render(
        {PROMISE.id: PROMISE, planned.id: planned}, {PROMISE.id: judge(PROMISE, Measurement(1.0, 200), TAKEN)}
    )
    assert "1 promises are measured: 1 are held, 0 are failing. 1 more are promised and not measured yet." in page
    measured, _, rest = page.partition("## Promised, not measured yet")
    assert "`relay.disconnect_close`" in measured
    assert "`wire.health_wait_max`" not in measured
    assert "`wire.health_wait_max`" in rest


def test_every_promise_has_a_topic_and_a_description() -> None:
    for promise in load_promises().values():
        assert topic(promise) in TOPICS
        assert promise.what, promise.id
    with pytest.raises(ValueError, match="no topic"):
        topic(dataclasses.replace(PROMISE, id="unknown.thing"))


def test_overflow_falls_short_with_a_worse_rule_and_holds_with_ours() -> None:
    """Seeded fault: no overflow at all."""
    loads = [TraceLoad("code")]
    promise = load_promises()["overflow.code_x1_misses"]
    ours = overflow(lambda _line: None, loads=loads, beside=())[promise.id]
    worse = overflow(lambda _line: None, rule="always-local", loads=loads, beside=())[promise.id]
    assert judge(promise, ours, TAKEN).holds
    assert not judge(promise, worse, TAKEN).holds

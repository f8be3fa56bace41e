"""The measurement of requests that are lost while the fleet changes, short: it holds, and seeded faults are counted."""

from __future__ import annotations

import pytest
from evidence.measures_rollout import LOST, lost_requests
from loadtests.rollout.trial import RolloutShape

pytestmark = pytest.mark.load


def quiet(_: str) -> None:
    """Say nothing."""


def test_nothing_is_lost_when_a_machine_goes_after_a_notice() -> None:
    measured = lost_requests(quiet, RolloutShape(per_phase=20, at_once=6, phases=("spot_notice",)))[LOST]
    assert measured.value == 0, measured.details
    assert measured.n >= 20
    assert "cloud" in measured.details["phases"]["spot_notice"]["by_backend"], "the cloud bridged the machine's end"


def test_routers_that_are_ended_at_once_lose_requests() -> None:
    shape = RolloutShape(per_phase=20, at_once=6, phases=("upgrade_router",), cut_off=True)
    measured = lost_requests(quiet, shape)[LOST]
    assert (measured.value or 0) > 0, measured.details


def test_an_engine_that_dies_interrupts_streams_that_say_so_and_loses_no_request() -> None:
    shape = RolloutShape(per_phase=24, at_once=8, phases=("engine_loss",))
    measured = lost_requests(quiet, shape)[LOST]
    assert measured.value == 0, measured.details
    assert measured.details["streams_interrupted"] <= shape.at_once, "only what was under way when it died"


def test_an_engine_that_is_killed_where_it_could_have_left_loses_the_streams_that_it_cuts_off() -> None:
    shape = RolloutShape(per_phase=24, at_once=12, phases=("scale_down",), blind=True)
    measured = lost_requests(quiet, shape)[LOST]
    assert (measured.value or 0) > 0, measured.details
    assert measured.value == measured.details["streams_interrupted"], measured.details

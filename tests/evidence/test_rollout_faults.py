"""The measurement of requests that are lost while the fleet changes, short: it holds, and seeded faults are counted."""

from __future__ import annotations

import pytest
from evidence.measures_rollout import LOST, lost_requests
from loadtests.rollout.trial import RolloutShape

pytestmark = pytest.mark.load


def quiet(_: str) -> None:
    """Say nothing."""


def test_nothing_is_lost_when_a_machine_goes_after_a_notice_and_a_router_is_upgraded() -> None:
    shape = RolloutShape(per_phase=30, at_once=8, phases=("spot_notice", "upgrade_router"))
    measured = lost_requests(quiet, shape)[LOST]
    assert measured.value == 0, measured.details
    assert measured.n >= 60
    assert "cloud" in measured.details["phases"]["spot_notice"]["by_backend"], "the cloud bridged the machine's end"


def test_routers_and_engines_that_are_ended_at_once_lose_requests() -> None:
    shape = RolloutShape(per_phase=30, at_once=8, phases=("upgrade_router", "scale_down"), cut_off=True, blind=True)
    measured = lost_requests(quiet, shape)[LOST]
    assert all(phase["lost"] > 0 for phase in measured.details["phases"].values()), measured.details

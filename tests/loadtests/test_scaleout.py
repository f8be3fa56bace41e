"""Two engines, two routers, one ledger: nothing is lost when one engine is drained, and a kill is seen as a loss.

Short, with the fake engine; tests/evidence/measures_scaleout.py does the same with real vLLM.
"""

from __future__ import annotations

import pytest
from loadtests.scaleout import sites
from loadtests.scaleout.trial import Shape
from tests.evidence.measures_scaleout import LOST, lost_requests
from tests.ledger.postgres_server import ServerMissingError, find_binaries

SLOW = sites.fake("--scale", "2")
"""Answers of about a second, so that a killed engine has streams under way."""


@pytest.fixture(autouse=True)
def _postgres() -> None:
    try:
        find_binaries()
    except ServerMissingError as error:
        pytest.skip(str(error))


def test_a_drained_engine_loses_nothing_and_both_routers_share_requests_and_budget() -> None:
    found = lost_requests(lambda _line: None, SLOW, Shape(requests=90, at_once=12))[LOST]
    assert found.value == 0, found.details
    assert found.n >= 90
    served = found.details["served"]
    assert set(served["before"]) == {"left", "right"}
    assert set(served["after"]) == {"right"}
    assert set(found.details["by_router"]) == {"0", "1"}
    assert found.details["budget_held"]


def test_a_killed_engine_loses_streams() -> None:
    """Seeded fault: SIGKILL instead of SIGTERM."""
    found = lost_requests(lambda _line: None, SLOW, Shape(requests=60, at_once=24, end="kill"))[LOST]
    assert found.value is not None, found.details
    assert found.value > 0
    assert "broken off: upstream_interrupted" in found.details["faults"]

"""The measurements of failing upstreams and of large bodies, short: they hold, and a seeded fault fails them."""

from __future__ import annotations

import pytest
from evidence.large_bodies import KINDS, REQUESTS
from evidence.measures_failover import AMPLIFICATION, FAILOVER, RECOVERY, amplification, failover, recovery

from spillway_router.core.routing import retry_budget
from spillway_router.testing.harness import Router


def quiet(_: str) -> None:
    """Say nothing."""


def test_every_request_is_answered_when_the_first_backend_dies() -> None:
    measured = failover(quiet, failures=("reset", "500", "404"), at_once=(20,))[FAILOVER]
    assert measured.details["replies"] == {"answered": 480}
    assert (measured.value, measured.n) == (1.0, 480)


def test_a_chain_that_ends_with_its_first_failure_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_budget, "RETRYABLE", frozenset({"overloaded"}))
    value = failover(quiet, failures=("reset",), at_once=(20,))[FAILOVER].value
    assert value is not None
    assert value < 1.0


def test_total_failure_costs_few_calls() -> None:
    value = amplification(quiet, seconds=2.0)[AMPLIFICATION].value
    assert value is not None
    assert value <= 1.2


def test_breakers_that_never_stay_open_are_noticed() -> None:
    value = amplification(quiet, seconds=1.0, each_time=Router.forget_failures)[AMPLIFICATION].value
    assert value is not None
    assert value > 1.2


def test_a_repaired_upstream_is_found_soon() -> None:
    measured = recovery(quiet, failures=("reset", "500"), long_s=4.0)[RECOVERY]
    assert measured.value is not None
    assert measured.value <= 5.0
    assert measured.n == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_has_its_size(kind: str) -> None:
    assert 1.8e6 < len(KINDS[kind](2_000_000)) <= 2.001e6


@pytest.mark.parametrize("kind", sorted(REQUESTS.keys() - {"a compressed text"}))
def test_a_request_has_its_size(kind: str) -> None:
    assert 1.8e6 < len(REQUESTS[kind](2_000_000).body) <= 2.001e6

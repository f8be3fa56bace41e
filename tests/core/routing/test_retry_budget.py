"""Failover: which outcomes go on to the next candidate, and a retry budget that a broken upstream can't exceed."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.routing.model import Outcome, OutcomeKind
from spillway_router.core.routing.retry_budget import MAX_ATTEMPTS, RetryBudget, may_try_next, on_requests, on_retry

KINDS: tuple[OutcomeKind, ...] = get_args(OutcomeKind)
NEXT = {"overloaded", "rate_limited", "unauthorized", "unserved", "failed", "timeout"}


@pytest.mark.parametrize("kind", KINDS)
def test_which_outcomes_go_on(kind: OutcomeKind) -> None:
    assert may_try_next(Outcome(kind), 1, 1) == (kind in NEXT)
    assert not may_try_next(Outcome(kind), 1, 0)


def test_three_attempts_and_no_more() -> None:
    assert MAX_ATTEMPTS == 3
    assert [may_try_next(Outcome("failed"), attempts, 9) for attempts in (1, 2, 3, 4)] == [True, True, False, False]


def test_a_refusal_at_the_queue_cap_may_walk_the_whole_chain() -> None:
    assert all(may_try_next(Outcome("overloaded"), attempts, 1) for attempts in range(1, 20))
    assert not may_try_next(Outcome("overloaded"), 1, 0)


def test_a_request_earns_a_fifth_of_a_retry_and_a_second_earns_ten() -> None:
    empty = RetryBudget(tokens=0.0, updated_at=100.0)
    assert on_requests(empty, 1, 100.0).tokens == pytest.approx(0.2)
    assert on_requests(empty, 1, 100.5).tokens == pytest.approx(5.2)
    assert on_requests(empty, 1, 10**6).tokens == empty.most
    assert on_requests(empty, 3, 100.5).tokens == pytest.approx(5.6)
    assert on_requests(empty, 1, 50.0).tokens == pytest.approx(0.2)  # a clock that steps back earns nothing


def test_an_empty_budget_refuses() -> None:
    assert on_retry(RetryBudget(tokens=0.99)) is None
    left = on_retry(RetryBudget(tokens=1.0))
    assert left is not None
    assert left.tokens == 0.0


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=300))
def test_retries_stay_within_a_fifth_of_requests_plus_ten_a_second(gaps: list[float]) -> None:
    """However often every request wants to be tried again."""
    state, now, retries = RetryBudget(tokens=0.0, updated_at=0.0), 0.0, 0
    for gap in gaps:
        now += gap
        state = on_requests(state, 1, now)
        for _ in range(MAX_ATTEMPTS - 1):
            spent = on_retry(state)
            if spent is not None:
                state, retries = spent, retries + 1
    assert retries <= 0.2 * len(gaps) + 10 * now + 1e-6

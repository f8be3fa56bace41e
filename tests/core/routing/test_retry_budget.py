"""Failover needs no permission; a retry does: which outcomes go on or are worth a retry, and the budget of retries."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.routing.model import Outcome, OutcomeKind
from spillway_router.core.routing.retry_budget import (
    RetryBudget,
    may_try_next,
    on_requests,
    on_retry,
    pause_before_retry_s,
)

KINDS: tuple[OutcomeKind, ...] = get_args(OutcomeKind)
NEXT = {"overloaded", "rate_limited", "unauthorized", "withdrawn", "unserved", "failed", "timeout"}


@pytest.mark.parametrize("kind", KINDS)
def test_which_outcomes_go_on(kind: OutcomeKind) -> None:
    assert may_try_next(Outcome(kind)) == (kind in NEXT)


@pytest.mark.parametrize(
    ("outcome", "local", "pause"),
    [
        (Outcome("failed"), True, 0.1),
        (Outcome("failed", 500), False, 0.1),
        (Outcome("failed", 503, retry_after_s=0.5), False, 0.6),
        (Outcome("rate_limited", 429), False, 1.1),
        (Outcome("rate_limited", 429, retry_after_s=7.0), False, 7.1),
        (Outcome("overloaded", 529), False, 1.1),
        (Outcome("overloaded", 503), True, None),  # a full queue asks to be spared
        (Outcome("failed", 200, "bad JSON", billed=True), False, None),  # it may have been billed
        (Outcome("timeout"), False, None),
        (Outcome("unauthorized", 401), False, None),
        (Outcome("withdrawn", 404), False, None),
        (Outcome("unserved", 404), False, None),
        (Outcome("rejected", 400), False, None),
        (Outcome("ok", 200), False, None),
    ],
)
def test_what_is_worth_asking_the_same_backend_again(outcome: Outcome, local: bool, pause: float | None) -> None:
    assert pause_before_retry_s(outcome, 0.5, local=local) == (None if pause is None else pytest.approx(pause))


def test_requests_that_failed_together_do_not_come_back_together() -> None:
    pauses = [pause_before_retry_s(Outcome("failed", 500), jitter / 10, local=False) for jitter in range(10)]
    assert len(set(pauses)) == 10


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
        for _ in range(2):
            spent = on_retry(state)
            if spent is not None:
                state, retries = spent, retries + 1
    assert retries <= 0.2 * len(gaps) + 10 * now + 1e-6

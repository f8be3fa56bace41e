"""The breaker: opens on consecutive failures, lets one trial through, and load never opens it."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.routing.breaker import CLOSED, TRIAL_S, Breaker, BreakerRule, is_open, on_outcome, on_send
from spillway_router.core.routing.model import OutcomeKind

RULE = BreakerRule(failures=3, open_s=1.0, longest_open_s=3.0)
KINDS: tuple[OutcomeKind, ...] = get_args(OutcomeKind)
LOAD: tuple[OutcomeKind, ...] = (
    "ok",
    "overloaded",
    "rate_limited",
    "rejected",
    "unserved",
    "cancelled",
)


def after(kinds: list[OutcomeKind], now: float = 0.0, state: Breaker = CLOSED) -> Breaker:
    for kind in kinds:
        state = on_outcome(state, kind, now, RULE)
    return state


def test_consecutive_failures_open_it() -> None:
    assert not is_open(after(["failed", "timeout"]), 0.0)
    opened = after(["failed", "timeout", "failed"])
    assert is_open(opened, 0.999)
    assert not is_open(opened, 1.0)


def test_a_success_between_starts_the_count_anew() -> None:
    assert not is_open(after(["failed", "failed", "ok", "failed", "failed"]), 0.0)


@pytest.mark.parametrize("kind", LOAD)
def test_load_and_the_clients_faults_never_open_it(kind: OutcomeKind) -> None:
    assert after([kind] * 50) == CLOSED


def test_half_open_lets_one_trial_through() -> None:
    opened = after(["failed"] * 3)
    trial = on_send(opened, 1.5)
    assert is_open(trial, 1.5)
    assert is_open(trial, 1.5 + TRIAL_S - 0.001)
    assert not is_open(trial, 1.5 + TRIAL_S)  # a trial that never reports back expires
    assert after(["ok"], 2.0, trial) == CLOSED


def test_a_cancelled_trial_makes_room_for_the_next() -> None:
    trial = on_send(after(["failed"] * 3), 1.5)
    again = after(["cancelled"], 1.6, trial)
    assert not is_open(again, 1.6)
    assert again != CLOSED


def test_each_failed_trial_doubles_the_wait_up_to_a_bound() -> None:
    state, now, lengths = after(["failed"] * 3), 0.0, [1.0]
    for _ in range(4):
        now = state.open_until
        state = after(["failed"], now, on_send(state, now))
        lengths.append(state.open_until - now)
    assert lengths == [1.0, 2.0, 3.0, 3.0, 3.0]


def test_a_burst_that_fails_together_opens_it_once() -> None:
    # Twenty requests were in flight when the engine died: their failures are one event, not twenty doublings.
    opened = after(["failed"] * 20, 10.0)
    assert (opened.open_until, opened.opened_for_s) == (11.0, 1.0)


def test_sending_through_a_closed_breaker_changes_nothing() -> None:
    assert on_send(CLOSED, 5.0) is CLOSED


@pytest.mark.parametrize("kind", ["unauthorized", "withdrawn"])
def test_a_backend_that_can_not_serve_leaves_at_once(kind: OutcomeKind) -> None:
    assert is_open(after([kind]), 0.999)
    assert not is_open(after([kind]), 1.0)


def test_a_hanging_trial_does_not_keep_the_next_one_from_finding_a_repair() -> None:
    rule = BreakerRule()
    assert rule.longest_open_s <= 3.0
    assert TRIAL_S <= 2.0


def test_one_request_that_always_gets_500_does_not_open_it_while_others_succeed() -> None:
    state = CLOSED
    for _ in range(RULE.contradicted_failures - 1):
        state = on_outcome(state, "failed", 0.0, RULE, contradicted=True)
    assert not is_open(state, 0.0)
    assert is_open(on_outcome(state, "failed", 0.0, RULE, contradicted=True), 0.0)


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.floats(0, 10), st.booleans()), max_size=60))
def test_it_always_recovers(steps: list[tuple[OutcomeKind, float, bool]]) -> None:
    state, now = CLOSED, 0.0
    for kind, wait, sent in steps:
        now += wait
        state = on_outcome(on_send(state, now) if sent else state, kind, now, RULE)
        assert state.open_until <= now + RULE.longest_open_s
        assert not is_open(state, now + max(RULE.longest_open_s, TRIAL_S))
    assert on_outcome(state, "ok", now, RULE) == CLOSED

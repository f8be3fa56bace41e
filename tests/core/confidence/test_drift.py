"""The drift controller: audits tighten, probes loosen again, a broken certificate is revoked."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.confidence import drift
from spillway_router.core.confidence.drift import CLOSED_AT, KEEP_NOTHING, MAX_THETA, Drift, DriftTerms

REFERENCE = tuple(i / 100 for i in range(101))
TERMS = DriftTerms(alpha=0.05, share=0.5, start=0.6)


def test_a_fresh_certificate_keeps_its_threshold() -> None:
    state = drift.initial_state(0.6, REFERENCE)
    assert state.theta == pytest.approx(0.6)
    assert drift.threshold(state, TERMS, 0.6, REFERENCE) == 0.6


def test_audits_move_theta_by_the_rule_and_never_below_the_certified() -> None:
    wrong = drift.observe(Drift(0.6), True, TERMS)
    assert wrong.theta == pytest.approx(0.6 + 0.03 * 0.95 / 0.5)
    assert drift.threshold(wrong, TERMS, 0.6, REFERENCE) == pytest.approx(wrong.theta)
    right = drift.observe(wrong, False, TERMS)
    assert right.theta == pytest.approx(wrong.theta - 0.03 * 0.05 / 0.5)
    assert (right.audits, right.wrong, right.losses) == (2, 1, (1, 0))
    assert drift.observe(Drift(0.6), False, TERMS).theta == TERMS.start


def test_closed_keeps_nothing_until_probes_open_it() -> None:
    state = Drift(MAX_THETA)
    assert drift.threshold(state, TERMS, 0.6, REFERENCE) == KEEP_NOTHING
    assert drift.is_probe(state, 0.81, TERMS, REFERENCE)
    assert not drift.is_probe(state, 0.79, TERMS, REFERENCE)
    for _ in range(math.ceil((MAX_THETA - CLOSED_AT) / (0.03 * 0.05)) + 1):
        state = drift.observe(state, False, TERMS, kept=False)
    assert not state.closed
    assert state.audits == 0  # probes are no audits


def test_at_the_certified_threshold_nothing_is_probed() -> None:
    assert not drift.is_probe(Drift(0.6), 0.59, TERMS, REFERENCE)


def test_a_certificate_that_no_longer_holds_is_revoked_for_good() -> None:
    state = Drift(0.6)
    for _ in range(3):
        state = drift.observe(state, True, TERMS)
    assert state.revoked  # 3 of 3 wrong: 0.05^3 < 0.001
    for _ in range(50):
        state = drift.observe(state, False, TERMS)
    assert state.revoked
    assert drift.threshold(state, TERMS, 0.6, REFERENCE) == KEEP_NOTHING


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=80))
def test_theta_stays_in_its_bounds(events: list[tuple[bool, bool]]) -> None:
    state = drift.initial_state(0.6, REFERENCE)
    for wrong, kept in events:
        state = drift.observe(state, wrong, TERMS, kept=kept)
        assert TERMS.start <= state.theta <= MAX_THETA
        assert drift.threshold(state, TERMS, 0.6, REFERENCE) >= 0.6


@given(st.integers(1, 60), st.floats(0.01, 0.99), st.data())
def test_at_least_is_the_binomial_tail(n: int, p: float, data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, n))
    exact = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(wrong, n + 1))
    assert drift.upper_tail(wrong, n, p) == pytest.approx(exact, abs=1e-9)

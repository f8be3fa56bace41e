"""What is learned converges, stays in its bounds, and leans to the safe side."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_router.core.routing.estimators import (
    MarginLearner,
    OutputLength,
    PrefillRate,
    RecentWork,
    StepScale,
    TokenEstimator,
)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_margin_settles_where_a_share_alpha_exceeds_it(alpha: float) -> None:
    rng = random.Random(7)
    learner = MarginLearner(start=0.85, alpha=alpha, bounds=(0.3, 1.5))
    late = 0
    for step in range(40_000):
        ratio = rng.lognormvariate(0.1, 0.2)
        late += step >= 20_000 and ratio > 1 / learner.margin
        learner.observe(0.8, 0.8 * ratio, 1.0)
    assert late / 20_000 == pytest.approx(alpha, rel=0.1)


def test_margin_widens_under_light_load_and_narrows_when_predictions_fall_short() -> None:
    learner = MarginLearner(start=0.85)
    for _ in range(5000):
        learner.observe(0.05, 0.2, 1.0)
    assert learner.margin == pytest.approx(1.0)
    for _ in range(30):
        learner.observe(0.9, 1.8, 1.0)
    assert learner.margin < 0.6


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=200))
def test_margin_never_leaves_its_bounds(pairs: list[tuple[float, float]]) -> None:
    learner = MarginLearner()
    for predicted, observed in pairs:
        learner.observe(predicted, observed, 1.0)
        assert 0.5 - 1e-9 <= learner.margin <= 1.0 + 1e-9


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="alpha"):
        MarginLearner(alpha=0)
    with pytest.raises(ValueError, match="tokens_per_byte"):
        TokenEstimator(tokens_per_byte=0)
    with pytest.raises(ValueError, match="start_tokens"):
        OutputLength(0)


def test_token_estimate_starts_at_a_third_and_learns_the_ratio() -> None:
    estimator = TokenEstimator()
    assert estimator.estimate(3000) == 1000 + 16
    for _ in range(300):
        estimator.observe(4000, 1000)
    assert estimator.estimate(4000) == pytest.approx(1000 + 16, abs=5)


def test_token_estimate_leans_high_on_irregular_text() -> None:
    rng = random.Random(3)
    estimator = TokenEstimator()
    short = 0
    for step in range(2000):
        size = rng.randint(200, 8000)
        tokens = max(1, round(size * rng.uniform(0.2, 0.4)))
        short += step > 200 and estimator.estimate(size) < tokens
        estimator.observe(size, tokens)
    assert short / 1800 < 0.35
    assert estimator.tokens_per_byte > 0.3, "above the true mean"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 10**9), st.integers(-5, 10**9)), max_size=100), st.integers(0, 10**8))
def test_token_estimate_stays_between_its_bounds(pairs: list[tuple[int, int]], size: int) -> None:
    estimator = TokenEstimator()
    for prompt_bytes, prompt_tokens in pairs:
        estimator.observe(prompt_bytes, prompt_tokens)
    assert size / 20 <= estimator.estimate(size) <= 2 * size + 17


def test_output_length_follows_the_mean_and_the_request() -> None:
    lengths = OutputLength(300)
    assert lengths.expect() == 300
    assert lengths.expect(50) == 50
    for _ in range(300):
        lengths.observe(20)
    assert lengths.expect() in (20, 21)
    lengths.observe(-3)
    assert lengths.expect() in (20, 21)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 20), st.floats(0.5, 30)), max_size=50))
def test_recent_work_is_the_sum_of_what_each_part_has_left(parts: list[tuple[int, float, float]]) -> None:
    recent = RecentWork()
    now = 0.0
    left: list[float] = []
    for tokens, wait, window in parts:
        now += wait
        recent.add(tokens, now, window)
        left = [old * math.exp(-wait / window) for old in left] + [tokens]
        assert recent.tokens(now, window) == pytest.approx(sum(left), abs=1e-6)
    assert recent.tokens(now - 1, 2.0) == recent.tokens(now, 2.0), "a clock that steps back brings nothing back"
    assert recent.tokens(now + 1e6, 2.0) == 0


def test_step_scale_follows_the_steps_and_not_the_reading() -> None:
    learner = StepScale(0.05)
    for number in range(200):
        assert learner.learn(expected_s=1.0, took_s=5.0, reading_s=3.0, monotonic_s=float(number))
    assert learner.scale == pytest.approx(2.0, rel=0.01)
    assert learner.sampled_at == 199.0


def test_reading_never_explains_an_answer_away_and_one_stall_moves_little() -> None:
    learner = StepScale(0.05)
    learner.learn(expected_s=1.0, took_s=5.0, reading_s=50.0, monotonic_s=0.0)
    assert learner.scale == pytest.approx(1.0), "a fifth of its time is left: one second, as expected"
    learner.learn(expected_s=1.0, took_s=1e9, reading_s=0.0, monotonic_s=0.0)
    assert learner.scale == pytest.approx(1.0 + 0.05 * 19)
    assert not learner.learn(expected_s=0.0, took_s=1.0, reading_s=0.0, monotonic_s=9.0)
    assert not learner.learn(expected_s=1.0, took_s=0.0, reading_s=0.0, monotonic_s=9.0)
    assert learner.sampled_at == 0.0


def test_prefill_rate_takes_long_work_and_leaves_short_work_alone() -> None:
    rate = PrefillRate(10_000, weight=0.05, prior_samples=1, min_sample_tokens=1024, long_sample_s=0.25)
    assert not rate.learn(100, 0.02, 0.0)
    assert not rate.learn(0, 1.0, 0.0)
    assert rate.sampled_at == -math.inf
    assert rate.learn(2000, 0.4, 1.0), "enough tokens"
    assert rate.learn(100, 0.3, 2.0), "took long"
    assert (rate.tokens_per_s < 10_000, rate.sampled_at) == (True, 2.0)

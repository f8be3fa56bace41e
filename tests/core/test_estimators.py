"""What is learned converges, stays in its bounds, and leans to the safe side."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway_router.core.estimators import MarginLearner, OutputLength, TokenEstimator


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

"""Learn-then-Test: the binomial test, the search, and the promise itself."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.calibration.certify import STARTS, binomial_cdf, certify, labels_needed, naive


@given(st.integers(1, 80), st.floats(0.01, 0.99), st.data())
def test_the_binomial_cdf(n: int, p: float, data: st.DataObject) -> None:
    errors = data.draw(st.integers(-1, n))
    exact = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(errors + 1))
    assert binomial_cdf(errors, n, p) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 59), (0.02, 149), (0.01, 299)])
def test_labels_needed_without_a_mistake(alpha: float, needed: int) -> None:
    assert labels_needed(alpha, 0.05) == needed


def test_without_mistakes_everything_is_certified_once_there_are_enough() -> None:
    few = certify([0.9] * 50, [True] * 50, 0.05, 0.1)
    assert few.threshold is None
    many = certify([0.9] * 500, [True] * 500, 0.05, 0.1)
    assert (many.threshold, many.kept, many.coverage) == (0.9, 500, 1.0)


def test_ties_are_kept_or_left_together() -> None:
    confidences = [0.9] * 300 + [0.5] * 300
    certificate = certify(confidences, [True] * 300 + [False] * 300, 0.05, 0.1)
    assert (certificate.threshold, certificate.kept, certificate.errors) == (0.9, 300, 0)


def test_a_bad_strict_end_does_not_hide_a_good_rest() -> None:
    """The surest tenth is bad; starts at larger coverage still find what holds."""
    confidences = [1 - i / 4000 for i in range(4000)]
    right = [i >= 60 or i % 2 == 0 for i in range(4000)]
    certificate = certify(confidences, right, 0.05, 0.1)
    assert certificate.threshold is not None
    assert certificate.coverage == 1.0


def test_the_promise_holds_where_a_naive_threshold_breaks_it() -> None:
    """P(right | confidence c) = c; the true risk above a threshold t is (1 - t) / 2."""
    rng = random.Random(1)
    alpha, runs = 0.1, 150
    broken = {"certified": 0, "naive": 0}
    for _ in range(runs):
        confidences = [rng.random() for _ in range(600)]
        right = [rng.random() < c for c in confidences]
        for name, certificate in (
            ("certified", certify(confidences, right, alpha, 0.1)),
            ("naive", naive(confidences, right, alpha)),
        ):
            broken[name] += certificate.threshold is not None and (1 - certificate.threshold) / 2 > alpha
    assert broken["certified"] <= 0.1 * runs
    assert broken["naive"] > 0.25 * runs


def test_nonsense_is_refused() -> None:
    assert len(STARTS) == 5
    with pytest.raises(ValueError, match="strictly"):
        certify([0.5], [True], 0.0, 0.1)

"""The evidence of confidence in a short run with seeded faults: the published verdict turns to `falls short`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evidence.promises import load_promises
from evidence.results import Circumstances, Measurement, judge
from loadtests.confidence.held import ALPHA, Held, held
from loadtests.confidence.trials import AnswerPool

from evidence import measures_confidence as measures
from spillway_router.calibration.certify import naive
from spillway_router.calibration.fit import CANDIDATES
from spillway_router.core.confidence.calibration import Calibration

TAKEN = Circumstances("make evidence ONLY=confidence", "2026-01-01T00:00:00Z", {}, {})
ANSWERS = 1500
"""The first 300 documents in all five kinds; the full run takes 3,416."""


@pytest.fixture(scope="module")
def short() -> Held:
    return held(ANSWERS, {name: options[-1:] for name, options in CANDIDATES.items()})  # no search for a setting


def holds(name: str, measured: Measurement, min_n: int = 1) -> bool:
    return judge(replace(load_promises()[name], min_n=min_n), measured, TAKEN).holds


def test_a_confidence_that_says_nothing_gains_and_saves_nothing(short: Held) -> None:
    noise = np.random.default_rng(0).random(len(short.rows))
    measured = {**measures.quality(short, 50, noise), **measures.cost(short, 20, noise)}
    assert not holds(measures.GAIN, measured[measures.GAIN])
    assert not holds(measures.COST, measured[measures.COST])


def test_an_overconfident_confidence_falls_short(short: Held) -> None:
    measured = measures.quality(short, 20, short.pool.confidence**0.3)
    assert not holds(measures.ECE, measured[measures.ECE])
    assert measured[measures.GAIN].details["prefixes"].keys() == {"1", "4", "16", "64"}


def certifiable(seed: int = 0) -> AnswerPool:
    """Return a pool whose risk falls with confidence, so that some thresholds hold and others just miss."""
    rng = np.random.default_rng(seed)
    confidence = 0.5 + rng.random(3000) / 2
    right = (rng.random(3000) < confidence).astype(np.float64)
    return AnswerPool(confidence, right, tuple(str(i) for i in range(3000)), ("clean",) * 3000)


def test_certificates_hold_and_a_naive_threshold_does_not() -> None:
    pool = certifiable()
    ours = measures.certificates(pool, 60)[measures.CERTIFICATE]
    assert holds(measures.CERTIFICATE, ours), ours.details
    assert not holds(measures.CERTIFICATE, measures.certificates(pool, 60, naive)[measures.CERTIFICATE])


def test_a_threshold_left_alone_drifts_past_alpha(short: Held) -> None:
    """On the answers of the short run, under the shipped terms, from a threshold that keeps 30%."""
    level = float(np.quantile(short.pool.confidence, 0.7))
    reference = tuple(float(q) for q in np.quantile(short.pool.confidence, np.linspace(0, 1, 101)))
    base = short.calibration
    certificate = replace(base.certificate, threshold=level, alpha=ALPHA)
    certified = replace(short, calibration=_with(base, certificate, reference))
    moving = measures.drifts(certified, 12)[measures.DRIFT]
    fixed = measures.drifts(certified, 12, moves=False)[measures.DRIFT]
    assert holds(measures.DRIFT, moving), moving.details
    assert not holds(measures.DRIFT, fixed)


def _with(base: Calibration, certificate: object, reference: tuple[float, ...]) -> Calibration:
    return replace(base, certificate=certificate, reference=reference)  # type: ignore[arg-type]

"""Drift control: keep a certified threshold honest while the traffic changes. A reducer: (state, audit) -> state.

A share p_a of the answers kept local is audited against a stronger model. Let L be 1 for a wrong answer and 0 for a
right one, and alpha the promised P(wrong | kept). Every audit moves theta (online conformal control with
importance-weighted, partial feedback; Gibbs and Candès 2021, Angelopoulos et al. 2023):

    theta <- clip(theta + (eta / p_a) * (L - alpha), certified theta, MAX_THETA)

theta is the share of the certified answers that would be escalated, not a confidence: confidences crowd near 1, where a
single step would jump over all of them. `threshold` maps theta back to a confidence through the calibration's reference
quantiles. The threshold never falls below the certified one, which was earned on labels: audits can only tighten it.

An escalated answer already comes with its better answer. So those that a theta smaller by BAND would keep (but none
below the certified theta) are probes: they move theta by eta * (L - alpha) free of charge, and reopen what one unlucky
audit closed. Thus theta settles where the answers down to BAND below the threshold meet alpha, which is the safe side.

From CLOSED_AT on nothing is kept and only probes count. So the risk of what is kept returns to alpha even where no
threshold attains it, namely by keeping nothing.

A certificate is revoked when the errors among the last WINDOW audits would have a binomial probability below REVOKE_AT
under it. That raises an alert, and nothing is kept until a new calibration is certified.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

ETA = 0.03
CLOSED_AT = 0.97
BAND = 0.3
MAX_THETA = 1.1
WINDOW = 400
REVOKE_AT = 0.001
KEEP_NOTHING = 2.0
"""A threshold above every confidence."""


@dataclass(frozen=True, slots=True)
class DriftTerms:
    """The terms of a certificate: `alpha`, the promised P(wrong | kept local), in (0, 1); `share`, the share p_a of
    kept answers that are audited, in (0, 1]; `start`, the certified theta; `eta`, the step size."""

    alpha: float
    share: float
    start: float
    eta: float = ETA


@dataclass(frozen=True, slots=True)
class Drift:
    """The state: `theta` in [start, MAX_THETA], the number of `audits` of kept answers so far and how many were
    `wrong`, and the last WINDOW audits as `losses` of 1 and 0, newest last."""

    theta: float
    audits: int = 0
    wrong: int = 0
    losses: tuple[int, ...] = ()
    revoked: bool = False

    @property
    def closed(self) -> bool:
        """Whether nothing is kept."""
        return self.revoked or self.theta >= CLOSED_AT


def theta_of(threshold: float, reference: Sequence[float]) -> float:
    """Return the share of the certified answers below a threshold. `reference`: rising quantiles of their
    confidences."""
    return bisect_left(reference, threshold) / (len(reference) - 1)


def initial_state(threshold: float, reference: Sequence[float]) -> Drift:
    """Return the state of a fresh certificate."""
    return Drift(theta_of(threshold, reference))


def threshold(state: Drift, terms: DriftTerms, certified: float, reference: Sequence[float]) -> float:
    """Return the confidence from which on an answer is kept; KEEP_NOTHING where none is."""
    if state.closed:
        return KEEP_NOTHING
    return certified if state.theta <= terms.start else max(certified, _quantile(reference, state.theta))


def is_probe(state: Drift, confidence: float, terms: DriftTerms, reference: Sequence[float]) -> bool:
    """Return whether an escalated answer, compared with its better one, counts as a probe (`observe(…,
    kept=False)`)."""
    return state.theta > terms.start and confidence >= _quantile(reference, max(terms.start, state.theta - BAND))


def observe(state: Drift, wrong: bool, terms: DriftTerms, *, kept: bool = True) -> Drift:
    """Return the state after one comparison: of an audited answer that was kept, or (`kept=False`) of a probe."""
    loss = int(wrong)
    step = terms.eta * (loss - terms.alpha) / (terms.share if kept else 1.0)
    theta = min(MAX_THETA, max(terms.start, state.theta + step))
    if not kept:
        return replace(state, theta=theta)
    losses = (*state.losses[-(WINDOW - 1) :], loss)
    revoked = state.revoked or upper_tail(sum(losses), len(losses), terms.alpha) < REVOKE_AT
    return Drift(theta=theta, audits=state.audits + 1, wrong=state.wrong + loss, losses=losses, revoked=revoked)


def _quantile(reference: Sequence[float], share: float) -> float:
    place = min(1.0, max(0.0, share)) * (len(reference) - 1)
    low = int(place)
    high = min(low + 1, len(reference) - 1)
    return reference[low] + (reference[high] - reference[low]) * (place - low)


def upper_tail(wrong: int, n: int, p: float) -> float:
    """Return P(X >= wrong) for X binomial with n trials of probability p, 0 < p < 1."""
    if wrong <= 0:
        return 1.0
    odds, below = math.log(p), math.log1p(-p)
    terms = (
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * odds + (n - k) * below)
        for k in range(wrong, n + 1)
    )
    return min(1.0, math.fsum(terms))

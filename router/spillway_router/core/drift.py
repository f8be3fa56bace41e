"""Keeps a certified threshold honest while the traffic changes. A reducer: (state, answer, audit) -> state.

A share p_a of the local answers is audited against a stronger model. With L = 1 for a kept answer that was wrong, else
0, every local answer moves the threshold (online conformal control with importance-weighted, partial feedback; Gibbs
and Candès 2021, Angelopoulos et al. 2023):

    theta <- clip(theta + eta * (1[audited] / p_a) * (L - alpha), 0, 1)

An answer that was escalated is not wrong (L = 0) and needs no audit to know it, but it moves theta only when drawn for
an audit: all answers must count alike, or theta sinks as it escalates more. Whoever escalated an answer has its better
answer already, so that the audit of an escalated one costs nothing.

The certificate is revoked, with an alert, when the audits speak against it: the binomial probability of at least the
wrong ones seen in the last WINDOW audits, if P(wrong and kept) were alpha, falls below REVOKE_AT. A revoked
certificate stays revoked until new labels certify a threshold; theta goes on, so that the risk stays near alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

ETA = 0.03
WINDOW = 400
REVOKE_AT = 0.001


@dataclass(frozen=True, slots=True)
class Terms:
    """`alpha`: promised P(wrong, kept local). `share`: p_a, share of answers drawn for an audit, in (0, 1]. `eta`:
    step per unit of excess risk, on the scale of the confidence."""

    alpha: float
    share: float
    eta: float = ETA


@dataclass(frozen=True, slots=True)
class Drift:
    """`theta`: the threshold in use. `losses`: the last WINDOW audits as 1 and 0. `audits`: how many there were."""

    theta: float
    audits: int = 0
    wrong: int = 0
    losses: tuple[int, ...] = ()
    revoked: bool = False


def observe(state: Drift, audited_wrong: bool | None, terms: Terms) -> Drift:
    """The state after one answer that the local model was asked for.

    `audited_wrong`: None where it wasn't drawn for an audit; else whether a wrong answer was kept local (False for an
    escalated one).
    """
    if audited_wrong is None:
        return state
    loss = int(audited_wrong)
    step = terms.eta * (loss - terms.alpha) / terms.share
    losses = (*state.losses[-(WINDOW - 1) :], loss)
    return replace(
        state,
        theta=min(1.0, max(0.0, state.theta + step)),
        audits=state.audits + 1,
        wrong=state.wrong + loss,
        losses=losses,
        revoked=state.revoked or at_least(sum(losses), len(losses), terms.alpha) < REVOKE_AT,
    )


def at_least(wrong: int, n: int, p: float) -> float:
    """P(X >= wrong) for X binomial with n trials of probability p, 0 < p < 1."""
    if wrong <= 0:
        return 1.0
    odds, below = math.log(p), math.log1p(-p)
    terms = (
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * odds + (n - k) * below)
        for k in range(wrong, n + 1)
    )
    return min(1.0, math.fsum(terms))

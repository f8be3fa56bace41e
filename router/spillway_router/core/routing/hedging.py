"""Hedging: when a second backend is asked because the first one keeps a client waiting, and whether that is worth it.

A hedge is sent only while nothing of the first answer has come. By then the first call has taken longer than expected,
and waits of that kind are heavy-tailed: who has waited t for nothing waits about t more (the mean residual life of a
Pareto distribution with the exponent 2). The gain is that wait less the expected time to first token of the second
backend, and the price what the second answer is expected to cost. A token bucket keeps hedges rare, so that they don't
double the load where everything is slow.

Source: J. Dean, L. A. Barroso, The tail at scale, Communications of the ACM 56(2), 2013, on deferred hedged requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from spillway_router.core.money.tariff import Usage, price
from spillway_router.core.routing.model import Candidate


@dataclass(frozen=True, slots=True)
class HedgeRule:
    """When hedges are sent: after `after` times the expected time to first token of the first backend, at least
    `shortest_s` seconds; for at most `share` of the streams, `burst` at once; where a second that is gained is worth
    `nano_per_s` nano-dollars or less is paid for it."""

    after: float
    shortest_s: float
    share: float
    burst: int
    nano_per_s: int


@dataclass(frozen=True, slots=True)
class HedgeBucket:
    """How many hedges may be sent now. It earns a share of a token per stream, and holds a burst at most."""

    tokens: float

    def after_stream(self, rule: HedgeRule) -> HedgeBucket:
        """Return the bucket after one more stream."""
        return replace(self, tokens=min(float(rule.burst), self.tokens + rule.share))

    def taken(self) -> HedgeBucket | None:
        """Return the bucket after a hedge; None if it has no token left."""
        return None if self.tokens < 1.0 else replace(self, tokens=self.tokens - 1.0)


def delay_s(rule: HedgeRule, first: Candidate, second: Candidate) -> float:
    """Return after how many seconds without a token of the first backend the second one may be asked.

    Who has waited t waits t more, so a hedge gains t less the second backend's time to first token. It is sent once
    that gain is worth the expected cost; infinity if it never is.
    """
    cost_nano = expected_cost_nano(second)
    if cost_nano and not rule.nano_per_s:
        return math.inf
    paid_s = cost_nano / rule.nano_per_s if cost_nano else 0.0
    return max(rule.shortest_s, rule.after * first.ttft_s, second.ttft_s + paid_s)


def expected_cost_nano(candidate: Candidate) -> int:
    """Return what an answer of a candidate is expected to cost in nano-dollars, never more than its bound."""
    tariff = candidate.backend.tariff
    if tariff is None:
        return 0
    if not tariff.by_tokens:
        return candidate.bound_nano
    return min(candidate.bound_nano, price(Usage(candidate.prompt_tokens, candidate.output_tokens), tariff))

"""Prove that the stored balances are the sums of the rows, without sorting either of them.

A row moves every balance of its scopes (`all`, `key:ID` …) in its hour, day and month. Each scope gets a random number
a, and each period a random number b. The sum of a x b x amount over all balances that the rows move must be the sum of
a x b x amount over the stored balances. Both sums need one pass in any order, and a few numbers per scope and period in
memory.

If all balances are right, the sums are equal. If any balance is wrong, the difference of the sums is a polynomial of at
most third degree in the random numbers that is not zero everywhere, and it is zero by chance for at most 3 in 2**61
draws (Schwartz 1980, Fast probabilistic algorithms for verification of polynomial identities). The numbers are drawn
anew each time, so that nobody can choose wrong balances to fit them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from spillway_router.ledger.interface import Checks
from spillway_router.ledger.posting import OpenHold, balance_keys
from spillway_router.ledger.records import BalanceKey

_HOUR_MS = 3_600_000
_BITS = 61

Draw = Callable[[int], int]
"""Returns a random number of so many bits, such as `secrets.randbits`."""


def balances_agree(checks: Checks, holds: Iterable[OpenHold], draw: Draw) -> bool:
    """Return whether the stored balances are those of the rows and of the open holds."""
    weights = _Weights(draw)
    whose, hour, held_weight = weights.whose, weights.hour, weights.held
    difference = 0
    for at, backend, key_id, tier, user_id, nano, kept_nano in checks.moves():
        amount = int(nano) + held_weight * int(kept_nano)
        difference += whose(backend, key_id, tier, user_id) * hour(at) * amount
    for hold in holds:
        amount = held_weight * hold.reserved_nano
        whose_hold = whose(hold.backend, hold.key_id, hold.tier, hold.user_id)
        difference += whose_hold * hour(hold.ts // _HOUR_MS) * amount
    scope_weight, period_weight = weights.scope, weights.period
    for scope, period, start_ms, spent_nano, reserved_nano in checks.balances():
        amount = spent_nano + held_weight * reserved_nano
        difference -= scope_weight(scope) * period_weight(period, start_ms) * amount
    return not difference


class _Weights:
    """The random numbers of scopes and periods, drawn when they are first asked for; `held` weighs money held."""

    def __init__(self, draw: Draw) -> None:
        self.held = draw(_BITS)

        @cache
        def scope(_name: str) -> int:
            return draw(_BITS)

        @cache
        def period(_name: str, _start_ms: int) -> int:
            return draw(_BITS)

        @cache
        def whose(backend: str, key_id: str, tier: str, user_id: str) -> int:
            return sum(map(scope, {key[0] for key in balance_keys(backend, key_id, tier, user_id, 0)}))

        @cache
        def hour(at: int) -> int:
            periods: set[BalanceKey] = {("", *key[1:]) for key in balance_keys("", "", "", "", at * _HOUR_MS)}
            return sum(period(name, start_ms) for _, name, start_ms in periods)

        self.scope, self.period, self.whose, self.hour = scope, period, whose, hour

"""The budgets of a replay: the same lines and sums as a router's, where nobody else spends.

Budgets begin empty. A hold is refused where the bound does not fit into what a line has left, so that spent and
reserved together never exceed a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from spillway_router.core.money import budget, degrade
from spillway_router.core.money.budget import EACH, EACH_KEY, BudgetLine, LineKey, Spender
from spillway_router.core.routing.model import Backend, Caller


@dataclass(frozen=True, slots=True)
class ModelledHold:
    """A bound that is set aside in the lines of `keys`, since `held_s` (epoch seconds)."""

    keys: tuple[LineKey, ...]
    held_s: float
    bound_nano: int


class Purse:
    """The balances of one replay. `wall_s` is in epoch seconds and never goes back."""

    __slots__ = ("_each_key", "_keys_seen", "_state", "most_share")

    def __init__(self, lines: Iterable[BudgetLine], wall_s: float) -> None:
        lines = tuple(lines)
        self._each_key = tuple(line for line in lines if line.scope == EACH_KEY)
        self._state = budget.opening((line for line in lines if line.scope not in EACH), wall_s)
        self._keys_seen: set[str] = set()
        self.most_share = 0.0
        """The largest share of a limit that was ever spent or reserved."""

    @property
    def is_empty(self) -> bool:
        """Whether there are no budgets."""
        return not (self._state.lines or self._each_key)

    def headroom_nano(self, backend: Backend, caller: Caller, wall_s: float) -> int | None:
        """Return what this caller may still spend at this backend; None if no budget covers them."""
        return budget.headroom(self._rolled(caller, wall_s), _spender(backend, caller), wall_s)

    def shares_used(self, caller: Caller, wall_s: float) -> Mapping[LineKey, float]:
        """Return the share of each budget that is spent or held, for the budgets that concern this caller."""
        return degrade.shares_used(self._rolled(caller, wall_s), caller.key_id, caller.tier, wall_s)

    def hold(self, backend: Backend, caller: Caller, bound_nano: int, wall_s: float) -> ModelledHold | None:
        """Set a bound aside; None if it does not fit."""
        state = self._rolled(caller, wall_s)
        left_nano = budget.headroom(state, _spender(backend, caller), wall_s)
        if left_nano is not None and bound_nano > left_nano:
            return None
        lines = budget.covering(state.lines, _spender(backend, caller))
        hold = ModelledHold(tuple(line.key for line in lines), wall_s, bound_nano)
        budget.move(state, hold.keys, wall_s, reserved_nano=bound_nano)
        self._note(lines)
        return hold

    def settle(self, hold: ModelledHold, charge_nano: int) -> None:
        """Replace a hold by its charge, in the period in which it was taken."""
        budget.move(self._state, hold.keys, hold.held_s, spent_nano=charge_nano, reserved_nano=-hold.bound_nano)

    def _rolled(self, caller: Caller, wall_s: float) -> budget.BudgetState:
        key_id = caller.key_id
        if self._each_key and key_id and key_id not in self._keys_seen:
            self._keys_seen.add(key_id)
            own = budget.lines_for(f"key:{key_id}", self._each_key, self._state.lines)
            balances = {line.key: budget.LineBalance(budget.period_start(line.period, wall_s)) for line in own}
            lines = (*self._state.lines, *own)
            self._state = replace(self._state, lines=lines, balances={**self._state.balances, **balances})
        self._state = budget.rolled(self._state, wall_s)
        return self._state

    def _note(self, lines: Iterable[BudgetLine]) -> None:
        for line in lines:
            if line.limit_nano:
                taken_nano = self._state.balances[line.key].taken_nano
                self.most_share = max(self.most_share, taken_nano / line.limit_nano)


def _spender(backend: Backend, caller: Caller) -> Spender:
    return Spender(backend.name, caller.key_id, caller.tier)

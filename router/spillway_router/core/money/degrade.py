"""Degrading: as a budget runs low, expensive backends drop out first, then cheaper ones, then every paid one.

A degrade rule names a budget line, a share of its limit, and the backends that drop out from that share on. Rules add
up: at 95% the backends of the 80% rule stay out too. If only local backends remain and none of them can answer, the
request is refused because of its budget.

The module is pure: the shares come from a budget state, the rules from the configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spillway_router.core.money.budget import BudgetState, LineKey, Period, Spender, covers, rolled


@dataclass(frozen=True, slots=True)
class DegradeRule:
    """From the share `at` (0 to 1) of the line (`scope`, `period`) on, no request goes to the backends in `drop`."""

    scope: str
    period: Period
    at: float
    drop: frozenset[str]

    @property
    def line(self) -> LineKey:
        """The budget line that the rule belongs to."""
        return (self.scope, self.period)


DegradeRules = tuple[DegradeRule, ...]


def rules_of(backend: str, rules: Iterable[DegradeRule]) -> DegradeRules:
    """Return the rules that drop this backend, lowest share first."""
    return tuple(sorted((rule for rule in rules if backend in rule.drop), key=lambda rule: rule.at))


def shares_used(state: BudgetState, key_id: str, tier: str, wall_s: float) -> dict[LineKey, float]:
    """Return the share of each line's limit that is spent or reserved, for the lines that concern this caller.

    A limit of 0 counts as used up from the start.
    """
    state = rolled(state, wall_s)
    return {
        line.key: state.balances[line.key].taken_nano / line.limit_nano if line.limit_nano else 1.0
        for line in state.lines
        if line.scope.startswith("backend:") or covers(line.scope, Spender("", key_id, tier))
    }


def reached(rules: Sequence[DegradeRule], used: Mapping[LineKey, float]) -> DegradeRule | None:
    """Return the first rule whose share is used; lines that don't concern the caller are missing in `used`."""
    return next((rule for rule in rules if used.get(rule.line, -1.0) >= rule.at), None)


def sentence(rule: DegradeRule, used: Mapping[LineKey, float]) -> str:
    """Return why the rule drops a backend."""
    share = used[rule.line] * 100
    return (
        f"the {rule.period} budget for {rule.scope} is {share:.3g}% used; "
        f"from {rule.at * 100:.3g}% on it gets no requests (degrade)"
    )

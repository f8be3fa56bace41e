"""Degrading: as a budget runs low, expensive backends drop out first, then cheaper ones, then every paid one.

A degrade step names a budget line, a share of its limit, and the backends that drop out from that share on. Steps add
up: at 95% the backends of the 80% step stay out too. If only local backends remain and none of them can answer, the
request is refused because of its budget.

The module is pure: the shares come from a budget state, the steps from the configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spillway_router.core.money.budget import BudgetState, LineKey, Period, Spender, covers, rolled


@dataclass(frozen=True, slots=True)
class DegradeStep:
    """From the share `at` (0 to 1) of the line (`scope`, `period`) on, no request goes to the backends in `drop`."""

    scope: str
    period: Period
    at: float
    drop: frozenset[str]

    @property
    def line(self) -> LineKey:
        """The budget line that the step belongs to."""
        return (self.scope, self.period)


DegradeSteps = tuple[DegradeStep, ...]


def steps_of(backend: str, steps: Iterable[DegradeStep]) -> DegradeSteps:
    """Return the steps that drop this backend, lowest share first."""
    return tuple(sorted((step for step in steps if backend in step.drop), key=lambda step: step.at))


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


def reached(steps: Sequence[DegradeStep], used: Mapping[LineKey, float]) -> DegradeStep | None:
    """Return the first step whose share is used; lines that don't concern the caller are missing in `used`."""
    return next((step for step in steps if used.get(step.line, -1.0) >= step.at), None)


def sentence(step: DegradeStep, used: Mapping[LineKey, float]) -> str:
    """Return why the step drops a backend."""
    share = used[step.line] * 100
    return (
        f"the {step.period} budget for {step.scope} is {share:.3g}% used; "
        f"from {step.at * 100:.3g}% on it gets no requests (degrade)"
    )

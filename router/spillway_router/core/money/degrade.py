"""The degrade ladder: as a budget runs low, dear backends are not asked any more, then cheap ones, then none that cost.

A rung names a budget line, a share of its limit and the backends that are left out from that share on. Rungs add up: at
95% those of 80% stay out too. When only local backends are left and none of them can answer, the request is refused
for its budget.

Pure: the shares come from a budget state, rungs from the configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from spillway_router.core.frozen import dataclass
from spillway_router.core.money.budget import BudgetState, LineKey, Period, Spender, covers, rolled


@dataclass(frozen=True, slots=True)
class Rung:
    """From the share `at` (0 to 1) of the line (`scope`, `period`) on, `drop` are not asked."""

    scope: str
    period: Period
    at: float
    drop: frozenset[str]

    @property
    def line(self) -> LineKey:
        """The budget line it belongs to."""
        return (self.scope, self.period)


Ladder = tuple[Rung, ...]


def rungs_of(backend: str, ladder: Iterable[Rung]) -> Ladder:
    """The rungs that leave this backend out, lowest first."""
    return tuple(sorted((r for r in ladder if backend in r.drop), key=lambda r: r.at))


def shares_used(state: BudgetState, key_id: str, tier: str, now: float) -> dict[LineKey, float]:
    """Share of each line's limit that is spent or held, for the lines that concern this caller. A limit of 0 is used
    up from the start."""
    state = rolled(state, now)
    return {
        line.key: state.balances[line.key].taken / line.limit_nano if line.limit_nano else 1.0
        for line in state.lines
        if line.scope.startswith("backend:") or covers(line.scope, Spender("", key_id, tier))
    }


def reached(rungs: Sequence[Rung], used: Mapping[LineKey, float]) -> Rung | None:
    """The first rung whose share is used; a line that doesn't concern the caller is not in `used`."""
    return next((r for r in rungs if used.get(r.line, -1.0) >= r.at), None)


def sentence(rung: Rung, used: Mapping[LineKey, float]) -> str:
    """Why a backend is left out."""
    share = used[rung.line] * 100
    return (
        f"the {rung.period} budget for {rung.scope} is {share:.3g}% used; "
        f"from {rung.at * 100:.3g}% on it is not asked (degrade)"
    )

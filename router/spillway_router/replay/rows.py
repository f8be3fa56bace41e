"""The figures of one policy, as the table, the JSON and the plot show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spillway_router.core.money.attribution import GpuRental
from spillway_router.core.replay.replay import ReplayResult
from spillway_router.core.replay.tally import Tally

KINDS = ("local", "overflow", "routed", "escalated")
"""The decisions that have a column of their own."""


@dataclass(frozen=True, slots=True)
class Shares:
    """The share of all requests that ended in each way, 0 to 1; `other` is fallback, pinned and the like."""

    local: float
    overflow: float
    routed: float
    escalated: float
    other: float
    refused: float

    def all(self) -> tuple[float, ...]:
        """Return the shares in the order of the table's columns."""
        return (self.local, self.overflow, self.routed, self.escalated, self.other, self.refused)


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """What one policy did with the requests.

    `late` and `slow` are shares of the local answers; times are seconds to the first token of
    local answers. `right` of the `judged` answers were right. What is not known is None.
    """

    name: str
    requests: int
    shares: Shares
    cloud_nano: int
    p50_s: float | None = None
    p95_s: float | None = None
    late: float | None = None
    slow: float | None = None
    gpu_hours: float = 0.0
    gpu_busy_hours: float | None = None
    fixed_nano: int = 0
    judged: int = 0
    right: int = 0
    most_of_budgets: float | None = None
    refusals: Mapping[str, int] = field(default_factory=dict)
    backends: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Requests and nano-dollars by backend."""
    rules: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """The same by each rule that applied."""

    @property
    def total_nano(self) -> int:
        """Fixed cost and clouds together."""
        return self.cloud_nano + self.fixed_nano

    @property
    def quality(self) -> float | None:
        """The share of the judged answers that were right; None without any."""
        return self.right / self.judged if self.judged else None


def policy_row(name: str, result: ReplayResult, gpu: GpuRental) -> PolicyRow:
    """Return the figures of a replay."""
    tally = result.tally
    span_s = result.end_s - result.start_s
    hours = span_s / 3600 * gpu.count if result.busy_s else 0.0
    local = tally.waits.count
    return PolicyRow(
        name=name,
        requests=tally.requests,
        shares=shares(tally),
        cloud_nano=tally.cloud_nano,
        p50_s=tally.waits.quantile(0.5) if local else None,
        p95_s=tally.waits.quantile(0.95) if local else None,
        late=tally.late / local if local else None,
        slow=tally.slow / local if local else None,
        gpu_hours=hours,
        gpu_busy_hours=hours * result.busy_share,
        fixed_nano=round(span_s * gpu.nano_per_second) if result.busy_s else 0,
        judged=tally.judged,
        right=tally.right,
        most_of_budgets=result.most_of_budgets,
        refusals=dict(tally.refusals),
        backends=_spending(tally, "backends"),
        rules=_spending(tally, "rules"),
    )


def shares(tally: Tally) -> Shares:
    """Return the share of each kind of decision."""
    whole, kinds = max(1, tally.requests), tally.kinds
    others = sum(kinds.values()) - sum(kinds[kind] for kind in (*KINDS, "refused"))
    return Shares(
        local=kinds["local"] / whole,
        overflow=kinds["overflow"] / whole,
        routed=kinds["routed"] / whole,
        escalated=kinds["escalated"] / whole,
        other=others / whole,
        refused=kinds["refused"] / whole,
    )


def _spending(tally: Tally, by: str) -> dict[str, dict[str, int]]:
    spent = tally.backends if by == "backends" else tally.rules
    return {name: {"requests": one.requests, "cost_nano": one.nano} for name, one in sorted(spent.items())}

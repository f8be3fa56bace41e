"""What a report says, as values. Money in integer nano-dollars (`*_nano`), shares in [0, 1], times in epoch ms.

These names are those of `spillway report --json` and `GET /v1/usage`, so they are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spillway_router.core.money.attribution import BreakEven
from spillway_router.core.money.forecast import Method


@dataclass(frozen=True, slots=True)
class WorkDone:
    """Work done by one group: attempts, those that answered a request, documents among these, tokens of these."""

    attempts: int
    answers: int
    documents: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """Nano-dollars per answered request, per 1,000 tokens (prompt and completion), per document; None without any."""

    per_request_nano: int | None
    per_1k_tokens_nano: int | None
    per_document_nano: int | None


@dataclass(frozen=True, slots=True)
class LocalRow:
    """One local model: what it served, GPU seconds of work, its share of the bill. Discarded drafts were escalated."""

    backend: str
    model: str
    served: WorkDone
    discarded: int
    gpu_seconds: float
    used_nano: int


@dataclass(frozen=True, slots=True)
class RentalRow:
    """One rental in the report's time: its price in USD per GPU-hour as text, GPU-hours and cost within that time."""

    id: str
    gpu: str
    count: int
    price_per_hour_usd: str
    kind: str
    source: str
    started_ms: int
    stopped_ms: int | None
    gpu_hours: float
    billed_nano: int


@dataclass(frozen=True, slots=True)
class FixedSide:
    """The rented GPUs. `price_per_hour_usd` of one (the mean by time if there were several), `gpus` at once at most,
    GPU-hours billed, bill, its used and idle part, utilisation. `overcommitted`: more work than time on some day."""

    price_per_hour_usd: str
    gpus: int
    gpu_hours: float
    billed_nano: int
    used_nano: int
    idle_nano: int
    utilisation: float
    overcommitted: bool
    rentals: tuple[RentalRow, ...]
    rows: tuple[LocalRow, ...]
    served: WorkDone
    units: UnitCosts


@dataclass(frozen=True, slots=True)
class CloudRow:
    """Requests that went to the cloud for one reason: what was served there and what it cost."""

    decision: str
    served: WorkDone
    cost_nano: int
    per_answer_nano: int | None


@dataclass(frozen=True, slots=True)
class CloudSide:
    """Per-request cost: rows by decision, attempts not settled yet at their bound, and the sum of both."""

    rows: tuple[CloudRow, ...]
    unsettled: int
    unsettled_nano: int
    cost_nano: int
    served: WorkDone
    units: UnitCosts


@dataclass(frozen=True, slots=True)
class Alternative:
    """One priced model instead of everything: its cost for the same answers, what was saved against it (negative:
    lost), and when renting the GPU pays against it."""

    name: str
    tariff_ref: str
    all_cloud_nano: int
    savings_nano: int
    break_even: BreakEven


@dataclass(frozen=True, slots=True)
class AllLocal:
    """Everything on the GPU instead: GPUs needed on average, fixed cost of that many for the billed hours."""

    gpus_needed: int
    cost_nano: int
    savings_nano: int


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group of the grouping asked for: its keys by name, and its cost. All groups sum to the report.

    `labels`: for people, what stands beside a key that says little by itself (the name of an API key).
    `used_nano` is its share of the GPUs, `idle_nano` unused GPU time (in the groups of days and months; else one row of
    its own, `idle` True, holds all of it), `cloud_nano` with what isn't settled. `all_cloud_nano`: its answers at the
    alternative that is cheapest for the whole report.
    """

    keys: Mapping[str, str]
    labels: Mapping[str, str]
    idle: bool
    served: WorkDone
    used_nano: int
    idle_nano: int
    cloud_nano: int
    total_nano: int
    units: UnitCosts
    all_cloud_nano: int | None


@dataclass(frozen=True, slots=True)
class ForecastRow:
    """The running month by its end, and how that was reckoned (core/money/forecast.py). `budget_nano`: the month's
    cap on all cloud spend, None without one."""

    month: str
    method: Method
    days_of_history: int
    fixed_so_far_nano: int
    cloud_so_far_nano: int
    fixed_nano: int
    cloud_nano: int
    total_nano: int
    budget_nano: int | None


@dataclass(frozen=True, slots=True)
class Period:
    """The UTC days of a report: `name` as asked for, first day, first day after, and how many days."""

    name: str
    first: str
    after: str
    days: int


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """What people thought of one model's answers: how many were rated, the share of those rated 4 or 5 of 5, the mean
    rating, how often a better answer was asked for and the share of all its answers that this is; None without any."""

    backend: str
    model: str
    ratings: int
    satisfied_share: float | None
    mean_rating: float | None
    better_asked: int
    better_share: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """The two-sided report of some UTC days, `start_ms` to `end_ms`, made at `made_ms`. `day` is the ISO date of a
    report of one day, else None. `capacity_per_day`: answered requests of the mean shape that the GPUs could do in 24
    hours at full load. `by` and `groups`: the grouping asked for; `cheapest`: name of the cheapest alternative."""

    period: Period
    day: str | None
    start_ms: int
    end_ms: int
    made_ms: int
    requests: int
    fixed: FixedSide
    cloud: CloudSide
    total_nano: int
    served: WorkDone
    units: UnitCosts
    alternatives: tuple[Alternative, ...]
    cheapest: str | None
    all_local: AllLocal | None
    capacity_per_day: float | None
    by: tuple[str, ...]
    groups: tuple[GroupRow, ...]
    forecast: ForecastRow | None
    feedback: tuple[FeedbackRow, ...] = ()

"""The values of a report. Money is in integer nano-dollars (`*_nano`), shares are in [0, 1], times in epoch ms.

The field names are the keys of `spillway report --json` and `GET /v1/usage`, so they must not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spillway_router.core.money.attribution import BreakEven
from spillway_router.core.money.currency import Amounts, Currency
from spillway_router.core.money.forecast import Method


@dataclass(frozen=True, slots=True)
class WorkDone:
    """The work of one group: its attempts, those that answered a request, documents among these, and their tokens."""

    attempts: int
    answers: int
    documents: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """Nano-dollars per answered request, per 1,000 tokens (prompt and completion) and per document; None if there are
    none."""

    per_request_nano: int | None
    per_1k_tokens_nano: int | None
    per_document_nano: int | None


@dataclass(frozen=True, slots=True)
class LocalRow:
    """One local model: its work, GPU seconds, and share of the bill. `discarded` counts drafts that were escalated."""

    backend: str
    model: str
    served: WorkDone
    discarded: int
    gpu_seconds: float
    used_nano: int


@dataclass(frozen=True, slots=True)
class RentalRow:
    """One rental within the report's range: its price in USD per GPU-hour as text, or per GPU and month where it is
    priced so, and its GPU-hours and cost."""

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
    price_per_month_usd: str | None = None


@dataclass(frozen=True, slots=True)
class FixedSide:
    """The rented GPUs.

    `price_per_hour_usd` is the price of one GPU (the mean by time if there were several prices), `gpus` the most GPUs
    at once. The bill has a used and an idle part. `overcommitted` means that some day had more work than rented time.
    """

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
    """The requests that went to the cloud for one reason: the work done there, and its cost."""

    decision: str
    served: WorkDone
    cost_nano: int
    per_answer_nano: int | None


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step of escalation: how often it was asked, and what came of that.

    `answered` of them ended with its answer, which is what it gained; `discarded` went on to the next step, as its
    answer was not sure either. `cost_nano` is that of all of them. A `referee` judged answers and gave none.
    """

    backend: str
    model: str
    asked: int
    answered: int
    discarded: int
    cost_nano: int
    per_answer_nano: int | None
    referee: bool = False


@dataclass(frozen=True, slots=True)
class CloudSide:
    """The per-request cost: rows by decision, unsettled attempts at their bound, and the sum of both.

    `unsure` of the attempts are not known for sure: their part of the rows is `estimated_nano`, and it is at most
    `at_most_nano`.
    """

    rows: tuple[CloudRow, ...]
    unsettled: int
    unsettled_nano: int
    unsure: int
    estimated_nano: int
    at_most_nano: int
    cost_nano: int
    served: WorkDone
    units: UnitCosts


@dataclass(frozen=True, slots=True)
class CacheSide:
    """The requests that got a stored answer, at no cost: how many, their tokens, and what these answers had cost when
    they were made."""

    answers: int
    prompt_tokens: int
    completion_tokens: int
    saved_nano: int


@dataclass(frozen=True, slots=True)
class OtherCostRow:
    """A fixed cost that is no GPU, within the report's range: its price in USD per calendar month as text, and what it
    was."""

    id: str
    name: str
    price_per_month_usd: str
    started_ms: int
    stopped_ms: int | None
    billed_nano: int


@dataclass(frozen=True, slots=True)
class OtherFixed:
    """The fixed costs that are no GPU. They are part of the total, and not of the cost of a request or document."""

    billed_nano: int
    rows: tuple[OtherCostRow, ...]


@dataclass(frozen=True, slots=True)
class Alternative:
    """One priced model in place of everything that it could have answered: how many answers these are, their cost
    there, what was saved compared to it (negative if it would have been cheaper), and when renting the GPU pays off
    against it.

    What other answers cost is on neither side of the comparison. Savings are None while the price of a GPU is unknown,
    and so is the break-even.
    """

    name: str
    tariff_ref: str
    answers: int
    all_cloud_nano: int
    savings_nano: int | None
    break_even: BreakEven


@dataclass(frozen=True, slots=True)
class AllLocal:
    """Everything on GPUs instead: the GPUs needed on average, and their fixed cost for the billed hours."""

    gpus_needed: int
    cost_nano: int
    savings_nano: int


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group of the requested grouping: its keys by name, and its cost. All groups sum to the report.

    `labels` explains keys that say little to people, such as the name of an API key. `used_nano` is the group's share
    of the GPUs. `idle_nano` is unused GPU time: in groups of days and months their own, otherwise all of it is in one
    row with `idle` True. `cloud_nano` includes unsettled attempts. `all_cloud_nano` is the cost of the group's answers
    at the alternative that the report is `against`, None if it could have given none of them. `other_nano` is
    other fixed costs: in groups of days and months their own, otherwise all of them are in one row with `other` True.
    `idle_share_nano` is what of the idle time, wherever it is a row, falls to the group by its work of the same days.
    `unsure`, `estimated_nano` and `at_most_nano` mean the same as on the cloud side.
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
    other: bool = False
    other_nano: int = 0
    unsure: int = 0
    estimated_nano: int = 0
    at_most_nano: int = 0
    idle_share_nano: int = 0


@dataclass(frozen=True, slots=True)
class ForecastRow:
    """The cost of the running month by its end, and the method of the estimate (core/money/forecast.py).

    `minutes_of_history` is the time since the first cost that it goes by; below a day it is a guess. `budget_nano` is
    the month's cap on all cloud spend, None without one. `other_nano` is other fixed costs.
    """

    month: str
    method: Method
    days_of_history: int
    minutes_of_history: int
    fixed_so_far_nano: int
    cloud_so_far_nano: int
    fixed_nano: int
    cloud_nano: int
    total_nano: int
    budget_nano: int | None
    other_nano: int = 0


@dataclass(frozen=True, slots=True)
class Period:
    """The days of a report: their name, the first day, the first day after them, their number and their time zone."""

    name: str
    first: str
    after: str
    days: int
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    """What people thought of one model's answers.

    `ratings` counts the rated answers, `satisfied_share` is the share of those rated 4 or 5 of 5. `better_asked` counts
    requests for a better answer, and `better_share` is their share of all answers of the model. Shares and means are
    None if there is nothing to divide by.
    """

    backend: str
    model: str
    ratings: int
    satisfied_share: float | None
    mean_rating: float | None
    better_asked: int
    better_share: float | None


@dataclass(frozen=True, slots=True)
class PressedRow:
    """Who had answers given better, how often (`asked`), and by how many stars of 5 the better answers were rated
    higher in the mean, where both answers were rated (`compared`; None if none were)."""

    key_id: str
    tier: str
    user_id: str
    asked: int
    compared: int
    mean_gain: float | None


@dataclass(frozen=True, slots=True)
class CreditRow:
    """How many requests or better answers (`counted`) somebody has used in one period that overlaps the report's days.

    `scope` is all, key:ID, tier:NAME or user:PSEUDONYM, `starts` when the period began (ISO 8601, UTC), and `limit` the
    cap at the last one that was used.
    """

    scope: str
    counted: str
    period: str
    starts: str
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Report:
    """The two-sided report of some days, from `start_ms` to `end_ms`, built at `made_ms`.

    `day` is the ISO date of a report of one day, else None. `capacity_per_day` is the number of requests of the mean
    shape that the GPUs could answer in 24 hours at full load. `by` and `groups` are the requested grouping. `cheapest`
    is the name of the cheapest alternative among those for the most answers, `against` that of the one that groups are
    compared with, and `not_compared` names priced models
    that could have given none, or whose price per second says nothing about them. `currency` is the one that people
    see; all amounts here are in US dollars.
    """

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
    pressed: tuple[PressedRow, ...] = ()
    """The 100 of them who asked most often."""
    credits: tuple[CreditRow, ...] = ()
    """Of requests and of better answers, the 100 periods of which most was used."""
    steps: tuple[StepRow, ...] = ()
    other: OtherFixed = OtherFixed(0, ())
    unpriced_gpu_hours: float = 0.0
    """GPU-hours of rentals whose price nobody gave: the report has them at 0."""
    currency: Currency | None = None
    not_compared: tuple[str, ...] = ()
    cache: CacheSide = CacheSide(0, 0, 0, 0)
    against: str | None = None

    @property
    def amounts(self) -> Amounts:
        """Writes the report's amounts for people."""
        return Amounts(self.currency)

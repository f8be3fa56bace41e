"""The report on experiments: what each arm cost, how fast and how well it answered, and whether it differs.

The first arm of an experiment, the control if it has one, is what the others are compared with. All intervals may be
looked at every day (core/comparison/differences.py), each measure by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from spillway_router.core.comparison.differences import (
    FEWEST_UNITS,
    Interval,
    difference,
    mean_interval,
    relative_difference,
)
from spillway_router.core.money.currency import IN_USD
from spillway_router.core.money.tariff import NANO, Tariff, price_many
from spillway_router.core.routing.experiments import CONTROL
from spillway_router.core.routing.moving_arms import shares_of
from spillway_router.ledger.tables.experiments import ArmSums, DryChoice, ShareMove

DAY_MS = 86_400_000
SAME_SHARE = 0.05
"""Costs and times that differ by at most this share are about the same, and shares that differ by this much."""
SAME_RATING = 0.25
"""Ratings from 1 to 5 that differ by at most this are as good."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """An arm against the control. `cost` and `took` are relative, -0.1 for 10% less; `escalated` is the difference of
    the shares and `rating` that of the mean ratings. None where there are too few units yet."""

    cost: Interval | None
    took: Interval | None
    escalated: Interval | None
    rating: Interval | None


@dataclass(frozen=True, slots=True)
class DryReport:
    """What a shadow that only decides chose: the shares of the backends, what their clouds would have cost per request
    for the tokens of the clients' own answers (None where a price is not known), and what these answers cost."""

    shares: Mapping[str, float]
    expected_nano: int | None
    answered_nano: int


@dataclass(frozen=True, slots=True)
class ArmReport:
    """What an arm did: means per request, answer or rating; None without any."""

    name: str
    units: int
    requests: int
    answered_share: float
    cost_per_request_nano: int | None
    took_ms: float | None
    """From the arrival of a request to the end of its answer."""
    escalated_share: float | None
    rating: float | None
    ratings: int
    against: Comparison | None
    """Against the first arm; None for that arm itself, and for a shadow that only decides."""
    agreed: float | None
    agreement: Interval | None
    """Of a shadow that asks: the share of its answers that say the same as the clients'."""
    dry: DryReport | None
    """Of a shadow that only decides."""
    verdict: str
    """The comparison in one sentence; empty for the first arm."""


@dataclass(frozen=True, slots=True)
class ShareMoves:
    """What a bandit did with the shares of an experiment in the time of the report."""

    count: int
    last_ms: int
    shares: Mapping[str, float]
    """After the last move."""
    reasons: Mapping[str, Any]
    """Of the last move, as the ledger keeps them."""
    sentence: str


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """One experiment: its arms, the one that the others are compared with first."""

    name: str
    arms: tuple[ArmReport, ...]
    moves: ShareMoves | None = None
    """What a bandit did with the shares; None if they stayed as they are configured."""


ARMS_HEAD = ("arm", "units", "requests", "cost per request", "time", "escalated", "rating", "agrees")


def arm_row(arm: ArmReport) -> tuple[str, ...]:
    """Return what an arm did in words and figures, in the columns of ARMS_HEAD."""
    return (
        arm.name,
        f"{arm.units:,}",
        f"{arm.requests:,}",
        IN_USD.or_dash(arm.cost_per_request_nano),
        "-" if arm.took_ms is None else f"{arm.took_ms / 1000:.2f} s",
        "-" if arm.escalated_share is None else f"{arm.escalated_share:.1%}",
        "-" if arm.rating is None else f"{arm.rating:.2f} ({arm.ratings:,})",
        "-" if arm.agreed is None else f"{arm.agreed:.1%}",
    )


@dataclass(frozen=True, slots=True)
class ExperimentSetup:
    """What is configured now: the arms of the experiments in order, and the tariff of each backend (None: local)."""

    order: Mapping[str, Sequence[str]]
    tariffs: Mapping[str, Tariff | None]
    moves: Sequence[ShareMove] = ()
    """Of the time of the report, in order."""


def experiment_reports(
    sums: Iterable[ArmSums], choices: Sequence[DryChoice], setup: ExperimentSetup, now_ms: int
) -> tuple[ExperimentReport, ...]:
    """Return the experiments by name. `choices` are those of dry shadows."""
    dry = {
        arm: dry_report([choice for choice in choices if choice.arm == arm], setup.tariffs)
        for arm in {choice.arm for choice in choices}
    }
    order = setup.order
    by_name: dict[str, dict[str, ArmSums]] = {}
    for one in sums:
        experiment, _, arm = one.arm.partition("/")
        by_name.setdefault(experiment, {})[arm] = one
    moves = {name: share_moves([move for move in setup.moves if move.experiment == name]) for name in by_name}
    return tuple(
        ExperimentReport(
            name, _arms(name, arms, order.get(name, ()), dry, now_ms, shares_moved=moves[name] is not None), moves[name]
        )
        for name, arms in sorted(by_name.items())
    )


def share_moves(moves: Sequence[ShareMove]) -> ShareMoves | None:
    """Return the moves of one experiment in words and figures; None without any."""
    if not moves:
        return None
    last = moves[-1]
    shares = shares_of(last.stretches)
    listed = ", ".join(f"{name} {share:.1%}" for name, share in sorted(shares.items(), key=lambda one: -one[1]))
    count = "once" if len(moves) == 1 else f"{len(moves)} times"
    time = datetime.fromtimestamp(last.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    sentence = (
        f"A bandit moved the shares {count}, the last time at {time} to {listed} "
        f"({last.reasons['worth']}s per dollar). "
        "The intervals are wider therefore, and hold; but they don't know of days on which every answer is better or "
        "dearer, which count more for an arm that had more units then."
    )
    return ShareMoves(count=len(moves), last_ms=last.at_ms, shares=shares, reasons=last.reasons, sentence=sentence)


def dry_report(choices: Sequence[DryChoice], tariffs: Mapping[str, Tariff | None]) -> DryReport:
    """Return what one arm chose, at today's prices. All tokens count at the ordinary prices."""
    requests = sum(choice.requests for choice in choices)
    expected_nano: int | None = 0
    for choice in choices:
        if choice.backend not in tariffs:
            expected_nano = None
        if expected_nano is None:
            break
        tariff = tariffs[choice.backend]
        if tariff is not None:
            fresh = choice.prompt_tokens - choice.cached_tokens
            expected_nano += price_many(fresh, choice.cached_tokens, choice.completion_tokens, choice.requests, tariff)
    return DryReport(
        shares={choice.backend: choice.requests / requests for choice in choices},
        expected_nano=None if expected_nano is None else round(expected_nano / requests),
        answered_nano=round(sum(choice.cost_nano for choice in choices) / requests),
    )


def _arms(
    experiment: str,
    arms: Mapping[str, ArmSums],
    order: Sequence[str],
    dry: Mapping[str, DryReport],
    now_ms: int,
    *,
    shares_moved: bool,
) -> tuple[ArmReport, ...]:
    rank = {name: place for place, name in enumerate((CONTROL, *order))}
    names = sorted(arms, key=lambda name: (rank.get(name, len(rank)), name))
    first = arms[names[0]]
    days = max(now_ms - min(one.first_ms for one in arms.values()), 1) / DAY_MS
    return tuple(
        _arm_or_dry(
            name,
            arms[name],
            None if name == names[0] else Reference(names[0], first, shares_moved=shares_moved),
            days,
            dry.get(f"{experiment}/{name}"),
        )
        for name in names
    )


@dataclass(frozen=True, slots=True)
class Reference:
    """The arm that the others are compared with, and whether the shares moved meanwhile."""

    name: str
    sums: ArmSums
    shares_moved: bool = False


def _arm_or_dry(name: str, sums: ArmSums, reference: Reference | None, days: float, dry: DryReport | None) -> ArmReport:
    if dry is None or not sums.dry:
        return _arm(name, sums, reference, days)
    without_answer = replace(_arm(name, sums, None, days), answered_share=0.0, cost_per_request_nano=None)
    return replace(without_answer, dry=dry, verdict=dry_verdict(name, dry, sums.dry))


def _arm(name: str, sums: ArmSums, reference: Reference | None, days: float) -> ArmReport:
    against, verdict = None, ""
    if reference is not None:
        against = compared(reference.sums, sums, shares_moved=reference.shares_moved)
        verdict = verdict_on(name, reference, against, sums, days)
    cost = sums.cost.mean
    return ArmReport(
        name=name,
        units=sums.cost.units,
        requests=sums.requests,
        answered_share=sums.answered / sums.requests,
        cost_per_request_nano=None if cost is None else round(cost),
        took_ms=sums.took.mean,
        escalated_share=sums.escalated.mean,
        rating=sums.rating.mean,
        ratings=int(sums.rating.count),
        against=against,
        agreed=sums.agreement.mean,
        agreement=mean_interval(sums.agreement),
        dry=None,
        verdict=verdict,
    )


def compared(first: ArmSums, other: ArmSums, *, shares_moved: bool = False) -> Comparison:
    """Return how an arm differs from the first one."""
    return Comparison(
        cost=relative_difference(first.cost, other.cost, shares_moved=shares_moved),
        took=relative_difference(first.took, other.took, shares_moved=shares_moved),
        escalated=difference(first.escalated, other.escalated, shares_moved=shares_moved),
        rating=difference(first.rating, other.rating, shares_moved=shares_moved),
    )


def verdict_on(name: str, reference: Reference, against: Comparison, other: ArmSums, days: float) -> str:
    """Return the comparison in words. `days` is how long the experiment has run."""
    first, sums = reference.name, (reference.sums, other)
    units = min(one.cost.units for one in sums)
    if units < FEWEST_UNITS:
        more = _days_more("that takes", FEWEST_UNITS - units, units, days)
        return (
            f"Not enough requests yet: {name} and {first} need {FEWEST_UNITS} units each and have "
            f"{sums[1].cost.units:,} and {sums[0].cost.units:,}{more}."
        )
    parts = [
        _cost(against.cost, sums, shares_moved=reference.shares_moved),
        _more_or_less(against.took, ("takes", "about as long", "longer", "less time"), "time"),
        _points(against.escalated),
        _agreement(sums[1]) if sums[1].agreement.units else _rating(against.rating),
    ]
    said = [part for part in parts if part]
    text = f"{name} {', '.join(said[:-1])} and {said[-1]}" if len(said) > 1 else f"{name} {said[0]}"
    n = f"n = {sums[1].requests:,} requests against {sums[0].requests:,} of {first}"
    return f"{text}; {n}{_until_decided(against.cost, sums, days)}."


def _cost(interval: Interval | None, sums: tuple[ArmSums, ArmSums], *, shares_moved: bool) -> str:
    if interval is None:  # one of them costs nothing, so there is no share
        absolute = difference(sums[0].cost, sums[1].cost, shares_moved=shares_moved)
        if absolute is None or (absolute.low, absolute.high) == (0, 0):
            return "costs as much"
        low, high = sorted((absolute.low / NANO, absolute.high / NANO))
        between = f"(${low:+.6f} to ${high:+.6f} a request)"
        if not absolute.decided:
            return f"shows no difference in cost yet {between}"
        return f"costs {'more' if absolute.low > 0 else 'less'} {between}"
    return _more_or_less(interval, ("costs", "about the same", "more", "less"), "cost")


def _more_or_less(interval: Interval | None, words: tuple[str, str, str, str], measure: str) -> str:
    """Return a relative difference in words; empty if it is not known."""
    if interval is None:
        return ""
    verb, same, more, less = words
    if interval.within(SAME_SHARE):
        return f"{verb} {same} ({_percent(interval)})"
    if not interval.decided:
        return f"shows no difference in {measure} yet ({_percent(interval)})"
    ends = sorted((abs(interval.low), abs(interval.high)))
    return f"{verb} {abs(interval.estimate):.0%} {more if interval.low > 0 else less} ({ends[0]:.0%} to {ends[1]:.0%})"


def _points(interval: Interval | None) -> str:
    if interval is None or (interval.low, interval.high) == (0, 0):  # nothing is escalated in either
        return ""
    if interval.within(SAME_SHARE):
        return f"is escalated as often ({_percent(interval)} points)"
    if not interval.decided:
        return f"shows no difference in escalations yet ({_percent(interval)} points)"
    ends = sorted((abs(interval.low), abs(interval.high)))
    often = "more" if interval.low > 0 else "less"
    return f"is escalated {often} often (by {ends[0]:.0%} to {ends[1]:.0%} of its answers)"


def _rating(interval: Interval | None) -> str:
    if interval is None:
        return "has too few ratings to compare"
    between = f"({interval.low:+.1f} to {interval.high:+.1f} of 5)"
    if interval.within(SAME_RATING):
        return f"is rated as well {between}"
    if not interval.decided:
        return f"shows no difference in ratings yet {between}"
    return f"is rated {'better' if interval.low > 0 else 'worse'} {between}"


def _agreement(shadow: ArmSums) -> str:
    interval = mean_interval(shadow.agreement)
    if interval is None:
        return "has too few answers to compare with those of the clients"
    between = f"({max(0.0, interval.low):.0%} to {min(1.0, interval.high):.0%})"
    return f"says the same as the clients' answers in {interval.estimate:.0%} {between}"


def dry_verdict(name: str, dry: DryReport, requests: int) -> str:
    """Return in words what a shadow that only decides would have done."""
    shares = sorted(dry.shares.items(), key=lambda item: -item[1])
    sent = ", ".join(f"{share:.0%} to {backend}" for backend, share in shares)
    text = f"{name} would have sent {sent}"
    answered = IN_USD.money(dry.answered_nano)
    if dry.expected_nano is not None:
        expected = IN_USD.money(dry.expected_nano)
        text += f", for {expected} of cloud charges a request at today's prices instead of {answered}"
    return f"{text}; n = {requests:,} requests. Nothing was asked, so time and quality are not known."


def _percent(interval: Interval) -> str:
    return f"{interval.low:+.0%} to {interval.high:+.0%}"


def _until_decided(interval: Interval | None, sums: tuple[ArmSums, ArmSums], days: float) -> str:
    """Return after how many more days an undecided cost is decided, if the difference is what it seems.

    The width falls with the root of the number of units.
    """
    if interval is None or interval.decided or interval.within(SAME_SHARE):
        return ""
    units = sum(one.cost.units for one in sums)
    half = (interval.high - interval.low) / 2
    needed = units * (half / max(abs(interval.estimate), SAME_SHARE)) ** 2
    return _days_more("the cost is decided after", needed - units, units, days)


def _days_more(what: str, missing: float, units: int, days: float) -> str:
    """Return in words how long it takes until so many more units have come, at the rate so far."""
    if not units:
        return ""
    more = math.ceil(missing * days / units)
    if more > _LONGEST_DAYS:
        return f"; at this rate {what} more than a year"
    return f"; at this rate {what} about {more} more {'day' if more == 1 else 'days'}"


_LONGEST_DAYS = 365

"""Arms whose shares move: the places of units that change their arm, as few as the shares allow.

An arm has one or several stretches of places. If shares move, an arm that loses gives up places to arms that gain, at
a common end first, and everything else stays where it is. So nobody changes arms but those who must.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from spillway_router.core.comparison.moving_shares import MovingRule
from spillway_router.core.routing.experiments import PLACES
from spillway_router.core.routing.rules import Rule, Rules

MOST_STRETCHES_PER_ARM = 8
"""More would make the rules long; then the arms are laid out anew, each in one stretch."""


@dataclass(frozen=True, slots=True)
class Bandit:
    """An experiment whose shares move by themselves."""

    experiment: str
    setup: str
    """A digest of the arms and shares as configured; moves under another one don't count."""
    contenders: tuple[str, ...]
    """The arms between which shares move."""
    rule: MovingRule


@dataclass(frozen=True, slots=True)
class Stretch:
    """The places in [begins, ends) of an arm, which is named without its experiment."""

    arm: str
    begins: int
    ends: int

    @property
    def length(self) -> int:
        """The number of places."""
        return self.ends - self.begins


def stretches_of(rules: Rules, experiment: str) -> tuple[Stretch, ...]:
    """Return the stretches of an experiment in the order of their places; empty for an unknown one."""
    arms = {
        Stretch(rule.arm.name, rule.arm.begins, rule.arm.ends)
        for rule in rules.rules
        if rule.arm is not None and rule.arm.experiment == experiment and rule.arm.ends > rule.arm.begins
    }
    return tuple(sorted(arms, key=lambda one: one.begins))


def shares_of(stretches: Iterable[Stretch]) -> Mapping[str, float]:
    """Return the share of each arm of one experiment, between 0 and 1, in the order of their first places."""
    lengths: dict[str, int] = {}
    for one in stretches:
        lengths[one.arm] = lengths.get(one.arm, 0) + one.length
    return {arm: length / PLACES for arm, length in lengths.items()}


def shares_in_force(rules: Rules) -> Mapping[str, Mapping[str, float]]:
    """Return the shares of the arms of every experiment, by name."""
    names = dict.fromkeys(rule.arm.experiment for rule in rules.rules if rule.arm is not None)
    return {name: shares_of(stretches_of(rules, name)) for name in names}


def with_stretches(rules: Rules, experiment: str, stretches: Sequence[Stretch]) -> Rules:
    """Return the rules with an experiment's arms at these stretches.

    Every arm keeps its rule with all effects and conditions; one without a stretch takes no request. No arm is added.
    """
    return replace(rules, rules=tuple(_placed(rules.rules, experiment, stretches)))


def _placed(rules: Iterable[Rule], experiment: str, stretches: Sequence[Stretch]) -> Iterator[Rule]:
    placed: set[tuple[str, int]] = set()
    for rule in rules:
        arm = rule.arm
        if arm is None or arm.experiment != experiment:
            yield rule
            continue
        # An arm that was placed before may have several rules already; each stretch is needed once.
        for one in stretches:
            if one.arm == arm.name and (rule.name, one.begins) not in placed:
                placed.add((rule.name, one.begins))
                yield replace(rule, arm=replace(arm, begins=one.begins, ends=one.ends))


def moved_stretches(stretches: Sequence[Stretch], shares: Mapping[str, float]) -> tuple[Stretch, ...]:
    """Return the stretches with these shares, together all places. Places change only from losers to winners.

    `shares` names all arms of `stretches`, and sums to 1. An arm without a place gets one only for a share above 0.
    """
    lengths = _lengths(shares)
    gains = {arm: length - sum(one.length for one in stretches if one.arm == arm) for arm, length in lengths.items()}
    moved = _rest_given(_ends_given(list(stretches), gains), gains)
    joined = _joined(moved)
    if len(joined) <= MOST_STRETCHES_PER_ARM * len(shares):
        return joined
    return _laid_out(dict.fromkeys(one.arm for one in stretches), lengths)


def _lengths(shares: Mapping[str, float]) -> dict[str, int]:
    """Return the number of places of each arm, together exactly PLACES."""
    names = sorted(shares)
    ends = [round(math.fsum(shares[name] for name in names[: i + 1]) * PLACES) for i in range(len(names))]
    ends[-1] = PLACES
    return {name: end - (ends[i - 1] if i else 0) for i, (name, end) in enumerate(zip(names, ends, strict=True))}


def _ends_given(stretches: list[Stretch], gains: dict[str, int]) -> list[Stretch]:
    """Move the common ends of stretches as far as both arms' gains allow."""
    for i in range(len(stretches) - 1):
        left, right = stretches[i], stretches[i + 1]
        if gains[left.arm] < 0 < gains[right.arm]:
            step = -min(-gains[left.arm], gains[right.arm], left.length)
        elif gains[right.arm] < 0 < gains[left.arm]:
            step = min(-gains[right.arm], gains[left.arm], right.length)
        else:
            continue
        stretches[i], stretches[i + 1] = replace(left, ends=left.ends + step), replace(right, begins=left.ends + step)
        gains[left.arm] -= step
        gains[right.arm] += step
    return stretches


def _rest_given(stretches: Iterable[Stretch], gains: dict[str, int]) -> Iterator[Stretch]:
    """Yield the stretches; of those of arms that still have to lose, the end goes to arms that still have to gain."""
    for one in stretches:
        ends = one.ends
        given: list[Stretch] = []
        for winner in sorted(gains):
            step = min(-gains[one.arm], gains[winner], ends - one.begins)
            if step > 0:
                given.append(Stretch(winner, ends - step, ends))
                ends -= step
                gains[one.arm] += step
                gains[winner] -= step
        yield replace(one, ends=ends)
        yield from reversed(given)


def _joined(stretches: Iterable[Stretch]) -> tuple[Stretch, ...]:
    joined: list[Stretch] = []
    for one in stretches:
        if joined and joined[-1].arm == one.arm:
            joined[-1] = replace(joined[-1], ends=one.ends)
        elif one.length:
            joined.append(one)
    return tuple(joined)


def _laid_out(names: Iterable[str], lengths: Mapping[str, int]) -> tuple[Stretch, ...]:
    laid, begins = [], 0
    for name in names:
        laid.append(Stretch(name, begins, begins + lengths[name]))
        begins += lengths[name]
    return _joined(laid)

"""The shares that a bandit would give to the arms of an experiment, by what they bring per dollar, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random

from spillway_router.core.comparison.differences import FEWEST_UNITS
from spillway_router.core.comparison.thompson import ArmWorth, Worth, thompson_shares
from spillway_router.ledger.tables.experiments import ArmSums


def bandit_shares(sums: Iterable[ArmSums], worth: Worth, random: Random) -> Mapping[str, Mapping[str, float]]:
    """Return the share of each arm by experiment. Empty where two arms can't be compared yet.

    Arms without a single rating (or agreement) take no part.
    """
    return {name: thompson_shares(arms, random) for name, arms in sorted(arm_worths(sums, worth).items())}


def arm_worths(sums: Iterable[ArmSums], worth: Worth) -> Mapping[str, Mapping[str, ArmWorth]]:
    """Return what the arms bring and cost, by experiment and arm, of those with a rating (or an agreement)."""
    by_name: dict[str, dict[str, ArmWorth]] = {}
    for one in sums:
        experiment, _, arm = one.arm.partition("/")
        value = one.rating if worth == "rating" else one.agreement
        arms = by_name.setdefault(experiment, {})
        if value.units:
            arms[arm] = ArmWorth(value, one.cost)
    return by_name


def bandit_sentence(shares: Mapping[str, float], worth: Worth) -> str:
    """Return the shares of one experiment in words, or why there are none."""
    if not shares:
        return (
            f"A bandit says nothing yet: it needs two arms with a cost and {FEWEST_UNITS} units with {worth}s each; an "
            f"arm that costs nothing has no {worth} per dollar."
        )
    listed = ", ".join(f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda one: -one[1]))
    return f"By {worth} per dollar, Thompson sampling would give these shares: {listed}."

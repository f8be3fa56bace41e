"""Derives from Settings the rules of the arms of experiments, which come before those of the policy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

from spillway_router.config.experiments_part import ArmPart, ExperimentPart
from spillway_router.config.load import ConfigProblem, Findings
from spillway_router.config.rules import GENERATING, check_effects, conditions, effects_named, rule_of
from spillway_router.core.comparison.moving_shares import MovingRule
from spillway_router.core.money.budget import EACH_USER, BudgetLine
from spillway_router.core.money.tariff import NANO
from spillway_router.core.routing.experiments import CONTROL, PLACES, Arm
from spillway_router.core.routing.moving_arms import Bandit
from spillway_router.core.routing.policy import Policy
from spillway_router.core.routing.rules import Rule


def arm_rules(parts: Sequence[ExperimentPart], policy: Policy, findings: Findings) -> Iterator[Rule]:
    """Yield a rule for each arm of each experiment, in order. Problems are added to `findings`."""
    for place, part in enumerate(parts):
        where = f"experiments.{place}"
        for alias in part.when.alias:
            if alias not in policy.aliases:
                aliases = ", ".join(sorted(policy.aliases))
                problem = f"no alias is called {alias!r}; an experiment takes requests for an alias: {aliases}"
                findings.problems.append(ConfigProblem(f"{where}.when.alias", 0, problem))
        for i, arm in enumerate(part.arms):
            title = f"the arm {part.name}/{arm.name}"
            check_effects(f"{where}.arms.{i}", title, arm, policy.backends, findings)
        yield from _rules(part, policy)


def experiment_backends(parts: Sequence[ExperimentPart]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the settings in which arms name backends, and the names."""
    for place, part in enumerate(parts):
        for i, arm in enumerate(part.arms):
            yield from effects_named(f"experiments.{place}.arms.{i}", arm)


def bandits(parts: Sequence[ExperimentPart]) -> tuple[Bandit, ...]:
    """Return the experiments whose shares move by themselves."""
    return tuple(
        Bandit(
            experiment=part.name,
            setup=_setup(part),
            contenders=part.contenders,
            rule=MovingRule(
                worth=part.bandit.worth,
                every_s=part.bandit.every_s,
                floor=part.bandit.floor,
                most_moved=part.bandit.most_moved,
                days=part.bandit.days,
            ),
        )
        for part in parts
        if part.bandit is not None
    )


def _setup(part: ExperimentPart) -> str:
    """Return a digest of what the shares of an experiment begin with: with other arms, shares or units they begin
    anew."""
    arms = [(arm.name, arm.share, arm.shadow or "") for arm in part.arms]
    return sha256(json.dumps([part.by, part.bandit and part.bandit.worth, arms]).encode()).hexdigest()[:16]


def _rules(part: ExperimentPart, policy: Policy) -> Iterator[Rule]:
    when = conditions(part.when)
    when = replace(when, models=when.models or frozenset(policy.aliases), endpoints=when.endpoints or GENERATING)
    places = [round(math.fsum(arm.share for arm in part.arms[: i + 1]) * PLACES) for i in range(len(part.arms))]
    begins = 0
    for one, ends in zip(part.arms, places, strict=True):
        arm = Arm(
            experiment=part.name,
            name=one.name,
            by=part.by,
            begins=begins,
            ends=min(ends, PLACES),
            shadow=one.shadow or "",
            budget=_budget(one),
        )
        yield replace(rule_of(arm.title, when, one, policy.backends, policy.confidence), arm=arm)
        begins = arm.ends
    if begins < PLACES:
        control = Arm(experiment=part.name, name=CONTROL, by=part.by, begins=begins, ends=PLACES)
        yield Rule(control.title, when, arm=control)


def _budget(part: ArmPart) -> BudgetLine | None:
    if part.budget_usd_per_day is None:
        return None
    return BudgetLine(EACH_USER, "day", int(part.budget_usd_per_day * NANO))

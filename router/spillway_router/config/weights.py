"""Derives the experiments that the weights of aliases stand for.

A weight is an arm of an experiment that puts one backend first, so that privacy, keys, rules, budgets, failover and the
report know of weights without a line of their own (docs/decisions/0041).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from spillway_router.config.experiments_part import ArmPart, ExperimentPart
from spillway_router.config.policy_part import WhenPart
from spillway_router.config.settings import AliasPart

PREFIX = "weights."
_LONGEST = 32
_NOT_NAME = re.compile(r"[^a-z0-9_.-]+")


def weight_experiments(aliases: Mapping[str, AliasPart]) -> Iterator[ExperimentPart]:
    """Yield an experiment for each alias with weights; its arms are named after the backends that come first."""
    for place, (alias, part) in enumerate(aliases.items()):
        total = math.fsum(part.weights.values())
        named: dict[str, ArmPart] = {}
        for name, weight in part.weights.items():
            arm = _unlike(_name_of(name), named)
            first = tuple(one for one in part.chain if one == name or one.startswith(f"{name}."))
            if weight:
                named[arm] = ArmPart(name=arm, share=weight / total, prefer=first or (name,))
        if named:
            experiment = f"{PREFIX}{_name_of(alias)}"[:_LONGEST]
            others = [f"{PREFIX}{_name_of(other)}"[:_LONGEST] for other in list(aliases)[:place]]
            if experiment in others:
                experiment = f"{experiment[: _LONGEST - 4]}-{place}"
            yield ExperimentPart(
                name=experiment, by=part.weights_by, when=WhenPart(alias=(alias,)), arms=tuple(named.values())
            )


def _name_of(name: str) -> str:
    return _NOT_NAME.sub("-", name.lower()).strip("-._")[: _LONGEST - 4] or "x"


def _unlike(name: str, others: Mapping[str, ArmPart]) -> str:
    return name if name not in others and name != "control" else f"{name}-{len(others)}"

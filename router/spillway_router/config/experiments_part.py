"""The settings of experiments."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from spillway_router.config.part import Part
from spillway_router.config.policy_part import EffectsPart, WhenPart
from spillway_router.core.comparison.thompson import Worth
from spillway_router.core.routing.experiments import CONTROL, By

_NAME = r"^[a-z0-9][a-z0-9_.-]{0,31}$"
_MOST_ARMS = 20


class ArmPart(EffectsPart):
    """An arm of an experiment: a share of its units whose requests get another chain of backends, prefer some, are
    barred from some, or are escalated in another way, as by a rule of the policy.

    With `shadow` the clients of these requests get what the control gives them. `asked` asks the backends of the arm
    too, after the client has its answer and for at most `budget_usd_per_day`; `dry` only decides whom it would ask.
    """

    name: str = Field(pattern=_NAME)
    share: float = Field(gt=0, le=1)
    shadow: Literal["asked", "dry"] | None = None
    budget_usd_per_day: Decimal | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _budget_fits(self) -> Self:
        if self.shadow == "asked" and self.budget_usd_per_day is None:
            raise ValueError("asks backends in the shadow; add budget_usd_per_day, which is what it may spend")
        if self.shadow != "asked" and self.budget_usd_per_day is not None:
            raise ValueError("budget_usd_per_day is for an arm with `shadow: asked`; remove it")
        return self


class BanditPart(Part):
    """A bandit: the shares of the arms move by themselves, by Thompson sampling on ratings, or on the agreement of
    shadows, per dollar.

    Once in `every_s` seconds the requests of the last `days` are looked at. No arm falls below `floor`, and at most
    `most_moved` of the units change their arm at once. `bandit: rating` is short for `bandit: {worth: rating}`.
    """

    worth: Worth
    every_s: int = Field(3600, ge=60, le=604_800)
    floor: float = Field(0.05, ge=0, le=0.5)
    most_moved: float = Field(0.1, gt=0, le=1)
    days: int = Field(28, ge=1, le=366)


class ExperimentPart(Part):
    """An experiment: the requests for which `when` holds try other policies, each of the `arms` for its share of them.

    `by` says what stays in one arm: each API key, end user, session or request. What the shares leave is the arm
    `control`, which changes nothing. Only requests for an alias take part, no embeddings, and none that say themselves
    where they go. A request is in the first experiment whose `when` holds.
    """

    name: str = Field(pattern=_NAME)
    by: By = "user"
    when: WhenPart = WhenPart()
    arms: tuple[ArmPart, ...]
    bandit: BanditPart | None = None

    @field_validator("bandit", mode="before")
    @classmethod
    def _bandit(cls, value: object) -> object:
        return {"worth": value} if isinstance(value, str) else value

    @property
    def contenders(self) -> tuple[str, ...]:
        """The arms between which a bandit moves shares: those that answer clients if it goes by ratings, and the
        shadows that ask if it goes by agreement."""
        if self.bandit is not None and self.bandit.worth == "agreement":
            return tuple(arm.name for arm in self.arms if arm.shadow == "asked")
        answering = tuple(arm.name for arm in self.arms if arm.shadow is None)
        return answering if self.leaves_nothing else (*answering, CONTROL)

    @property
    def leaves_nothing(self) -> bool:
        """Whether the shares of the arms are everything, so that there is no control."""
        return math.fsum(arm.share for arm in self.arms) > 1 - 1e-9

    @model_validator(mode="after")
    def _bandit_can_choose(self) -> Self:
        if self.bandit is None:
            return self
        names = self.contenders
        if len(names) < 2:
            kind = "with `shadow: asked`" if self.bandit.worth == "agreement" else "that answer clients"
            raise ValueError(
                f"has a bandit on {self.bandit.worth} and {len(names)} arms {kind}; it needs two, or remove bandit"
            )
        if self.bandit.floor * len(names) > 1:
            raise ValueError(
                f"has {len(names)} arms with a floor of {self.bandit.floor:g} each, above 1; lower bandit.floor"
            )
        return self

    @model_validator(mode="after")
    def _arms_fit(self) -> Self:
        names = [arm.name for arm in self.arms]
        if not 1 <= len(names) <= _MOST_ARMS:
            raise ValueError(f"has {len(names)} arms; write 1 to {_MOST_ARMS}")
        if CONTROL in names:
            raise ValueError(f"no arm may be called {CONTROL}: that is what the shares leave, and it changes nothing")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two arms are called {twice[0]!r}; every arm needs a name of its own")
        if math.fsum(arm.share for arm in self.arms) > 1 + 1e-9:
            raise ValueError(f"the shares of the arms are {math.fsum(arm.share for arm in self.arms):g}, above 1")
        if self.when.experiment or self.when.confidence_below is not None:
            raise ValueError("when.experiment and when.confidence_below are for the rules of the policy; remove them")
        if "embeddings" in self.when.endpoint:
            raise ValueError("takes no embeddings, because another model's vectors lie in another space")
        return self

"""The arms of experiments: which requests try another policy, decided by a hash and by nothing else.

Every request of an experiment belongs to a unit: an API key, an end user, a session, or itself. The hash of the
experiment's name and the unit is a place in [0, PLACES), and each arm has a range of places. So a unit stays in its arm
over restarts and at every router, and the arms of two experiments have nothing to do with each other.

A shadow is an arm that no client ever sees: its requests are answered as those of the control, and afterwards the
policy of the arm is asked too, or only decides (dry).

Source: R. Kohavi, D. Tang, Y. Xu, Trustworthy Online Controlled Experiments, 2020, chapter 14, on hashing the unit
together with the experiment.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Literal

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.budget import BudgetLine
from spillway_router.core.routing.model import KeyRules, RequestFacts

PLACES = 2**32
UNIT_DIGITS = 8
"""Hexadecimal digits of a place."""
CONTROL = "control"
"""The arm that changes nothing: it has all places that the others leave."""

EXPERIMENT = "experiment"
"""The reason token of a choice that an arm made."""

By = Literal["key", "user", "session", "request"]
Shadow = Literal["", "asked", "dry"]
"""What a shadow does: it asks a backend and pays for it, or only decides; empty for an arm that answers clients."""


@fast_frozen(frozen=True, slots=True)
class Arm:
    """One arm of an experiment: the requests whose unit has its place in [begins, ends)."""

    experiment: str
    name: str
    by: By
    begins: int
    ends: int
    shadow: Shadow = ""
    budget: BudgetLine | None = None
    """What a shadow that asks may spend; None for any other arm."""

    def takes(self, facts: RequestFacts) -> bool:
        """Return whether a request belongs to this arm. One that itself says where it goes belongs to none."""
        preferences = facts.preferences
        if facts.hints.route != "auto" or preferences.order or preferences.only:
            return False
        return self.begins <= place_of(self.experiment, self.by, facts) < self.ends

    @property
    def title(self) -> str:
        """The name of the arm with that of its experiment."""
        return f"{self.experiment}/{self.name}"

    @property
    def answered_title(self) -> str:
        """The title under which its requests are answered: those of a shadow as the control's."""
        return f"{self.experiment}/{CONTROL}" if self.shadow else self.title

    def mark(self, facts: RequestFacts) -> str:
        """Return what the ledger keeps of a request of this arm: the title and the place of its unit.

        The place tells units apart, so that a report knows which requests belong together; it names nobody. A request
        of a shadow is answered as the control's are, so it counts there.
        """
        return f"{self.answered_title}/{self._unit_digits(facts)}"

    def in_shadow(self, facts: RequestFacts) -> RequestFacts:
        """Return the facts with which the shadow is decided on, asked and booked.

        They have its mark, and its budget as that of a user of its own: what an operator tries spends the budget of no
        end user, and all other budgets and rules of the key hold as for any attempt.
        """
        caller = facts.caller
        if self.budget is not None:
            caller = replace(caller, rules=replace(caller.rules or KeyRules(), user_budget=self.budget))
        return replace(
            facts,
            stream=False,
            caller=caller,
            user_id=f"shadow:{self.title}",
            experiment=f"{self.title}/{self._unit_digits(facts)}",
        )

    def _unit_digits(self, facts: RequestFacts) -> str:
        return f"{place_of(self.experiment, self.by, facts):0{UNIT_DIGITS}x}"


def place_of(experiment: str, by: By, facts: RequestFacts) -> int:
    """Return the place of a request's unit in an experiment: the first 32 bits of a SHA-256.

    A request without the unit that is asked for (no user, no session) counts with its API key, and one without a key
    counts by itself.
    """
    digest = sha256(f"{experiment}\0{_unit(by, facts)}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4])


def title_of(mark: str) -> str:
    """Return the experiment and the arm of a mark, as experiment/arm."""
    return mark[: -UNIT_DIGITS - 1]


def _unit(by: By, facts: RequestFacts) -> str:
    key_id = facts.caller.key_id
    if by == "user" and facts.user_id:
        return f"user\0{facts.user_id}"
    if by == "session" and facts.hints.session_id:
        return f"session\0{key_id}\0{facts.hints.session_id}"
    if by != "request" and key_id:
        return f"key\0{key_id}"
    return f"request\0{facts.request_id}"

"""The scaler: rent the next GPU when the overflow that it would absorb costs more than it does; give it back when not.

GPUs are layers. Layer k saves what k GPUs keep from the cloud beyond k - 1, and costs rent. Each layer is decided for
itself: its balance moves by saving - rent in every step, within 0 and the cost of a start:

    balance = min(start, max(0, balance + saving - rent))

The layer is rented when its balance reaches the start's cost, and given back when it is 0. So a GPU comes when the
overflow without it has cost its rent and a start more, whatever may follow, and goes when it has been idle for as much.
A further GPU never saves more than the one before it, so that the balances are in order and so are the layers.

Guarantee (decision 0045): the cost of a layer is never more than 3 times that of the best in hindsight, plus two starts
and the overshoot of the steps in which it changes. No forecast is needed for it.

A forecast may move the moment: with `trust` < 1 a layer starts at `trust` x start's cost if the outlook says that it
will pay even at the lower end of its interval, and ends at (1 - trust) x start's cost if it will not even at the upper
end. The factor is then `guarantee(trust)`: 4 at 0.75.

Pure: the steps come with their lengths, and all money is in nano-dollars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spillway_router.core.fleet.demand import Demand

Token = Literal["pays", "will-pay", "idle", "will-idle", "stays-rented", "stays-away", "cap", "least", "stopped"]

SENTENCES: dict[Token, str] = {
    "pays": "the overflow without it has cost a start more than its rent",
    "will-pay": "overflow has begun to cost more than its rent, and by the forecast it goes on",
    "idle": "it has absorbed a start's cost less than its rent",
    "will-idle": "it absorbs less than its rent, and by the forecast this goes on",
    "stays-rented": "it has not been idle for long enough to be given back",
    "stays-away": "the overflow without it has not cost enough for a start",
    "cap": "it would pay, but fleet.max does not allow it",
    "least": "fleet.min keeps it",
    "stopped": "the kill switch is on: nothing is rented and nothing is given back",
}


@dataclass(frozen=True, slots=True)
class FleetTerms:
    """What GPUs cost, and how many there may be.

    `rent_nano_per_s` is the price of one GPU. A start takes `cold_start_s`, paid without serving; a rental lasts at
    least `minimum_rental_s`. `losses_per_hour` is how often a spot machine is taken away. `least` and `most` bound the
    fleet. `stopped` is the kill switch.
    """

    rent_nano_per_s: float
    cold_start_s: float = 600.0
    minimum_rental_s: float = 0.0
    losses_per_hour: float = 0.0
    least: int = 0
    most: int = 8
    trust: float = 1.0
    stopped: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise ValueError(f"fleet.min is {self.least} and fleet.max {self.most}; they must be 0 <= min <= max")
        if not 0.5 < self.trust <= 1:
            raise ValueError(f"trust is {self.trust}; it must be above 0.5 and at most 1")
        if self.rent_nano_per_s <= 0 or self.cold_start_s <= 0:
            raise ValueError("the rent and the cold start must be above 0")

    @property
    def start_nano(self) -> float:
        """The cost of a start: the rent of the cold start, or of the shortest rental where that is longer."""
        return self.rent_nano_per_s * max(self.cold_start_s, self.minimum_rental_s)

    @property
    def running_nano_per_s(self) -> float:
        """The rent and the share of a new start that a spot machine's risk costs per second."""
        return self.rent_nano_per_s + self.losses_per_hour / 3600 * self.start_nano


@dataclass(frozen=True, slots=True)
class LayerOutlook:
    """The saving of a layer in the hours to come, in nano-dollars per second: the ends of its interval."""

    low_nano_per_s: float
    high_nano_per_s: float


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a layer is as it is: its balance and the balance at which it would change, in nano-dollars."""

    layer: int
    token: Token
    balance_nano: float
    changes_at_nano: float

    def sentence(self) -> str:
        """Return the reason in words."""
        return f"GPU {self.layer}: {SENTENCES[self.token]} (balance {self.balance_nano / 1e9:.2f} USD)"


@dataclass(frozen=True, slots=True)
class FleetState:
    """The balances of the layers 1 to `most`, and which of them the rule wants."""

    balances_nano: tuple[float, ...]
    wanted: tuple[bool, ...]

    @classmethod
    def new(cls, terms: FleetTerms) -> FleetState:
        """Return the state of a fleet without history."""
        return cls((0.0,) * terms.most, tuple(layer <= terms.least for layer in range(1, terms.most + 1)))


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """How many GPUs there should be, and a reason for each layer and one more where the cap holds one back."""

    target: int
    reasons: tuple[Reason, ...]


def guarantee(trust: float) -> float:
    """Return c: a layer never costs more than c times the best in hindsight, but for the additions named above."""
    return 1 + 2 * trust / (2 * trust - 1)


def decide_fleet(
    state: FleetState,
    demand: Demand,
    step_s: float,
    terms: FleetTerms,
    rented: int,
    outlook: Sequence[LayerOutlook] = (),
) -> tuple[FleetState, ScalingDecision]:
    """Return the state after one step of `step_s` seconds, and what follows from it.

    `rented` is how many GPUs there are; it matters to the kill switch alone. `outlook` has an entry per layer, from the
    first on, as far as there is a forecast.
    """
    rent_nano, start_nano = terms.running_nano_per_s * step_s, terms.start_nano
    balances: list[float] = []
    wanted: list[bool] = []
    reasons: list[Reason] = []
    for layer in range(1, terms.most + 1):
        before = state.balances_nano[layer - 1]
        balance = min(start_nano, max(0.0, before + demand.saving(layer) - rent_nano))
        seen = outlook[layer - 1] if layer <= len(outlook) else None
        was_wanted = state.wanted[layer - 1]
        token, changes_at = _layer(balance, terms, seen, wanted=was_wanted)
        wants = token in ("pays", "will-pay", "stays-rented")
        if layer <= terms.least and not wants:
            token, wants = "least", True
        balances.append(balance)
        wanted.append(wants)
        reasons.append(Reason(layer, token, balance, changes_at))
    if demand.saving(terms.most + 1) > rent_nano:
        reasons.append(Reason(terms.most + 1, "cap", demand.saving(terms.most + 1) - rent_nano, start_nano))
    target = sum(wanted)
    if terms.stopped:
        target = rented
        reasons = [Reason(0, "stopped", 0.0, 0.0)]
    return FleetState(tuple(balances), tuple(wanted)), ScalingDecision(target, tuple(reasons))


def _layer(balance: float, terms: FleetTerms, seen: LayerOutlook | None, *, wanted: bool) -> tuple[Token, float]:
    """Return what becomes of one layer, and the balance at which it changes."""
    start_nano, rent = terms.start_nano, terms.running_nano_per_s
    if wanted:
        early = seen is not None and seen.high_nano_per_s < rent and terms.trust < 1
        ends_at = (1 - terms.trust) * start_nano if early else 0.0
        if balance > ends_at:
            return "stays-rented", ends_at
        return ("will-idle" if early and balance > 0 else "idle"), ends_at
    early = seen is not None and seen.low_nano_per_s > rent and terms.trust < 1
    starts_at = terms.trust * start_nano if early else start_nano
    if balance < starts_at:
        return "stays-away", starts_at
    return ("will-pay" if early and balance < start_nano else "pays"), starts_at

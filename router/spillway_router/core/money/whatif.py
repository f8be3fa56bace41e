"""Planning: what a number of documents a month costs on rented GPUs and in the cloud, before renting anything.

A month is a twelfth of a year (730 h). A document is one request of a given shape; on a GPU it takes the work share of
core/money/attribution.py, or `(prompt + output) / tokens per second` where a whole throughput is given. A GPU is
planned to be loaded up to `load` of its full throughput. For each volume:

    as many GPUs as needed:  n = ceil(volume * seconds per document / (month * load)),  cost = n * price * 730
    n GPUs and overflow:     n * price * 730 + the cheapest cloud's price of what n GPUs can't do
    cloud:                   volume * price of a document

Money is integer nano-dollars, rounded half up at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from spillway_router.core.money.attribution import BreakEven, GpuRental, TrafficShape, break_even
from spillway_router.core.money.tariff import NANO, Tariff, TariffError, Usage, price

HOURS_PER_MONTH = 730
DAYS_PER_MONTH = Fraction(365, 12)
_MONTH_US = HOURS_PER_MONTH * 3600 * 10**6

Kind = Literal["gpu", "gpu+overflow", "cloud"]


@dataclass(frozen=True, slots=True)
class DocumentShape:
    """Tokens of one document: prompt and output."""

    prompt_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        if min(self.prompt_tokens, self.output_tokens) < 0 or not self.prompt_tokens + self.output_tokens:
            raise TariffError("a document needs prompt tokens or output tokens, 0 or more of each")


@dataclass(frozen=True, slots=True)
class GpuOffer:
    """A GPU to rent: USD per hour of one, microseconds of it per document at full load, and where that is from."""

    name: str
    price_per_hour: Decimal
    us_per_document: int
    basis: str

    def __post_init__(self) -> None:
        GpuRental(self.price_per_hour)  # checks the price
        if self.us_per_document < 1:
            raise TariffError(f"{self.name}: a document takes no time; check the throughput")

    @property
    def month_nano(self) -> Fraction:
        """Nano-dollars of one GPU per month."""
        return Fraction(self.price_per_hour) * NANO * HOURS_PER_MONTH

    def documents_per_month(self, gpus: int, load: Fraction) -> Fraction:
        """What so many GPUs can do in a month at that share of full load."""
        return Fraction(_MONTH_US * gpus, self.us_per_document) * load


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the plan is made for: `load` in (0, 1], `gpus` fixed numbers of GPUs to show with overflow."""

    shape: DocumentShape
    volumes_per_month: tuple[Fraction, ...]
    load: Fraction = Fraction(8, 10)
    gpus: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.load <= 1:
            raise TariffError(f"load is {float(self.load):g}; it must be above 0 and up to 1")
        if any(volume <= 0 for volume in self.volumes_per_month) or not self.volumes_per_month:
            raise TariffError("a volume must be above 0 documents")
        if any(count < 1 for count in self.gpus):
            raise TariffError("a number of GPUs must be 1 or more")


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to do a volume.

    `asked`: the number of GPUs that was asked for, None for as many as needed; `utilisation`: share of the GPUs' full
    load used; `overflow`: share of the documents that goes to `cloud`, the cheapest one (or nowhere, if there is none:
    then the price is of what is done); `cheapest` of those that do all documents.
    """

    kind: Kind
    name: str
    asked: int | None
    gpus: int
    month_nano: int
    document_nano: int
    utilisation: float | None = None
    overflow: float = 0.0
    cloud: str = ""
    cheapest: bool = False


@dataclass(frozen=True, slots=True)
class VolumeChoices:
    """All choices for so many documents a month."""

    per_month: Fraction
    choices: tuple[Choice, ...]

    @property
    def per_day(self) -> Fraction:
        """Documents per day."""
        return self.per_month / DAYS_PER_MONTH


@dataclass(frozen=True, slots=True)
class Crossing:
    """From which volume on one GPU of this offer is cheaper than one alternative."""

    gpu: str
    alternative: str
    documents_per_month: float | None
    utilisation: float | None


@dataclass(frozen=True, slots=True)
class PlanningTable:
    """The planning table with what it assumes."""

    assumptions: Assumptions
    offers: tuple[GpuOffer, ...]
    volumes: tuple[VolumeChoices, ...]
    crossings: tuple[Crossing, ...]


def plan(assumptions: Assumptions, offers: Sequence[GpuOffer], alternatives: Mapping[str, Tariff]) -> PlanningTable:
    """Cost of each volume for each offer and each alternative, the cheapest marked."""
    if not offers and not alternatives:
        raise TariffError("nothing to compare: name a GPU with its price, or a cloud model")
    clouds = {name: _document_price(assumptions.shape, tariff) for name, tariff in alternatives.items()}
    volumes = tuple(_volume(v, assumptions, offers, clouds) for v in assumptions.volumes_per_month)
    crossings = tuple(
        _crossing(offer, assumptions.shape, name, tariff) for offer in offers for name, tariff in alternatives.items()
    )
    return PlanningTable(assumptions, tuple(offers), volumes, crossings)


def _document_price(shape: DocumentShape, tariff: Tariff) -> int:
    return price(Usage(shape.prompt_tokens, shape.output_tokens), tariff)


def _volume(
    per_month: Fraction, assumptions: Assumptions, offers: Sequence[GpuOffer], clouds: Mapping[str, int]
) -> VolumeChoices:
    choices: list[Choice] = []
    for offer in offers:
        needed = _ceil(per_month / offer.documents_per_month(1, assumptions.load))
        choices.append(_rented(per_month, offer, needed, assumptions.load, clouds))
        choices += [
            replace(_rented(per_month, offer, count, assumptions.load, clouds), asked=count)
            for count in assumptions.gpus
        ]
    for name, each in clouds.items():
        choices.append(Choice("cloud", name, None, 0, _half_up(each * per_month), each))
    whole = [choice.month_nano for choice in choices if not choice.overflow or choice.cloud]
    least = min(whole, default=None)
    return VolumeChoices(
        per_month,
        tuple(replace(c, cheapest=c.month_nano == least and (not c.overflow or c.cloud != "")) for c in choices),
    )


def _rented(per_month: Fraction, offer: GpuOffer, gpus: int, load: Fraction, clouds: Mapping[str, int]) -> Choice:
    done = min(per_month, offer.documents_per_month(gpus, load))
    over = per_month - done
    cloud = min(clouds, key=lambda name: clouds[name]) if clouds else ""
    month = offer.month_nano * gpus + (over * clouds[cloud] if over and cloud else 0)
    return Choice(
        kind="gpu+overflow" if over else "gpu",
        name=offer.name,
        asked=None,
        gpus=gpus,
        month_nano=_half_up(month),
        document_nano=_half_up(month / (per_month if cloud else done)),
        utilisation=float(done * offer.us_per_document / (_MONTH_US * gpus)),
        overflow=float(over / per_month),
        cloud=cloud if over else "",
    )


def _crossing(offer: GpuOffer, shape: DocumentShape, name: str, tariff: Tariff) -> Crossing:
    one = TrafficShape(1, shape.prompt_tokens, shape.output_tokens, offer.us_per_document)
    found: BreakEven = break_even(GpuRental(offer.price_per_hour), one, tariff)
    per_month = None if found.requests_per_day is None else found.requests_per_day * float(DAYS_PER_MONTH)
    return Crossing(offer.name, name, per_month, found.utilisation)


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


def _half_up(value: Fraction | int) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)

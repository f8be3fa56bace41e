"""What-if planning: what a number of documents a month costs on rented GPUs and in the cloud, before renting any.

A month is a twelfth of a year (730 h). A document is one request of a given shape. On a GPU it takes the work share of
core/money/attribution.py, or `(prompt + output) / tokens per second` if a total throughput is given. The plan loads a
GPU up to `load` of its full throughput. For each volume:

    as many GPUs as needed:  n = ceil(volume * seconds per document / (month * load)),  cost = n * price * 730
    n GPUs and overflow:     n * price * 730 + the cheapest cloud's price of the documents that n GPUs can't process
    a mix:                   the GPUs for what stays, and for each share that leaves the price at its cloud
    cloud:                   volume * price of a document

A GPU that is rented for some hours of a day costs and processes that part of it; one at a price per month is paid for
whole.

Money is in integer nano-dollars, rounded half up at the end.
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
VOLUMES = ("1k/month", "10k/month", "100k/month")
PROMPT_TOKENS, OUTPUT_TOKENS = 1155, 211
"""The mean request of the Azure 2023 conversation trace (loadtests/traces)."""
DAYS_PER_MONTH = Fraction(365, 12)
_MONTH_US = HOURS_PER_MONTH * 3600 * 10**6

Kind = Literal["gpu", "gpu+overflow", "mix", "cloud"]


@dataclass(frozen=True, slots=True)
class DocumentShape:
    """The prompt tokens and output tokens of one document."""

    prompt_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        if min(self.prompt_tokens, self.output_tokens) < 0 or not self.prompt_tokens + self.output_tokens:
            raise TariffError("a document needs prompt tokens or output tokens, 0 or more of each")


@dataclass(frozen=True, slots=True)
class GpuOffer:
    """A GPU to rent: USD per hour of one, microseconds per document at full load, and the source of that time.

    `price_per_month` is in USD, None if it is rented by the hour; `hours_per_day` is how long it runs each day.
    """

    name: str
    price_per_hour: Decimal
    us_per_document: int
    basis: str
    price_per_month: Decimal | None = None
    hours_per_day: Fraction = Fraction(24)

    def __post_init__(self) -> None:
        GpuRental(self.price_per_hour)  # checks the price
        if self.us_per_document < 1:
            raise TariffError(f"{self.name}: a document takes no time; check the throughput")
        if not 0 < self.hours_per_day <= 24:
            raise TariffError(f"hours per day is {float(self.hours_per_day):g}; it must be above 0 and up to 24")

    @property
    def month_nano(self) -> Fraction:
        """Nano-dollars of one GPU per month."""
        if self.price_per_month is not None:
            return Fraction(self.price_per_month) * NANO
        return Fraction(self.price_per_hour) * NANO * HOURS_PER_MONTH * self.hours_per_day / 24

    @property
    def month_us(self) -> Fraction:
        """Microseconds for which one GPU runs in a month."""
        return _MONTH_US * self.hours_per_day / 24

    def documents_per_month(self, gpus: int, load: Fraction) -> Fraction:
        """Return how many documents so many GPUs can process in a month at that share of full load."""
        return self.month_us * gpus / self.us_per_document * load


@dataclass(frozen=True, slots=True)
class Assumptions:
    """The assumptions of a plan: `load` is in (0, 1]; `gpus` are fixed numbers of GPUs to show with overflow; `mix` are
    clouds with the share of all documents that is routed or escalated to them."""

    shape: DocumentShape
    volumes_per_month: tuple[Fraction, ...]
    load: Fraction = Fraction(8, 10)
    gpus: tuple[int, ...] = ()
    mix: tuple[tuple[str, Fraction], ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.load <= 1:
            raise TariffError(f"load is {float(self.load):g}; it must be above 0 and up to 1")
        if any(volume <= 0 for volume in self.volumes_per_month) or not self.volumes_per_month:
            raise TariffError("a volume must be above 0 documents")
        if any(count < 1 for count in self.gpus):
            raise TariffError("a number of GPUs must be 1 or more")
        if any(share <= 0 for _, share in self.mix) or sum(share for _, share in self.mix) > 1:
            raise TariffError("the shares of a mix must be above 0, and together at most 1")


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to process a volume.

    The fields are the keys of `spillway whatif --json`. `asked` is the requested number of GPUs, None for as many as
    needed. `utilisation` is the used share of the
    GPUs' full load. `overflow` is the share of the documents that goes to `cloud`, the cheapest one; without any cloud
    they are not processed, and the prices cover the other documents. `cheapest` marks the cheapest choice among those
    that process all documents.
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
    """All choices for one number of documents a month."""

    per_month: Fraction
    choices: tuple[Choice, ...]

    @property
    def per_day(self) -> Fraction:
        """The number of documents per day."""
        return self.per_month / DAYS_PER_MONTH


@dataclass(frozen=True, slots=True)
class Crossing:
    """The volume from which on one GPU of this offer is cheaper than one alternative."""

    gpu: str
    alternative: str
    documents_per_month: float | None
    utilisation: float | None


@dataclass(frozen=True, slots=True)
class PlanningTable:
    """The planning table, with its assumptions."""

    assumptions: Assumptions
    offers: tuple[GpuOffer, ...]
    volumes: tuple[VolumeChoices, ...]
    crossings: tuple[Crossing, ...]


def plan(assumptions: Assumptions, offers: Sequence[GpuOffer], alternatives: Mapping[str, Tariff]) -> PlanningTable:
    """Return the cost of each volume for each offer and each alternative, with the cheapest choice marked."""
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
        if assumptions.mix:
            choices.append(_mixed(per_month, offer, assumptions, clouds))
    for name, document_nano in clouds.items():
        month_nano = _half_up(document_nano * per_month)
        choices.append(
            Choice(
                kind="cloud",
                name=name,
                asked=None,
                gpus=0,
                month_nano=month_nano,
                document_nano=document_nano,
            )
        )
    complete = [choice.month_nano for choice in choices if not choice.overflow or choice.cloud]
    least = min(complete, default=None)
    return VolumeChoices(
        per_month,
        tuple(replace(c, cheapest=c.month_nano == least and (not c.overflow or c.cloud != "")) for c in choices),
    )


def _rented(per_month: Fraction, offer: GpuOffer, gpus: int, load: Fraction, clouds: Mapping[str, int]) -> Choice:
    on_gpus = min(per_month, offer.documents_per_month(gpus, load))
    over = per_month - on_gpus
    cloud = min(clouds, key=lambda name: clouds[name]) if clouds else ""
    month_nano = offer.month_nano * gpus + (over * clouds[cloud] if over and cloud else 0)
    return Choice(
        kind="gpu+overflow" if over else "gpu",
        name=offer.name,
        asked=None,
        gpus=gpus,
        month_nano=_half_up(month_nano),
        document_nano=_half_up(month_nano / (per_month if cloud else on_gpus)),
        utilisation=float(on_gpus * offer.us_per_document / (offer.month_us * gpus)),
        overflow=float(over / per_month),
        cloud=cloud if over else "",
    )


def _mixed(per_month: Fraction, offer: GpuOffer, assumptions: Assumptions, clouds: Mapping[str, int]) -> Choice:
    """Return the choice in which fixed shares of the documents leave for clouds, and the rest stays on the GPUs."""
    leaving = sum((share for _, share in assumptions.mix), Fraction(0))
    on_gpus = per_month * (1 - leaving)
    gpus = max(1, _ceil(on_gpus / offer.documents_per_month(1, assumptions.load)))
    month_nano = offer.month_nano * gpus + sum(per_month * share * clouds[name] for name, share in assumptions.mix)
    return Choice(
        kind="mix",
        name=offer.name,
        asked=None,
        gpus=gpus,
        month_nano=_half_up(month_nano),
        document_nano=_half_up(month_nano / per_month),
        utilisation=float(on_gpus * offer.us_per_document / (offer.month_us * gpus)),
        overflow=float(leaving),
        cloud=", ".join(f"{name} {float(share):.0%}" for name, share in assumptions.mix),
    )


def _crossing(offer: GpuOffer, shape: DocumentShape, name: str, tariff: Tariff) -> Crossing:
    one = TrafficShape(
        requests=1,
        prompt_tokens=shape.prompt_tokens,
        completion_tokens=shape.output_tokens,
        work_us=offer.us_per_document,
    )
    point: BreakEven = break_even(GpuRental(offer.price_per_hour), one, tariff)
    rented = float(1 if offer.price_per_month is not None else offer.hours_per_day / 24)
    per_month = None if point.requests_per_day is None else point.requests_per_day * rented * float(DAYS_PER_MONTH)
    return Crossing(offer.name, name, per_month, point.utilisation)


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


def _half_up(value: Fraction | int) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)

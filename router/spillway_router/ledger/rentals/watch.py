"""Following what providers say of rented machines, so that the books follow the bill.

A machine is what a provider calls one: the id of a pod, an instance, the name of a stack. All rentals with the same
source and machine are its life: a new rental begins wherever its price changes or it runs again. A `Sighting` is what
the provider said of it just now, and `follow` makes the last rental agree with it:

    it runs, at another price   the rental ends and another one begins, at the time that the provider tells, else now
    it runs again               another rental begins, at the time that the provider tells, else now
    it was started anew         the rental ends when the machine was last seen before that, and another one begins
    it stopped, or is gone      the rental ends, at the time that the provider tells, else when it was last seen

The id of a rental says the how-manieth of its machine it is. So of two processes that see the same at once, one begins
the next rental, and the other one finds it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

from spillway_router.ledger.calendar import DAY_MS
from spillway_router.ledger.errors import EntryConflictError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.books import ROUTER

ANEW_MS = 15 * 60_000
"""A machine that was started this long after it was seen last was away meanwhile; a restart is shorter, and billed."""
FOLLOWED_MS = 30 * DAY_MS
"""How long after its end a machine is still asked about, as it may run again."""


@dataclass(frozen=True, slots=True)
class PriceStep:
    """Nano-dollars per hour of all GPUs of a machine, from a time on (epoch ms), None if the provider doesn't tell."""

    nano_per_hour: int
    since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a provider says of a machine: whether it is billed, since when (epoch ms, None if it doesn't tell), the
    provider's own word for that, and its prices, oldest first."""

    state: Literal["running", "stopped", "gone"]
    word: str
    since_ms: int | None = None
    prices: tuple[PriceStep, ...] = ()


@dataclass(frozen=True, slots=True)
class RentalChange:
    """What was changed because of a sighting, for people and programs."""

    rental_id: str
    machine: str
    act: Literal["began", "ended"]
    at_ms: int
    why: str


def followed(ledger: Ledger, now_ms: int) -> tuple[RentalRecord, ...]:
    """Return the last rental of each machine of a provider that runs, or ran in the last 30 days."""
    last: dict[tuple[str, str], RentalRecord] = {}
    for record in sorted(ledger.rentals.between(0, now_ms + 1), key=_order):
        if record.machine and record.source != ROUTER:
            before = last.get((record.source, record.machine))
            if before is None or _is_void(before) or not _is_void(record):
                last[record.source, record.machine] = record
    return tuple(r for r in last.values() if r.stopped_ms is None or r.stopped_ms > now_ms - FOLLOWED_MS)


def rental_of(ledger: Ledger, source: str, machine: str, now_ms: int) -> RentalRecord | None:
    """Return the last rental of a machine, None without one."""
    lives = _lives(ledger, source, machine, now_ms)
    living = [record for record in lives if not _is_void(record)]
    return next(iter((living or lives)[-1:]), None)


def next_rental_id(ledger: Ledger, source: str, machine: str, now_ms: int) -> str:
    """Return the id of the next rental of a machine."""
    return _id(source, machine, len(_lives(ledger, source, machine, now_ms)))


def split_price(nano_per_hour: int, count: int) -> tuple[int, int | None]:
    """Return the price of one GPU, and the price of all of them where it is no multiple of that."""
    each = nano_per_hour // count
    return each, None if each * count == nano_per_hour else nano_per_hour


def follow(ledger: Ledger, record: RentalRecord, sighting: Sighting, now_ms: int) -> list[RentalChange]:
    """Make the last rental of a machine agree with a sighting; return what was changed.

    The rows of the books follow when they are settled. Raises LedgerUnavailableError.
    """
    if sighting.state != "running":
        return _ended(ledger, record, sighting, now_ms)
    changes = []
    seen_ms = record.seen_ms or record.started_ms
    if record.stopped_ms is None and sighting.since_ms is not None and seen_ms + ANEW_MS < sighting.since_ms <= now_ms:
        changes += _end(ledger, record, seen_ms, f"{sighting.word}, started anew later")
        record = _again(ledger, record)
    if record.stopped_ms is not None:
        at_ms = max(record.stopped_ms, min(now_ms, sighting.since_ms or now_ms))
        price = _price_at(sighting.prices, at_ms)
        record, begun = _begin(ledger, record, at_ms, price, sighting.word)
        changes += begun
    for step in _steps_from(sighting.prices, record.started_ms):
        record, stepped = _reprice(ledger, record, step, now_ms)
        changes += stepped
    ledger.rentals.seen(record.id, now_ms)
    return changes


def _ended(ledger: Ledger, record: RentalRecord, sighting: Sighting, now_ms: int) -> list[RentalChange]:
    if record.stopped_ms is not None:
        return []
    seen_ms = record.seen_ms or record.started_ms
    at_ms = seen_ms if sighting.since_ms is None else sighting.since_ms
    return _end(ledger, record, max(record.started_ms, min(at_ms, now_ms)), sighting.word)


def _end(ledger: Ledger, record: RentalRecord, at_ms: int, why: str) -> list[RentalChange]:
    if not ledger.rentals.stop(record.id, at_ms):
        return []  # somebody else ended it
    return [_change(record, "ended", at_ms, why)]


def _change(record: RentalRecord, act: Literal["began", "ended"], at_ms: int, why: str) -> RentalChange:
    return RentalChange(rental_id=record.id, machine=record.machine, act=act, at_ms=at_ms, why=why)


def _begin(
    ledger: Ledger, before: RentalRecord, at_ms: int, nano_per_hour: int | None, why: str
) -> tuple[RentalRecord, list[RentalChange]]:
    """Begin the rental that follows `before`; return it, or the one that another process began."""
    lives = _lives(ledger, before.source, before.machine, at_ms)
    living = [record for record in lives if record.id == before.id or not _is_void(record)]
    if living and living[-1].id != before.id:
        return living[-1], []
    each, whole = before.price_nano_per_hour, before.whole_nano_per_hour
    if nano_per_hour is not None:
        each, whole = split_price(nano_per_hour, before.count)
    record = replace(
        before,
        id=_id(before.source, before.machine, len(lives)),
        price_nano_per_hour=each,
        whole_nano_per_hour=whole,
        started_ms=at_ms,
        stopped_ms=None,
        seen_ms=at_ms,
    )
    try:
        ledger.rentals.add(record)
    except EntryConflictError:
        return next(r for r in _lives(ledger, before.source, before.machine, at_ms) if r.id == record.id), []
    return record, [_change(record, "began", at_ms, why)]


def _reprice(
    ledger: Ledger, record: RentalRecord, step: PriceStep, now_ms: int
) -> tuple[RentalRecord, list[RentalChange]]:
    """Apply a price that a provider told to a running rental."""
    if record.stopped_ms is not None or record.price_nano_per_month is not None:
        return record, []
    at_ms = now_ms if step.since_ms is None else step.since_ms
    if step.nano_per_hour == record.all_nano_per_hour or at_ms < record.started_ms or at_ms > now_ms:
        return record, []
    why = "another price"
    changes = _end(ledger, record, at_ms, why)
    # Where another process ended it first, the next rental begins at that end, so that no time is lost or billed twice.
    ended = _again(ledger, record)
    assert ended.stopped_ms is not None
    record, begun = _begin(ledger, ended, ended.stopped_ms, step.nano_per_hour, why)
    return record, [*changes, *begun]


def _again(ledger: Ledger, record: RentalRecord) -> RentalRecord:
    """Read a rental again."""
    return next(r for r in ledger.rentals.between(0, record.started_ms + 1) if r.id == record.id)


def _steps_from(prices: Sequence[PriceStep], start_ms: int) -> list[PriceStep]:
    """Return the prices that a rental has from its start on; of those before, the last one holds at the start."""
    earlier = [step for step in prices if step.since_ms is not None and step.since_ms <= start_ms]
    later = [step for step in prices if step.since_ms is None or step.since_ms > start_ms]
    return [*(replace(step, since_ms=start_ms) for step in earlier[-1:]), *later]


def _price_at(prices: Sequence[PriceStep], at_ms: int) -> int | None:
    """Return the last price that holds at a time; without any, the first one."""
    holding = [step for step in prices if step.since_ms is None or step.since_ms <= at_ms]
    return (holding[-1] if holding else prices[0]).nano_per_hour if prices else None


def _lives(ledger: Ledger, source: str, machine: str, now_ms: int) -> list[RentalRecord]:
    """Return all rentals of a machine, in the order in which they were begun."""
    records = ledger.rentals.between(0, now_ms + DAY_MS)
    mine = [record for record in records if (record.source, record.machine) == (source, machine)]
    return sorted(mine, key=_order)


def _id(source: str, machine: str, number: int) -> str:
    return f"rent_{sha256(f'{source}/{machine}'.encode()).hexdigest()[:12]}_{number}"


def _is_void(record: RentalRecord) -> bool:
    """Return whether a rental was taken back: another one has taken its place."""
    return record.stopped_ms == record.started_ms


def _order(record: RentalRecord) -> tuple[int, int]:
    number = record.id.rpartition("_")[2]
    return record.started_ms, int(number) if number.isdecimal() else 0

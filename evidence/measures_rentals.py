"""Rentals against the provider's own bill, over random lives of machines.

The lives share ledgers. Two processes watch the machines through the product's own inspectors, at random times, write
due rows and close days, and crash: they lose what they remember, and nobody looks for hours. Machines are deployed
again, outbid, started again and given back; prices change. Where the provider did not tell what its bill says, because
it tells no times or nobody looked in time, the bill is entered afterwards by corrections, as a person would.

Beside that, two routers with a GPU each share a ledger, start, stop and crash, and are billed for their uptime.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

from evidence.money.rental_provider import (
    DAY_MS,
    HOUR_MS,
    KINDS,
    MINUTE_MS,
    BillLine,
    MachineLife,
    RentalProvider,
    random_life,
)
from evidence.results import Measurement
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.ids import new_rental_id
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals import watch
from spillway_router.ledger.rentals.books import CONTINUE_MS
from spillway_router.ledger.rentals.closed_days import GRACE_MS, idle_id
from spillway_router.ledger.rentals.declared import correct, declare, deployed, end
from spillway_router.ledger.rentals.keeper import Books, RentalKeeper, RentalTerms
from spillway_router.ledger.reports.build import build_report
from spillway_router.ledger.reports.days import one_day
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.verify import verify
from spillway_router.testing.books import local_work

RENTALS_DIFFERENCE = "money.rentals_difference"
LIVES = 240
PER_LEDGER = 12
SEED = 20261129
_FIRST = date(2026, 10, 26)
_TERMS = ReportTerms(GpuRental(Decimal("1.39")), WorkCoefficients(), {})
_OWN = ("pod-0", "pod-1")
_OWN_NANO = 1_234_567_891

Follow = Callable[[Ledger, RentalRecord, watch.Sighting, int], list[watch.RentalChange]]


@dataclass(slots=True)
class _Findings:
    worst: int = 0
    where: str = ""
    comparisons: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def compare(self, what: str, booked: int, billed: int) -> None:
        self.comparisons += 1
        if abs(booked - billed) > self.worst:
            self.worst, self.where = abs(booked - billed), what


def rentals_difference(
    say: Callable[[str], None], lives: int = LIVES, follow: Follow = watch.follow
) -> dict[str, Measurement]:
    """Measure the largest difference in nano-dollars: per machine and whole life, per ledger and UTC day, used + unused
    against billed, and the idle rows of closed days against the report."""
    rng = Random(SEED)
    findings = _Findings()
    for at in range(0, lives, PER_LEDGER):
        count = min(PER_LEDGER, lives - at)
        with tempfile.TemporaryDirectory() as folder:
            _Trial(rng, Path(folder) / "spillway.db", follow, findings).run(count)
        findings.compare("the uptime of routers", own_gpus_difference(seed=SEED + at, lives=1), 0)
        say(f"  {at + count} of {lives} lives, largest difference {findings.worst} nano-dollars")
    details = {
        "comparisons": findings.comparisons,
        "worst_where": findings.where,
        "seed": SEED,
        "seen": dict(sorted(findings.seen.items())),
    }
    return {RENTALS_DIFFERENCE: Measurement(findings.worst, lives, details)}


class _Trial:
    """Some lives on one ledger."""

    def __init__(self, rng: Random, path: Path, follow: Follow, findings: _Findings) -> None:
        self._rng = rng
        self._path = path
        self._follow = follow
        self._findings = findings
        self._provider = RentalProvider()
        self._ledgers = [SqliteLedger.open(path) for _ in range(2)]
        self._books = [Books(ledger) for ledger in self._ledgers]

    def run(self, count: int) -> None:
        day_ms = start_of(_FIRST)
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            life = random_life(self._rng, kind, f"{kind}{number}", day_ms + self._rng.randrange(3) * DAY_MS)
            self._provider.lives[life.name] = life
        lives = list(self._provider.lives.values())
        end_ms = max(line.end_ms for life in lives for line in life.lines) + 2 * DAY_MS
        for at_ms, act in sorted(self._acts(lives, end_ms), key=lambda each: each[0]):
            self._provider.now_ms = at_ms
            act(at_ms)
        now_ms = end_ms + 1
        for life in lives:
            if not self._was_told(life):
                self._enter_bill(life, now_ms)
        for books in self._books:
            books.settle(now_ms)
            books.close_days(now_ms)
        self._compare(lives, now_ms)
        for ledger in self._ledgers:
            ledger.close()

    def _acts(self, lives: list[MachineLife], end_ms: int) -> Iterator[tuple[int, Callable[[int], None]]]:
        """Yield what happens, with its time."""
        first_ms = min(life.lines[0].start_ms for life in lives)
        crashes = [self._rng.randrange(first_ms, end_ms) for _ in range(3)]
        for life in lives:
            yield life.lines[0].start_ms, lambda now, life=life: self._deploy(life, now)  # type: ignore[misc]
            run = self._rng.choice(life.runs)
            yield (
                self._rng.randrange(run[0].start_ms + 1, run[-1].end_ms),
                lambda now, life=life: self._deploy_again(life, now),  # type: ignore[misc]
            )
        at_ms = first_ms
        while at_ms < end_ms:
            at_ms += self._rng.choice((5 * MINUTE_MS, 20 * MINUTE_MS, 40 * MINUTE_MS, 3 * HOUR_MS))
            if any(crash <= at_ms < crash + 5 * HOUR_MS for crash in crashes):
                continue  # nobody looks
            yield at_ms + self._rng.randrange(MINUTE_MS), self._rng.choice((self._look, self._look, self._write))
        for crash in crashes:
            yield crash, self._crash
        yield end_ms, self._look
        yield end_ms, self._look

    def _deploy(self, life: MachineLife, now_ms: int) -> None:
        each, whole = watch.split_price(life.lines[0].nano_per_hour, life.gpus)
        terms = RentalTerms(
            gpu="a100-80",
            count=life.gpus,
            price_nano_per_hour=each,
            kind="interruptible",
            whole_nano_per_hour=whole,
            machine=life.name,
        )
        deployed(self._any(), terms, life.kind, now_ms)
        self._findings.seen["lives"] += 1
        self._findings.seen[f"{life.kind}, {len(life.runs)} runs"] += 1

    def _deploy_again(self, life: MachineLife, now_ms: int) -> None:
        """Deploy a machine that runs, at the price that its provider tells; the books have heard of it, as the command
        asks first."""
        self._look(now_ms)
        record = watch.rental_of(self._any(), life.kind, life.name, now_ms)
        if record is None or record.stopped_ms is not None:
            return
        terms = RentalTerms(
            gpu=record.gpu,
            count=record.count,
            price_nano_per_hour=record.price_nano_per_hour,
            kind=record.kind,
            whole_nano_per_hour=record.whole_nano_per_hour,
            machine=life.name,
        )
        again = deployed(self._any(), terms, life.kind, now_ms)
        self._findings.seen["deployed again, goes on"] += again == (record, True)

    def _look(self, now_ms: int) -> None:
        """Let one of the two watchers look, or both, one after the other with what both saw before."""
        ledgers = self._ledgers if self._rng.random() < 0.3 else [self._any()]
        followed = [watch.followed(ledger, now_ms) for ledger in ledgers]
        for ledger, records in zip(ledgers, followed, strict=True):
            for kind in KINDS:
                mine = [record for record in records if record.source == kind]
                sightings = self._provider.inspector(kind).look([record.machine for record in mine])
                for record in mine:
                    for change in self._follow(ledger, record, sightings[record.machine], now_ms):
                        self._findings.seen[change.act] += 1
        if self._rng.random() < 0.5:
            self._write(now_ms)

    def _write(self, now_ms: int) -> None:
        """Write rows and close days, and let documents use the GPUs."""
        books = self._rng.choice(self._books)
        books.settle(now_ms)
        books.close_days(now_ms)
        self._any().append((local_work(f"req-{now_ms}-{self._rng.random()}", now_ms, self._rng.randrange(10**9)),))

    def _crash(self, now_ms: int) -> None:
        """Forget everything that a process remembered."""
        which = self._rng.randrange(2)
        self._ledgers[which].close()
        self._ledgers[which] = SqliteLedger.open(self._path)
        self._books[which] = Books(self._ledgers[which])
        self._findings.seen["crashes"] += 1

    def _any(self) -> Ledger:
        return self._rng.choice(self._ledgers)

    def _was_told(self, life: MachineLife) -> bool:
        """Return whether the provider told all that its bill says: somebody asked at the last price of each run, in
        each outage, and after the end before the machine was forgotten."""
        if life.kind == "vast":
            return False
        looks = self._provider.looks.get(life.name, [])
        ends = [run[-1].end_ms for run in life.runs]
        forgotten_ms = ends[-1] + (DAY_MS if life.forgotten else 99 * DAY_MS)
        known_until = [*(run[0].start_ms for run in life.runs[1:]), forgotten_ms]
        last_prices = [(run[-1].start_ms, run[-1].end_ms) for run in life.runs]
        asked = (*zip(ends, known_until, strict=True), *last_prices)
        return all(any(start <= at_ms < stop for at_ms in looks) for start, stop in asked)

    def _enter_bill(self, life: MachineLife, now_ms: int) -> None:
        """Put the rentals of a machine right by the bill, as a person does with `rentals correct` and `start`."""
        ledger = self._any()
        self._findings.seen["corrected by the bill"] += 1
        records = [
            record
            for record in ledger.rentals.between(0, now_ms)
            if record.machine == life.name and record.stopped_ms != record.started_ms
        ]
        for record, line in zip(records, life.lines, strict=False):
            correct(ledger, record, _right(record, line, life.gpus), now_ms)
        for record in records[len(life.lines) :]:
            correct(ledger, record, replace(record, stopped_ms=record.started_ms), now_ms)
        for line in life.lines[len(records) :]:
            each, whole = watch.split_price(line.nano_per_hour, life.gpus)
            terms = RentalTerms(
                gpu="a100-80",
                count=life.gpus,
                price_nano_per_hour=each,
                kind="interruptible",
                whole_nano_per_hour=whole,
                machine=life.name,
            )
            end(ledger, [declare(ledger, terms, life.kind, line.start_ms, now_ms)], line.end_ms, now_ms)

    def _compare(self, lives: list[MachineLife], now_ms: int) -> None:
        ledger = self._ledgers[0]
        for life in lives:
            ids = [r.id for r in ledger.rentals.between(0, now_ms) if r.machine == life.name]
            booked = sum(row.amount_nano for rental_id in ids for row in ledger.entries_of(rental_id))
            how = "told" if self._was_told(life) else "corrected"
            self._findings.compare(f"{life.name} ({how})", booked, life.billed(0, now_ms))
            self._findings.seen[f"lives {how}"] += 1
        day = _FIRST
        while start_of(day) < now_ms:
            self._compare_day(lives, day, now_ms)
            day += timedelta(days=1)
        faults = verify(ledger).faults
        self._findings.compare(f"faults: {faults[:1]}", len(faults), 0)

    def _compare_day(self, lives: list[MachineLife], day: date, now_ms: int) -> None:
        ledger, start_ms = self._ledgers[0], start_of(day)
        billed = sum(life.billed(start_ms, start_ms + DAY_MS) for life in lives)
        fixed = build_report(ledger, one_day(day), _TERMS, now_ms).fixed
        self._findings.compare(f"the report of {day}", fixed.billed_nano, billed)
        self._findings.compare(f"rows of {day}", ledger.rented(start_ms, start_ms + DAY_MS).billed_nano, billed)
        self._findings.compare(f"used + unused of {day}", fixed.used_nano + fixed.idle_nano, billed)
        if start_ms + DAY_MS + GRACE_MS <= now_ms:
            rows = ledger.entries_of(idle_id(day.isoformat()))
            self._findings.compare(f"idle row of {day}", sum(row.amount_nano for row in rows), fixed.idle_nano)
            self._findings.seen["closed days corrected"] += len(rows) > 1


def _right(record: RentalRecord, line: BillLine, gpus: int) -> RentalRecord:
    each, whole = watch.split_price(line.nano_per_hour, gpus)
    return replace(
        record,
        started_ms=line.start_ms,
        stopped_ms=line.end_ms,
        price_nano_per_hour=each,
        whole_nano_per_hour=whole,
    )


def own_gpus_difference(seed: int, lives: int) -> int:
    """Return the largest difference in nano-dollars between the books and the uptime of routers with a GPU each.

    Two routers on one ledger start, stop, crash and start again; a crashed one counts until its last minute, and one
    that is back within half an hour goes on.
    """
    rng = Random(seed)
    worst = 0
    for _ in range(lives):
        with tempfile.TemporaryDirectory() as folder:
            ledger = SqliteLedger.open(Path(folder) / "spillway.db")
            billed = sum(_own_life(rng, ledger, machine) for machine in _OWN)
            finishing = RentalKeeper(ledger, None, new_rental_id)
            now_ms = start_of(_FIRST) + 30 * DAY_MS
            finishing.tick(now_ms)
            worst = max(worst, abs(ledger.rented(0, now_ms).billed_nano - billed))
            ledger.close()
    return worst


def _own_life(rng: Random, ledger: Ledger, machine: str) -> int:
    """Let a router with a GPU of its own live, and return what its uptime costs."""
    terms = RentalTerms("t4", 1, _OWN_NANO, "reserved", machine=machine)
    now_ms = start_of(_FIRST) + rng.randrange(DAY_MS)
    spans: list[list[int]] = []
    for _ in range(rng.randint(1, 4)):
        keeper = RentalKeeper(ledger, terms, new_rental_id)
        keeper.begin(now_ms)
        if spans and spans[-1][2] and now_ms - spans[-1][1] <= CONTINUE_MS:
            spans[-1][1] = now_ms
        else:
            spans.append([now_ms, now_ms, 1])
        for _ in range(rng.randrange(300)):
            now_ms += MINUTE_MS + rng.randrange(500)
            keeper.tick(now_ms)
            spans[-1][1] = now_ms
        spans[-1][2] = rng.randrange(2)
        if not spans[-1][2]:
            keeper.end(now_ms)
        now_ms += rng.choice((5 * MINUTE_MS, 29 * MINUTE_MS, 31 * MINUTE_MS, 5 * HOUR_MS))
    return sum(_OWN_NANO * (stop - start) // HOUR_MS for start, stop, _ in spans)

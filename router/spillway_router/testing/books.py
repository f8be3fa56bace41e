"""Random books with an independent bill: every way in which GPU time and answers come about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Any, Literal, get_args

from spillway_router.ledger.calendar import DAY_MS, start_of
from spillway_router.ledger.entries import Entry, Status
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord, Write
from spillway_router.ledger.rentals.books import SPAN_MS
from spillway_router.ledger.rentals.closed_days import DayCloser
from spillway_router.ledger.rentals.corrections import RentalBooks
from spillway_router.ledger.reports.days import ReportRange

HOUR_MS = 3_600_000
DECISIONS = ("overflow", "escalated", "fallback", "routed", "pinned", "byok", "cache", "")
_RENTAL_KINDS: tuple[Literal["reserved", "interruptible"], ...] = ("reserved", "interruptible")
STATUSES: tuple[Status, ...] = tuple(status for status in get_args(Status) if status)


@dataclass(slots=True)
class ExpectedBill:
    """What the books of some days must say, added up while they are filled. Money is in nano-dollars."""

    range: ReportRange
    now_ms: int
    billed: int = 0
    cloud: int = 0
    held: int = 0
    answers: int = 0
    by_key: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Cloud cost and holds, by key id."""


def fill_books(
    rng: Random, ledger: Ledger, first: date, name: str, sources: Sequence[str] = ("router", "cli", "vast")
) -> ExpectedBill:
    """Fill up to three days from `first` on and return the bill; `name` must differ between calls on one ledger.

    `sources` are those of the rentals. A router ends rentals of routers where declared ones begin, so books that it is
    to leave alone have none of them.
    """
    days = rng.randint(1, 3)
    after = first + timedelta(days=days)
    bill = ExpectedBill(ReportRange(first, after, name), start_of(after) + rng.choice((0, HOUR_MS, DAY_MS)))
    for number in range(rng.choice((0, 1, 1, 2, 3))):
        _rent(rng, ledger, bill, f"rent_{name}_{number}", sources)
    if rng.random() < 0.2:
        _unexplained(rng, ledger, bill, name)
    rows = [row for number in range(rng.randint(0, 25)) for row in _request(rng, bill, f"req_{name}_{number}")]
    assert not any(ledger.commit([Write((row,)) for row in rows])), "every row is stored"
    if rng.random() < 0.5:
        RentalBooks(ledger).write_due(bill.range.start_ms + rng.randint(0, days * DAY_MS))
    if rng.random() < 0.3:
        RentalBooks(ledger).write_due(bill.now_ms)
        DayCloser(ledger).close_days(bill.now_ms)
    return bill


def _rent(rng: Random, ledger: Ledger, bill: ExpectedBill, name: str, sources: Sequence[str]) -> None:
    """Add a rental within the days, down to a millisecond; some are free, some are a row of short ones at changing
    prices.
    """
    start_ms, end_ms = bill.range.start_ms, bill.range.end_ms
    at = rng.randint(start_ms, end_ms - 1)
    for part in range(rng.choice((1, 1, 1, 3))):
        stop = min(end_ms, at + rng.choice((0, 1, rng.randint(1, SPAN_MS), rng.randint(1, 2 * DAY_MS))))
        nano = rng.choice((0, 526_000_000, 1_390_000_000, rng.randint(1, 10**10)))
        count = rng.choice((1, 1, 2, 7))
        kind = rng.choice(_RENTAL_KINDS)
        source = rng.choice(sources)
        ledger.rentals.add(
            RentalRecord(
                id=f"{name}_{part}",
                gpu="t4",
                count=count,
                price_nano_per_hour=nano,
                kind=kind,
                started_ms=at,
                stopped_ms=stop,
                source=source,
            )
        )
        bill.billed += nano * count * (stop - at) // HOUR_MS
        at = stop


def _unexplained(rng: Random, ledger: Ledger, bill: ExpectedBill, name: str) -> None:
    """Add GPU time without a rental, as routers wrote it before rentals were stored."""
    amount = rng.randint(0, 10**10)
    at = rng.randint(bill.range.start_ms, bill.range.end_ms - 1)
    ledger.append(
        (Entry(kind="gpu_hour", request_id=f"gpu-{name}", attempt_no=0, ts=at, local=True, gpu_us=60_000_000,
               amount_nano=amount),)
    )  # fmt: skip
    bill.billed += amount


def _request(rng: Random, bill: ExpectedBill, request_id: str) -> list[Entry]:
    """Return the rows of one request: local, or a hold and its outcome, or both (an escalated draft); some are adjusted
    later.
    """
    ts = rng.randint(bill.range.start_ms, bill.range.end_ms - 2)
    about: dict[str, Any] = {
        "key_id": rng.choice(("", "k1", "k2")),
        "tier": rng.choice(("", "free", "paid")),
        "task": rng.choice(("", "code")),
        "document": rng.random() < 0.5,
    }
    rows: list[Entry] = []
    answered = False
    for attempt in range(1, rng.randint(1, 3) + 1):
        status = rng.choice(STATUSES)
        if answered and status in ("ok", "aborted"):
            status = "discarded"
        answered = answered or status in ("ok", "aborted")
        long = rng.choice((5000, 5000, 5000, 300_000))
        shape = {
            "prompt_tokens": rng.randint(0, long),
            "completion_tokens": rng.choice((0, rng.randint(0, 2000), rng.randint(0, 2000))),
            "status": status,
        }
        if rng.random() < 0.5:
            work = rng.choice((0, 1, rng.randint(0, 10**8), rng.randint(0, 10**11)))
            rows.append(_local(request_id, attempt, ts, work, {**shape, **about}))
        else:
            rows += _cloud(rng, bill, (request_id, attempt, ts), {**shape, **about})
    bill.answers += sum(row.kind == "charged" and row.status in ("ok", "aborted") for row in rows)
    return rows


def local_work(request_id: str, ts: int, gpu_us: int) -> Entry:
    """Return the row of a local answer that took so many microseconds of one GPU; `ts` is in epoch ms."""
    return Entry(
        kind="charged",
        request_id=request_id,
        attempt_no=1,
        ts=ts,
        backend="local",
        provider="vllm",
        model="m",
        local=True,
        decision="local",
        status="ok",
        prompt_tokens=10,
        completion_tokens=10,
        gpu_us=gpu_us,
    )


def _local(request_id: str, attempt: int, ts: int, gpu_us: int, rest: dict[str, Any]) -> Entry:
    backend: dict[str, Any] = {
        "backend": "local",
        "provider": "vllm",
        "model": "demo",
        "local": True,
        "decision": "local",
    }
    return Entry(kind="charged", request_id=request_id, attempt_no=attempt, ts=ts, gpu_us=gpu_us, **{**backend, **rest})


def _cloud(rng: Random, bill: ExpectedBill, who: tuple[str, int, int], rest: dict[str, Any]) -> list[Entry]:
    request_id, attempt, ts = who
    name = rng.choice(("groq", "openai"))
    base: dict[str, Any] = {
        "backend": name,
        "provider": name,
        "model": "m",
        "decision": rng.choice(DECISIONS),
        "tariff_ref": "t@1",
    }
    base |= {"tariff_ref": "t@1", "key_id": rest["key_id"], "tier": rest["tier"], "task": rest["task"]}
    bound = rng.randint(0, 10**8)
    end = rng.choice(("open", "released", "charged", "charged", "charged"))
    ids: dict[str, Any] = {"request_id": request_id, "attempt_no": attempt}
    rows = [Entry(kind="reserved", ts=ts, reserved_nano=bound, **ids, **base)]
    if end == "open":
        bill.held += bound
        bill.by_key[rest["key_id"]] += bound
    elif end == "released":
        rows.append(Entry(kind="released", ts=ts + 1, **ids, **base, status="error"))
    else:
        cost = rng.randint(0, bound)
        rows.append(Entry(kind="charged", ts=ts + 1, amount_nano=cost, **ids, **{**base, **rest}))
        if rng.random() < 0.2:
            change = rng.randint(-cost, 10**6)
            status = {"status": rest["status"], "document": rest["document"]}
            rows.append(Entry(kind="adjusted", ts=ts + 1, amount_nano=change, **ids, **base, **status))
            cost += change
        bill.cloud += cost
        bill.by_key[rest["key_id"]] += cost
    return rows

"""A ledger in memory: it follows the same rules (the contract suite runs on it) and ends with the process."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import get_args

from spillway_router.core.money.alternatives import length_class
from spillway_router.core.money.budget import Period, check_scope
from spillway_router.ledger.calendar import Days
from spillway_router.ledger.entries import ANSWERED, GENESIS, KINDS, SIGNED, Entry, Status, link_of, row_of
from spillway_router.ledger.errors import EntryRejectedError
from spillway_router.ledger.ids import first_id
from spillway_router.ledger.interface import AttemptRows, Checks, Ledger, Spent, Sums
from spillway_router.ledger.posting import HoldKey, OpenHold, Posting, Stored, conflicting
from spillway_router.ledger.records import (
    Balance,
    BalanceKey,
    Group,
    KeyWork,
    Linked,
    Rented,
    Total,
    Write,
    WriteResult,
)
from spillway_router.testing.tables import (
    MemoryActs,
    MemoryAlerts,
    MemoryCredits,
    MemoryExperiments,
    MemoryFeedback,
    MemoryKeys,
    MemoryLabels,
    MemoryOtherCosts,
    MemoryPrivateSessions,
    MemoryProviderKeys,
    MemoryRentals,
    MemoryResponses,
    MemoryReviews,
    MemoryTariffs,
    MemoryTraits,
)

_DEFAULTS = Entry._field_defaults  # the compiled class has no annotations
_TEXT = ("request_id", *(name for name, value in _DEFAULTS.items() if type(value) is str and name != "status"))
_COUNTS = ("attempt_no", "ts", *(name for name, value in _DEFAULTS.items() if type(value) is int))
_MOST = 2**63 - 1


class MemoryLedger(Ledger):
    """A `Ledger` in memory."""

    def __init__(self) -> None:
        acts = MemoryActs()
        keys = MemoryKeys(acts)
        feedback = MemoryFeedback()
        super().__init__(
            keys=keys,
            rentals=MemoryRentals(acts),
            reviews=MemoryReviews(acts),
            feedback=feedback,
            labels=MemoryLabels(),
            alerts=MemoryAlerts(),
            responses=MemoryResponses(),
            private_sessions=MemoryPrivateSessions(),
            traits=MemoryTraits(),
            other_costs=MemoryOtherCosts(acts),
            tariffs=MemoryTariffs(),
            credits=MemoryCredits(),
            provider_keys=MemoryProviderKeys(acts, keys),
            experiments=MemoryExperiments(lambda: list(self._entries.values()), feedback),
            acts=acts,
        )
        self._entries: dict[tuple[str, int, str], Entry] = {}
        self._links: list[bytes] = []
        self._holds: dict[HoldKey, OpenHold] = {}
        self._reserved_ts: dict[HoldKey, int] = {}
        self._closed: set[HoldKey] = set()
        self._balances: dict[BalanceKey, Balance] = {}
        self._routers: dict[str, int] = {}
        self._lock = Lock()

    @property
    def name(self) -> str:
        return "memory"

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        with self._lock:
            return [self._commit(write) for write in writes]

    def _commit(self, write: Write) -> WriteResult:
        new: dict[tuple[str, int, str], Entry] = {}
        for entry in write.entries:
            problem = _problem(entry)
            if problem:
                return EntryRejectedError(f"the ledger refused an entry: {problem}")
            stored = self._entries.get(entry.key) or new.get(entry.key)
            if stored is None:
                new[entry.key] = entry
            elif stored != entry:
                return conflicting(entry)
        caps = write.caps if any(entry.kind == "reserved" for entry in new.values()) else ()
        posting = Posting(Stored(self._holds, self._reserved_ts, self._closed, self._balances))
        result = posting.post(Write(tuple(new.values()), caps))
        if result is None:
            self._store(new.values(), posting)
        return result

    def _store(self, entries: Iterable[Entry], posting: Posting) -> None:
        for entry in entries:
            self._entries[entry.key] = entry
            self._links.append(link_of(self._links[-1] if self._links else GENESIS, row_of(entry)))
            attempt = (entry.request_id, entry.attempt_no)
            if entry.kind == "reserved":
                self._reserved_ts[attempt] = entry.ts
            elif entry.kind in ("charged", "released"):
                self._closed.add(attempt)
        self._holds |= posting.opened
        for hold in posting.closed:
            self._holds.pop(hold, None)
        for key, (spent_nano, reserved_nano) in posting.deltas.items():
            old = self._balances.get(key, Balance(0, 0))
            self._balances[key] = Balance(old.spent_nano + spent_nano, old.reserved_nano + reserved_nano)

    def probe(self) -> None:
        pass  # memory can always be written

    def balance(self, scope: str, period: Period, start_ms: int) -> Balance:
        check_scope(scope)
        return self._balances.get((scope, period, start_ms), Balance(0, 0))

    def balances(self) -> Mapping[BalanceKey, Balance]:
        with self._lock:
            return {key: balance for key, balance in self._balances.items() if balance != Balance(0, 0)}

    def open_reservations(self, start_ms: int, end_ms: int) -> tuple[Entry, ...]:
        return tuple(e for e in self._all() if self._is_open(e) and start_ms <= e.ts < end_ms)

    def _is_open(self, entry: Entry) -> bool:
        return entry.kind == "reserved" and (entry.request_id, entry.attempt_no) in self._holds

    def alive(self, router_id: str, now_ms: int) -> None:
        self._routers[router_id] = max(now_ms, self._routers.get(router_id, now_ms))

    def orphans(self, now_ms: int, silent_ms: int) -> tuple[Entry, ...]:
        until_ms = now_ms - silent_ms
        return tuple(
            e for e in self._all() if self._is_open(e) and max(e.ts, self._routers.get(e.router_id, e.ts)) <= until_ms
        )

    def entries_of(self, request_id: str) -> tuple[Entry, ...]:
        return tuple(e for e in self._all() if e.request_id == request_id)

    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        return iter([e for e in self._all() if start_ms <= e.ts < end_ms])

    def entries_before(self, before: str, most_rows: int) -> tuple[Entry, ...]:
        rows = [entry for entry in self._all() if first_id(0) <= entry.request_id < before]
        rows.sort(key=lambda entry: (entry.attempt_no, entry.kind))
        rows.sort(key=lambda entry: entry.request_id, reverse=True)
        return tuple(rows[:most_rows])

    def adjustments_between(self, start_ms: int, end_ms: int) -> tuple[Entry, ...]:
        return tuple(e for e in self.entries_between(start_ms, end_ms) if e.kind == "adjusted")

    def head(self) -> tuple[int, bytes]:
        with self._lock:
            return len(self._links), self._links[-1] if self._links else GENESIS

    def chain(self, after_seq: int = 0) -> Iterator[Linked]:
        pairs = zip(self._all(), list(self._links), strict=True)
        rows = [Linked(seq, row_of(entry), link) for seq, (entry, link) in enumerate(pairs, 1)]
        return iter(rows[after_seq:])

    @contextmanager
    def sums(self) -> Iterator[Sums]:
        yield _MemorySums(self._all(), dict(self._reserved_ts))

    @contextmanager
    def checks(self) -> Iterator[Checks]:
        with self._lock:
            checks = _MemoryChecks(list(self._entries.values()), dict(self._holds), dict(self._balances))
        yield checks

    def sum_up(self, most_rows: int) -> int:
        del most_rows
        return 0  # all sums are computed when somebody asks

    def rented(self, start_ms: int, end_ms: int) -> Rented:
        rows = [e for e in self.entries_between(start_ms, end_ms) if "gpu_hour" in (e.kind, e.decision)]
        return Rented(sum(e.amount_nano for e in rows), sum(e.gpu_us for e in rows))

    def close(self) -> None:
        pass  # the entries stay readable

    def _all(self) -> list[Entry]:
        with self._lock:
            return list(self._entries.values())


class _MemorySums(Sums):
    """Sums over some entries, computed row by row from the definitions."""

    def __init__(self, entries: Sequence[Entry], reserved_ts: Mapping[HoldKey, int]) -> None:
        self._entries = entries
        self._reserved_ts = reserved_ts
        self._first: dict[str, tuple[int, str]] = {}
        for entry in entries:
            if entry.kind == "charged":
                self._first.setdefault(entry.request_id, (entry.attempt_no, entry.kind))

    def totals(self, days: Days) -> tuple[Total, ...]:
        totals = self._summed(self._of(days), lambda day, e: (day, "", _group(e)))
        return tuple(sorted(totals, key=lambda t: (t.day, not t.group.local, t.group[1:])))

    def lengths(self, days: Days) -> Iterator[tuple[int, Total]]:
        charged = {(e.request_id, e.attempt_no): e for e in self._entries if e.kind == "charged"}
        rows: dict[int, list[tuple[str, Entry]]] = defaultdict(list)
        for day, e in self._of(days):
            answer = charged.get((e.request_id, e.attempt_no))
            if e.status in ANSWERED and answer is not None:
                rows[length_class(answer.prompt_tokens)].append((day, e))
        for length, of_length in rows.items():
            if length:
                for total in self._summed(of_length, lambda day, e: (day, "", _group(e))):
                    yield length, total

    def key_totals(self, start_ms: int, end_ms: int) -> Iterator[Total]:
        return self._summed((("", e) for _, e in self._rows(start_ms, end_ms)), lambda _, e: ("", e.key_id, _group(e)))

    def key_work(self, days: Days) -> Iterator[KeyWork]:
        local = [(day, e) for day, e in self._of(days) if e.local]
        shares: dict[tuple[str, Group], list[tuple[str, int]]] = defaultdict(list)
        for total in self._summed(local, lambda day, e: (day, e.key_id, _group(e))):
            shares[total.day, total.group].append((total.key_id, total.gpu_us))
        for (day, group), of_keys in sorted(shares.items()):
            yield KeyWork(day, group, sorted(of_keys))

    def _of(self, days: Days) -> list[tuple[str, Entry]]:
        return [(days.name_at(at_ms), e) for at_ms, e in self._rows(days.start_ms, days.end_ms)]

    def _rows(self, start_ms: int, end_ms: int) -> list[tuple[int, Entry]]:
        """Return the rows that count within [start, end), with the time at which they do."""
        rows = []
        for e in self._entries:
            booked_ms = self._reserved_ts.get((e.request_id, e.attempt_no), e.ts)
            if e.kind in ("charged", "adjusted") and start_ms <= booked_ms < end_ms:
                rows.append((booked_ms, e))
        return rows

    def _summed(
        self, rows: Iterable[tuple[str, Entry]], key_of: Callable[[str, Entry], tuple[str, str, Group]]
    ) -> Iterator[Total]:
        groups: dict[tuple[str, str, Group], list[Entry]] = defaultdict(list)
        for day, e in rows:
            groups[key_of(day, e)].append(e)
        for (day, key_id, group), entries in groups.items():
            charged = [e for e in entries if e.kind == "charged"]
            yield Total(
                day=day,
                key_id=key_id,
                group=group,
                attempts=len(charged),
                requests=sum(self._first[e.request_id] == (e.attempt_no, e.kind) for e in charged),
                answers=sum(e.status in ANSWERED for e in charged),
                prompt_tokens=sum(e.prompt_tokens for e in entries),
                completion_tokens=sum(e.completion_tokens for e in entries),
                cached_tokens=sum(e.cached_tokens for e in entries),
                reasoning_tokens=sum(e.reasoning_tokens for e in entries),
                kv_token_steps_x2=sum(
                    2 * e.prompt_tokens * e.completion_tokens + e.completion_tokens**2 for e in charged
                ),
                gpu_us=sum(e.gpu_us for e in entries),
                cost_nano=sum(e.amount_nano for e in entries),
                unsure=sum((e.at_most_nano > 0) - (e.at_most_nano < 0) for e in entries),
                estimated_nano=sum(e.estimated_nano for e in entries),
                at_most_nano=sum(e.at_most_nano for e in entries),
                saved_nano=sum(e.saved_nano for e in entries),
            )


class _MemoryChecks(Checks):
    """Checks of the rows of a ledger in memory, whose sums are the rows themselves."""

    def __init__(
        self, entries: Sequence[Entry], holds: Mapping[HoldKey, OpenHold], balances: Mapping[BalanceKey, Balance]
    ) -> None:
        self._entries = entries
        self._holds = holds
        self._balances = balances
        self._reserved_ts = {(e.request_id, e.attempt_no): e.ts for e in entries if e.kind == "reserved"}

    def negative_rows(self) -> Iterator[tuple[int, str]]:
        return iter(())  # `commit` refuses them

    def odd_attempts(self) -> Iterator[AttemptRows]:
        opened: dict[HoldKey, int] = {}
        closed: dict[HoldKey, list[int]] = defaultdict(list)
        held_nano: dict[HoldKey, int] = {}
        charged_nano: dict[HoldKey, int] = {}
        for seq, e in enumerate(self._entries, 1):
            key = (e.request_id, e.attempt_no)
            if e.kind == "reserved":
                opened[key] = seq
                held_nano[key] = e.reserved_nano
            elif e.kind in ("charged", "released"):
                closed[key].append(seq)
            if e.kind == "charged":
                charged_nano[key] = max(e.amount_nano, charged_nano.get(key, e.amount_nano))
        for key in sorted(opened.keys() | closed.keys()):
            closings, opened_seq = closed.get(key, []), opened.get(key)
            above = key in held_nano and charged_nano.get(key, 0) > held_nano[key]
            if len(closings) != 1 or above or (opened_seq is not None and opened_seq > closings[0]):
                yield AttemptRows(
                    request_id=key[0],
                    attempt_no=key[1],
                    closings=len(closings),
                    opened_seq=opened_seq,
                    closed_seq=max(closings, default=None),
                    charged_nano=charged_nano.get(key),
                    held_nano=held_nano.get(key),
                )

    def answered_twice(self) -> Iterator[str]:
        answered = Counter(e.request_id for e in self._entries if e.kind == "charged" and e.status in ANSWERED)
        return (request_id for request_id, count in sorted(answered.items()) if count > 1)

    def spent(self) -> Iterator[Spent]:
        sums: dict[tuple[int, str, str, str, str], list[int]] = defaultdict(lambda: [0, 0])
        for e in self._entries:
            if e.kind in ("charged", "adjusted") and (e.amount_nano or e.reserved_nano):
                booked_ms = self._reserved_ts.get((e.request_id, e.attempt_no), e.ts)
                moved = sums[booked_ms // 3_600_000, e.backend, e.key_id, e.tier, e.user_id]
                moved[0] += e.amount_nano
                moved[1] += e.reserved_nano if e.kind == "charged" else -e.reserved_nano
        return (Spent._make((*key, *moved)) for key, moved in sorted(sums.items()))

    def short_balances(self) -> Iterator[tuple[BalanceKey, Balance]]:
        short = [item for item in self._stored() if item[0][1] != "month"]
        return iter(sorted(short, key=lambda item: item[0][2]))

    def month_balances(self) -> Iterator[tuple[BalanceKey, Balance]]:
        return (item for item in self._stored() if item[0][1] == "month")

    def _stored(self) -> Iterator[tuple[BalanceKey, Balance]]:
        return (item for item in self._balances.items() if item[1] != Balance(0, 0))

    def holds(self) -> Mapping[HoldKey, OpenHold]:
        return self._holds

    def rent(self) -> Iterator[tuple[int, int, int]]:
        days: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for e in self._entries:
            for column, kind in enumerate(("gpu_hour", "idle")):
                if kind in (e.kind, e.decision):
                    days[e.ts // 86_400_000][column] += e.amount_nano
        return ((day, billed_nano, idle_nano) for day, (billed_nano, idle_nano) in sorted(days.items()))

    def wrong_sums(self) -> Iterator[tuple[int, str]]:
        return iter(())


def _group(entry: Entry) -> Group:
    return Group(**{name: getattr(entry, name) for name in Group._fields})


def _problem(entry: Entry) -> str:
    """Return which rule of a database's schema the entry breaks, or an empty string."""
    problem = ""
    texts = [getattr(entry, name) for name in _TEXT]
    counts = {name: getattr(entry, name) for name in _COUNTS}
    if entry.kind not in KINDS or entry.status not in get_args(Status):
        problem = "unknown kind or status"
    elif not entry.request_id or not all(isinstance(t, str) and _encodes(t) for t in texts):
        problem = "a text field is missing or can't be stored"
    elif not all(isinstance(n, int) and abs(n) <= _MOST for n in counts.values()):
        problem = "a number does not fit 64 bits"
    elif entry.attempt_no < 0 or (entry.kind not in SIGNED and any(n < 0 for n in counts.values())):
        problem = "a number is negative"
    return problem


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

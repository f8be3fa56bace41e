"""The part of a ledger that is the same in every SQL database: plain look-ups and the tables beside the entries.

store/sqlite and store/postgres add their connections, the commit, and the sums over many rows.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from spillway_router.core.money.budget import Period, check_scope
from spillway_router.ledger.entries import GENESIS, Entry, entry_of, stored_row
from spillway_router.ledger.ids import first_id
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import Balance, BalanceKey, Linked, Rented, Rows
from spillway_router.ledger.store.statements import (
    ADJUSTED,
    BALANCE,
    BALANCES,
    CORRECTED,
    ENTRIES_BEFORE,
    ENTRIES_OF,
    HEAD,
    KEYS_CHANGED,
    LINKED_AFTER,
    RENTED,
)
from spillway_router.ledger.tables.acts import (
    Act,
    Change,
    RunSql,
    SqlActs,
    append_acts,
    cost_fields,
    key_fields,
    rental_fields,
)
from spillway_router.ledger.tables.alerts import SqlAlerts
from spillway_router.ledger.tables.credits import SqlCredits
from spillway_router.ledger.tables.experiments import SqlExperiments
from spillway_router.ledger.tables.feedback import SqlFeedback
from spillway_router.ledger.tables.key_table import SqlKeys
from spillway_router.ledger.tables.labels import SqlLabels
from spillway_router.ledger.tables.other_costs import SqlOtherCosts
from spillway_router.ledger.tables.private_sessions import SqlPrivateSessions
from spillway_router.ledger.tables.provider_keys import SqlProviderKeys
from spillway_router.ledger.tables.rentals import SqlRentals
from spillway_router.ledger.tables.request_traits import SqlTraits
from spillway_router.ledger.tables.reviews import SqlReviews
from spillway_router.ledger.tables.stored_responses import SqlResponses
from spillway_router.ledger.tables.tariffs import SqlTariffs

_READ_CHUNK = 2_000


def note_existing(run: RunSql, now_ms: int) -> None:
    """Write acts for the keys, rentals and other costs that were there before the ledger kept acts.

    `run` works inside the transaction of the migrations, so that this is done once.
    """

    keys = SqlKeys(lambda sql: run(sql, ()), lambda *_: False, lambda: 0).all()
    rentals = SqlRentals(lambda sql, values, _: run(sql, values), lambda *_: []).between(-(2**62), 2**62)
    changes = [Change("key.found", key.id, key_fields(key)) for key in keys]
    costs = SqlOtherCosts(lambda sql, values, _: run(sql, values), lambda *_: []).all()
    changes += [Change("cost.found", cost.id, cost_fields(cost)) for cost in costs]
    changes += [Change("rental.found", rental.id, rental_fields(rental)) for rental in rentals]
    append_acts(run, [change.act(now_ms, "migration") for change in changes])


class SqlLedger(Ledger):
    """The part of a `Ledger` that all SQL databases share. Statements have ? for values."""

    OPEN_RESERVATIONS: ClassVar[str]
    ORPHANS: ClassVar[str]

    def __init__(self) -> None:
        super().__init__(
            keys=SqlKeys(self._read_keys, self._change_keys, self._keys_revision),
            rentals=SqlRentals(self._execute, self._change),
            reviews=SqlReviews(self._execute, self._change),
            feedback=SqlFeedback(self._execute),
            labels=SqlLabels(self._execute),
            alerts=SqlAlerts(self._execute),
            responses=SqlResponses(self._execute),
            private_sessions=SqlPrivateSessions(self._execute),
            traits=SqlTraits(self._execute),
            other_costs=SqlOtherCosts(self._execute, self._change),
            tariffs=SqlTariffs(self._execute),
            credits=SqlCredits(self._execute, self._transact),
            provider_keys=SqlProviderKeys(self._read_keys, self._change_keys, self._keys_revision),
            experiments=SqlExperiments(self._execute),
            acts=SqlActs(lambda sql: self._execute(sql, (), False), self._append_act),
        )

    @abstractmethod
    def _read(self, sql: str, values: Sequence[Any]) -> Rows:
        """Read entries and balances."""

    @abstractmethod
    def _execute(self, sql: str, values: Sequence[Any], write: bool) -> Rows:
        """Run a statement on a table beside the entries, in a transaction (records.Execute).

        A write returns the rows of its RETURNING clause and is durable by then.
        """

    @abstractmethod
    def _transact(self, work: Callable[[RunSql], Rows]) -> Rows:
        """Run `work` in a transaction on tables beside the entries, which an exception undoes; it is durable on
        return."""

    @abstractmethod
    def _read_keys(self, sql: str) -> Rows:
        """Read API keys, without waiting behind a report."""

    @abstractmethod
    def _in_acts(self, work: Callable[[RunSql], Rows]) -> Rows:
        """Run `work` in a transaction in which nobody else can append an act; it is durable on return."""

    def _change(self, sql: str, values: Sequence[Any], change_of: Callable[[Rows], Change], then: str = "") -> Rows:
        """Run a statement that may change a row (acts.ChangeRows), and if it did, the statement `then`."""

        def work(run: RunSql) -> Rows:
            rows = run(sql, values)
            if rows:
                append_acts(run, [self._act(change_of(rows))])
                if then:
                    run(then, ())
            return rows

        return self._in_acts(work)

    def _append_act(self, change: Change) -> None:
        """Append the act of something that changed no row."""

        def work(run: RunSql) -> Rows:
            append_acts(run, [self._act(change)])
            return []

        self._in_acts(work)

    def _act(self, change: Change) -> Act:
        return change.act(time.time_ns() // 1_000_000, self.actor)

    def _change_keys(self, sql: str, values: Sequence[Any], change: Change) -> bool:
        """Run a statement that may change a key; return whether it did, and then increment the keys' revision."""
        return bool(self._change(sql, values, lambda _: change, KEYS_CHANGED))

    @abstractmethod
    def _keys_revision(self) -> int:
        """Return the keys' revision, without waiting behind a report."""

    def balance(self, scope: str, period: Period, start_ms: int) -> Balance:
        check_scope(scope)
        rows = self._read(BALANCE, (scope, period, start_ms))
        return Balance(*rows[0]) if rows else Balance(0, 0)

    def balances(self) -> Mapping[BalanceKey, Balance]:
        return {(scope, period, start): Balance(*nano) for scope, period, start, *nano in self._read(BALANCES, ())}

    def open_reservations(self, start_ms: int, end_ms: int) -> tuple[Entry, ...]:
        return tuple(map(entry_of, self._read(self.OPEN_RESERVATIONS, (start_ms, end_ms))))

    def orphans(self, now_ms: int, silent_ms: int) -> tuple[Entry, ...]:
        return tuple(map(entry_of, self._read(self.ORPHANS, (now_ms - silent_ms,))))

    def entries_of(self, request_id: str) -> tuple[Entry, ...]:
        return tuple(map(entry_of, self._read(ENTRIES_OF, (request_id,))))

    def entries_before(self, before: str, most_rows: int) -> tuple[Entry, ...]:
        return tuple(map(entry_of, self._read(ENTRIES_BEFORE, (first_id(0), before, most_rows))))

    def adjustments_between(self, start_ms: int, end_ms: int) -> tuple[Entry, ...]:
        return tuple(map(entry_of, self._read(ADJUSTED, (start_ms, end_ms))))

    def head(self) -> tuple[int, bytes]:
        rows = self._read(HEAD, ())
        return (rows[0][0], rows[0][1]) if rows else (0, GENESIS)

    def chain(self, after_seq: int = 0) -> Iterator[Linked]:
        while rows := self._read(LINKED_AFTER, (after_seq, _READ_CHUNK)):
            after_seq = rows[-1][0]
            for row in rows:
                yield Linked(row[0], stored_row(row[1:-1]), row[-1])

    def _chunks(self, sql: str, after_seq: int, *values: int) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a statement whose values are the seq to continue after, `values`, and a limit.

        The first column of each row must be its seq.
        """
        while rows := self._read(sql, (after_seq, *values, _READ_CHUNK)):
            after_seq = rows[-1][0]
            yield from rows

    def rented(self, start_ms: int, end_ms: int) -> Rented:
        billed, corrected = (self._read(sql, (start_ms, end_ms))[0] for sql in (RENTED, CORRECTED))
        return Rented(int(billed[0]) + int(corrected[0]), int(billed[1]) + int(corrected[1]))

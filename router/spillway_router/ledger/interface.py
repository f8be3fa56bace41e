"""What a ledger can do.

The implementations are store/sqlite, store/postgres and testing/ledger.py; one contract suite runs on all of them.

Methods are synchronous and safe to call from any thread. The proxy never calls `commit` itself: it hands writes to
writer.py, which commits the rows of many requests together on a thread of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from typing import ClassVar, NamedTuple

from orjson import dumps

from spillway_router.core.money.budget import Period
from spillway_router.ledger.calendar import Days, utc_days
from spillway_router.ledger.entries import COLUMNS, Entry
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.records import (
    Balance,
    BalanceKey,
    Canonical,
    KeyWork,
    Linked,
    Rented,
    Total,
    Write,
    WriteResult,
)
from spillway_router.ledger.tables.acts import ActLog
from spillway_router.ledger.tables.alerts import AlertTable
from spillway_router.ledger.tables.credits import CreditTable
from spillway_router.ledger.tables.experiments import ExperimentTable
from spillway_router.ledger.tables.feedback import FeedbackTable
from spillway_router.ledger.tables.key_table import KeyTable
from spillway_router.ledger.tables.labels import LabelTable
from spillway_router.ledger.tables.other_costs import OtherCostTable
from spillway_router.ledger.tables.private_sessions import PrivateSessionTable
from spillway_router.ledger.tables.provider_keys import ProviderKeyTable
from spillway_router.ledger.tables.rentals import RentalTable
from spillway_router.ledger.tables.request_traits import TraitTable
from spillway_router.ledger.tables.reviews import ReviewTable
from spillway_router.ledger.tables.stored_responses import ResponseTable
from spillway_router.ledger.tables.tariffs import TariffTable

_KIND, _REF = COLUMNS.index("kind"), COLUMNS.index("tariff_ref")


class Sums(ABC):
    """Sums over the charged and adjusted rows, read at one moment.

    A range is [start, end) in epoch milliseconds, and days are those of any time zone; all of them start and end with a
    quarter of an hour.
    """

    @abstractmethod
    def totals(self, days: Days) -> tuple[Total, ...]:
        """Return the sums per day and group over all API keys.

        They are ordered by day and group; within a day, local groups come first.
        """

    @abstractmethod
    def lengths(self, days: Days) -> Iterator[tuple[int, Total]]:
        """Yield the sums of the answers of each day, group and length class of the prompt (core/money/alternatives.py),
        in no order.

        Class 0 is left out: it is what of `totals` is in no other class.
        """

    @abstractmethod
    def key_totals(self, start_ms: int, end_ms: int) -> Iterator[Total]:
        """Yield the sums per group and API key over the whole range, in no order.

        This is fastest where both ends start a UTC day: the rows between an end and the next such start are read.
        """

    @abstractmethod
    def key_work(self, days: Days) -> Iterator[KeyWork]:
        """Yield the local work per day, group and API key, day by day. As with `key_totals`, UTC days are fastest."""


class AttemptRows(NamedTuple):
    """The rows that opened and closed an attempt: how many closed it, and the last `seq` of each kind, None without
    one; and the nano-dollars that were charged and held, None without such a row."""

    request_id: str
    attempt_no: int
    closings: int
    opened_seq: int | None
    closed_seq: int | None
    charged_nano: int | None
    held_nano: int | None


class Spent(NamedTuple):
    """What attempts of one backend, key, tier and user spent in one hour (counted since the epoch), in nano-dollars.

    `kept_nano` is what budgets hold of them although they are closed, because their cost is an estimate.
    """

    hour: int
    backend: str
    key_id: str
    tier: str
    user_id: str
    nano: int
    kept_nano: int = 0


OpenHoldRow = tuple[int, int, str, str, str, str, str]
"""The values of an open hold as in posting.OpenHold: nano-dollars, epoch ms, backend, key id, tier, router id, user
id."""


StoredBalance = tuple[str, Period, int, int, int]
"""Scope, period, the period's first millisecond (epoch), nano-dollars spent, and nano-dollars held."""


WrongSums = Iterable[tuple[int, str]]
"""The start (epoch ms) and the group of running sums that differ from their rows."""


class Checks(ABC):
    """What `verify` asks about all rows and about what is kept beside them, all of it as of one moment."""

    @abstractmethod
    def negative_rows(self) -> Iterator[tuple[int, str]]:
        """Yield `seq` and name of rows other than adjustments and corrections that have a negative amount or count."""

    @abstractmethod
    def odd_attempts(self) -> Iterator[AttemptRows]:
        """Yield the attempts that were closed more than once, closed before they were opened, never closed, or charged
        above their hold."""

    @abstractmethod
    def answered_twice(self) -> Iterator[str]:
        """Yield the ids of requests of which several attempts answered."""

    @abstractmethod
    def spent(self) -> Iterator[Spent]:
        """Yield what was spent by the rows, ordered by hour, in the periods of posting.py."""

    @abstractmethod
    def short_balances(self) -> Iterator[tuple[BalanceKey, Balance]]:
        """Yield the stored balances per hour and per day that are not zero, ordered by their start."""

    @abstractmethod
    def month_balances(self) -> Iterator[tuple[BalanceKey, Balance]]:
        """Yield the stored balances per month that are not zero."""

    def moves(self) -> Iterable[Spent]:
        """Return what `spent` yields, in any order; several may be of the same hour, backend, key, tier and user."""
        return self.spent()

    def balances(self) -> Iterable[StoredBalance]:
        """Return all stored balances that are not zero, in any order."""
        stored = chain(self.short_balances(), self.month_balances())
        return ((*key, balance.spent_nano, balance.reserved_nano) for key, balance in stored)

    @abstractmethod
    def holds(self) -> Mapping[tuple[str, int], OpenHoldRow]:
        """Return the stored open holds by request id and attempt number."""

    @abstractmethod
    def rent(self) -> Iterator[tuple[int, int, int]]:
        """Yield the days since the epoch with the nano-dollars of GPUs billed and idle on them, by their rows and the
        corrections of these."""

    @abstractmethod
    def wrong_sums(self) -> WrongSums:
        """Return the running sums that differ from their rows."""


class Ledger(ABC):
    """Append-only entries, from which every balance is derived, and the tables stored beside them."""

    has_server: ClassVar[bool] = False
    """Whether a server of its own answers the checks, so that they take none of this process's time."""

    def __init__(
        self,
        *,
        keys: KeyTable,
        rentals: RentalTable,
        reviews: ReviewTable,
        feedback: FeedbackTable,
        labels: LabelTable,
        alerts: AlertTable,
        responses: ResponseTable,
        private_sessions: PrivateSessionTable,
        other_costs: OtherCostTable,
        tariffs: TariffTable,
        traits: TraitTable,
        credits: CreditTable,
        provider_keys: ProviderKeyTable,
        experiments: ExperimentTable,
        acts: ActLog,
    ) -> None:
        self.keys = keys
        self.rentals = rentals
        self.reviews = reviews
        self.feedback = feedback
        self.labels = labels
        self.alerts = alerts
        self.responses = responses
        self.private_sessions = private_sessions
        self.other_costs = other_costs
        self.tariffs = tariffs
        self.traits = traits
        self.credits = credits
        self.provider_keys = provider_keys
        self.experiments = experiments
        self.acts = acts
        self.actor = ""
        """Who changes something through this object, for the acts."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Where the ledger is, for people: a file or a database, never with a password."""

    @property
    def notice(self) -> str:
        """What is wrong with the ledger as a whole, for people; empty if nothing is."""
        return ""

    @abstractmethod
    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Store the writes in one transaction, in order; return one result per write, durable where it is None.

        Caps are checked inside the transaction, so they hold for any number of processes. Writing the same entry again
        is harmless (a retry after a lost acknowledgement). Raises LedgerUnavailableError, and then nothing was stored.
        """

    def append(self, entries: Sequence[Entry]) -> None:
        """Store entries as one write without caps.

        Raises EntryRejectedError, EntryConflictError or LedgerUnavailableError, and then nothing was stored.
        """
        result = self.commit((Write(tuple(entries)),))[0]
        if isinstance(result, LedgerError):
            raise result

    @abstractmethod
    def probe(self) -> None:
        """Write something small durably, to find out whether writing works again. Raises LedgerUnavailableError."""

    def server_s(self) -> float | None:
        """Return the time of the server that the ledger is on, in epoch seconds; None if it is on this machine.

        Raises LedgerUnavailableError.
        """
        return None

    def check_place(self) -> None:
        """Raise LedgerUnavailableError if the ledger is no longer where it was opened; a cheap look without a write."""
        return

    @abstractmethod
    def balance(self, scope: str, period: Period, start_ms: int) -> Balance:
        """Return the spend and the open holds of a scope in one period.

        Scopes are `all`, `backend:NAME`, `key:ID`, `tier:NAME` and `user:ID`.

        This is one look-up. A charge belongs to the period in which its attempt was reserved, or without a reservation
        to the period of its own `ts`. Raises BudgetError for an invalid scope.
        """

    @abstractmethod
    def balances(self) -> Mapping[BalanceKey, Balance]:
        """Return all stored balances that are not zero; `spillway ledger verify` compares them with the entries."""

    @abstractmethod
    def open_reservations(self, start_ms: int, end_ms: int) -> tuple[Entry, ...]:
        """Return the reserved entries of [start, end) that were neither charged nor released, oldest first."""

    @abstractmethod
    def alive(self, router_id: str, now_ms: int) -> None:
        """Record the heartbeat of a router process."""

    @abstractmethod
    def orphans(self, now_ms: int, silent_ms: int) -> tuple[Entry, ...]:
        """Return the open reservations that are at least `silent_ms` old and whose router has sent no heartbeat for
        that long, oldest first."""

    @abstractmethod
    def entries_of(self, request_id: str) -> tuple[Entry, ...]:
        """Return all entries of one request in the order in which they were written."""

    @abstractmethod
    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        """Yield the entries with `ts` in [start, end) in the order in which they were written, in bounded chunks."""

    @abstractmethod
    def entries_before(self, before: str, most_rows: int) -> tuple[Entry, ...]:
        """Return the entries of the requests whose ids (ids.py) stand before that text, newest request first, those of
        one request by attempt and kind; at most so many rows, so that the last request may be incomplete."""

    @abstractmethod
    def adjustments_between(self, start_ms: int, end_ms: int) -> tuple[Entry, ...]:
        """Return the adjusted entries with `ts` in [start, end) in the order in which they were written."""

    @abstractmethod
    def head(self) -> tuple[int, bytes]:
        """Return the `seq` and the link of the last row; (0, GENESIS) of an empty ledger."""

    @abstractmethod
    def chain(self, after_seq: int = 0) -> Iterator[Linked]:
        """Yield the rows after that one with their links, in the order in which they were written, in bounded
        chunks."""

    def canonical(self) -> Iterator[Canonical]:
        """Yield all rows as `chain` does, each as the text of which its link was made."""
        for seq, row, link in self.chain():
            kind = row[_KIND]
            yield seq, dumps(row), link, kind == "charged" and row[_REF] != "", kind == "adjusted"

    @abstractmethod
    def sums(self) -> AbstractContextManager[Sums]:
        """Read sums over many rows, all of them as of one moment, while the block runs."""

    def totals(self, start_ms: int, end_ms: int) -> tuple[Total, ...]:
        """Return `Sums.totals` of a range, by UTC days. Both ends must be the start of a quarter of an hour."""
        with self.sums() as sums:
            return sums.totals(utc_days(start_ms, end_ms))

    @abstractmethod
    def checks(self) -> AbstractContextManager[Checks]:
        """Check all rows as of one moment, while the block runs."""

    @contextmanager
    def checking_sums(self) -> Iterator[Callable[[], WrongSums]]:
        """Compare the running sums with their rows: while the block runs, if that takes no time from other work, or
        else when what it yields is called, which returns those that differ."""
        yield self._wrong_sums

    def _wrong_sums(self) -> WrongSums:
        with self.checks() as checks:
            return list(checks.wrong_sums())

    @abstractmethod
    def sum_up(self, most_rows: int) -> int:
        """Add the next rows to the running sums, at most so many; return how many rows that were, 0 if none are left.

        The running sums only make `sums` fast: rows that are not in them yet are read one by one. Several processes may
        do this at the same time. Raises LedgerUnavailableError.
        """

    @abstractmethod
    def rented(self, start_ms: int, end_ms: int) -> Rented:
        """Return the sum of the gpu_hour rows with `ts` in [start, end) and of their corrections."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections; harmless when called twice."""

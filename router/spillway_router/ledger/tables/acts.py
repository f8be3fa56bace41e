"""Acts: what administrators did, in a hash chain of its own.

The tables of API keys, rentals and other fixed costs hold the present and are changed in place. Each change is written
here in the same transaction, so that whoever reads the acts from the beginning gets the content of the tables; a key or
a rental that was added or changed by hand differs from that, and `verify` says so. Of other acts the chain itself is
what `verify` looks at.

    key.create, key.set, key.rotate, key.revoke, rental.start, rental.stop, rental.correct, cost.start, cost.stop
                                         a change; `details` are the fields that it set
    key.found, rental.found, cost.found  what was there when the ledger began to keep acts
    provider_key.set, provider_key.remove
                                         a provider key that was stored for an API key or one of its end users, or
                                         deleted; `details` are the provider and the user's pseudonym
    review.accept, review.correct, review.dismiss
                                         a person's decision, in the transaction that stores it; `details` are the
                                         state, and the SHA-256 of the label, which holds no content
    request.verdicts                     how many requests some minutes saw refused, and private: `details` are lists of
                                         API key, reason and count
    experiment.move                      a bandit moved the shares of an experiment; `details` say how and why
    config.reload, config.refuse         a reload that was asked for; `details` are the versions of the policy and what
                                         changed, or how many problems kept the running configuration in force
    ledger.reconcile, ledger.restore     a bill that charges were adjusted to; a backup that took the ledger's place

The link of an act is the SHA-256 of the link before it (GENESIS for the first one) and of the compact JSON array of its
other values. No act holds a key's secret or the hash that admits it, but only the beginning of that hash.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from hashlib import sha256
from typing import Any, Literal, NamedTuple

import orjson

from spillway_router.ledger.entries import GENESIS
from spillway_router.ledger.records import KeyRecord, OtherCost, RentalRecord, Rows

ActKind = Literal[
    "key.create",
    "key.set",
    "key.rotate",
    "key.revoke",
    "key.found",
    "provider_key.set",
    "provider_key.remove",
    "rental.start",
    "rental.stop",
    "rental.correct",
    "rental.found",
    "cost.start",
    "cost.stop",
    "cost.found",
    "review.accept",
    "review.correct",
    "review.dismiss",
    "request.verdicts",
    "experiment.move",
    "config.reload",
    "config.refuse",
    "ledger.reconcile",
    "ledger.restore",
]
_WITH_TABLES = ("key", "rental", "cost")
"""What of a kind stands before its point, if the acts explain a table."""
_SECRET_DIGITS = 16
_DIGESTS = {"secret_sha256": "secret", "old_sha256": "old_secret"}


class Act(NamedTuple):
    """One act: when (epoch milliseconds), by whom, what was done to which key or rental, and the fields that it set, as
    compact JSON."""

    ts: int
    by: str
    kind: ActKind
    subject: str
    details: str


class Change(NamedTuple):
    """What is about to be changed; it becomes an act if it is carried out. `fields` are those that it sets. `by` says
    who does it, if it isn't the ledger's `actor`."""

    kind: ActKind
    subject: str
    fields: Mapping[str, Any]
    by: str = ""

    def act(self, ts: int, actor: str) -> Act:
        """Return the act that this is, carried out at `ts`."""
        details = fields_text(self.fields)
        return Act(ts=ts, by=self.by or actor, kind=self.kind, subject=self.subject, details=details)


class LinkedAct(NamedTuple):
    """A stored act with its position and its link in the chain."""

    seq: int
    act: Act
    link: bytes


class ActLog(ABC):
    """The acts of a ledger. Safe to call from any thread; raises LedgerUnavailableError."""

    @abstractmethod
    def all(self) -> tuple[LinkedAct, ...]:
        """Return all acts in the order in which they were written."""

    @abstractmethod
    def record(self, change: Change) -> None:
        """Append the act of something that is in none of the tables that acts explain. It is durable on return."""


def act_link(previous: bytes, act: Act) -> bytes:
    """Return the link of an act that follows one with the link `previous`."""
    return sha256(previous + orjson.dumps(tuple(act))).digest()


def fields_text(fields: Mapping[str, Any]) -> str:
    """Return fields as they stand in an act."""
    return orjson.dumps(dict(fields), option=orjson.OPT_SORT_KEYS).decode()


def key_fields(record: KeyRecord) -> dict[str, Any]:
    """Return the fields of a key for its acts."""
    return without_secrets({name: value for name, value in asdict(record).items() if name != "id"})


def without_secrets(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a key with the beginnings of its digests in place of these."""
    return {
        _DIGESTS.get(name, name): value.hex()[:_SECRET_DIGITS] if isinstance(value, bytes) else value
        for name, value in fields.items()
    }


def rental_fields(record: RentalRecord) -> dict[str, Any]:
    """Return the fields of a rental for its acts; that its machine was seen running is no act."""
    return {name: value for name, value in asdict(record).items() if name not in ("id", "seen_ms")}


def cost_fields(record: OtherCost) -> dict[str, Any]:
    """Return the fields of another fixed cost for its acts."""
    return {name: value for name, value in asdict(record).items() if name != "id"}


def broken_link(acts: Iterable[LinkedAct]) -> int | None:
    """Return the position of the first act that doesn't follow from the one before; None if the chain holds."""
    link = GENESIS
    for number, linked in enumerate(acts, 1):
        link = act_link(link, linked.act)
        if linked.link != link or linked.seq != number:
            return linked.seq
    return None


def unexplained(
    acts: Iterable[LinkedAct],
    keys: Iterable[KeyRecord],
    rentals: Iterable[RentalRecord],
    costs: Iterable[OtherCost],
) -> tuple[str, ...]:
    """Return the keys, rentals and other costs whose content in their tables is not what the acts made of them."""
    by_acts: dict[str, dict[str, Any]] = defaultdict(dict)
    for _, act, _ in acts:
        if act.kind.partition(".")[0] not in _WITH_TABLES:
            continue
        by_acts[_name(act.kind, act.subject)] |= orjson.loads(act.details)
    stored = {_name("key.", key.id): key_fields(key) for key in keys}
    stored |= {_name("rental.", rental.id): rental_fields(rental) for rental in rentals}
    stored |= {_name("cost.", cost.id): cost_fields(cost) for cost in costs}
    names = sorted(by_acts.keys() | stored.keys())
    return tuple(name for name in names if not _agree(by_acts.get(name), stored.get(name)))


def _name(kind: str, subject: str) -> str:
    return f"{kind.partition('.')[0]} {subject}"


def _agree(by_acts: Mapping[str, Any] | None, stored: Mapping[str, Any] | None) -> bool:
    if by_acts is None or stored is None:
        return False
    return all(value == by_acts.get(name, _DEFAULTS.get(name)) for name, value in stored.items())


_RECORDS = (KeyRecord, RentalRecord, OtherCost)
_DEFAULTS = {each.name: each.default for record in _RECORDS for each in dataclass_fields(record)}
"""The values of fields that acts from before these fields don't name."""


# In SQL. A transaction of the database that changes a key or a rental appends its act by these statements.

_HEAD = "SELECT seq, link FROM acts ORDER BY seq DESC LIMIT 1"
_APPEND = "INSERT INTO acts (seq, ts, actor, kind, subject, details, link) VALUES (?, ?, ?, ?, ?, ?, ?)"
_ALL = "SELECT seq, ts, actor, kind, subject, details, link FROM acts ORDER BY seq"
RunSql = Callable[[str, Sequence[Any]], Rows]
"""Runs a statement with ? for values inside a transaction that is open already."""


def append_acts(run: RunSql, acts: Iterable[Act]) -> None:
    """Append acts to the chain, inside a transaction in which nobody else can append."""
    head = run(_HEAD, ())
    seq, link = (head[0][0], head[0][1]) if head else (0, GENESIS)
    for act in acts:
        seq, link = seq + 1, act_link(link, act)
        run(_APPEND, (seq, *act, link))


ChangeRows = Callable[[str, Sequence[Any], Callable[[Rows], Change]], Rows]
"""Runs a statement that changes rows, and appends the act that a function makes of the rows that it returns, in the
same transaction; no rows are no act."""


class SqlActs(ActLog):
    """An `ActLog` in SQL that both SQLite and PostgreSQL understand. `read` runs a SELECT, `append` appends an act."""

    def __init__(self, read: Callable[[str], Rows], append: Callable[[Change], object]) -> None:
        self._read = read
        self._append = append

    def record(self, change: Change) -> None:
        self._append(change)

    def all(self) -> tuple[LinkedAct, ...]:
        return tuple(LinkedAct(row[0], Act._make(row[1:6]), bytes(row[6])) for row in self._read(_ALL))

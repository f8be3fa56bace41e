"""The Ledger without a disk: same rules, same answers (the contract suite runs on it), gone with the process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import get_args, get_type_hints

from spillway_router.core.budget import check_scope
from spillway_router.ledger.base import Balance, EntryConflictError, EntryRejectedError, KeyRecord, Rented, Total
from spillway_router.ledger.entries import KINDS, Entry

_OF_SCOPE = {"backend": "backend", "key": "key_id", "tier": "tier"}
_TYPES = get_type_hints(Entry)
_TEXT = tuple(name for name, kind in _TYPES.items() if kind is str)
_COUNTS = tuple(name for name, kind in _TYPES.items() if kind is int)
_MOST = 2**63 - 1


class MemoryLedger:
    """See spillway_router.ledger.base.Ledger."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, int, str], Entry] = {}
        self._keys: dict[str, KeyRecord] = {}
        self._revision = 0
        self._lock = Lock()

    def append(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """See Ledger.append."""
        for entry in entries:
            _check(entry)
        with self._lock:
            return tuple(entry for entry in entries if self._entries.setdefault(entry.key, entry) != entry)

    def probe(self) -> None:
        """See Ledger.probe: memory can always be written."""

    def balance(self, scope: str, start_ms: int, end_ms: int) -> Balance:
        """See Ledger.balance."""
        check_scope(scope)
        kind, _, name = scope.partition(":")
        rows = [e for e in self._all() if kind == "all" or getattr(e, _OF_SCOPE[kind]) == name]
        spent = sum(
            e.amount_nano
            for e in rows
            if e.kind in ("charged", "adjusted") and start_ms <= self._period_of(e) < end_ms and e.ts >= start_ms
        )
        held = {e.key for e in self.open_reservations(start_ms, end_ms)}
        return Balance(spent, sum(e.reserved_nano for e in rows if e.key in held))

    def _period_of(self, entry: Entry) -> int:
        hold = self._entries.get((entry.request_id, entry.attempt_no, "reserved"))
        return entry.ts if hold is None else hold.ts

    def open_reservations(self, start_ms: int, end_ms: int) -> tuple[Entry, ...]:
        """See Ledger.open_reservations."""
        known = {e.key for e in self._all()}
        return tuple(
            e
            for e in self._all()
            if e.kind == "reserved"
            and start_ms <= e.ts < end_ms
            and not {(e.request_id, e.attempt_no, "charged"), (e.request_id, e.attempt_no, "released")} & known
        )

    def entries_of(self, request_id: str) -> tuple[Entry, ...]:
        """See Ledger.entries_of."""
        return tuple(e for e in self._all() if e.request_id == request_id)

    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        """See Ledger.entries_between."""
        return iter([e for e in self._all() if start_ms <= e.ts < end_ms])

    def totals(self, start_ms: int, end_ms: int) -> tuple[Total, ...]:
        """See Ledger.totals."""
        groups: dict[tuple[bool, str, str, str, str, str, bool], list[Entry]] = defaultdict(list)
        for e in self.entries_between(start_ms, end_ms):
            if e.kind in ("charged", "adjusted"):
                key = (not e.local, e.decision, e.backend, e.provider, e.model, e.status, e.document)
                groups[key].append(e)
        return tuple(_total(rows) for _, rows in sorted(groups.items()))

    def requests(self, start_ms: int, end_ms: int) -> int:
        """See Ledger.requests."""
        return len({e.request_id for e in self.entries_between(start_ms, end_ms) if e.kind == "charged"})

    def rented(self, start_ms: int, end_ms: int) -> Rented:
        """See Ledger.rented."""
        rows = [e for e in self.entries_between(start_ms, end_ms) if e.kind == "gpu_hour"]
        return Rented(sum(e.amount_nano for e in rows), sum(e.gpu_us for e in rows))

    def add_key(self, record: KeyRecord) -> None:
        """See KeyTable.add_key."""
        if record.id in self._keys:
            raise EntryConflictError(f"a key with the id {record.id} exists; create it again")
        self._keys[record.id] = record
        self._revision += 1

    def keys(self) -> tuple[KeyRecord, ...]:
        """See KeyTable.keys."""
        return tuple(sorted(self._keys.values(), key=lambda record: (record.created, record.id)))

    def revoke_key(self, key_id: str, at_ms: int) -> bool:
        """See KeyTable.revoke_key."""
        known = self._keys.get(key_id)
        if known is None or known.revoked is not None:
            return False
        self._keys[key_id] = replace(known, revoked=at_ms)
        self._revision += 1
        return True

    def keys_revision(self) -> int:
        """See KeyTable.keys_revision."""
        return self._revision

    def close(self) -> None:
        """See Ledger.close: there is nothing to close, and what was stored can still be read."""

    def _all(self) -> list[Entry]:
        with self._lock:
            return list(self._entries.values())


def _total(rows: list[Entry]) -> Total:
    one = rows[0]
    charged = [e for e in rows if e.kind == "charged"]
    return Total(
        local=one.local,
        decision=one.decision,
        backend=one.backend,
        provider=one.provider,
        model=one.model,
        status=one.status,
        document=one.document,
        attempts=len(charged),
        prompt_tokens=sum(e.prompt_tokens for e in rows),
        completion_tokens=sum(e.completion_tokens for e in rows),
        cached_tokens=sum(e.cached_tokens for e in rows),
        reasoning_tokens=sum(e.reasoning_tokens for e in rows),
        kv_token_steps_x2=sum(2 * e.prompt_tokens * e.completion_tokens + e.completion_tokens**2 for e in charged),
        gpu_us=sum(e.gpu_us for e in rows),
        cost_nano=sum(e.amount_nano for e in rows),
    )


def _check(entry: Entry) -> None:
    """The rules that a database holds by its schema. Raises EntryRejectedError."""
    problem = ""
    texts = [getattr(entry, name) for name in _TEXT]
    counts = {name: getattr(entry, name) for name in _COUNTS}
    if entry.kind not in KINDS or entry.status not in get_args(_TYPES["status"]):
        problem = "unknown kind or status"
    elif not entry.request_id or not all(isinstance(t, str) and _encodes(t) for t in texts):
        problem = "a text field is missing or can't be stored"
    elif not all(isinstance(n, int) and abs(n) <= _MOST for n in counts.values()):
        problem = "a number does not fit 64 bits"
    elif entry.attempt_no < 0 or (entry.kind != "adjusted" and any(n < 0 for n in counts.values())):
        problem = "a number is negative"
    if problem:
        raise EntryRejectedError(f"the ledger refused an entry: {problem}")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Caps hold for every order of reserving, settling, crashing and adjusting, whoever writes, over changes of period.

The same random story is told to the ledger in memory and to two connections of one SQLite file, and compared with a
plain list of what happened.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from tests.ledger.helpers import T0, entry

from spillway_router.core.money.budget import Period, period_start
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.orphans import unknown_charge
from spillway_router.ledger.posting import balance_keys
from spillway_router.ledger.records import Cap, CapReached, Write
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.verify import verify
from spillway_router.testing import MemoryLedger

LINES: tuple[tuple[str, Period, int], ...] = (
    ("all", "month", 3000),
    ("all", "day", 1000),
    ("backend:groq", "hour", 400),
    ("key:k1", "day", 500),
    ("tier:free", "hour", 600),
    ("user:u1", "day", 300),
    ("user:u2", "hour", 250),
)
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Held:
    """What the test itself knows of a hold."""

    number: int
    amount: int
    ts: int
    who: tuple[str, str, str, str]

    @property
    def fields(self) -> dict[str, Any]:
        return {**dict(zip(("backend", "key_id", "tier", "user_id"), self.who, strict=True)), "ts": self.ts}


class Caps(RuleBasedStateMachine):
    """Every ledger gives the same results, and they are those of the list."""

    holds = Bundle("holds")
    charges = Bundle("charges")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "ledger.db"
        self.memory = MemoryLedger()
        self.files = (SqliteLedger.open(path), SqliteLedger.open(path))
        self.turn = self.number = 0
        self.now = T0
        self.open: list[Held] = []
        self.spent: list[tuple[Held, int]] = []

    def commit(self, *writes: Write) -> list[Any]:
        self.turn += 1
        results = self.memory.commit(writes)
        of_file = self.files[self.turn % 2].commit(writes)
        assert [repr(r) for r in results] == [repr(r) for r in of_file]
        return results

    @rule(hours=st.sampled_from([0, 0, 1, 24, 24 * 20]))
    def time_passes(self, hours: int) -> None:
        self.now += hours * HOUR_MS

    @rule(
        target=holds,
        amount=st.integers(0, 400),
        who=st.tuples(
            st.sampled_from(["groq", "mine"]),
            st.sampled_from(["k1", ""]),
            st.sampled_from(["free", ""]),
            st.sampled_from(["u1", "u2", ""]),
        ),
    )
    def reserve(self, amount: int, who: tuple[str, str, str, str]) -> Held | None:
        self.number += 1
        held = Held(number=self.number, amount=amount, ts=self.now, who=who)
        mine = balance_keys(*who, self.now)
        starts = {(scope, period): start for scope, period, start in mine}
        caps = tuple(Cap(s, p, starts[s, p], limit) for s, p, limit in LINES if (s, p) in starts)
        hold = entry("reserved", f"r{held.number}", reserved_nano=amount, **held.fields)
        (result,) = self.commit(Write((hold,), caps))
        fitting = [cap for cap in caps if self.taken(cap) + amount <= cap.limit_nano]
        if len(fitting) < len(caps):
            assert isinstance(result, CapReached)
            assert result.taken_nano == self.taken(result.cap)
            return None
        assert result is None
        self.open.append(held)
        return held

    @rule(target=charges, held=consumes(holds), share=st.sampled_from([0, 1, 50, 100]), how=st.integers(0, 2))
    def close(self, held: Held | None, share: int, how: int) -> tuple[Held, int] | None:
        if held is None:
            return None
        amount = held.amount * share // 100
        closing = entry("charged", f"r{held.number}", amount_nano=amount, **{**held.fields, "ts": self.now})
        if how == 1:
            amount = 0
            closing = entry("released", f"r{held.number}", **{**held.fields, "ts": self.now})
        elif how == 2:
            amount = held.amount
            closing = unknown_charge(entry("reserved", f"r{held.number}", reserved_nano=amount, **held.fields))
        assert self.commit(Write((closing,)), Write((closing,))) == [None, None]
        self.open.remove(held)
        self.spent.append((held, amount))
        return (held, amount) if how != 1 else None

    @rule(charge=consumes(charges), share=st.integers(0, 100))
    def adjust(self, charge: tuple[Held, int] | None, share: int) -> None:
        if charge is not None:
            held, amount = charge
            less = -(amount * share // 100)
            fields = {**held.fields, "ts": self.now}
            assert self.commit(Write((entry("adjusted", f"r{held.number}", amount_nano=less, **fields),))) == [None]
            self.spent.append((held, less))

    def taken(self, cap: Cap) -> int:
        key = (cap.scope, cap.period, cap.start_ms)
        held = sum(h.amount for h in self.open if key in balance_keys(*h.who, h.ts))
        return held + sum(amount for h, amount in self.spent if key in balance_keys(*h.who, h.ts))

    @invariant()
    def no_cap_is_passed_and_all_ledgers_agree(self) -> None:
        ledgers: tuple[Ledger, ...] = (self.memory, *self.files) if hasattr(self, "files") else ()
        for scope, period, limit in LINES:
            for ledger in ledgers:
                start = period_start(period, self.now / 1000) * 1000
                balance = ledger.balance(scope, period, start)
                assert balance.spent_nano + balance.reserved_nano == self.taken(Cap(scope, period, start, limit))
                assert 0 <= balance.spent_nano + balance.reserved_nano <= limit

    def teardown(self) -> None:
        if hasattr(self, "files"):
            for ledger in (self.memory, *self.files):
                assert verify(ledger).faults == ()
            for ledger in self.files:
                ledger.close()
            self.folder.cleanup()


Caps.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestCaps = Caps.TestCase

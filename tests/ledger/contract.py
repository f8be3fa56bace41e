"""What every ledger must do. Each implementation's test file subclasses this and gives it `ledger` and `reopen`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from spillway_router.core.budget import BudgetError
from spillway_router.ledger.base import EntryConflictError, EntryRejectedError, Ledger
from spillway_router.ledger.entries import Entry, Kind
from spillway_router.ledger.keys import KeySpec, KeyStore

T0 = 1_790_000_000_000
HOUR = 3_600_000


def entry(kind: Kind, request: str, attempt: int = 1, ts: int = T0, **rest: Any) -> Entry:
    """An entry of a cloud attempt with defaults for what a test doesn't look at."""
    given = {"backend": "groq", "provider": "groq", "model": "m", "key_id": "k1", "tier": "free", **rest}
    return Entry(kind=kind, request_id=request, attempt_no=attempt, ts=ts, **given)


class LedgerContract:
    """The contract of spillway_router.ledger.base.Ledger."""

    def test_an_entry_comes_back_as_it_was(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        full = entry(
            "charged",
            "r1",
            attempt=3,
            local=True,
            decision="overflow",
            reasons="queue,slo",
            status="ok",
            prompt_tokens=2**40,
            completion_tokens=2,
            cached_tokens=3,
            reasoning_tokens=4,
            gpu_us=5,
            amount_nano=2**62,
            tariff_ref="c@2026-11-20",
            confidence=0.875,
            task="übersetzen 翻訳 🙂",
            document=True,
        )
        plain = entry("reserved", "r1", reserved_nano=7)
        assert ledger.append((full, plain)) == ()
        assert reopen().entries_of("r1") == (full, plain)

    def test_many_rows_in_one_append(self, ledger: Ledger) -> None:
        many = tuple(entry("charged", f"r{i}", ts=T0 + i) for i in range(517))
        ledger.append(many)
        assert tuple(ledger.entries_between(T0, T0 + 517)) == many
        assert tuple(ledger.entries_between(T0 + 10, T0 + 12)) == many[10:12]
        assert ledger.append(()) == ()

    def test_the_same_entry_twice_is_stored_once(self, ledger: Ledger) -> None:
        one = entry("charged", "r1", amount_nano=5)
        assert ledger.append((one,)) == ()
        assert ledger.append((one, replace(one), entry("charged", "r2"))) == ()
        assert ledger.entries_of("r1") == (one,)
        assert ledger.entries_of("r2") != ()

    def test_another_entry_under_the_same_key_is_told_and_the_first_stands(self, ledger: Ledger) -> None:
        one, other = entry("charged", "r1", amount_nano=5), entry("charged", "r1", amount_nano=6)
        ledger.append((one,))
        assert ledger.append((other, entry("charged", "r2"))) == (other,)
        assert ledger.entries_of("r1") == (one,)
        assert len(ledger.entries_of("r2")) == 1

    @pytest.mark.parametrize(
        "bad",
        [
            entry("charged", "", amount_nano=1),
            entry("charged", "bad", amount_nano=-1),
            entry("reserved", "bad", reserved_nano=-1),
            entry("charged", "bad", attempt=-1),
            entry("paid", "bad"),  # type: ignore[arg-type]
            entry("charged", "bad", amount_nano=2**63),
            entry("charged", "bad", model="lone \ud800 surrogate"),
            entry("charged", "bad", model=None),
        ],
    )
    def test_a_bad_entry_is_refused_with_all_of_its_append(self, ledger: Ledger, bad: Entry) -> None:
        good = tuple(entry("charged", f"r{i}") for i in range(100))
        with pytest.raises(EntryRejectedError):
            ledger.append((*good, bad))
        with pytest.raises(EntryRejectedError):
            ledger.append((good[0], bad))
        assert ledger.requests(0, T0 * 2) == 0

    def test_adjustments_may_be_negative(self, ledger: Ledger) -> None:
        ledger.append((entry("charged", "r1", amount_nano=9), entry("adjusted", "r1", amount_nano=-4)))
        assert ledger.balance("all", T0, T0 + 1).spent_nano == 5

    def test_a_hold_is_open_until_charged_or_released(self, ledger: Ledger) -> None:
        holds = [entry("reserved", f"r{i}", reserved_nano=10**i) for i in range(4)]
        ledger.append(holds)
        assert ledger.open_reservations(0, T0 + 1) == tuple(holds)
        assert ledger.balance("all", 0, T0 + 1).reserved_nano == 1111
        ledger.append((entry("charged", "r1", amount_nano=4, ts=T0 + 5), entry("released", "r2", ts=T0 + 5)))
        ledger.append((entry("charged", "r3", attempt=2, amount_nano=1, ts=T0 + 5),))  # another attempt
        assert ledger.open_reservations(0, T0 + 1) == (holds[0], holds[3])
        balance = ledger.balance("all", 0, T0 + 10)
        assert (balance.spent_nano, balance.reserved_nano) == (5, 1001)
        assert ledger.open_reservations(T0 + 1, T0 + HOUR) == ()

    def test_balances_by_scope_and_without_fixed_cost(self, ledger: Ledger) -> None:
        ledger.append(
            (
                entry("charged", "r1", amount_nano=1, backend="groq", key_id="k1", tier="free"),
                entry("charged", "r2", amount_nano=10, backend="groq", key_id="k2", tier="paid"),
                entry("reserved", "r3", reserved_nano=100, backend="mine", key_id="k2", tier="free"),
                entry("gpu_hour", "gpu-b1", amount_nano=10**6),
            )
        )
        found = {
            scope: (b.spent_nano, b.reserved_nano)
            for scope in ("all", "backend:groq", "backend:mine", "key:k2", "tier:free", "key:' OR 1=1 --")
            for b in [ledger.balance(scope, T0, T0 + 1)]
        }
        assert found == {
            "all": (11, 100),
            "backend:groq": (11, 0),
            "backend:mine": (0, 100),
            "key:k2": (10, 100),
            "tier:free": (1, 100),
            "key:' OR 1=1 --": (0, 0),
        }
        with pytest.raises(BudgetError):
            ledger.balance("model:x", 0, 1)

    def test_a_charge_counts_in_the_period_of_its_hold(self, ledger: Ledger) -> None:
        midnight = T0 + HOUR
        ledger.append(
            (
                entry("reserved", "late", ts=midnight - 1, reserved_nano=9),
                entry("charged", "late", ts=midnight + 5, amount_nano=7),
                entry("charged", "plain", ts=midnight + 5, amount_nano=2),
            )
        )
        assert ledger.balance("all", T0, midnight).spent_nano == 7
        assert ledger.balance("all", midnight, midnight + HOUR).spent_nano == 2

    def test_totals_group_and_sum(self, ledger: Ledger) -> None:
        shape: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": 4, "cached_tokens": 2, "status": "ok"}
        ledger.append(
            (
                entry("reserved", "r1", reserved_nano=50, decision="overflow", prompt_tokens=99),
                entry("charged", "r1", amount_nano=5, decision="overflow", **shape),
                entry("charged", "r2", amount_nano=6, decision="overflow", **shape),
                entry("adjusted", "r2", amount_nano=-1, decision="overflow", status="ok", prompt_tokens=1),
                entry("charged", "r3", local=True, backend="local", decision="local", gpu_us=70, **shape),
                entry("charged", "r3", attempt=2, decision="escalated", status="error"),
                entry("charged", "later", ts=T0 + HOUR, amount_nano=99),
            )
        )
        totals = ledger.totals(T0, T0 + HOUR)
        assert [(t.local, t.decision, t.status) for t in totals] == [
            (True, "local", "ok"),
            (False, "escalated", "error"),
            (False, "overflow", "ok"),
        ]
        local, _, overflow = totals
        assert (local.gpu_us, local.attempts, local.kv_token_steps_x2) == (70, 1, 2 * 10 * 4 + 16)
        assert (overflow.attempts, overflow.cost_nano, overflow.prompt_tokens) == (2, 10, 21)
        assert overflow.kv_token_steps_x2 == 2 * (2 * 10 * 4 + 16)
        assert ledger.requests(T0, T0 + HOUR) == 3

    def test_rented_time_sums(self, ledger: Ledger) -> None:
        assert ledger.rented(0, T0 * 2).billed_nano == 0
        ledger.append([entry("gpu_hour", "gpu-1", i, amount_nano=10, gpu_us=60, ts=T0 + i) for i in range(3)])
        rented = ledger.rented(T0, T0 + 2)
        assert (rented.billed_nano, rented.gpu_us) == (20, 120)

    def test_keys_are_kept_revoked_and_counted(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        store = KeyStore(ledger)
        before = ledger.keys_revision()
        spec = KeySpec("ann", role="admin", tier="gold", privacy="local-only", may_route=True)
        new = store.create(spec, b"ann123", bytes(range(32)), T0)
        assert ledger.keys_revision() > before
        with pytest.raises(EntryConflictError):
            store.create(spec, b"ann123", bytes(32), T0)
        other = reopen()
        assert other.keys() == (new.record,)
        assert other.revoke_key(new.record.id, T0 + 5)
        assert not other.revoke_key(new.record.id, T0 + 9)
        assert not other.revoke_key("nobody", T0)
        assert ledger.keys() == (replace(new.record, revoked=T0 + 5),)

    def test_a_probe_writes_without_adding_entries(self, ledger: Ledger) -> None:
        ledger.probe()
        assert tuple(ledger.entries_between(0, T0 * 2)) == ()

    def test_closing_twice_is_harmless(self, ledger: Ledger) -> None:
        ledger.close()
        ledger.close()

"""What every ledger must do. Each implementation's test file subclasses this and gives it `ledger` and `reopen`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from decimal import Decimal
from hashlib import sha256
from random import Random
from threading import Barrier
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from tests.ledger.helpers import D0, DAY, H0, HOUR, M0, T0, entry, requests_in

from spillway_router.core.comparison.differences import RatioSums
from spillway_router.core.money.budget import AlertKey, BudgetError, BudgetLine
from spillway_router.core.money.credits import CreditCap
from spillway_router.core.routing.model import KeyRules
from spillway_router.core.routing.moving_arms import Stretch
from spillway_router.ledger.calendar import days_of, start_of, utc_days
from spillway_router.ledger.entries import GENESIS, Entry, link_of, row_of
from spillway_router.ledger.errors import EntryConflictError, EntryRejectedError, LastAdminError
from spillway_router.ledger.ids import first_id
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import (
    Balance,
    Cap,
    CapReached,
    KeyWork,
    OtherCost,
    RentalRecord,
    Rented,
    Write,
    WriteResult,
)
from spillway_router.ledger.store.sums import SLOT_MS
from spillway_router.ledger.tables.acts import Change, broken_link
from spillway_router.ledger.tables.alerts import KEPT_MS
from spillway_router.ledger.tables.experiments import DryChoice, ShareMove
from spillway_router.ledger.tables.feedback import FeedbackRecord, Opinion, Pressed
from spillway_router.ledger.tables.keys import KeySpec, KeySpecError, KeyStore, rules_of, spec_of
from spillway_router.ledger.tables.labels import LabelRecord
from spillway_router.ledger.tables.private_sessions import KEPT_MS as SESSIONS_KEPT_MS
from spillway_router.ledger.tables.private_sessions import PrivateSession, session_digest
from spillway_router.ledger.tables.provider_keys import ProviderKeyRecord, ProviderPlace
from spillway_router.ledger.tables.request_traits import KEPT_MS as TRAITS_KEPT_MS
from spillway_router.ledger.tables.request_traits import RequestTraits
from spillway_router.ledger.tables.reviews import COMMAND, OpenReviews, ReviewDecision, ReviewFilter, ReviewRecord
from spillway_router.ledger.tables.stored_responses import KEPT_MS as RESPONSES_KEPT_MS
from spillway_router.ledger.tables.stored_responses import StoredResponse
from spillway_router.ledger.verify import verify
from spillway_router.testing import MemoryLedger
from spillway_router.testing.books import fill_books

_BILLED: dict[str, Any] = {
    "user_id": "u1",
    "cache_write_tokens": 9,
    "cache_write_long_tokens": 4,
    "service": "fast+us",
    "billed_us": 1_234_000,
    "media_tokens": '{"audio_input":5}',
    "calls": '{"web_search":2}',
}
"""Values for every column that few rows use, but those of estimates."""
RENTAL = RentalRecord(
    id="rent_1",
    gpu="a100-80",
    count=1,
    price_nano_per_hour=1_390_000_000,
    kind="reserved",
    started_ms=T0,
    stopped_ms=None,
    source="cli",
)
SLOT0 = T0 // SLOT_MS * SLOT_MS


def all_sums(ledger: Ledger) -> tuple[Any, ...]:
    """Return everything that the sums of a ledger say, ordered."""
    start, end = start_of(date(2026, 10, 1)), start_of(date(2026, 12, 1))
    with ledger.sums() as sums:
        return (
            sums.totals(utc_days(start, end)),
            sorted(sums.lengths(utc_days(start, end)), key=repr),
            sorted(sums.key_totals(start, end), key=repr),
            sorted(sums.key_work(utc_days(start, end))),
        )


def local_sums(ledger: Ledger, zone: str) -> tuple[Any, ...]:
    """Return everything that the sums say of some days of a time zone, the clock's changes among them, ordered."""
    days = days_of(date(2026, 10, 20), date(2026, 11, 12), ZoneInfo(zone))
    with ledger.sums() as sums:
        return (
            sums.totals(days),
            sorted(sums.lengths(days), key=repr),
            sorted(sums.key_totals(days.start_ms, days.end_ms), key=repr),
            sorted(work for work in _without_zeros(sums.key_work(days)) if work.shares_us),
            [sorted(sums.key_totals(start_ms, end_ms), key=repr) for _, start_ms, end_ms in days.each()],
        )


def _without_zeros(works: Iterable[KeyWork]) -> Iterator[KeyWork]:
    return (work._replace(shares_us=[share for share in work.shares_us if share[1]]) for work in works)


class LedgerContract:
    """The contract of spillway_router.ledger.interface.Ledger."""

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
            router_id="router-1",
        )
        plain = entry("reserved", "r1", reserved_nano=7)
        ledger.append((full, plain))
        assert reopen().entries_of("r1") == (full, plain)

    def test_what_was_billed_comes_back_as_it_was(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        rows = [entry("charged", "plain", local=True)]
        for name, value in {**_BILLED, "estimated_nano": 3, "at_most_nano": 4}.items():
            rows.append(entry("charged", f"only {name}", **{name: value}))
        for row in rows:
            ledger.append((row,))
        all_of_it = entry("charged", "all", **_BILLED)
        local = [entry("charged", f"l{i}", local=True, user_id="u" * (i % 2)) for i in range(3)]
        ledger.append((all_of_it, entry("charged", "plain2", local=True)))
        ledger.append(local)
        again = reopen()
        assert list(again.entries_between(T0, T0 + 1))[:-5] == rows
        assert again.entries_of("all") == (all_of_it,)
        assert list(again.entries_between(T0, T0 + 1))[-3:] == local
        assert ledger.commit((Write((all_of_it,)), Write((local[1],)))) == [None, None]
        other = all_of_it._replace(cache_write_tokens=all_of_it.cache_write_tokens + 1)
        assert isinstance(ledger.commit((Write((other,)),))[0], EntryConflictError)
        assert_chain_holds(again)
        assert verify(again).holds

    def test_requests_before_an_id_come_newest_first_with_all_their_rows(self, ledger: Ledger) -> None:
        old, new = f"{first_id(T0)}a", f"{first_id(T0 + 1)}a"
        rent = entry("gpu_hour", "rent_1", amount_nano=1)
        held = entry("reserved", new, reserved_nano=5)
        paid, more = entry("charged", new, amount_nano=4), entry("charged", new, 2)
        first = entry("charged", old)
        ledger.append((first, rent, held, more, paid))
        assert ledger.entries_before("req_g", 10) == (paid, held, more, first)
        assert ledger.entries_before("req_g", 2) == (paid, held)
        assert ledger.entries_before(new, 10) == (first,)
        assert ledger.entries_before(old, 10) == ()

    def test_many_rows_in_one_append(self, ledger: Ledger) -> None:
        many = tuple(entry("charged", f"r{i}", ts=T0 + i) for i in range(517))
        ledger.append(many)
        assert tuple(ledger.entries_between(T0, T0 + 517)) == many
        assert tuple(ledger.entries_between(T0 + 10, T0 + 12)) == many[10:12]
        assert ledger.commit(()) == []
        assert ledger.commit((Write(()),)) == [None]

    def test_the_same_entry_twice_is_stored_once(self, ledger: Ledger) -> None:
        one = entry("charged", "r1", amount_nano=5)
        assert ledger.commit((Write((one,)),)) == [None]
        assert ledger.commit((Write((one, one._replace(), entry("charged", "r2"))), Write((one,)))) == [None, None]
        assert ledger.entries_of("r1") == (one,)
        assert ledger.entries_of("r2") != ()
        assert ledger.balance("all", "hour", H0) == Balance(5, 0)

    def test_another_entry_under_the_same_key_is_told_and_the_first_stands(self, ledger: Ledger) -> None:
        one, other = entry("charged", "r1", amount_nano=5), entry("charged", "r1", amount_nano=6)
        ledger.append((one,))
        with pytest.raises(EntryConflictError, match="attempt 1 of r1"):
            ledger.append((other,))
        results = ledger.commit((Write((entry("charged", "r3"),)), Write((other, entry("charged", "r2")))))
        assert results[0] is None
        assert isinstance(results[1], EntryConflictError)
        assert ledger.entries_of("r1") == (one,)
        assert ledger.entries_of("r2") == ()
        assert len(ledger.entries_of("r3")) == 1
        assert ledger.balance("all", "hour", H0) == Balance(5, 0)

    def test_an_attempt_is_charged_or_released_not_both(self, ledger: Ledger) -> None:
        ledger.append([entry("reserved", f"r{i}", reserved_nano=100) for i in (1, 2)])
        ledger.append((entry("charged", "r1", amount_nano=7), entry("released", "r2")))
        for late in (entry("released", "r1"), entry("charged", "r2", amount_nano=3)):
            with pytest.raises(EntryConflictError, match="already"):
                ledger.append((late,))
        both = Write((entry("reserved", "r4"), entry("charged", "r4", amount_nano=1), entry("released", "r4")))
        assert isinstance(ledger.commit((both,))[0], EntryConflictError)
        assert ledger.balance("all", "hour", H0) == Balance(7, 0)
        assert ledger.entries_of("r4") == ()

    def test_writes_of_one_commit_fail_by_themselves(self, ledger: Ledger) -> None:
        ledger.append((entry("charged", "taken", amount_nano=1),))
        results = ledger.commit(
            (
                Write((entry("reserved", "a", reserved_nano=10),)),
                Write((entry("charged", "b"), entry("charged", "bad", amount_nano=-1))),
                Write((entry("charged", "taken", amount_nano=2),)),
                Write((entry("charged", "a", amount_nano=4),)),
            )
        )
        assert [type(result) for result in results] == [type(None), EntryRejectedError, EntryConflictError, type(None)]
        assert ledger.entries_of("b") == ()
        assert ledger.balance("all", "month", M0) == Balance(5, 0)
        assert_chain_holds(ledger)

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
        assert requests_in(ledger, 0, T0 * 2) == 0

    def test_adjustments_are_listed_by_their_own_time(self, ledger: Ledger) -> None:
        ledger.append([entry("charged", f"r{i}", amount_nano=9) for i in range(3)])
        late = [entry("adjusted", f"r{i}", ts=T0 + i * DAY, amount_nano=-i) for i in range(3)]
        ledger.append(late)
        assert ledger.adjustments_between(T0, T0 + 2 * DAY) == tuple(late[:2])
        assert ledger.adjustments_between(T0 + 2 * DAY + 1, 2**62) == ()

    def test_adjustments_may_be_negative_and_count_where_the_attempt_was_reserved(self, ledger: Ledger) -> None:
        ledger.append((entry("reserved", "r1", reserved_nano=9),))
        ledger.append((entry("charged", "r1", amount_nano=9),))
        ledger.append((entry("adjusted", "r1", amount_nano=-4, ts=T0 + 2 * HOUR),))
        ledger.append((entry("adjusted", "r9", amount_nano=3, ts=T0 + 2 * HOUR),))
        assert ledger.balance("all", "hour", H0) == Balance(5, 0)
        assert ledger.balance("all", "hour", H0 + 2 * HOUR) == Balance(3, 0)

    def test_a_hold_is_open_until_charged_or_released(self, ledger: Ledger) -> None:
        holds = [entry("reserved", f"r{i}", reserved_nano=10**i) for i in range(4)]
        ledger.append(holds)
        assert ledger.open_reservations(0, T0 + 1) == tuple(holds)
        assert ledger.balance("all", "day", D0) == Balance(0, 1111)
        ledger.append((entry("charged", "r1", amount_nano=4, ts=T0 + 5), entry("released", "r2", ts=T0 + 5)))
        ledger.append((entry("charged", "r3", attempt=2, amount_nano=1, ts=T0 + 5),))  # another attempt
        assert ledger.open_reservations(0, T0 + 1) == (holds[0], holds[3])
        assert ledger.balance("all", "day", D0) == Balance(5, 1001)
        assert ledger.open_reservations(T0 + 1, T0 + HOUR) == ()

    def test_balances_by_scope_and_without_fixed_cost(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        ledger.append(
            (
                entry("charged", "r1", amount_nano=1, backend="groq", key_id="k1", tier="free"),
                entry("charged", "r2", amount_nano=10, backend="groq", key_id="k2", tier="paid"),
                entry("reserved", "r3", reserved_nano=100, backend="mine", key_id="k2", tier="free"),
                entry("reserved", "r4", reserved_nano=1000, backend="mine", key_id="", tier=""),
                entry("gpu_hour", "gpu-b1", amount_nano=10**6),
                entry("charged", "r5", local=True, backend="local"),
            )
        )
        scopes = ("all", "backend:groq", "backend:mine", "key:k1", "key:k2", "tier:free", "tier:paid")
        for period, start in (("hour", H0), ("day", D0), ("month", M0)):
            assert [ledger.balance(scope, period, start) for scope in scopes] == [  # type: ignore[arg-type]
                Balance(11, 1100),
                Balance(11, 0),
                Balance(0, 1100),
                Balance(1, 0),
                Balance(10, 100),
                Balance(1, 100),
                Balance(10, 0),
            ]
        assert ledger.balance("key:' OR 1=1 --", "day", D0) == Balance(0, 0)
        assert ledger.balance("all", "day", D0 + DAY) == Balance(0, 0)
        with pytest.raises(BudgetError):
            ledger.balance("model:x", "day", D0)
        everything = reopen().balances()
        assert len(everything) == 3 * len(scopes)
        assert everything["tier:free", "month", M0] == Balance(1, 100)

    def test_a_charge_counts_in_the_period_of_its_hold(self, ledger: Ledger) -> None:
        end = H0 + HOUR
        ledger.append((entry("reserved", "late", ts=end - 1, reserved_nano=9),))
        ledger.append((entry("charged", "late", ts=end + 5, amount_nano=7),))
        ledger.append((entry("charged", "plain", ts=end + 5, amount_nano=2),))
        assert ledger.balance("all", "hour", H0) == Balance(7, 0)
        assert ledger.balance("all", "hour", end) == Balance(2, 0)

    def test_a_cap_lets_in_what_fits_in_order(self, ledger: Ledger) -> None:
        cap = Cap("all", "day", D0, 100)
        ledger.append((entry("charged", "r0", amount_nano=30),))
        writes = [Write((entry("reserved", f"r{i}", reserved_nano=n),), (cap,)) for i, n in enumerate((40, 31, 30), 1)]
        assert ledger.commit(writes) == [None, CapReached(cap, 70), None]
        assert ledger.balance("all", "day", D0) == Balance(30, 70)
        assert ledger.entries_of("r2") == ()
        assert ledger.commit(writes[:1]) == [None]  # a retry of what is stored
        free = Write((entry("reserved", "r4"),), (cap,))
        paid = Write((entry("reserved", "r5", reserved_nano=1),), (cap,))
        closing = Write((entry("charged", "r1", amount_nano=39),))
        assert ledger.commit((free, paid, closing, paid)) == [None, CapReached(cap, 100), None, None]
        assert ledger.balance("all", "day", D0) == Balance(69, 31)
        assert_chain_holds(ledger)

    def test_every_cap_counts_and_only_the_scopes_and_periods_of_the_entry_move(self, ledger: Ledger) -> None:
        caps = (Cap("tier:free", "month", M0, 50), Cap("key:k1", "hour", H0, 10))
        hold = entry("reserved", "r1", reserved_nano=10)
        assert ledger.commit((Write((hold,), caps),)) == [None]
        more = Write((entry("reserved", "r2", reserved_nano=1),), caps)
        assert ledger.commit((more,)) == [CapReached(caps[1], 10)]
        another = Write((entry("reserved", "r2", reserved_nano=41, key_id="k2"),), caps[:1])
        assert ledger.commit((another,)) == [CapReached(caps[0], 10)]
        assert ledger.commit((Write((entry("released", "r1"),)), another)) == [None, None]

    def test_two_connections_that_race_for_the_last_dollar_dont_both_get_it(
        self, ledger: Ledger, reopen: Callable[[], Ledger]
    ) -> None:
        routers = (ledger, reopen())
        cap = Cap("all", "day", D0, 100)
        together = Barrier(len(routers))

        def race(router: int, round_: int) -> WriteResult:
            together.wait(30)
            hold = entry("reserved", f"r{round_}-{router}", reserved_nano=100)
            return routers[router].commit((Write((hold,), (cap,)),))[0]

        with ThreadPoolExecutor(len(routers)) as pool:
            for round_ in range(20):
                results = list(pool.map(race, range(len(routers)), [round_] * len(routers)))
                assert sorted(map(repr, results)) == sorted((repr(CapReached(cap, 100)), "None"))
                assert ledger.balance("all", "day", D0) == Balance(0, 100)
                ledger.append((entry("released", f"r{round_}-{results.index(None)}"),))
        assert_chain_holds(ledger)

    def test_orphans_are_open_holds_of_routers_that_are_silent(self, ledger: Ledger) -> None:
        silent = 30_000
        gone = entry("reserved", "r1", reserved_nano=1, router_id="gone")
        here = entry("reserved", "r2", reserved_nano=1, router_id="here")
        nobody = entry("reserved", "r3", reserved_nano=1)
        closed = entry("reserved", "r4", reserved_nano=1, router_id="gone")
        ledger.append((gone, here, nobody, closed, entry("charged", "r4", amount_nano=1)))
        ledger.alive("gone", T0 + 1)
        ledger.alive("here", T0 + 1)
        assert ledger.orphans(T0 + silent - 1, silent) == ()
        assert ledger.orphans(T0 + silent, silent) == (nobody,)
        ledger.alive("here", T0 + silent)
        ledger.alive("here", T0)  # late news changes nothing
        assert ledger.orphans(T0 + silent + 1, silent) == (gone, nobody)

    def test_a_row_is_linked_without_the_columns_that_it_does_not_use(self, ledger: Ledger) -> None:
        saved = entry("charged", "saved", backend="cache", local=False, saved_nano=9)
        tried = entry("charged", "tried", experiment="cheaper/b/0123abcd", took_ms=7)
        ledger.append((entry("charged", "plain", local=True), entry("charged", "billed", **_BILLED), saved, tried))
        plain, billed, cached, in_arm = ledger.chain()
        assert plain.row == tuple(entry("charged", "plain", local=True))[:25]
        assert billed.row == tuple(entry("charged", "billed", **_BILLED))[:34]
        assert cached.row == tuple(saved)[:35]
        assert in_arm.row == tuple(tried)
        # A program that knows no column after router_id, at_most_nano or saved_nano computes the same links as always.
        assert plain.link == sha256(GENESIS + orjson.dumps(plain.row[:25])).digest()
        assert billed.link == sha256(plain.link + orjson.dumps(billed.row[:34])).digest()
        assert cached.link == sha256(billed.link + orjson.dumps(cached.row)).digest()
        assert in_arm.link == sha256(cached.link + orjson.dumps(in_arm.row)).digest()
        assert ledger.entries_of("saved") == (saved,)
        assert ledger.entries_of("tried") == (tried,)
        assert verify(ledger).holds

    def test_rows_are_verified_by_the_text_of_which_their_links_were_made(self, ledger: Ledger) -> None:
        odd = "".join(map(chr, range(1, 300))) + "\u2028\ud7ff\ufffd\U0001f600\\u0041'"
        rng = Random(7)
        rows = [entry("charged", f"n{i}", confidence=rng.choice([rng.random(), 10 ** -rng.randint(0, 300), 1.0]))
                for i in range(200)]  # fmt: skip
        rows += [entry("charged", "odd", model=odd, tariff_ref='"', confidence=0.1 + 0.2, user_id=odd)]
        rows += [entry("charged", "billed", **_BILLED), entry("charged", "sure", confidence=0.0, saved_nano=3)]
        rows += [entry("adjusted", "billed", amount_nano=-(2**62)), entry("charged", "most", prompt_tokens=2**63 - 1)]
        rows += [entry("charged", "plain", local=True, document=True, experiment="e/b/1", took_ms=1, confidence=1e-7)]
        ledger.append(rows)
        texts = [(seq, orjson.dumps(row), link) for seq, row, link in ledger.chain()]
        read = [
            (seq, text if isinstance(text, bytes) else text.encode(), link)
            for seq, text, link, *_ in ledger.canonical()
        ]
        assert read == texts
        marks = {orjson.loads(row[1])[1]: row[3:] for row in ledger.canonical()}
        assert (marks["odd"], marks["billed"], marks["plain"]) == ((True, False), (False, True), (False, False))
        assert verify(ledger).holds

    def test_prices_are_kept_once_by_their_names(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        many = {f"list@2026-11-{n % 30}#{n}": f"price {n}" for n in range(700)}
        ledger.tariffs.keep(many, T0)
        ledger.tariffs.keep({**dict.fromkeys(many, "another"), "new#1": "price"}, T0 + 1)
        reopen().tariffs.keep({}, T0)
        assert reopen().tariffs.texts() == {**many, "new#1": "price"}

    def test_a_cap_of_a_user_holds_like_any_other(self, ledger: Ledger) -> None:
        cap = Cap("user:u1", "day", D0, 100)
        ledger.append((entry("reserved", "r1", reserved_nano=60, user_id="u1"),))
        ledger.append((entry("reserved", "other", reserved_nano=900, user_id="u2"), entry("charged", "nobody")))
        refused = Write((entry("reserved", "r2", reserved_nano=50, user_id="u1"),), (cap,))
        assert ledger.commit((refused,)) == [CapReached(cap, 60)]
        ledger.append((entry("charged", "r1", amount_nano=40, user_id="u1"),))
        assert ledger.commit((refused,)) == [None]
        assert ledger.balance("user:u1", "day", D0) == Balance(40, 50)
        assert ledger.balance("user:u2", "month", M0) == Balance(0, 900)
        assert ledger.balance("key:k1", "day", D0) == Balance(40, 950)
        assert not [key for key in ledger.balances() if key[0] == "user:"]
        assert verify(ledger).holds

    def test_what_is_not_known_for_sure_sums(self, ledger: Ledger) -> None:
        guess = {"amount_nano": 30, "estimated_nano": 30, "at_most_nano": 80}
        ledger.append([entry("charged", f"r{i}", status="aborted", **guess) for i in range(3)])
        ledger.append((entry("charged", "sure", status="aborted", amount_nano=5),))
        settled = {"amount_nano": -10, "estimated_nano": -30, "at_most_nano": -80}
        ledger.append((entry("adjusted", "r1", status="aborted", **settled),))
        for _ in range(2):
            (total,) = ledger.totals(D0, D0 + DAY)
            assert (total.cost_nano, total.unsure, total.estimated_nano, total.at_most_nano) == (85, 2, 60, 160)
            ledger.sum_up(10)

    def test_other_fixed_costs_and_corrections_move_no_balance(self, ledger: Ledger) -> None:
        ledger.append(
            (
                entry("fixed", "disk", 0, amount_nano=7, backend="disk"),
                entry("fixed_adjusted", "rent_1", 0, amount_nano=-5, gpu_us=-60),
            )
        )
        assert [(e.kind, e.amount_nano) for e in ledger.entries_between(T0, T0 + 1)] == [
            ("fixed", 7),
            ("fixed_adjusted", -5),
        ]
        with pytest.raises(EntryRejectedError):
            ledger.append((entry("fixed", "disk", 1, amount_nano=-1),))
        assert ledger.balances() == {}
        assert ledger.totals(D0, D0 + DAY) == ()
        assert verify(ledger).holds

    def test_rows_are_chained_in_the_order_they_were_written(
        self, ledger: Ledger, reopen: Callable[[], Ledger]
    ) -> None:
        ledger.append([entry("charged", f"a{i}", local=True, confidence=i / 3) for i in range(100)])
        ledger.commit([Write((entry("charged", f"b{i}", local=True, document=True),)) for i in range(3)])
        again = reopen()
        again.append((entry("reserved", "c", reserved_nano=4, confidence=1),))
        ledger.append((entry("charged", "d", local=True, confidence=-0.0, task="übersetzen 翻訳"),))
        again.append((entry("charged", "e", local=True),))
        assert [row.row[1] for row in again.chain()][99:] == ["a99", "b0", "b1", "b2", "c", "d", "e"]
        assert assert_chain_holds(ledger) == 106
        third = list(ledger.chain())[2]
        assert next(ledger.chain(third.seq)).row[1] == "a3"
        assert list(ledger.chain(list(ledger.chain())[-1].seq)) == []

    def test_reviews_are_kept_decided_once_and_forgotten(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        full = ReviewRecord(
            id="rev_1",
            request_id="req_1",
            created_ms=T0,
            schema_name="biometry",
            key_id="k1",
            private=True,
            step="local",
            backend="local",
            model="demo",
            confidence=0.5,
            why="0.5 < 0.9",
            scores="{}",
            content="[翻訳]",
        )
        ledger.reviews.add(full)
        with pytest.raises(EntryConflictError, match="rev_1"):
            ledger.reviews.add(replace(full, why="other"))
        table = reopen().reviews
        assert table.get("rev_1") == full
        assert table.get("rev_2") is None
        done = ReviewDecision(
            state="corrected", outcome='{"AL":23.4}', label='{"right":false}', decided_ms=T0 + 5, decided_by="k2"
        )
        assert not table.decide("rev_2", done)
        assert table.decide("rev_1", done)
        assert not table.decide("rev_1", replace(done, state="accepted"))
        closed = replace(
            full, state="corrected", outcome='{"AL":23.4}', label='{"right":false}', decided_ms=T0 + 5, decided_by="k2"
        )
        assert ledger.reviews.get("rev_1") == closed
        assert ledger.reviews.forget(T0 + 5) == 0
        assert ledger.reviews.forget(T0 + 6) == 1
        assert ledger.reviews.forget(T0 + 6) == 0
        assert table.get("rev_1") == replace(closed, content=None, outcome=None)

    def test_reviews_are_listed_newest_first_in_pages(self, ledger: Ledger) -> None:
        many = [
            ReviewRecord(
                id=f"rev_{i}", request_id=f"req_{i}", created_ms=T0 + i // 2, schema_name="ab"[i % 2], content="text"
            )
            for i in range(7)
        ]
        for record in many:
            ledger.reviews.add(record)
        ledger.reviews.decide(
            "rev_4", ReviewDecision(state="dismissed", outcome=None, label=None, decided_ms=T0, decided_by="")
        )
        listed = [replace(record, content=None) for record in reversed(many)]
        whole = ledger.reviews.list(ReviewFilter())
        assert [record.id for record in whole] == [record.id for record in listed]
        assert whole[0] == listed[0]
        first = ledger.reviews.list(ReviewFilter(limit=3))
        rest = ledger.reviews.list(ReviewFilter(before=(first[-1].created_ms, first[-1].id)))
        assert (*first, *rest) == whole
        assert [r.id for r in ledger.reviews.list(ReviewFilter(state="open", schema_name="a"))] == [
            "rev_6", "rev_2", "rev_0",
        ]  # fmt: skip
        assert [r.id for r in ledger.reviews.list(ReviewFilter(since_ms=T0 + 3))] == ["rev_6"]
        assert ledger.reviews.list(ReviewFilter(state="accepted")) == ()
        assert (ledger.reviews.count("open"), ledger.reviews.count("dismissed")) == (6, 1)
        assert ledger.reviews.waiting() == OpenReviews(6, T0)

    def test_labels_are_kept_and_read_in_portions(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        assert ledger.reviews.waiting() == OpenReviews(0, None)
        first = LabelRecord(
            request_id="req_1",
            ts=T0,
            task="biometry",
            backend="local",
            model="demo",
            judge="groq",
            confidence=0.93,
            right=True,
            scores='{"min":-0.1}',
            fields='{"/AL":true}',
        )
        ledger.labels.put(first)
        table = reopen().labels
        assert list(table.all()) == [first]
        table.put(replace(first, right=False, confidence=None))
        assert list(ledger.labels.all()) == [replace(first, right=False, confidence=None)]
        for i in range(1100):
            table.put(replace(first, request_id=f"req_2{i:04}", ts=T0 + 1 + i // 3))
        assert [label.request_id for label in table.all(T0 + 1)] == [f"req_2{i:04}" for i in range(1100)]
        assert list(table.all(T0 + 400)) == []

    def test_a_charge_above_its_hold_is_found(self, ledger: Ledger) -> None:
        ledger.append((entry("reserved", "r1", reserved_nano=10), entry("charged", "r1", amount_nano=10)))
        ledger.append((entry("charged", "r0", amount_nano=10),))  # without a hold
        assert verify(ledger).faults == ()
        ledger.append((entry("reserved", "r2", reserved_nano=10), entry("charged", "r2", amount_nano=11)))
        [fault] = verify(ledger).faults
        assert (fault.rule, fault.seq) == ("bounds", 5)
        assert "attempt 1 of r2 cost 11 nano-USD, above its hold of 10" in fault.detail

    def test_an_alert_is_claimed_once_by_whoever_comes_first(
        self, ledger: Ledger, reopen: Callable[[], Ledger]
    ) -> None:
        key: AlertKey = ("all", "day", D0 // 1000, Decimal("0.5"), 10**9)
        assert not ledger.alerts.is_claimed(key)
        assert ledger.alerts.claim(key, T0)
        assert ledger.alerts.is_claimed((*key[:3], Decimal("0.50"), key[4]))
        assert not ledger.alerts.is_claimed((key[0], key[1], key[2] + 1, *key[3:]))
        assert not ledger.alerts.claim(key, T0 + 1)
        other = reopen()
        assert not other.alerts.claim((*key[:3], Decimal("0.50"), key[4]), T0 + 2)
        for changed in (
            ("key:k1", *key[1:]),
            (key[0], "month", *key[2:]),
            (*key[:2], key[2] + 86_400, *key[3:]),
            (*key[:3], Decimal(1), key[4]),
            (*key[:4], 2 * 10**9),
        ):
            assert other.alerts.claim(changed, T0 + 3), changed
        late = T0 + KEPT_MS + DAY
        assert ledger.alerts.claim(("all", "day", late // 1000, Decimal(1), 1), late)  # old claims are forgotten
        assert ledger.alerts.claim(key, T0 + 4)

    def test_stored_responses_are_kept_replaced_and_forgotten(
        self, ledger: Ledger, reopen: Callable[[], Ledger]
    ) -> None:
        first = StoredResponse("resp_1", "k1", "cloud", T0, private=False)
        second = StoredResponse("resp_2", "", "local", T0 + 1, private=True)
        ledger.responses.put([first, second])
        ledger.responses.put([])
        other = reopen().responses
        assert [other.get(name, T0 + 2) for name in ("resp_1", "resp_2", "resp_3")] == [first, second, None]
        other.put([replace(first, key_id="k2")])
        assert ledger.responses.get("resp_1", T0 + 2) == replace(first, key_id="k2")
        other.forget("resp_1")
        other.forget("resp_1")
        assert ledger.responses.get("resp_1", T0 + 2) is None
        assert ledger.responses.get("resp_2", second.made_ms + RESPONSES_KEPT_MS) is None

    def test_stored_responses_are_bounded_in_number_and_time(self, ledger: Ledger) -> None:
        table = ledger.responses
        records = [StoredResponse(f"r{n}", "k", "b", T0 + n, private=False) for n in range(250)]
        table.put(records)
        table.prune(T0 + 300, most=200)
        assert [table.get(f"r{n}", T0 + 300) is not None for n in (0, 49, 50, 249)] == [False, False, True, True]
        late = StoredResponse("late", "k", "b", T0 + RESPONSES_KEPT_MS + 240, private=False)
        table.put([late])
        table.prune(late.made_ms)
        assert [table.get(f"r{n}", T0 + 300) is not None for n in (240, 241)] == [False, True]

    def test_private_sessions_are_kept_seen_later_and_forgotten(
        self, ledger: Ledger, reopen: Callable[[], Ledger]
    ) -> None:
        first, second = (PrivateSession(session_digest("k", name), "k", T0) for name in ("s", "t"))
        ledger.private_sessions.put([first, second])
        ledger.private_sessions.put([])
        table = reopen().private_sessions
        later = replace(first, seen_ms=T0 + DAY)
        table.put([later])
        table.put([first])  # a router that was slower changes nothing
        assert set(ledger.private_sessions.all(T0 + DAY)) == {later, second}
        assert table.among([first.digest, session_digest("k", "u")], T0 + DAY) == (later,)
        late_ms = T0 + SESSIONS_KEPT_MS
        assert list(table.all(late_ms)) == [later]
        assert table.among([second.digest], late_ms) == ()
        table.prune(late_ms)
        assert list(ledger.private_sessions.all(T0)) == [later]

    def test_traits_are_kept_in_the_order_of_arrival_and_forgotten(
        self, ledger: Ledger, reopen: Callable[[], Ledger]
    ) -> None:
        early = RequestTraits(first_id(T0) + "a" * 17, "auto", 3, "de")
        late = RequestTraits(first_id(T0 + 9) + "a" * 17, "auto", 0, "")
        ledger.traits.put([late, early])
        ledger.traits.put([])
        table = reopen().traits
        table.put([replace(early, complexity=9)])  # the first one counts
        assert list(table.all(T0)) == [early, late]
        assert list(table.all(T0 + 1)) == [late]
        table.prune(T0 + TRAITS_KEPT_MS + 1)
        assert list(ledger.traits.all(0)) == [late]
        table.put([early])
        table.prune(T0, most=1)
        assert list(ledger.traits.all(0)) == [late]

    def test_feedback_is_kept_and_summed(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        rated = FeedbackRecord(
            request_id="req_1", ts=T0, key_id="k1", backend="local", model="demo", rating=2, reason="翻訳 is wrong"
        )
        ledger.feedback.put(rated)
        table = reopen().feedback
        assert table.get("req_1") == rated
        assert table.get("req_2") is None
        table.put(
            FeedbackRecord(request_id="req_1", ts=T0 + 1, key_id="k1", backend="local", model="demo", better_id="req_9")
        )
        assert ledger.feedback.get("req_1") == replace(rated, ts=T0 + 1, better_id="req_9")
        table.put(FeedbackRecord(request_id="req_1", ts=T0 + 2, key_id="k1", backend="local", model="demo", rating=5))
        assert ledger.feedback.get("req_1") == replace(rated, ts=T0 + 2, rating=5, better_id="req_9")
        for i, rating in enumerate((1, 4, 5, None)):
            better = "" if rating else "req_8"
            table.put(
                FeedbackRecord(
                    request_id=f"req_2{i}",
                    ts=T0 + 3,
                    key_id="",
                    backend="groq",
                    model="m",
                    rating=rating,
                    better_id=better,
                )
            )
        assert table.opinions(T0, T0 + 4) == (
            Opinion(backend="groq", model="m", ratings=3, satisfied=2, rating_sum=10, better_asked=1),
            Opinion(backend="local", model="demo", ratings=1, satisfied=1, rating_sum=5, better_asked=1),
        )
        assert table.opinions(T0, T0 + 3) == (
            Opinion(backend="local", model="demo", ratings=1, satisfied=1, rating_sum=5, better_asked=1),
        )
        assert table.opinions(T0 + 4, T0 + 5) == ()
        assert [row.request_id for row in table.all()] == ["req_1", "req_20", "req_21", "req_22", "req_23"]
        assert [row.rating for row in table.all(T0 + 3)] == [1, 4, 5, None]

    def test_feedback_says_who_asked_for_better_answers_and_what_that_gained(self, ledger: Ledger) -> None:
        table = ledger.feedback
        first = FeedbackRecord(request_id="", ts=T0, key_id="k1", backend="local", model="demo")
        ann = {"pressed_by": "k1", "pressed_tier": "gold", "pressed_user": "u1"}
        for request_id, rating, better_id, better_rating in (
            ("req_1", 2, "req_7", 5),
            ("req_2", 4, "req_8", 3),
            ("req_3", 1, "req_9", None),
        ):
            table.put(replace(first, request_id=request_id, better_id=better_id, **ann))
            table.put(replace(first, request_id=request_id, rating=rating))  # it does not forget who pressed
            table.put(replace(first, request_id=better_id, backend="groq", rating=better_rating))
        table.put(replace(first, request_id="req_4", better_id="req_0", pressed_by="k2"))
        table.put(replace(first, request_id="req_5", ts=T0 + 9, better_id="req_6", pressed_by="k3"))
        rows = table.pressed(T0, T0 + 9, 9)
        assert rows == (
            Pressed(key_id="k1", tier="gold", user_id="u1", asked=3, compared=2, gained_sum=2),
            Pressed(key_id="k2", tier="", user_id="", asked=1, compared=0, gained_sum=0),
        )
        assert table.pressed(T0, T0 + 9, 1) == rows[:1]

    def test_arms_are_summed_by_unit(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        def ratio(*units: tuple[int, int]) -> RatioSums:
            return RatioSums(
                units=len(units),
                amount=sum(x for x, _ in units),
                count=sum(n for _, n in units),
                amount_squares=sum(x * x for x, _ in units),
                count_squares=sum(n * n for _, n in units),
                products=sum(x * n for x, n in units),
            )

        def row(request_id: str, unit: str, amount_nano: int = 0, **more: Any) -> Entry:
            return entry("charged", request_id, amount_nano=amount_nano, experiment=f"e/{unit}", **more)

        ledger.append(
            (
                row("r1", "b/00000001", 10, status="ok", decision="routed", took_ms=30),
                row("r2", "b/00000001", 0, attempt=1, status="discarded", decision="local", local=True, took_ms=5),
                row("r2", "b/00000001", 40, attempt=2, status="ok", decision="escalated", took_ms=50),
                row("r2", "b/00000001", 99, attempt=3, decision="audit"),
                entry("adjusted", "r1", amount_nano=-4, experiment="e/b/00000001", status="ok", decision="routed"),
                row("r3", "b/00000002", 7, status="error", took_ms=9),
                row("r4", "control/00000003", status="ok", backend="cache", ts=T0 + 9),
                entry("charged", "r5", amount_nano=1_000),
                row("late", "b/00000001", 5, ts=T0 + DAY),
            )
        )
        for request_id, rating in (("r1", 5), ("r2", 2), ("r5", 1)):
            opinion = FeedbackRecord(request_id=request_id, ts=T0, key_id="", backend="cloud", model="m", rating=rating)
            ledger.feedback.put(opinion)
        b, control = reopen().experiments.arms(T0, T0 + DAY)
        assert (b.arm, b.requests, b.answered, b.first_ms, b.last_ms) == ("e/b", 3, 2, T0, T0)
        assert b.cost == ratio((46, 2), (7, 1))
        assert b.took == ratio((80, 2))
        assert b.escalated == ratio((1, 2))
        assert b.rating == ratio((7, 2))
        assert (control.arm, control.requests, control.first_ms) == ("e/control", 1, T0 + 9)
        assert (control.took, control.rating) == (RatioSums(), RatioSums())
        assert ledger.experiments.arms(0, T0) == ()

    def test_the_first_move_of_an_interval_counts_for_every_router(
        self, ledger: Ledger, reopen: Callable[[], Ledger]
    ) -> None:
        stretches = (Stretch("b", 0, 2**31), Stretch("control", 2**31, 2**32))
        first = ShareMove(
            experiment="e", setup="setup", at_ms=T0, stretches=stretches, reasons={"because": ["thompson"], "after": {}}
        )
        table = ledger.experiments
        assert table.latest_move("e", "setup") is None
        assert table.keep_move(first)
        assert not reopen().experiments.keep_move(replace(first, reasons={}))
        later, other = replace(first, at_ms=T0 + DAY), replace(first, setup="other", at_ms=T0 + 2 * DAY)
        assert table.keep_move(later)
        assert table.keep_move(other)
        stored = reopen().experiments
        assert stored.latest_move("e", "setup") == later
        assert stored.latest_move("f", "setup") is None
        assert stored.moves(T0, T0 + 2 * DAY) == (first, later)

    def test_a_shadow_is_summed_apart_from_the_answer_that_the_client_got(
        self, ledger: Ledger, reopen: Callable[[], Ledger]
    ) -> None:
        def row(request_id: str, arm: str, attempt: int, amount_nano: int, **more: Any) -> Entry:
            mark = f"e/{arm}/00000001"
            return entry("charged", request_id, attempt, amount_nano=amount_nano, experiment=mark, **more)

        answer = {"status": "ok", "decision": "routed", "took_ms": 30, "prompt_tokens": 50, "completion_tokens": 7}
        shadow = {"status": "discarded", "decision": "shadow", "took_ms": 9}
        unmade = {"decision": "shadow", "reasons": "shadow,dry,local", "backend": "local", "local": True}
        ledger.append(
            (
                row("r1", "control", 1, 10, **answer),
                row("r1", "s", 2, 4, reasons="shadow,agrees", **shadow),
                row("r2", "control", 1, 20, **answer),
                row("r2", "s", 2, 6, reasons="shadow,differs", **shadow),
                row("r3", "control", 1, 30, **answer),
                entry("released", "r3", 2, experiment="e/dry/00000002", **unmade),
            )
        )
        ledger.feedback.put(FeedbackRecord(request_id="r1", ts=T0, key_id="", backend="cloud", model="m", rating=5))
        experiments = reopen().experiments
        control, dry, asked = experiments.arms(T0, T0 + DAY)
        assert (control.arm, control.requests, control.cost.amount) == ("e/control", 3, 60)
        assert (control.rating.amount, control.rating.count) == (5, 1)
        assert (asked.arm, asked.requests, asked.answered, asked.cost.amount) == ("e/s", 2, 2, 10)
        assert (asked.took.amount, asked.agreement.mean, asked.agreement.count) == (18, 0.5, 2)
        assert (asked.rating, asked.escalated.mean) == (RatioSums(), 0)
        assert (dry.arm, dry.dry, dry.requests, dry.answered, dry.cost.amount) == ("e/dry", 1, 1, 0, 0)
        assert experiments.dry_choices(T0, T0 + DAY) == (
            DryChoice("e/dry", "local", 1, prompt_tokens=50, cached_tokens=0, completion_tokens=7, cost_nano=30),
        )
        assert experiments.dry_choices(0, T0) == ()
        assert verify(ledger).holds

    def test_rentals_are_kept_and_stopped(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        first = RentalRecord(
            id="rent_1",
            gpu="a100-80",
            count=2,
            price_nano_per_hour=1_390_000_000,
            kind="reserved",
            started_ms=T0,
            stopped_ms=None,
            source="cli",
        )
        second = RentalRecord(
            id="rent_2",
            gpu="",
            count=1,
            price_nano_per_hour=0,
            kind="interruptible",
            started_ms=T0 + 100,
            stopped_ms=T0 + 200,
            source="vast",
        )
        ledger.rentals.add(second)
        ledger.rentals.add(first)
        with pytest.raises(EntryConflictError):
            ledger.rentals.add(replace(first, count=1))
        other = reopen()
        assert other.rentals.between(T0, T0 + DAY) == (first, second)
        assert other.rentals.between(T0 + 200, T0 + DAY) == (first,)
        assert other.rentals.between(T0 - DAY, T0) == ()
        assert other.rentals.stop("rent_1", T0 + 150)
        assert not other.rentals.stop("rent_1", T0 + 160)
        assert not other.rentals.stop("rent_2", T0 + 160)
        assert not other.rentals.stop("unknown", T0)
        assert ledger.rentals.between(T0 + 150, T0 + DAY) == (second,)
        assert ledger.rentals.between(T0, T0 + 50) == (replace(first, stopped_ms=T0 + 150),)
        assert ledger.rentals.move_stop("rent_1", T0 + 120)
        assert ledger.rentals.between(T0, T0 + 50)[0].stopped_ms == T0 + 120
        assert ledger.rentals.move_stop("rent_1", T0 - DAY)
        assert not ledger.rentals.move_stop("unknown", T0)
        ended = next(record for record in ledger.rentals.between(0, T0 + DAY) if record.id == "rent_1")
        assert ended.stopped_ms == ended.started_ms

    def test_a_rental_by_the_month_knows_its_machine_and_when_it_was_seen(self, ledger: Ledger) -> None:
        record = RentalRecord(
            id="rent_1",
            gpu="t4",
            count=1,
            price_nano_per_hour=1,
            kind="reserved",
            started_ms=T0,
            stopped_ms=None,
            source="runpod",
            price_nano_per_month=250 * 10**9,
            machine="pod1",
            seen_ms=T0,
        )
        ledger.rentals.add(record)
        ledger.rentals.seen("rent_1", T0 + 5)
        ledger.rentals.seen("rent_1", T0 + 4)
        assert ledger.rentals.between(T0, T0 + 1) == (replace(record, seen_ms=T0 + 5),)
        ledger.rentals.stop("rent_1", T0 + 9)
        ledger.rentals.seen("rent_1", T0 + 20)
        assert ledger.rentals.between(T0, T0 + 1) == (replace(record, seen_ms=T0 + 5, stopped_ms=T0 + 9),)

    def test_other_costs_are_kept_and_stopped(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        cost = OtherCost(
            id="cost-database-1", name="database", price_nano_per_month=50 * 10**9, started_ms=T0, stopped_ms=None
        )
        assert ledger.other_costs.add(cost)
        assert not ledger.other_costs.add(replace(cost, name="disk"))
        assert reopen().other_costs.all() == (cost,)
        assert ledger.other_costs.stop(cost.id, T0 - 1)
        assert not ledger.other_costs.stop(cost.id, T0)
        assert ledger.other_costs.all() == (replace(cost, stopped_ms=T0),)

    def test_corrections_of_fixed_cost_are_signed_and_count_in_no_budget(self, ledger: Ledger) -> None:
        ledger.append(
            (
                entry("gpu_hour", "rent_1", amount_nano=100, gpu_us=60, ts=D0),
                entry("fixed_adjusted", "rent_1", decision="gpu_hour", amount_nano=-40, gpu_us=-20, ts=D0),
                entry("fixed", "cost-database-1", amount_nano=7, ts=D0),
                entry("idle", f"idle-{D0}", amount_nano=50, ts=D0),
                entry("fixed_adjusted", f"idle-{D0}", decision="idle", amount_nano=-5, gpu_us=-1, ts=D0),
            )
        )
        assert ledger.rented(D0, D0 + DAY) == Rented(60, 40)
        assert ledger.balances() == {}
        with ledger.checks() as checks:
            assert list(checks.rent()) == [(D0 // DAY, 60, 45)]
            assert list(checks.negative_rows()) == []
        for kind in ("gpu_hour", "fixed", "idle"):
            with pytest.raises(EntryRejectedError):
                ledger.append((entry(kind, "rent_2", amount_nano=-1),))

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
                entry("charged", "later", ts=SLOT0 + HOUR, amount_nano=99),
            )
        )
        totals = ledger.totals(SLOT0, SLOT0 + HOUR)
        assert {(t.day, t.key_id) for t in totals} == {("2026-09-21", "")}
        assert [(t.group.local, t.group.decision, t.group.status) for t in totals] == [
            (True, "local", "ok"),
            (False, "escalated", "error"),
            (False, "overflow", "ok"),
        ]
        local, _, overflow = totals
        assert [(t.attempts, t.answers, t.requests) for t in totals] == [(1, 1, 1), (1, 0, 0), (2, 2, 2)]
        assert (local.gpu_us, local.attempts, local.kv_token_steps_x2) == (70, 1, 2 * 10 * 4 + 16)
        assert (overflow.attempts, overflow.cost_nano, overflow.prompt_tokens) == (2, 10, 21)
        assert overflow.kv_token_steps_x2 == 2 * (2 * 10 * 4 + 16)

    def test_totals_know_day_tier_and_task_and_keys_apart(self, ledger: Ledger) -> None:
        ledger.append(
            (
                entry("charged", "r1", status="ok", ts=D0 + DAY, key_id="k1", tier="free", task="chat"),
                entry("charged", "r2", status="aborted", ts=D0 + DAY - 1, key_id="k1", tier="free", task="chat"),
                entry("charged", "r3", status="ok", ts=D0 + DAY, key_id="k2", tier="free", task="chat"),
                entry("charged", "r4", status="ok", ts=D0 + DAY, key_id="k1", tier="paid", task="chat"),
                entry("charged", "r5", status="ok", ts=D0 + DAY, key_id="k1", tier="free", task="code"),
                entry("charged", "r6", status="ok", ts=D0 + DAY, key_id="k1", tier="free", task="code"),
            )
        )
        totals = ledger.totals(D0, D0 + 2 * DAY)
        assert [(t.day, t.group.tier, t.group.task, t.answers) for t in totals] == [
            ("2026-09-21", "free", "chat", 1),
            ("2026-09-22", "free", "chat", 2),
            ("2026-09-22", "free", "code", 2),
            ("2026-09-22", "paid", "chat", 1),
        ]
        with ledger.sums() as sums:
            by_key = sorted(
                (t.key_id, t.group.status, t.group.task, t.answers) for t in sums.key_totals(D0, D0 + 2 * DAY)
            )
        assert by_key == [
            ("k1", "aborted", "chat", 1),
            ("k1", "ok", "chat", 1),
            ("k1", "ok", "chat", 1),
            ("k1", "ok", "code", 2),
            ("k2", "ok", "chat", 1),
        ]

    def test_a_charge_is_reported_on_the_day_on_which_its_budget_counts_it(self, ledger: Ledger) -> None:
        end = D0 + DAY
        ledger.append((entry("reserved", "late", ts=end - 1, reserved_nano=9, tariff_ref="t"),))
        ledger.append((entry("charged", "late", ts=end + 5, amount_nano=7, tariff_ref="t"),))
        ledger.append((entry("adjusted", "late", ts=end + DAY, amount_nano=-2, tariff_ref="t"),))
        ledger.append((entry("charged", "plain", ts=end + 5, amount_nano=3),))
        assert [(t.day, t.cost_nano) for t in ledger.totals(D0, end + 2 * DAY)] == [
            ("2026-09-21", 5),
            ("2026-09-22", 3),
        ]
        assert sum(t.cost_nano for t in ledger.totals(D0, end)) == ledger.balance("all", "day", D0).spent_nano
        assert sum(t.cost_nano for t in ledger.totals(end, end + DAY)) == ledger.balance("all", "day", end).spent_nano

    def test_a_request_counts_once_whatever_its_attempts(self, ledger: Ledger) -> None:
        ledger.append([entry("charged", "r1", attempt, ts=D0 + DAY * (3 - attempt)) for attempt in (1, 2)])
        ledger.append((entry("released", "r2"), entry("charged", "r2", 2, status="ok")))
        assert [requests_in(ledger, D0 + DAY * n, D0 + DAY * (n + 1)) for n in range(3)] == [1, 0, 1]
        assert requests_in(ledger, D0, D0 + 3 * DAY) == 2

    @pytest.mark.parametrize("step", [1, 7, 1000])
    def test_running_sums_equal_the_rows_however_far_they_are(
        self, ledger: Ledger, reopen: Callable[[], Ledger], step: int
    ) -> None:
        fill_books(Random(step), ledger, date(2026, 11, 1), "books")
        before = all_sums(ledger)
        other = reopen()
        for _ in range(5):
            ledger.sum_up(step)
            other.sum_up(step)
            assert all_sums(ledger) == before
        while ledger.sum_up(step):
            pass
        assert all_sums(other) == before
        fill_books(Random(step + 1), ledger, date(2026, 11, 2), "more")
        fresh = all_sums(ledger)
        assert ledger.sum_up(0) == 0
        ledger.sum_up(10**6)
        assert all_sums(ledger) == fresh
        assert ledger.sum_up(10**6) == 0

    @pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu", "America/Los_Angeles", "Pacific/Auckland"])
    def test_days_of_a_time_zone_equal_the_rows(self, ledger: Ledger, zone: str) -> None:
        twin = MemoryLedger()
        for number, first in enumerate((24, 25, 31)):  # Berlin's day of 25 hours, and Los Angeles's
            rng = Random(zone) if first == 24 else Random(number)
            day = date(2026, 10, first)
            state = rng.getstate()
            fill_books(rng, ledger, day, f"books{number}")
            rng.setstate(state)
            fill_books(rng, twin, day, f"books{number}")
            assert local_sums(ledger, zone) == local_sums(twin, zone)
            ledger.sum_up(20)
            assert local_sums(ledger, zone) == local_sums(twin, zone)
        ledger.sum_up(10**6)
        assert local_sums(ledger, zone) == local_sums(twin, zone)

    def test_rented_time_sums(self, ledger: Ledger) -> None:
        assert ledger.rented(0, T0 * 2).billed_nano == 0
        ledger.append([entry("gpu_hour", "gpu-1", i, amount_nano=10, gpu_us=60, ts=T0 + i) for i in range(3)])
        rented = ledger.rented(T0, T0 + 2)
        assert (rented.billed_nano, rented.gpu_us) == (20, 120)

    def test_credits_are_taken_of_all_caps_or_of_none(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        user = CreditCap(scope="user:u1", counted="requests", period="month", start_ms=M0, limit=2)
        key = CreditCap(scope="key:k1", counted="requests", period="day", start_ms=D0, limit=3)
        better = CreditCap(scope="user:u1", counted="better", period="day", start_ms=D0, limit=1)
        other = reopen().credits
        assert ledger.credits.take((user, key)) is None
        assert other.take((key, user)) is None
        assert other.take((key, user)) == user
        assert ledger.credits.take((key, better)) is None  # nothing of the key was taken by the refused one
        assert ledger.credits.take((key,)) == key
        assert other.take((replace(key, limit=0, start_ms=D0 + 1),)) is not None
        ledger.credits.give_back((user, better))
        assert other.take((user,)) is None
        assert ledger.credits.take((replace(user, limit=1),)) is not None  # a limit that was lowered
        rows = {(row.scope, row.counted): (row.used, row.limit) for row in other.used(D0, D0 + DAY, 9)}
        assert rows == {("user:u1", "requests"): (2, 2), ("key:k1", "requests"): (3, 3)}
        assert other.used(D0, D0 + DAY, 1)[0].scope == "key:k1"
        assert {row.scope for row in other.used(D0 + DAY, D0 + DAY + 1, 9)} == {"user:u1"}  # the month goes on

    def test_no_credit_is_taken_twice_by_many_at_once(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        tables = [ledger.credits, reopen().credits]
        user = CreditCap(scope="user:u1", counted="requests", period="day", start_ms=D0, limit=17)
        caps = (user, CreditCap(scope="key:k1", counted="requests", period="month", start_ms=M0, limit=40))
        with ThreadPoolExecutor(8) as pool:
            refused = list(pool.map(lambda number: tables[number % 2].take(caps), range(60)))
        assert refused.count(None) == 17
        assert {cap.scope for cap in refused if cap is not None} == {"user:u1"}
        assert {row.used for row in ledger.credits.used(D0, D0 + 1, 9)} == {17}

    def test_provider_keys_follow_their_api_key(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        store, other = KeyStore(ledger.keys), reopen().provider_keys
        key_id = store.create(KeySpec("ann"), b"ann123", bytes(range(32)), T0).record.id
        place = ProviderPlace(key_id, "", "groq")
        before = other.revision()
        assert not other.put(ProviderKeyRecord(place._replace(key_id="nobody"), b"sealed", T0))
        assert other.put(ProviderKeyRecord(place, b"first", T0), "key k1")
        assert other.put(ProviderKeyRecord(place._replace(user_id="u1"), b"user", T0))
        assert ledger.provider_keys.put(ProviderKeyRecord(place, b"second", T0 + 1))
        assert other.revision() > before
        assert [(each.place.user_id, each.sealed, each.stored_ms) for each in other.all()] == [
            ("", b"second", T0 + 1),
            ("u1", b"user", T0),
        ]
        assert other.remove(place, "key k1")
        assert not other.remove(place)
        assert store.revoke(key_id, T0)
        assert other.all() == ()
        assert not other.put(ProviderKeyRecord(place, b"third", T0))
        acts = [each.act for each in ledger.acts.all() if each.act.kind.startswith("provider_key.")]
        assert [(act.kind[13:], act.by == "key k1") for act in acts] == [
            ("set", True),
            ("set", False),
            ("set", False),
            ("remove", True),
        ]
        assert verify(ledger).faults == ()

    def test_keys_are_kept_revoked_and_counted(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        store = KeyStore(ledger.keys)
        before = ledger.keys.revision()
        spec = KeySpec("ann", role="admin", tier="gold", privacy="local-only", may_route=True)
        new = store.create(spec, b"ann123", bytes(range(32)), T0)
        assert ledger.keys.revision() > before
        with pytest.raises(EntryConflictError):
            store.create(spec, b"ann123", bytes(32), T0)
        other = reopen()
        assert other.keys.all() == (new.record,)
        assert other.keys.revoke(new.record.id, T0 + 5)
        assert not other.keys.revoke(new.record.id, T0 + 9)
        assert not other.keys.revoke("nobody", T0)
        assert ledger.keys.all() == (replace(new.record, revoked=T0 + 5),)

    def test_a_key_gets_other_rules_and_another_secret(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        store = KeyStore(ledger.keys, wall=lambda: T0 / 1000)
        new = store.create(KeySpec("ann", models=("auto", "m"), expires=T0 + 60_000), b"ann123", bytes(range(32)), T0)
        assert store.verify(new.token, 0.0) == new.record
        assert store.rules(new.record.id) == KeyRules(models=frozenset({"auto", "m"}))
        other = KeyStore(reopen().keys)
        spec = replace(spec_of(new.record), models=(), backends=("local",), per_minute=9, may_route=True)
        assert other.set(new.record.id, replace(spec, budget_nano=5, budget_period="day"), T0)
        assert not other.set("nobody", spec, T0)
        with pytest.raises(KeySpecError):
            other.set(new.record.id, replace(spec, per_minute=-1), T0)
        line = BudgetLine(f"key:{new.record.id}", "day", 5)
        rules = KeyRules(backends=frozenset({"local"}), per_minute=9, budget=line)
        assert rules_of(ledger.keys.all()[0]) == rules
        token = other.rotate(new.record.id, bytes(32), T0 + 10_000)
        assert token is not None
        for seconds, works in ((0, {new.token, token}), (10, {token}), (60, set())):
            later = KeyStore(ledger.keys, wall=lambda seconds=seconds: T0 / 1000 + seconds)  # type: ignore[misc]
            assert {each for each in (new.token, token) if later.verify(each, 0.0) is not None} == works
        assert other.revoke(new.record.id, T0)
        assert not other.set(new.record.id, replace(spec, per_minute=1), T0)
        assert other.rotate(new.record.id, bytes(32), T0) is None
        acts = ledger.acts.all()
        assert [each.act.kind for each in acts] == ["key.create", "key.set", "key.rotate", "key.revoke"]
        assert {"backends", "budget_nano", "budget_period", "may_route", "models", "per_minute"} == set(
            orjson.loads(acts[1].act.details)
        )
        for digest in (new.record.secret_sha256, hashlib.sha256(bytes(32).hex().encode()).digest()):
            assert digest.hex() not in str(acts)
        assert verify(ledger).faults == ()

    def test_the_last_administrator_stays_unless_that_is_forced(
        self, ledger: Ledger, reopen: Callable[[], Ledger]
    ) -> None:
        store, other = KeyStore(ledger.keys), KeyStore(reopen().keys)
        first, second = (
            store.create(KeySpec("ann", role="admin", expires=expires), key_id, bytes(range(32)), T0).record
            for key_id, expires in ((b"ann123", None), (b"bob123", T0 + 10))
        )
        for weaker in (KeySpec("ann"), KeySpec("ann", role="admin", expires=T0 + 60_000)):
            with pytest.raises(LastAdminError):
                other.set(first.id, weaker, T0 + 10)  # the other one has expired
        with pytest.raises(LastAdminError, match="--force"):
            other.revoke(first.id, T0 + 10)
        assert other.revoke(first.id, T0 + 9, by="key k1")
        with pytest.raises(LastAdminError):
            store.revoke(second.id, T0 + 9)
        assert not other.revoke(first.id, T0 + 9)
        assert store.set(second.id, KeySpec("bob", role="viewer"), T0 + 9, by="key k2", force=True)
        assert [(each.act.kind, each.act.by) for each in ledger.acts.all()][2:] == [
            ("key.revoke", "key k1"),
            ("key.set", "key k2"),
        ]
        assert verify(ledger).faults == ()

    def test_what_is_done_to_keys_and_rentals_is_an_act(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        store, other = KeyStore(ledger.keys), reopen()
        new = store.create(KeySpec("ann", role="admin"), b"ann123", bytes(range(32)), T0)
        with pytest.raises(EntryConflictError):
            store.create(KeySpec("eve"), b"ann123", bytes(32), T0)
        ledger.rentals.add(RENTAL)
        assert other.rentals.stop("rent_1", T0 - 5)  # not before its start
        assert not other.rentals.stop("rent_1", T0 + 9)
        assert other.keys.revoke(new.record.id, T0 + 5)
        assert not other.keys.revoke("nobody", T0)
        acts = ledger.acts.all()
        assert [(each.seq, each.act.kind, each.act.subject) for each in acts] == [
            (1, "key.create", new.record.id),
            (2, "rental.start", "rent_1"),
            (3, "rental.stop", "rent_1"),
            (4, "key.revoke", new.record.id),
        ]
        details = [orjson.loads(each.act.details) for each in acts]
        cost = OtherCost(id="cost_1", name="disk", price_nano_per_month=5, started_ms=T0, stopped_ms=None)
        assert ledger.other_costs.add(cost)
        assert not other.other_costs.add(cost)
        assert other.other_costs.stop("cost_1", T0 + 7)
        assert other.rentals.move_stop("rent_1", T0 + 3)
        other.rentals.seen("rent_1", T0 + 3)
        later = [(each.act.kind, orjson.loads(each.act.details)) for each in ledger.acts.all()[4:]]
        assert [kind for kind, _ in later] == ["cost.start", "cost.stop", "rental.correct"]
        assert (later[1][1], later[2][1]) == ({"stopped_ms": T0 + 7}, {"stopped_ms": T0 + 3})
        assert (details[0]["role"], details[0]["secret"]) == ("admin", new.record.secret_sha256.hex()[:16])
        assert new.record.secret_sha256.hex() not in str(acts)
        assert details[2:] == [{"stopped_ms": T0}, {"revoked": T0 + 5}]
        assert broken_link(acts) is None
        assert (verify(ledger).acts, verify(ledger).faults) == (7, ())

    def test_decisions_and_acts_without_a_table_are_in_the_chain(
        self, ledger: Ledger, reopen: Callable[[], Ledger]
    ) -> None:
        other = reopen()
        other.actor = ledger.actor = "command of ann"
        for name in ("rev_1", "rev_2"):
            ledger.reviews.add(ReviewRecord(id=name, request_id="r", created_ms=T0, schema_name="s", content="text"))
        by_key = ReviewDecision(state="accepted", outcome='{"eye":"OD"}', label="{}", decided_ms=T0, decided_by="k2")
        assert ledger.reviews.decide("rev_1", by_key)
        assert not other.reviews.decide("rev_1", by_key)
        dismissal = ReviewDecision(state="dismissed", outcome=None, label=None, decided_ms=T0, decided_by=COMMAND)
        assert other.reviews.decide("rev_2", dismissal)
        other.acts.record(Change("config.reload", "p2", {"changed": ["slo"]}, "key k1"))
        acts = [each.act for each in ledger.acts.all()]
        assert [(act.kind, act.subject) for act in acts] == [
            ("review.accept", "rev_1"),
            ("review.dismiss", "rev_2"),
            ("config.reload", "p2"),
        ]
        assert [act.by for act in acts[::2]] == ["key k2", "key k1"]
        assert orjson.loads(acts[0].details)["label_sha256"] == hashlib.sha256(b"{}").hexdigest()
        assert "OD" not in str(acts)
        assert (verify(ledger).acts, verify(ledger).faults) == (3, ())

    def test_acts_of_many_at_once_have_one_order(self, ledger: Ledger, reopen: Callable[[], Ledger]) -> None:
        ledgers = [ledger, reopen()]

        def add(number: int) -> None:
            ledgers[number % 2].rentals.add(replace(RENTAL, id=f"rent_{number}"))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add, range(40)))
        acts = ledger.acts.all()
        assert sorted(each.act.subject for each in acts) == sorted(f"rent_{number}" for number in range(40))
        assert (broken_link(acts), verify(ledger).faults) == (None, ())

    def test_a_probe_writes_without_adding_entries(self, ledger: Ledger) -> None:
        ledger.probe()
        assert tuple(ledger.entries_between(0, T0 * 2)) == ()

    def test_closing_twice_is_harmless(self, ledger: Ledger) -> None:
        ledger.close()
        ledger.close()


def assert_chain_holds(ledger: Ledger) -> int:
    """Every link follows from the one before and its row; returns the number of rows."""
    link = GENESIS
    seq = count = 0
    for linked in ledger.chain():
        link = link_of(link, linked.row)
        assert linked.link == link, f"row {linked.seq}"
        assert linked.seq > seq
        seq = linked.seq
        count += 1
    assert count == len([row_of(entry) for entry in ledger.entries_between(0, 2**62)])
    return count

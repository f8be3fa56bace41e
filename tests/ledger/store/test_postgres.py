"""PostgreSQL: the contract, and what is particular to a server that several routers share and that can go away."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import psycopg
import pytest
from evidence.durability.kill9 import kill9_trials
from tests.ledger.contract import LedgerContract, assert_chain_holds
from tests.ledger.helpers import D0, H0, T0, entry, requests_in

from spillway_router.ledger.errors import LedgerConfigError, LedgerUnavailableError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import Balance, Cap, CapReached, Write
from spillway_router.ledger.store.migrations import Migration, load_migrations
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.store.postgres import migrations as migrations_postgres
from spillway_router.ledger.store.postgres.ledger import PostgresLedger
from spillway_router.ledger.store.postgres.watch import RevisionWatch
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.runtime.steady_clock import ClockSources, SteadyClock
from spillway_router.testing.postgres_server import PostgresServer

CHILD = Path(__file__).with_name("postgres_child.py")
OURS = "datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'spillway'"


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[PostgresLedger]:
    opened = PostgresLedger.open(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def reopen(postgres_url: str) -> Iterator[Callable[[], Ledger]]:
    opened: list[PostgresLedger] = []

    def again() -> PostgresLedger:
        opened.append(PostgresLedger.open(postgres_url))
        return opened[-1]

    yield again
    for each in opened:
        each.close()


class TestPostgres(LedgerContract):
    """The contract on PostgreSQL."""


def drop_connections(postgres: PostgresServer, url: str) -> int:
    """End all of the routers' connections to a database as an administrator would; returns how many there were."""
    return len(postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}", url))


# Several routers, one cap


def test_two_processes_with_many_threads_never_pass_a_cap(ledger: PostgresLedger, postgres_url: str) -> None:
    limit, amount, threads, tries = 1_000, 7, 8, 25
    command = [sys.executable, str(CHILD), postgres_url, str(limit), str(amount), str(threads), str(tries)]
    children = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in ("a", "b")]
    outputs = [child.communicate(timeout=120)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    taken = sum(int(held) for held, _ in outputs)
    refused = sum(int(refused) for _, refused in outputs)
    assert (taken, refused) == (limit // amount, 2 * threads * tries - limit // amount)
    assert ledger.balance("all", "day", D0) == Balance(0, limit // amount * amount)
    assert ledger.balance("key:k1", "hour", H0) == Balance(0, limit // amount * amount)
    assert assert_chain_holds(ledger) == taken


def test_writes_on_different_scopes_in_opposite_order_dont_block_each_other(postgres_url: str) -> None:
    def settle(name: str, keys: tuple[str, str]) -> None:
        with_keys = PostgresLedger.open(postgres_url)
        for number in range(40):
            holds = [entry("reserved", f"{name}{key}{number}", key_id=key, reserved_nano=2) for key in keys]
            assert with_keys.commit([Write((hold,)) for hold in holds]) == [None, None]
            done = [hold._replace(kind="charged", reserved_nano=0, amount_nano=1) for hold in holds]
            assert with_keys.commit([Write((charge,)) for charge in done]) == [None, None]
        with_keys.close()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(settle, "a", ("k1", "k2")), pool.submit(settle, "b", ("k2", "k1"))]:
            done.result(120)
    check = PostgresLedger.open(postgres_url)
    assert check.balance("key:k1", "day", D0) == check.balance("key:k2", "day", D0) == Balance(80, 0)
    assert assert_chain_holds(check) == 320
    check.close()


def test_a_retried_reservation_is_not_refused_by_its_own_hold(ledger: PostgresLedger) -> None:
    hold = Write((entry("reserved", "r1", reserved_nano=80),), (Cap("all", "day", D0, 100),))
    assert ledger.commit((hold,)) == [None]
    assert ledger.commit((hold, Write((entry("charged", "r2", local=True),)))) == [None, None]
    assert ledger.balance("all", "day", D0) == Balance(0, 80)


def test_a_router_that_hangs_in_a_commit_holds_up_the_others_for_a_bounded_time(
    ledger: PostgresLedger, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url) as hanging:
        hanging.execute("SELECT pg_advisory_xact_lock(7310014835120411469)")
        with pytest.raises(LedgerUnavailableError, match="lock timeout"):
            ledger.append((entry("charged", "r1", amount_nano=1),))
    ledger.append((entry("charged", "r1", amount_nano=1),))
    assert ledger.balance("all", "day", D0) == Balance(1, 0)


# Connections that go away


def test_a_connection_that_died_unused_is_replaced_without_a_word(
    ledger: PostgresLedger, postgres: PostgresServer, postgres_url: str
) -> None:
    ledger.append((entry("charged", "r1", amount_nano=1),))
    assert requests_in(ledger, 0, T0 * 2) == 1
    assert ledger.keys.all() == ()
    assert drop_connections(postgres, postgres_url) == 3
    ledger.append((entry("charged", "r2", amount_nano=1),))
    assert requests_in(ledger, 0, T0 * 2) == 2
    assert ledger.keys.all() == ()


def test_a_commit_that_is_cut_off_says_so_and_may_be_repeated(
    ledger: PostgresLedger, postgres: PostgresServer, postgres_url: str
) -> None:
    write = Write((entry("reserved", "r1", reserved_nano=5),), (Cap("all", "day", D0, 8),))
    ledger.append((entry("charged", "r0", local=True),))
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND " + OURS
    with psycopg.connect(postgres_url) as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("SELECT pg_advisory_xact_lock(7310014835120411469)")
        cut = pool.submit(ledger.commit, (write,))
        for _ in range(2):  # the connection it had, and the one it made instead
            while not (waiters := postgres.execute(waiting, postgres_url)):
                assert not cut.done()
            postgres.execute(f"SELECT pg_terminate_backend({waiters[0][0]}, 5000)", postgres_url)
        with pytest.raises(LedgerUnavailableError):
            cut.result(30)
    assert ledger.balance("all", "day", D0) == Balance(0, 0)
    assert ledger.commit((write,)) == [None]
    assert ledger.commit((write,)) == [None]
    assert ledger.balance("all", "day", D0) == Balance(0, 5)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_server_that_is_down_is_told_and_found_again(
    ledger: PostgresLedger, postgres: PostgresServer, how: signal.Signals
) -> None:
    ledger.append((entry("charged", "r1", amount_nano=1),))
    revision = ledger.keys.revision()
    postgres.stop(how)
    try:
        calls: tuple[Callable[[], object], ...] = (
            lambda: ledger.append((entry("charged", "r2", amount_nano=1),)),
            ledger.probe,
            lambda: requests_in(ledger, 0, T0 * 2),
            ledger.keys.all,
            lambda: ledger.alive("router", T0),
        )
        for call in calls:
            with pytest.raises(LedgerUnavailableError, match="can't be used now"):
                call()
    finally:
        postgres.start()
    ledger.probe()
    ledger.append((entry("charged", "r2", amount_nano=1),))
    assert ledger.balance("all", "day", D0) == Balance(2, 0)
    assert ledger.keys.all() == ()
    assert_chain_holds(ledger)
    ledger._revision_watch.refresh()
    assert ledger.keys.revision() == revision


def test_every_acknowledged_row_survives_kill_9_of_its_router(postgres_url: str) -> None:
    outcome = kill9_trials(postgres_url, trials=8, seed=1)
    assert outcome.acknowledged > 100
    assert (outcome.lost, outcome.doubled) == (0, 0)
    ledger = PostgresLedger.open(postgres_url)
    assert assert_chain_holds(ledger) == outcome.stored
    ledger.close()


def test_a_closed_ledger_says_so(ledger: PostgresLedger) -> None:
    ledger.close()
    with pytest.raises(LedgerUnavailableError, match="closed"):
        ledger.append((entry("charged", "r1"),))


# The schema


def test_rows_can_be_neither_changed_nor_deleted(
    ledger: PostgresLedger, postgres: PostgresServer, postgres_url: str
) -> None:
    ledger.append((entry("charged", "r1", amount_nano=5),))
    for change in ("UPDATE entries SET amount_nano = 0", "DELETE FROM entries", "TRUNCATE entries"):
        with pytest.raises(psycopg.IntegrityError, match="append-only"):
            postgres.execute(change.replace("entries", "spillway.entries"), postgres_url)


def test_commits_are_synced_whatever_the_database_says(postgres: PostgresServer, postgres_url: str) -> None:
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    postgres.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    ledger = PostgresLedger.open(postgres_url)
    assert ledger._writer.run(lambda c: c.execute("SHOW synchronous_commit").fetchone()) == ("on",)
    ledger.append((entry("charged", "r1", amount_nano=1),))
    ledger.close()


def test_migrations_run_once_in_order_and_all_or_nothing(postgres_url: str) -> None:
    PostgresLedger.open(postgres_url).close()
    shipped = load_migrations(migrations_postgres.__name__)
    assert [m.number for m in shipped] == list(range(1, len(shipped) + 1))
    extra = Migration(9001, "extra", "CREATE TABLE extra (x integer)")
    broken = Migration(9002, "broken", "CREATE TABLE half (x integer); CREATE TABLE extra (x integer)")
    with pytest.raises(LedgerUnavailableError, match=r"extra.* already exists"):
        PostgresLedger.open(postgres_url, (*shipped, extra, broken))
    PostgresLedger.open(postgres_url, (*shipped, extra)).close()
    PostgresLedger.open(postgres_url, (*shipped, extra)).close()
    with pytest.raises(LedgerConfigError, match="newer Spillway"):
        PostgresLedger.open(postgres_url)


def test_routers_that_start_together_make_the_schema_once(postgres_url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        for opened in pool.map(PostgresLedger.open, [postgres_url] * 6):
            opened.append((entry("charged", "r1", amount_nano=1),))
            assert opened.balance("all", "day", D0) == Balance(1, 0)
            opened.close()


def test_a_user_without_rights_is_told_what_to_run(postgres: PostgresServer, postgres_url: str) -> None:
    postgres.execute("CREATE ROLE guest LOGIN")
    name = postgres_url.partition("?")[0].rpartition("/")[2]
    with pytest.raises(LedgerConfigError, match="CREATE SCHEMA spillway AUTHORIZATION guest"):
        PostgresLedger.open(postgres.url(name, "guest"))
    postgres.execute("CREATE SCHEMA spillway AUTHORIZATION guest", postgres_url)
    ledger = PostgresLedger.open(postgres.url(name, "guest"))
    ledger.append((entry("charged", "r1", amount_nano=1),))
    ledger.close()


def test_a_database_in_another_encoding_is_refused(postgres: PostgresServer) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(LedgerConfigError, match="ENCODING 'UTF8'"):
        PostgresLedger.open(postgres.url("latin"))


# URLs and passwords


def test_the_password_is_never_shown(postgres: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    secret = "hunter2/é@#"
    postgres.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
    folder = postgres.url("x").partition("host=")[2]
    bad = (
        postgres.url("postgres", "locked", secret),
        f"postgresql://locked:hunter2%@/postgres?host={folder}",
        f"postgresql://locked:hunter2@/postgres?host={folder}&nonsense=1",
        "postgresql://locked:hunter2@[::1/postgres",
        "postgresql://locked:hunter2@/",
        "postgresql://locked:hunter2/more@nowhere.invalid/postgres",
        "postgresql://locked:4/hunter2@nowhere.invalid/postgres",
        "postgresql://locked:hunter2@nowhere.invalid/postgres",
    )
    for url in bad:
        with pytest.raises((LedgerConfigError, LedgerUnavailableError)) as raised:
            open_ledger(url)
        shown = f"{raised.value} {raised.value!r} {raised.getrepr(style='native')}"
        assert "hunter2" not in shown, shown
    assert "hunter2" not in caplog.text
    opened = open_ledger(postgres.url("postgres", "postgres"))
    assert "hunter2" not in repr(opened)
    opened.close()


def test_a_right_password_opens(postgres: PostgresServer) -> None:
    postgres.execute("DROP ROLE IF EXISTS locked")
    postgres.execute("CREATE ROLE locked LOGIN PASSWORD 'p@ss/wörd#'")
    postgres.execute("CREATE DATABASE of_locked OWNER locked")
    ledger = open_ledger(postgres.url("of_locked", "locked", "p@ss/wörd#"))
    ledger.append((entry("charged", "r1", amount_nano=1),))
    ledger.close()


def test_a_missing_driver_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from spillway_router.ledger.store.open import open_ledger\n"
        "try: open_ledger('postgresql://u:hunter2@h/d')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert output.startswith("LedgerConfigError")
    assert "pip install '.[postgres]'" in output
    assert "hunter2" not in output


def test_a_revoked_key_of_another_router_is_noticed(ledger: PostgresLedger, reopen: Callable[[], Ledger]) -> None:
    other = reopen()
    new = KeyStore(other.keys).create(KeySpec("ann"), b"ann123", bytes(32), T0)
    before = ledger.keys.revision()
    assert other.keys.revoke(new.record.id, T0 + 1)
    deadline = time.monotonic() + 10
    while ledger.keys.revision() == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert ledger.keys.all()[0].revoked == T0 + 1


def test_nobody_waits_for_a_revision_that_cant_be_read() -> None:
    reads, third, released = iter(range(100)), Event(), Event()

    def read() -> int:
        number = next(reads)
        if number == 1:
            raise LedgerUnavailableError("the server is gone")
        if number == 2:
            third.set()
            released.wait(10)
        return number

    watch = RevisionWatch(read, every_s=0.001)
    assert watch.value() == 0
    assert third.wait(10)
    with pytest.raises(LedgerUnavailableError, match="gone"):
        watch.value()  # told at once, while the thread is still waiting for an answer
    released.set()
    watch.refresh()
    assert watch.value() >= 3
    watch.close()


def test_a_refusal_names_the_first_cap_that_is_full(ledger: PostgresLedger) -> None:
    caps = (Cap("all", "day", D0, 100), Cap("key:k1", "day", D0, 10))
    assert ledger.commit((Write((entry("reserved", "r1", reserved_nano=11),), caps),)) == [CapReached(caps[1], 0)]


async def test_the_server_says_that_a_jump_of_the_wall_clock_is_none(ledger: PostgresLedger) -> None:
    wall_s, jumps = time.time(), list[float]()
    sources = ClockSources(lambda: wall_s, time.monotonic)
    clock = SteadyClock(sources, None, ledger.server_s, jumps.append)
    wall_s += 86_400
    await clock.tend()
    assert abs(clock.now() - time.time()) < 5
    assert jumps == []

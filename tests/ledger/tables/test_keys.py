"""API keys: made once, stored as a hash, checked in constant time, revoked for every process."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.records import KeyRecord
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.tables.keys import KeyRing, KeySpec, KeySpecError, KeyStore, NewKey, mint

NEW = mint(KeySpec("ann"), b"\x01\x02\x03\x04\x05\x06", bytes(range(32)), 5)
RING = KeyRing([NEW.record])


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger.open(tmp_path / "spillway.db")
    yield opened
    opened.close()


def create(store: KeyStore, name: str) -> NewKey:
    return store.create(KeySpec(name), secrets.token_bytes(6), secrets.token_bytes(32), 1)


def test_a_token_shows_its_id_and_its_record_hides_its_secret() -> None:
    prefix, secret = NEW.token.rsplit("-", 1)
    assert prefix == "sk-spill-010203040506"
    assert bytes.fromhex(secret) == bytes(range(32))
    assert secret not in repr(NEW.record)
    assert RING.verify(NEW.token) == NEW.record


@given(st.text(max_size=300) | st.text(max_size=100).map(lambda text: "sk-spill-010203040506-" + text))
def test_nothing_but_the_token_opens(text: str) -> None:
    assert RING.verify(text) is None


@given(st.integers(0, len(NEW.token) - 1), st.characters())
def test_one_wrong_character_is_enough(at: int, character: str) -> None:
    token = NEW.token[:at] + character + NEW.token[at + 1 :]
    assert (RING.verify(token) is not None) == (token == NEW.token)


def test_a_token_that_was_right_once_expires_as_it_did_before() -> None:
    now = [1.0]
    expiring = mint(KeySpec("ann", expires=2_000), bytes(6), bytes(range(32)), 5)
    ring = KeyRing([expiring.record])
    assert ring.verify(expiring.token, lambda: now[0]) == expiring.record
    assert ring.verify(expiring.token, lambda: now[0]) == expiring.record
    now[0] = 2.0
    assert ring.verify(expiring.token, lambda: now[0]) is None


def test_a_rotated_token_works_until_its_time_however_often_it_was_used() -> None:
    now = [1.0]
    rotated = replace(NEW.record, secret_sha256=bytes(32), old_sha256=NEW.record.secret_sha256, old_until=2_000)
    ring = KeyRing([rotated])
    assert ring.verify(NEW.token, lambda: now[0]) == rotated
    now[0] = 2.0
    assert ring.verify(NEW.token, lambda: now[0]) is None


def test_an_all_zero_digest_does_not_open_for_unknown_ids() -> None:
    assert KeyRing([]).verify(NEW.token) is None
    assert len(KeyRing([])) == 0


def test_a_new_key_works_at_once_and_a_revoked_one_stops(ledger: SqliteLedger) -> None:
    store = KeyStore(ledger.keys)
    assert store.verify(NEW.token, 0.0) is None
    new = create(store, "ann")
    assert store.verify(new.token, 0.0) == new.record
    assert store.revoke(new.record.id, 9)
    assert store.verify(new.token, 0.0) is None
    assert not store.revoke(new.record.id, 9)
    assert [key.revoked for key in store.list()] == [9]


def test_changes_by_another_process_count_after_the_interval(ledger: SqliteLedger) -> None:
    store = KeyStore(ledger.keys, every_s=1.0)
    assert len(store.ring(100.0)) == 0
    other = SqliteLedger.open(ledger.path)
    new = create(KeyStore(other.keys), "bob")
    assert store.verify(new.token, 100.5) is None
    assert store.verify(new.token, 101.0) == new.record
    other.keys.revoke(new.record.id, 3)
    assert store.verify(new.token, 102.0) is None
    other.close()


def test_an_unreadable_database_keeps_the_keys_that_are_known(ledger: SqliteLedger) -> None:
    store = KeyStore(ledger.keys)
    new = create(store, "ann")
    assert store.verify(new.token, 1.0) == new.record
    ledger.close()
    assert store.verify(new.token, 5.0) == new.record
    with pytest.raises(LedgerUnavailableError):
        KeyStore(ledger.keys).ring(1.0)


def test_the_snapshot_is_read_again_only_when_keys_changed(ledger: SqliteLedger) -> None:
    store = KeyStore(ledger.keys)
    create(store, "ann")
    ring = store.ring(1.0)
    ledger.probe()
    assert store.ring(10.0) is ring


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (KeySpec("x", role="root"), "inference, viewer or admin"),  # type: ignore[arg-type]
        (KeySpec("x", privacy="none"), "any or local-only"),  # type: ignore[arg-type]
        (KeySpec(""), "needs a name"),
        (KeySpec("x" * 101), "at most 100"),
        (KeySpec("two\nlines"), "printable"),
        (KeySpec("x", tier="\x1b[2J"), "tier must be printable"),
    ],
)
def test_a_bad_wish_says_what_to_change(spec: KeySpec, message: str) -> None:
    with pytest.raises(KeySpecError, match=message):
        mint(spec, bytes(6), bytes(32), 0)


def test_too_little_randomness_is_refused() -> None:
    with pytest.raises(KeySpecError, match="random bytes"):
        mint(KeySpec("x"), bytes(6), b"short", 0)


def test_records_carry_no_token() -> None:
    assert not {"token", "key", "secret"} & set(KeyRecord.__slots__)

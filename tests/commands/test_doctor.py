"""`spillway doctor` says who can reach the router, and whether they need a key."""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path

import pytest

from spillway_router.commands.doctor import access_checks
from spillway_router.config import running_proxies
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.tables.keys import KeySpec, KeyStore


def seen(folder: Path, text: str) -> list[tuple[str, str]]:
    path = folder / "spillway.yaml"
    path.write_text(f"ledger: {{url: 'sqlite:///{folder / 'ledger.db'}'}}\n{text}")
    return [(str(check.verdict), check.seen) for check in access_checks(str(path))]


def test_doctor_warns_of_a_public_address_and_of_missing_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_proxies, "running_proxies", list)
    assert seen(tmp_path, "") == [("ok", "127.0.0.1:8080; programs on this machine need no key")]
    (public, _), (without, said) = seen(tmp_path, "listen: 0.0.0.0:8080\n")
    assert (public, without) == ("warn", "warn")
    assert "there is none" in said
    assert seen(tmp_path, "keys: {required: true}\n")[0][0] == "warn"
    assert not (tmp_path / "ledger.db").exists()
    with closing(SqliteLedger.open(tmp_path / "ledger.db")) as ledger:
        store = KeyStore(ledger.keys)
        expired = store.create(KeySpec("old", expires=1), secrets.token_bytes(6), secrets.token_bytes(32), 0)
        assert seen(tmp_path, "keys: {required: true}\n")[0][0] == "warn"
        assert store.revoke(expired.record.id, 1)
        store.create(KeySpec("ann"), secrets.token_bytes(6), secrets.token_bytes(32), 0)
        assert seen(tmp_path, "keys: {required: true}\n") == [("ok", "127.0.0.1:8080; every request needs a key")]
        assert [verdict for verdict, _ in seen(tmp_path, "listen: 0.0.0.0:8080\n")] == ["warn"]


def test_doctor_names_a_proxy_and_a_file_that_it_can_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_proxies, "running_proxies", lambda: ["caddy"])
    ((verdict, said),) = seen(tmp_path, "")
    assert (verdict, said) == ("warn", "caddy runs on this machine")
    assert seen(tmp_path, "listen: [\n")[0][0] == "warn"

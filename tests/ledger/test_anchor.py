"""The head of the chain, noted outside of the ledger."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.ledger.helpers import T0, WAIT_S, entry, tamper
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.ledger.anchor import AnchoredHead, AnchorPlaces, LedgerAnchor, append_head, last_heads
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing import MemoryLedger


def verified(folder: Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["ledger", "verify", "--config", str(folder / "spillway.yaml")])
    return result.exit_code, result.stdout


async def test_heads_are_noted_when_rows_were_added_and_at_the_stop(tmp_path: Path) -> None:
    ledger, posted = MemoryLedger(), list[AnchoredHead]()
    file = tmp_path / "anchors" / "heads.jsonl"
    anchor = LedgerAnchor(ledger, AnchorPlaces(file, posted.append), 3600, lambda: T0 / 1000)
    await anchor.anchor()
    assert posted == []
    ledger.append((entry("charged", "r1"),))
    for _ in range(2):
        await anchor.anchor()
    assert [(head.rows, head.head, head.at) for head in posted] == [(1, ledger.head()[1].hex(), "2026-09-21T14:13:20Z")]
    ledger.append((entry("charged", "r2"),))
    async with asyncio.timeout(WAIT_S):
        anchor.start()
        await anchor.stop()
        await anchor.stop()
    assert [json.loads(line)["rows"] for line in file.read_text().splitlines()] == [1, 2]
    assert last_heads(file) == (ledger.head()[1].hex(), "")
    assert file.stat().st_mode & 0o077 == 0


async def test_a_place_that_fails_gets_the_head_the_next_time(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    ledger.append((entry("charged", "r1"),))
    (tmp_path / "file").write_text("not a folder")
    anchor = LedgerAnchor(ledger, AnchorPlaces(tmp_path / "file" / "heads.jsonl"), 3600, lambda: 0)
    with pytest.raises(OSError, match="file"):
        await anchor.anchor()
    (tmp_path / "file").unlink()
    await anchor.anchor()
    assert last_heads(tmp_path / "file" / "heads.jsonl") == (ledger.head()[1].hex(), "")


def test_verify_knows_by_the_anchor_that_rows_were_cut_off(tmp_path: Path) -> None:
    path, file = tmp_path / "ledger.db", tmp_path / "heads.jsonl"
    (tmp_path / "spillway.yaml").write_text(f"ledger: {{url: 'sqlite:///{path}', anchor: {{file: heads.jsonl}}}}\n")
    ledger = SqliteLedger.open(path)
    ledger.append([entry("charged", f"r{number}", local=True) for number in range(3)])
    rows, link = ledger.head()
    ledger.close()
    assert verified(tmp_path)[0] == 0, "nothing is anchored yet"
    append_head(file, AnchoredHead("2026-09-21T14:13:20Z", str(path), rows, link.hex()))
    with file.open("a") as torn:
        torn.write('{"at": "2026-')
    assert verified(tmp_path)[0] == 0
    tamper(path, "DELETE FROM entries WHERE seq = 3")
    code, out = verified(tmp_path)
    assert code == 1
    assert f"doesn't contain the noted head {link.hex()}" in out


async def test_verify_knows_by_the_anchor_that_acts_were_cut_off(tmp_path: Path) -> None:
    path, file = tmp_path / "ledger.db", tmp_path / "heads.jsonl"
    (tmp_path / "spillway.yaml").write_text(f"ledger: {{url: 'sqlite:///{path}', anchor: {{file: heads.jsonl}}}}\n")
    ledger = SqliteLedger.open(path)
    KeyStore(ledger.keys).create(KeySpec("ann"), b"ann123", bytes(range(32)), T0)
    anchor = LedgerAnchor(ledger, AnchorPlaces(file), 3600, lambda: T0 / 1000)
    await anchor.anchor()
    await anchor.anchor()
    (act,) = ledger.acts.all()
    ledger.close()
    assert [json.loads(line)["acts"] for line in file.read_text().splitlines()] == [1]
    assert verified(tmp_path)[0] == 0
    tamper(path, "DELETE FROM acts", "DELETE FROM api_keys")
    code, out = verified(tmp_path)
    assert code == 1
    assert f"the noted act {act.link.hex()} is not there" in out

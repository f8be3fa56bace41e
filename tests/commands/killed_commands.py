"""Kill `ledger reconcile` and `prices update` at each of their steps on files and in the database, in processes of
their own; print a line for each end.

    python -m tests.commands.killed_commands FOLDER COMMAND [URL]

Each step has books of its own: a file, or a new database beside that of the URL.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import apsw
import psycopg
from tests.ledger.helpers import DAY, T0, entry

from spillway_router.cli import app
from spillway_router.ledger.orphans import unknown_charge
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.verify import verify

STEPS = ("os.rename", "os.link", "os.remove", "os.mkdir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
READING = ("SELECT", "WITH", "PRAGMA", "SET")
CALLS = 300
"""More than one commit of a reconciliation takes."""


def killed_at(step: int, command: list[str]) -> bool:
    """Run a command in a process that is killed before its so many-th step; return whether it ended before that."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    steps = count(1)

    def look() -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def look_at_statement(_cursor: object, sql: str, _values: object) -> bool:
        if not sql.lstrip().startswith(READING):
            look()
        return True

    def look_and_end(transaction: psycopg.Transaction, *error: Any) -> Any:
        look()
        return end(transaction, *error)

    def look_at_event(event: str, arguments: tuple[Any, ...]) -> None:
        if event in STEPS or (event == "open" and arguments[2] & WRITING):
            look()

    # In PostgreSQL only the ends of transactions are steps: what was done before one is undone.
    end = psycopg.Transaction.__exit__
    psycopg.Transaction.__exit__ = look_and_end  # type: ignore[method-assign]
    apsw.connection_hooks.append(lambda connection: connection.set_exec_trace(look_at_statement))
    sys.addaudithook(look_at_event)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    run(command)
    os._exit(0)


def run(command: list[str]) -> None:
    """Run a command of spillway, which must end without an error."""
    assert not app(command, standalone_mode=False)


def books_of(folder: Path, step: int, server: str) -> str:
    """Return the URL of a new ledger: of a file in the folder, or of a database on the server of this URL."""
    if not server:
        return f"sqlite:///{folder / 'ledger.db'}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE killed{step}".encode())
    return urlsplit(server)._replace(path=f"/killed{step}").geturl()


def try_reconcile(folder: Path, step: int, server: str) -> bool:
    """Kill a reconciliation of calls and days. Each call and each day is corrected as a whole or not at all, and the
    next run completes the books and says in the acts what it was."""
    url, bill, config = books_of(folder, step, server), folder / "bill.jsonl", folder / "spillway.yaml"
    config.write_text(f"ledger: {{url: '{url}'}}\n")
    holds = [entry("reserved", f"r{n}", reserved_nano=1000 + n) for n in range(CALLS)]
    holds += [entry("reserved", f"b{n}", ts=T0 + DAY, reserved_nano=5000, backend=f"b{n}") for n in range(4)]
    with closing(open_ledger(url)) as ledger:
        ledger.append(holds)
        ledger.append([unknown_charge(hold) for hold in holds])
    calls: list[dict[str, Any]] = [{"request_id": f"r{n}", "cost_nano": n} for n in range(CALLS)]
    days = [{"day": "2026-09-22", "backend": f"b{n}", "cost_usd": f"0.00000{n}"} for n in range(4)]
    bill.write_text("\n".join(map(json.dumps, calls + days)))
    command = ["ledger", "reconcile", str(bill), "-c", str(config)]
    ended = killed_at(step, command)
    rows, _, acts = books(url)
    corrected = {request for request, _, kind, _, _ in rows if kind == "adjusted"}
    print("reconcile", "act" if acts else {0: "none", CALLS + 4: "all rows"}.get(len(corrected), "some"))
    run(command)
    rows, balances, acts = books(url)
    run(command)
    assert books(url) == (rows, balances, acts)
    assert acts == ["ledger.reconcile"], acts
    charged = {f"r{n}": n for n in range(CALLS)}
    assert {n: sum(row[3] for row in rows if row[0] == n) for n in charged} == charged
    assert sum(row[3] for row in rows) == sum(charged.values()) + 1000 + 2000 + 3000
    assert not sum(row[4] for row in rows if row[0].startswith("r"))
    return ended


def books(url: str) -> tuple[list[tuple[Any, ...]], object, list[str]]:
    """Return the rows, the balances and the acts of a ledger, which has no fault."""
    with closing(open_ledger(url, "read")) as ledger:
        verification = verify(ledger)
        assert verification.holds, verification.faults
        rows = [(*row.key, row.amount_nano, row.at_most_nano) for row in ledger.entries_between(0, 2**62)]
        rows = [row for row in rows if row[2] != "reserved"]
        return rows, ledger.balances(), [one.act.kind for one in ledger.acts.all()]


def try_update(folder: Path, step: int, _server: str) -> bool:
    """Kill an update of prices, which opens no ledger. The list is the old or the new one, and the next run leaves the
    new one alone."""
    config, prices, new_source = folder / "spillway.yaml", folder / "prices.json", folder / "2.json"
    config.write_text("prices: {file: prices.json}\n")
    old, new = lists_before_and_after(folder.parent / "lists")
    new_source.write_text(json.dumps(price_list("2")))
    update = ["prices", "update", str(new_source), "--yes", "-c", str(config)]
    prices.write_bytes(old)
    ended = killed_at(step, update)
    assert prices.read_bytes() in (old, new)
    print("update", "old" if prices.read_bytes() == old else "new")
    run(update)
    assert prices.read_bytes() == new
    assert sorted(path.name for path in folder.iterdir()) == ["2.json", "prices.json", "spillway.yaml"]
    return ended


def price_list(price: str) -> dict[str, Any]:
    row = {"input": price, "output": price, "from": f"2026-0{price}-01"}
    return {"providers": {"groq": {"m": {"prices": [row]}}}}


def lists_before_and_after(folder: Path) -> tuple[bytes, bytes]:
    """Return the list before an update and the list that it writes if nobody kills it, made once in this folder."""
    prices, config = folder / "prices.json", folder / "spillway.yaml"
    if not folder.exists():
        folder.mkdir()
        config.write_text("prices: {file: prices.json}\n")
        for price in "12":
            source = folder / f"{price}.json"
            source.write_text(json.dumps(price_list(price)))
            run(["prices", "update", str(source), "--yes", "-c", str(config)])
            (folder / f"written-{price}").write_bytes(prices.read_bytes())
    return (folder / "written-1").read_bytes(), (folder / "written-2").read_bytes()


def main(folder: Path, attempt: Callable[[Path, int, str], bool], server: str = "") -> None:
    """Try each step of a command, until there is none left."""
    for step in count(1):
        place = folder / f"{attempt.__name__}-{step}"
        place.mkdir()
        if attempt(place, step, server):
            break


if __name__ == "__main__":
    main(Path(sys.argv[1]), globals()[sys.argv[2]], *sys.argv[3:])

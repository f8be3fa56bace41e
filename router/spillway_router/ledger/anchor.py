"""Anchoring: the head of the hash chain, noted outside of the ledger.

The chain shows changed, missing and added rows, but not that rows were cut off at its end, or that it was written anew
from some row on. Somebody who notes its head from time to time can tell: `verify` fails if the chain doesn't contain
the last head that was noted.

    {"at": "2026-11-29T12:00:00Z", "ledger": "/var/lib/spillway/data/spillway.db", "rows": 213749, "head": "2f0433..."}
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from spillway_router.aio.periodic import Periodic, Rhythm
from spillway_router.ledger.calls import LEDGER_CALLS
from spillway_router.ledger.interface import Ledger

log = logging.getLogger("spillway")


@dataclass(frozen=True, slots=True)
class AnchoredHead:
    """The heads of a ledger at one time: how many rows and acts (tables/acts.py) it had, and the link of the last one
    of each in hex."""

    at: str
    ledger: str
    rows: int
    head: str
    acts: int = 0
    acts_head: str = ""


@dataclass(frozen=True, slots=True)
class AnchorPlaces:
    """Where heads are noted: a file of JSON lines, and a function that is called with each head. None: not there."""

    file: Path | None = None
    post: Callable[[AnchoredHead], None] | None = None


class LedgerAnchor:
    """Notes the head of the chain every so many seconds if rows were added, and once more at the stop.

    `wall` returns epoch seconds.
    """

    def __init__(self, ledger: Ledger, places: AnchorPlaces, every_s: float, wall: Callable[[], float]) -> None:
        self._ledger = ledger
        self._places = places
        self._wall = wall
        self._noted = (0, 0)
        self._periodic = Periodic("ledger anchor", Rhythm(every_s), self.anchor, self._log_error)

    def start(self) -> None:
        """Start to note heads, if there is a place for them."""
        if self._places.file is not None or self._places.post is not None:
            self._periodic.start()

    async def stop(self) -> None:
        """Stop, and note the last head; harmless when it was not started."""
        if self._periodic.is_running:
            await self._periodic.stop()
            await self.anchor()

    async def anchor(self) -> None:
        """Note the heads if rows or acts were added. Raises LedgerError or OSError; the same heads are tried again next
        time."""
        rows, link = await LEDGER_CALLS.run(self._ledger.head)
        acts = await LEDGER_CALLS.run(self._ledger.acts.all)
        if (rows, len(acts)) == self._noted:
            return
        at = datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        head = AnchoredHead(at=at, ledger=self._ledger.name, rows=rows, head=link.hex() if rows else "")
        if acts:
            head = replace(head, acts=len(acts), acts_head=acts[-1].link.hex())
        if self._places.file is not None:
            await LEDGER_CALLS.run(append_head, self._places.file, head)
        if self._places.post is not None:
            self._places.post(head)
        self._noted = (rows, len(acts))

    @staticmethod
    def _log_error(error: Exception) -> None:
        log.error("the head of the ledger can't be anchored: %s", error)


def append_head(file: Path, head: AnchoredHead) -> None:
    """Append a head to a file of JSON lines, durably. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, json.dumps(asdict(head)).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def last_heads(file: Path) -> tuple[str, str]:
    """Return the heads of the rows and of the acts in the last whole line of a file, empty texts if there is no such
    file or line.

    Raises OSError for a file that can't be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return "", ""
    for line in reversed(lines):
        try:
            noted = json.loads(line)
            return str(noted["head"]), str(noted.get("acts_head", ""))
        except (ValueError, KeyError, TypeError):
            continue  # a line that a full disk or a crash cut off
    return "", ""

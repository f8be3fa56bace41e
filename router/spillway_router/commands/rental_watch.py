"""Ask the providers of rented machines, and let the rentals in the ledger follow what they say.

`spillway rentals watch` does it on request, and a router in the background. A provider that doesn't answer changes
nothing: a rental only ends because its provider said so.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spillway_router.commands.common import now_ms, when

if TYPE_CHECKING:
    from spillway_router.config.load import Loaded
    from spillway_router.deploy.machines import Inspector
    from spillway_router.ledger.interface import Ledger
    from spillway_router.ledger.records import RentalRecord
    from spillway_router.ledger.rentals.watch import RentalChange, Sighting

log = logging.getLogger("spillway")

RUNPOD_URL_VARIABLE = "RUNPOD_API_URL"
"""The variable with another base URL of RunPod's API, for tests and proxies."""
MOST_MACHINES = 100
"""The machines of one provider that one look asks about, those that were rented last."""
JITTER = 0.2
"""The share by which an interval varies, so that many routers don't ask at once."""
LONGEST_S = 3600.0
"""The longest pause after a provider failed to answer again and again."""


@dataclass(frozen=True, slots=True)
class WatchOutcome:
    """What one look changed, the machines that it asked about, and the providers that did not answer."""

    changes: tuple[RentalChange, ...]
    machines: int
    errors: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the outcome as text, a line each."""
        changes = [f"{c.act} {c.rental_id} ({c.machine}) at {when(c.at_ms)}: {c.why}" for c in self.changes]
        return [*changes, *self.errors, f"{self.machines} machines asked about, {len(self.changes)} changes"]


def inspector_of(target: str, environment: Mapping[str, str]) -> Inspector | None:
    """Return who asks a target about its machines; None where the target can't be asked, or its key is missing."""
    from spillway_router.deploy import TARGETS, machines
    from spillway_router.deploy.perform import Shell
    from spillway_router.deploy.runpod_api import BASE_URL, RunPodClient

    variable = TARGETS[target].key_variable if target in TARGETS else ""
    if variable and not environment.get(variable):
        return None
    shell = Shell(environment, machines.LOOK_TIMEOUT_S)
    if target == "runpod":
        base_url = environment.get(RUNPOD_URL_VARIABLE, BASE_URL)
        return machines.RunPodInspector(RunPodClient(environment[variable], base_url, machines.LOOK_TIMEOUT_S))
    if target == "vast":
        return machines.VastInspector(shell)
    if target == "kubernetes":
        return machines.KubernetesInspector(shell)
    if target == "sky":
        return machines.SkyInspector(shell)
    return machines.AwsInspector(shell) if target == "aws" else None


class RentalWatch:
    """Looks at the machines of one ledger. `look` may be called from any thread, one at a time."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._stopping = threading.Event()

    def look(self) -> WatchOutcome:
        """Ask all providers once and settle the books. Errors of the ledger or a provider are part of the outcome."""
        from spillway_router.ledger.errors import LedgerError
        from spillway_router.ledger.store.open import open_ledger

        try:
            ledger = open_ledger(self._loaded.settings.ledger.url, "write")
        except LedgerError as error:
            return WatchOutcome((), 0, (f"ledger: {error}",))
        try:
            return self._look(ledger)
        except LedgerError as error:
            return WatchOutcome((), 0, (f"ledger: {error}",))
        finally:
            ledger.close()

    def wait(self, seconds: float) -> bool:
        """Wait about so long; return whether the watch goes on."""
        spread = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - a jitter is no secret
        return not self._stopping.wait(seconds * spread)

    async def run(self) -> None:
        """Look every `gpu.watch_minutes` until cancelled, on a thread that doesn't delay the end of the process."""
        every_s = self._loaded.settings.gpu.watch_minutes * 60
        if not every_s:
            return
        threading.Thread(target=self._run, args=(every_s,), name="rental-watch", daemon=True).start()
        try:
            await asyncio.Event().wait()
        finally:
            self._stopping.set()

    def _run(self, every_s: float) -> None:
        pause_s = every_s
        while self.wait(pause_s):
            outcome = self.look()
            for change in outcome.changes:
                log.warning("%s", WatchOutcome((change,), 0, ()).lines()[0])
            for error in outcome.errors:
                log.warning("a rented machine could not be looked at: %s", error)
            pause_s = min(max(every_s, LONGEST_S), pause_s * 2) if outcome.errors else every_s

    def _look(self, ledger: Ledger) -> WatchOutcome:
        from spillway_router.ledger.rentals.keeper import Books
        from spillway_router.ledger.rentals.watch import followed

        now = now_ms()
        records = followed(ledger, now)
        if not records:
            return WatchOutcome((), 0, ())
        from spillway_router.deploy.order import DeployError  # not before: it brings all targets, 1 MB of memory

        changes: list[RentalChange] = []
        errors: list[str] = []
        asked = 0
        for source in sorted({record.source for record in records}):
            mine = [record for record in records if record.source == source][-MOST_MACHINES:]
            inspector = inspector_of(source, self._loaded.environment)
            if inspector is None:
                continue
            asked += len(mine)
            try:
                changes += _follow_all(ledger, mine, inspector)
            except DeployError as error:
                errors.append(f"{source}: {error}")
        Books(ledger).settle(now_ms())
        return WatchOutcome(tuple(changes), asked, tuple(errors))


def _follow_all(ledger: Ledger, records: list[RentalRecord], inspector: Inspector) -> list[RentalChange]:
    """Ask about some machines of one provider, and follow what it says. Raises `DeployError`."""
    from spillway_router.ledger.rentals.watch import follow

    sightings: Mapping[str, Sighting] = inspector.look([record.machine for record in records])
    now = now_ms()
    return [
        change
        for record in records
        if record.machine in sightings
        for change in follow(ledger, record, sightings[record.machine], now)
    ]

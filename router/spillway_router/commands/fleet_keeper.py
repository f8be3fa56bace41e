"""Sets the number of GPUs again and again while a router runs: `fleet.every_s`.

The configuration is read anew each time, so that a changed cap or the kill switch holds from the next turn on, whatever
the router itself could make of the file. With `fleet.stop_file` the number also stays while that file is there: one
for people who can't edit the configuration. A turn that fails changes nothing and is repeated.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from spillway_router.commands.common import now_ms

if TYPE_CHECKING:
    from spillway_router.config.fleet_part import FleetPart
    from spillway_router.config.load import Loaded
    from spillway_router.core.fleet.scaler import ScalingDecision
    from spillway_router.replay.fleet_now import FleetSetup

log = logging.getLogger("spillway.fleet")

HISTORY_S = 7 * 86_400
IDLE_S = 60.0
"""The pause while the fleet is not set by the router."""
FLEET = "fleet"
"""The source of the rentals that follow the number."""


class FleetKeeper:
    """Keeps the fleet of one configuration. `look` may be called from any thread, one at a time."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._stopping = threading.Event()
        self._set: int | None = None
        self._told = ""

    async def run(self) -> None:
        """Look every `fleet.every_s` until cancelled, on a thread that doesn't delay the end of the process."""
        threading.Thread(target=self._run, name="fleet", daemon=True).start()
        try:
            await asyncio.Event().wait()
        finally:
            self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_s()):
            try:
                self.look()
            except Exception as error:  # the next turn may do better, and nobody would notice a thread that ended
                self._say(f"the number of GPUs stays as it is: {error}")

    def _pause_s(self) -> float:
        fleet = self._loaded.settings.fleet
        return fleet.every_s if fleet is not None and fleet.every_s else IDLE_S

    def look(self) -> int | None:
        """Decide once, and set the number if it is another one than the last; return what was set, None for nothing."""
        from spillway_router.config.load import ConfigError

        try:
            self._loaded = self._loaded.again()
        except ConfigError as error:
            self._say(f"the number of GPUs stays as it is, because the configuration has {len(error.problems)} errors")
            return None
        fleet = self._loaded.settings.fleet
        if fleet is None or not fleet.every_s:
            return None
        if fleet.stop or (fleet.stop_file is not None and fleet.stop_file.exists()):
            self._say("the kill switch is on: the number of GPUs stays as it is")
            self._set = None  # somebody else may set it meanwhile
            return None
        decision, setup = self._decide()
        if decision.target == self._set:
            return None
        return self._apply(fleet, decision, setup)

    def _decide(self) -> tuple[ScalingDecision, FleetSetup]:
        from spillway_router.ledger.store.open import open_ledger
        from spillway_router.replay.fleet_now import fleet_now, fleet_setup

        now_s = now_ms() // 1000
        setup = fleet_setup(self._loaded, datetime.fromtimestamp(now_s, UTC).date())
        ledger = open_ledger(self._loaded.settings.ledger.url, "read")
        try:
            return fleet_now(self._loaded, ledger, (now_s - HISTORY_S, now_s), setup, self._set).decision, setup
        finally:
            ledger.close()

    def _apply(self, fleet: FleetPart, decision: ScalingDecision, setup: FleetSetup) -> int | None:
        # Imported here, since most routers set no number, and an idle one has to be small.
        from spillway_router.commands.fleet_targets import FleetTargetError, order_for, set_number

        gpus = min(fleet.max, max(fleet.min, decision.target))
        try:
            set_number(order_for(fleet, gpus), self._loaded.environment, quiet=True)
        except FleetTargetError as error:
            self._say(f"the number of GPUs could not be set to {gpus}: {error}")
            return None
        self._set = gpus
        self._say(f"{gpus} GPUs: " + "; ".join(one.sentence() for one in decision.reasons))
        if fleet.rentals:
            self._book(gpus, setup)
        return gpus

    def _book(self, gpus: int, setup: FleetSetup) -> None:
        """Have the rentals of the fleet follow the number: GPU k is the machine `fleet-k`."""
        from spillway_router.ledger.rentals.declared import declare, end
        from spillway_router.ledger.rentals.keeper import RentalTerms
        from spillway_router.ledger.store.open import open_ledger

        now, gpu = now_ms(), self._loaded.settings.gpu
        nano = round(setup.terms.rent_nano_per_s * 3600)
        ledger = open_ledger(self._loaded.settings.ledger.url, "write")
        try:
            running = {
                one.machine: one
                for one in ledger.rentals.between(0, now + 1)
                if one.source == FLEET and one.stopped_ms is None
            }
            wanted = [f"{FLEET}-{number}" for number in range(1, gpus + 1)]
            end(ledger, [one for machine, one in running.items() if machine not in wanted], now, now)
            for machine in wanted:
                if machine not in running:
                    terms = RentalTerms(gpu.name or FLEET, 1, nano, gpu.kind, machine=machine)
                    declare(ledger, terms, FLEET, now, now)
        finally:
            ledger.close()

    def _say(self, text: str) -> None:
        """Log something once as long as it stays the same."""
        if text != self._told:
            self._told = text
            log.warning("%s", text)

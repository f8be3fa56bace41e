"""The router's time of day: it goes on with the monotonic clock, and does not follow a wall clock that jumps.

Budgets begin anew with a day. A wall clock that jumps a day ahead (a bad NTP answer, a machine that woke up with a
wrong time) must not hand out the next day's budget, and one that jumps back must not return the last one's. So the wall
clock is compared with the monotonic one every second. What differs by less than `STEP_S` is followed, as clocks drift.
A jump is reported, and followed only once it has lasted for `BELIEVED_S`, because then it is rather the first time that
was wrong.

The difference between both clocks is noted in a file with the id of the machine's boot, so that a restart does not
believe a jump either. With a ledger in PostgreSQL the time is the server's, so that all routers have one: it is asked
at the start, every minute, and before a jump of the wall clock means anything. A machine that booted with a wrong clock
and is put right later is no jump then.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spillway_router.aio.periodic import Periodic, Rhythm
from spillway_router.ledger.calls import LEDGER_CALLS
from spillway_router.ledger.errors import LedgerError

log = logging.getLogger("spillway")

TICK_S = 1.0
STEP_S = 2.0
"""The largest difference between two looks that counts as drift."""
ASK_EVERY_S = 60.0
ASK_WITHIN_S = STEP_S / 2
"""How long the ledger's server may take to tell its time, which is that much older when it is here."""
BELIEVED_S = 3600.0
PLAUSIBLE_S = 1_767_225_600.0
"""The start of 2026. A machine that says an earlier time has just booted without a clock, and any jump is believed."""
DRIFT = 0.001
"""How far a wall clock may drift per second while no router looks: twice what NTP corrects at most."""


@dataclass(frozen=True, slots=True)
class ClockSources:
    """The wall clock (epoch seconds), the monotonic clock, and the id of the machine's boot, to which the latter
    belongs; empty if it is not known."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    boot: str = ""


def system_sources() -> ClockSources:
    """Return the clocks of this machine."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return ClockSources(boot=boot)


class SteadyClock:
    """Epoch seconds that go on with the monotonic clock.

    `file` keeps the difference over restarts (None: it is not kept). `server_s` asks the ledger's server for its time,
    if it has one; it raises LedgerError where it can't. `on_jump` is called with the seconds by which the wall clock is
    ahead, once per jump.
    """

    def __init__(
        self,
        sources: ClockSources,
        file: Path | None = None,
        server_s: Callable[[], float | None] = lambda: None,
        on_jump: Callable[[float], None] = lambda _ahead_s: None,
    ) -> None:
        self._sources = sources
        self._file = file if sources.boot else None
        self.on_jump = on_jump
        self._monotonic = sources.monotonic
        now_s = sources.monotonic()
        told_s, wall_s = server_s(), sources.wall()
        self._ask_server = None if told_s is None else server_s
        self._asked_at_s = now_s
        self._skew_s = 0.0 if told_s is None or abs(told_s - wall_s) <= STEP_S else told_s - wall_s
        """What the ledger's server is ahead of this machine's wall clock."""
        self._offset_s = wall_s + self._skew_s - now_s
        self._jump_s = 0.0
        self._jumped_at_s = now_s
        self._kept_s: float | None = None
        before = None if self._ask_server is not None else self._noted(now_s)
        if before is not None:
            self._kept_s = self._offset_s = before

    def now(self) -> float:
        """Return epoch seconds."""
        return self._monotonic() + self._offset_s

    def look(self) -> None:
        """Compare the clocks, and follow the wall clock if it drifted or a jump has lasted."""
        now_s = self._monotonic()
        ahead_s = self._ahead_s(now_s)
        if abs(ahead_s) <= STEP_S or self.now() < PLAUSIBLE_S:
            self._offset_s += ahead_s
            self._jump_s = 0.0
        elif abs(ahead_s - self._jump_s) > STEP_S:  # a new one, or another one
            self._jump_s, self._jumped_at_s = ahead_s, now_s
            log.error(
                "the wall clock jumped by %+.0f s, which the monotonic clock does not confirm: budgets and rows stay "
                "with the time before for %.0f minutes; set the clock right",
                ahead_s,
                BELIEVED_S / 60,
            )
            self.on_jump(ahead_s)
        elif now_s - self._jumped_at_s >= BELIEVED_S:
            self._offset_s += ahead_s
            self._jump_s = 0.0
            log.warning("the wall clock is followed again, by %+.0f s", ahead_s)

    def _ahead_s(self, now_s: float) -> float:
        """Return by how much the wall clock, or the server's as far as it was asked, is ahead of this one."""
        return self._sources.wall() + self._skew_s - now_s - self._offset_s

    async def _hears(self, server_s: Callable[[], float | None]) -> bool:
        """Ask the ledger's server for its time where that is due; return whether the clocks can be compared now."""
        now_s = self._monotonic()
        if now_s - self._asked_at_s < ASK_EVERY_S and abs(self._ahead_s(now_s)) <= STEP_S:
            return True
        try:
            told_s = await LEDGER_CALLS.run(server_s, limit_s=ASK_WITHIN_S)
        except LedgerError as error:
            log.debug("the ledger's server doesn't tell its time: %s", error)
            return False
        wall_s, self._asked_at_s = self._sources.wall(), self._monotonic()
        if told_s is not None and abs(told_s - wall_s - self._skew_s) > STEP_S / 2:
            self._skew_s = told_s - wall_s
        return True

    async def tend(self) -> None:
        """Compare the clocks, and note the difference if it has changed."""
        if self._ask_server is not None and not await self._hears(self._ask_server):
            return
        self.look()
        if self._file is not None and (self._kept_s is None or abs(self._kept_s - self._offset_s) > STEP_S / 4):
            await LEDGER_CALLS.run(self._note, self._file, self._offset_s, self._monotonic())
            self._kept_s = self._offset_s

    def periodic(self) -> Periodic:
        """Return what looks every second."""
        return Periodic("clock", Rhythm(TICK_S), self.tend)

    def _noted(self, now_s: float) -> float | None:
        """Return the difference that was noted since this boot, if the wall clock has jumped from it."""
        try:
            noted = json.loads(self._file.read_bytes()) if self._file is not None else {}
            offset_s, at_s = float(noted["offset_s"]), float(noted["at_s"])
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if noted.get("boot") != self._sources.boot or not 0 <= at_s <= now_s or now_s + offset_s < PLAUSIBLE_S:
            return None
        is_drift = abs(offset_s - self._offset_s) <= STEP_S + DRIFT * (now_s - at_s)
        return None if is_drift else offset_s

    def _note(self, file: Path, offset_s: float, at_s: float) -> None:
        try:
            new = file.with_name(f"{file.name}.new")
            new.write_text(json.dumps({"boot": self._sources.boot, "offset_s": offset_s, "at_s": at_s}))
            new.replace(file)
        except OSError as error:
            log.debug("the clock is not noted in %s: %s", file, error)

"""When each local engine was out of the rotation, and why. These are values and counts; others report them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spillway_router.core.routing.model import Health


@dataclass(frozen=True, slots=True)
class EngineOutage:
    """A period in which an engine got no requests. `seconds` is None while it lasts."""

    engine: str
    reason: str
    number: int
    """Which outage of this engine it is, from 1 on."""
    seconds: float | None = None


class EngineOutages:
    """Follows the health of engines and calls `on_change` when one leaves the rotation and when it is back.

    An engine that is still starting has not left: an outage begins when one that was up no longer is, or when one that
    never came up is given up. `counts` and `seconds` sum up the outages by engine; an engine that had none has 0.
    """

    def __init__(self, on_change: Callable[[EngineOutage], None]) -> None:
        self._on_change = on_change
        self._was_up: set[str] = set()
        self._open: dict[str, tuple[EngineOutage, float]] = {}
        self.counts: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def see(self, engine: str, health: Health, reason: str, monotonic_s: float) -> None:
        """Take an engine's health at a time."""
        self.counts.setdefault(engine, 0)
        self.seconds.setdefault(engine, 0.0)
        current = self._open.get(engine)
        if health == "up":
            self._was_up.add(engine)
            if current is not None:
                del self._open[engine]
                outage, began_s = current
                seconds = max(0.0, monotonic_s - began_s)
                self.seconds[engine] += seconds
                self._on_change(EngineOutage(engine, outage.reason, outage.number, seconds))
        elif current is None and (engine in self._was_up or health == "down"):
            self.counts[engine] += 1
            outage = EngineOutage(engine, reason or health, self.counts[engine])
            self._open[engine] = (outage, monotonic_s)
            self._on_change(outage)

    def forget(self, engine: str) -> None:
        """Forget an engine that left the configuration."""
        self._was_up.discard(engine)
        self._open.pop(engine, None)

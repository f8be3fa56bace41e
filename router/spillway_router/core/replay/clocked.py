"""The modelled engine on a clock that only events move: iterations end at known moments, and requests come in between.

A request that comes during an iteration enters with the next one. Iterations in which nothing changes but that answers
grow are one event, which a request that comes in between cuts short.
"""

from __future__ import annotations

import math
from typing import Generic

from spillway_router.core.replay.engine import Completed, EngineModel, Request, SimulatedEngine


class ClockedEngine(Generic[Request]):
    """One engine. Call `complete` at `ends_s`, before anything later happens. Times are seconds of any one clock."""

    __slots__ = ("_began_s", "_coasts", "_engine", "ends_s")

    def __init__(self, model: EngineModel) -> None:
        self._engine: SimulatedEngine[Request] = SimulatedEngine(model)
        self._began_s = 0.0
        self._coasts = 0
        self.ends_s = math.inf
        """When what runs now ends; infinity while the engine is idle."""

    @property
    def busy_s(self) -> float:
        """For how long the engine has worked, what runs now included."""
        engine = self._engine
        return engine.busy_s + (engine.coasted_s(self._coasts) if self._coasts else 0.0)

    @property
    def kv_tokens(self) -> int:
        """The tokens in the KV cache after the last iteration that has ended or begun."""
        return self._engine.kv_tokens

    def submit(self, request: Request, now_s: float) -> None:
        """Put a request into the engine's queue. Raises ValueError if its prompt can never fit."""
        self._engine.submit(request)
        if self.ends_s == math.inf:
            self._begin(now_s)
        elif self._coasts:
            self._coasts = self._steps_until(now_s)
            self.ends_s = self._began_s + self._engine.coasted_s(self._coasts)

    def complete(self) -> Completed[Request]:
        """End what runs and begin what follows; return which requests got their first token and which are done."""
        now_s, engine = self.ends_s, self._engine
        if self._coasts:
            engine.coast(self._coasts)
            done: Completed[Request] = Completed()
        else:
            done = engine.complete()
        if engine.idle:
            self.ends_s, self._coasts = math.inf, 0
        else:
            self._begin(now_s)
        return done

    def _begin(self, now_s: float) -> None:
        engine = self._engine
        self._began_s, self._coasts = now_s, engine.coasting_steps()
        self.ends_s = now_s + (engine.coasted_s(self._coasts) if self._coasts else engine.begin().duration_s)

    def _steps_until(self, now_s: float) -> int:
        """Return the number of iterations of this coast that begin before `now_s`, at least one: by bisection."""
        fewest, most = 1, self._coasts
        while fewest < most:
            middle = (fewest + most) // 2
            if self._began_s + self._engine.coasted_s(middle) >= now_s:
                most = middle
            else:
                fewest = middle + 1
        return fewest

"""The requests that wait in the router for a local engine, so that the engine holds no more than keeps it busy.

An engine serves what it holds first come, first served. What waits here instead goes in turns between the callers
(core/routing/fair_queue.py), goes elsewhere when the engine leaves the rotation, and ends when it has waited for as
long as it may. While the engine has room a request passes without waiting, and nothing here is touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from spillway_router.core.routing.fair_queue import (
    ENGINE_WAIT_SHARE,
    LONGEST_WAIT_S,
    TICK_S,
    FairQueue,
    Work,
    behind,
    rank_of,
)
from spillway_router.core.routing.leaving import GateTerms
from spillway_router.core.routing.model import BackendSignals, Caller, Candidate
from spillway_router.signals.board import Board


@dataclass(frozen=True, slots=True)
class GateEntry:
    """What the gate must know of a request where what leaves is chosen by price.

    `density` is its price per GPU-second at the cloud. `first_token_by_s` is when its first token is due, in monotonic
    seconds; infinity if no cloud may have it, so that late is better than never. `needs_kv`: its answer is generated,
    and takes room in the KV cache.
    """

    density: float
    first_token_by_s: float
    needs_kv: bool


class _Waiting:
    """One request that waits. `turn` gets the candidate with today's prediction, or None if it waits no more."""

    __slots__ = ("at_gate", "candidate", "send_by_s", "turn", "until_s")

    def __init__(
        self,
        candidate: Candidate,
        turn: asyncio.Future[Candidate | None],
        *,
        until_s: float,
        send_by_s: float,
        at_gate: GateEntry | None,
    ) -> None:
        self.candidate, self.turn = candidate, turn
        self.until_s, self.send_by_s = until_s, send_by_s
        self.at_gate = at_gate


class LocalQueues:
    """The queues of all local backends. `clock` is monotonic seconds; `slo_ttft_s` returns the promised time."""

    def __init__(
        self,
        board: Board,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
        slo_ttft_s: Callable[[], float],
    ) -> None:
        self._board, self._clock, self._loop, self._slo_ttft_s = board, clock, loop, slo_ttft_s
        self._queues: dict[str, FairQueue[_Waiting]] = {}
        self._tick: asyncio.TimerHandle | None = None
        self.count = 0
        """How many requests wait, in all."""

    def lengths(self) -> dict[str, int]:
        """Return how many requests wait for each backend that has a queue."""
        return {name: len(queue) for name, queue in self._queues.items()}

    def with_waiting(self, name: str, signals: BackendSignals, caller: Caller) -> BackendSignals:
        """Return the signals of a backend with the work that goes before a new request of this caller."""
        queue, backlog = self._queues.get(name), signals.backlog
        if queue is None or backlog is None:
            return signals
        ahead = queue.ahead_of(caller.key_id, rank_of(caller.tier))
        return replace(signals, backlog=behind(backlog, ahead))

    async def enter(
        self, candidate: Candidate, caller: Caller, until_s: float, at_gate: GateEntry | None = None
    ) -> Candidate | None:
        """Wait for the turn of a request; None if it did not come until `until_s` or the engine left the rotation.

        `at_gate`: given where what leaves is chosen by price. The request then waits on the terms of the gate
        (core/routing/leaving.py), and denser ones of its caller go before it.

        Call `go_on` once the request has been sent. If it never is, the next one goes with the next tick.
        """
        name, now_s = candidate.backend.name, self._clock()
        queue = self._queues.get(name)
        if queue is None and self._has_room(candidate, now_s, at_gate):
            return self._as_now(candidate, now_s)
        if queue is None:
            queue = self._queues[name] = FairQueue()
        waiting = _Waiting(
            candidate,
            self._loop.create_future(),
            until_s=until_s,
            send_by_s=now_s + LONGEST_WAIT_S,
            at_gate=at_gate,
        )
        density = 0.0 if at_gate is None else at_gate.density
        work = Work(candidate.prompt_tokens, candidate.output_tokens, density=density)
        queue.put(caller.key_id, rank_of(caller.tier), waiting, work)
        self.count += 1
        if self._tick is None:
            self._tick = self._loop.call_later(TICK_S, self._on_tick)
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if waiting.turn.done() and not waiting.turn.cancelled():
                self.go_on(name)  # it had its turn, and leaves it to the next
            else:
                self._take_out(name, caller.key_id, waiting)
            raise

    def go_on(self, name: str) -> None:
        """Let the next request of a backend go if the engine has room, or all of them go elsewhere if it has left the
        rotation. Harmless without a queue."""
        queue = self._queues.get(name)
        if queue is None:
            return
        now_s = self._clock()
        is_up = self._board.is_up(name, now_s)
        while (waiting := queue.first()) is not None:
            if not is_up and not waiting.turn.done():
                waiting.turn.set_result(None)
            if waiting.turn.done():  # it waits no more
                queue.pop()
                self.count -= 1
                continue
            has_room = self._has_room(waiting.candidate, now_s, waiting.at_gate)
            if now_s < waiting.send_by_s and not has_room:
                break
            queue.pop()
            self.count -= 1
            waiting.turn.set_result(self._as_now(waiting.candidate, now_s))
            break  # the engine's backlog does not have it yet
        if not len(queue):
            del self._queues[name]

    def _take_out(self, name: str, caller: str, waiting: _Waiting) -> None:
        queue = self._queues.get(name)
        if queue is None:
            return
        before = len(queue)
        queue.remove(caller, waiting)
        self.count -= before - len(queue)
        if not len(queue):
            del self._queues[name]

    def _has_room(self, candidate: Candidate, now_s: float, at_gate: GateEntry | None) -> bool:
        name, prompt, output = candidate.backend.name, candidate.prompt_tokens, candidate.output_tokens
        slo_ttft_s = self._slo_ttft_s()
        wait_s = self._board.own_wait_s(name, prompt, output, now_s)
        if at_gate is None:
            return wait_s <= ENGINE_WAIT_SHARE * slo_ttft_s
        terms = GateTerms(slo_ttft_s)
        if wait_s > terms.engine_wait_share * slo_ttft_s:
            return False
        if at_gate.needs_kv and not self._board.has_kv_room(name, prompt, output, now_s, terms.kv_share_limit):
            return False
        ttft_s = self._board.predicted_ttft_s(name, prompt, output, now_s) or 0.0
        return now_s + ttft_s <= at_gate.first_token_by_s

    def _as_now(self, candidate: Candidate, now_s: float) -> Candidate:
        ttft_s = self._board.predicted_ttft_s(
            candidate.backend.name, candidate.prompt_tokens, candidate.output_tokens, now_s
        )
        return candidate if ttft_s is None else replace(candidate, ttft_s=ttft_s)

    def _on_tick(self) -> None:
        """End what has waited for too long or has nothing to wait for, and let others go."""
        self._tick = None
        now_s = self._clock()
        for name, queue in tuple(self._queues.items()):
            for waiting in queue:
                if not waiting.turn.done() and now_s >= waiting.until_s:
                    waiting.turn.set_result(None)
            self.go_on(name)
        if self._queues:
            self._tick = self._loop.call_later(TICK_S, self._on_tick)

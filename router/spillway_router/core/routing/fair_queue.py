"""The requests that wait for one local engine, in the order in which they may go: in turns between the callers.

Start-time fair queueing: each caller has a virtual time that moves on by the work of its requests, and the caller whose
time is least goes next. A caller who comes from a pause begins at the time of the others, so that nobody saves up. A
flood therefore waits behind itself, and a calm caller behind one request of each other caller at most. Callers of a
higher rank go before all others.

Who waits here and for how long is said by the constants below; proxy/exchange/local_queue.py waits by them, and so does
the model of it in core/replay.

Pure: no clock and no event loop. Entering and leaving take O(callers).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from spillway_router.core.routing.backlog import BacklogView

Item = TypeVar("Item")
ENGINE_WAIT_SHARE = 0.25
"""The share of the promised time to first token for which requests may wait inside the engine."""
TICK_S = 0.02
"""How often the engine is looked at while requests wait: prompts without a stream are read unseen."""
LONGEST_WAIT_S = 10.0
"""After this time a request goes to the engine in any case: its client must hear something within 15 s."""
FREE = "free"
"""The tier whose requests go after all others."""


def rank_of(tier: str) -> int:
    """Return the rank of a caller of a tier; a lower one goes first."""
    return 1 if tier == FREE else 0


@dataclass(frozen=True, slots=True)
class Work:
    """What requests ask of the engine, in tokens.

    `density` is what a cloud asks for it per GPU-second (leaving.py). Of one caller's requests the densest goes first;
    equal ones go in the order of arrival.
    """

    prompt_tokens: int = 0
    output_tokens: int = 0
    requests: int = 1
    density: float = 0.0

    @property
    def size(self) -> int:
        """Its size in one number. An output token takes its turn in a step; many prompt tokens are read in one."""
        return self.prompt_tokens + OUTPUT_WEIGHT * self.output_tokens + self.requests


OUTPUT_WEIGHT = 8


def behind(backlog: BacklogView, ahead: Work) -> BacklogView:
    """Return a backlog as it is for a request that waits behind more work."""
    return replace(
        backlog,
        in_flight=backlog.in_flight + ahead.requests,
        waiting_first_token=backlog.waiting_first_token + ahead.requests,
        prefill_tokens=backlog.prefill_tokens + ahead.prompt_tokens,
    )


@dataclass(slots=True)
class _Caller(Generic[Item]):
    """The waiting requests of one caller, their work, and its virtual time."""

    rank: int
    time: float
    items: deque[tuple[Item, Work]] = field(default_factory=deque)
    prompt_tokens: int = 0
    output_tokens: int = 0

    def count(self, work: Work, sign: int) -> None:
        """Count a request in (1) or out (-1)."""
        self.prompt_tokens += sign * work.prompt_tokens
        self.output_tokens += sign * work.output_tokens

    def work(self) -> Work:
        """Return the work of all its requests."""
        return Work(self.prompt_tokens, self.output_tokens, len(self.items))


class FairQueue(Generic[Item]):
    """The waiting requests. A lower rank goes first."""

    __slots__ = ("_callers", "_count", "_time")

    def __init__(self) -> None:
        self._callers: dict[str, _Caller[Item]] = {}
        self._time = 0.0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        return iter([item for entry in self._callers.values() for item, _ in entry.items])

    def put(self, caller: str, rank: int, item: Item, work: Work) -> None:
        """Add a request to its caller's, behind those that are as dense or denser."""
        entry = self._callers.get(caller)
        if entry is None:
            entry = self._callers[caller] = _Caller(rank, self._time)
        elif not entry.items:
            entry.time = max(entry.time, self._time)
        entry.rank = rank
        place = len(entry.items)
        while place and entry.items[place - 1][1].density < work.density:
            place -= 1
        entry.items.insert(place, (item, work))
        entry.count(work, 1)
        self._count += 1

    def first(self) -> Item | None:
        """Return the request whose turn it is; None if nobody waits."""
        entry = self._next()
        return None if entry is None else entry.items[0][0]

    def pop(self) -> Item:
        """Take out the request whose turn it is. Raises LookupError if nobody waits."""
        entry = self._next()
        if entry is None:
            raise LookupError("nobody waits")
        item, work = entry.items.popleft()
        entry.count(work, -1)
        self._count -= 1
        self._time = max(self._time, entry.time)
        entry.time += work.size
        self._forget()
        return item

    def remove(self, caller: str, item: Item) -> None:
        """Take out a request that waits no more. Harmless if it is gone."""
        entry = self._callers.get(caller)
        if entry is None:
            return
        for place, (other, work) in enumerate(entry.items):
            if other is item:
                del entry.items[place]
                entry.count(work, -1)
                self._count -= 1
                break
        self._forget()

    def ahead_of(self, caller: str, rank: int) -> Work:
        """Return the work that goes before a new request of this caller: all of its own, as much of each other one of
        its rank as has its turn before, and all of the ranks before its own."""
        own = self._callers.get(caller)
        waiting = Work(requests=0) if own is None else own.work()
        turn = (self._time if own is None else max(own.time, self._time)) + waiting.size
        prompt_tokens, output_tokens, requests = waiting.prompt_tokens, waiting.output_tokens, waiting.requests
        for entry in self._callers.values():
            if entry is own or entry.rank > rank:
                continue
            before = entry.work() if entry.rank < rank else _until(entry, turn)
            prompt_tokens += before.prompt_tokens
            output_tokens += before.output_tokens
            requests += before.requests
        return Work(prompt_tokens, output_tokens, requests)

    def _next(self) -> _Caller[Item] | None:
        best: _Caller[Item] | None = None
        for entry in self._callers.values():
            if entry.items and (best is None or (entry.rank, entry.time) < (best.rank, best.time)):
                best = entry
        return best

    def _forget(self) -> None:
        """Forget callers who neither wait nor are ahead of the others."""
        if not self._count:
            self._callers.clear()
            return
        gone = [name for name, entry in self._callers.items() if not entry.items and entry.time <= self._time]
        for name in gone:
            del self._callers[name]


def _until(entry: _Caller[Any], turn: float) -> Work:
    """Return the work of a caller's requests whose turn comes before this virtual time."""
    time, prompt_tokens, output_tokens, requests = entry.time, 0, 0, 0
    for _, work in entry.items:
        if time > turn:
            break
        time += work.size
        prompt_tokens += work.prompt_tokens
        output_tokens += work.output_tokens
        requests += 1
    return Work(prompt_tokens, output_tokens, requests)

"""What the router remembers between requests, all of it bounded and gone with the process.

    sessions   by `x-session-id`: whether anything private was said in it, and which local backend holds its prefix
    retained   whole requests for "answer again one tier up", only where `retention` is switched on, never private ones
    once       by `idempotency-key`: which body it came with, whether it is in progress, and how it ended

Keys are told apart by the caller's API key, so that nobody reaches what another one left.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import field
from hashlib import sha256

from spillway_router.core.frozen import dataclass
from spillway_router.core.routing.model import Endpoint, PrivacyVerdict, Refusal, RequestFacts

SESSION_S = 3600.0
"""A session that was silent for so long is forgotten."""
MOST_SESSIONS = 20_000
ONCE_S = 600.0
"""How long a finished request keeps its idempotency key."""
MOST_ONCE = 20_000
MOST_RETAINED_BYTES = 64 * 1024 * 1024
MOST_KEY = 256

Owner = tuple[str, str]
"""Id of the API key, and the name that its user chose."""


@dataclass(slots=True)
class _Session:
    seen: float
    private: tuple[str, ...] = ()
    backend: str = ""


class Sessions:
    """Sticky privacy and prefix affinity. A session once private stays so until it was silent for SESSION_S. Private
    ones are kept apart: however many others are open, they push none of them out."""

    def __init__(self) -> None:
        self._known: OrderedDict[Owner, _Session] = OrderedDict()
        self._private: OrderedDict[Owner, _Session] = OrderedDict()

    def verdict(self, owner: Owner, verdict: PrivacyVerdict, now: float) -> PrivacyVerdict:
        """The request's privacy in its session; `now` is monotonic seconds."""
        session = self._private.get(owner)
        if session is not None and now - session.seen > SESSION_S:
            session = None
        if session is None and verdict.may_leave:
            return verdict
        if session is None:
            session = self._known.pop(owner, None) or _Session(now)
            self._private[owner] = session
        session.seen = now
        self._private.move_to_end(owner)
        while len(self._private) > MOST_SESSIONS:
            self._private.popitem(last=False)
        return verdict if not verdict.may_leave else PrivacyVerdict(False, ("session",))

    def backend(self, owner: Owner, now: float) -> str:
        """The local backend that answered last; "" if none is known."""
        session = self._private.get(owner) or self._known.get(owner)
        return session.backend if session is not None and now - session.seen <= SESSION_S else ""

    def answered(self, owner: Owner, backend: str, now: float) -> None:
        """A local backend answered: it holds the session's prefix now."""
        session = self._private.get(owner)
        if session is None:
            session = self._known.setdefault(owner, _Session(now))
            self._known.move_to_end(owner)
            while len(self._known) > MOST_SESSIONS:
                self._known.popitem(last=False)
        session.seen, session.backend = now, backend


@dataclass(frozen=True, slots=True)
class RetainedRequest:
    """A request as it came, to be asked again. `until`: monotonic seconds."""

    endpoint: Endpoint
    key_id: str
    headers: Mapping[str, str]
    body: bytes
    until: float


def _never() -> float:
    return 0.0


class Retained:
    """The latest requests, for `minutes` each and MOST_RETAINED_BYTES in all, oldest forgotten first."""

    def __init__(self, minutes: Callable[[], float] = _never, most_bytes: int = MOST_RETAINED_BYTES) -> None:
        self._minutes = minutes
        self._most = most_bytes
        self._size = 0
        self._known: OrderedDict[str, RetainedRequest] = OrderedDict()

    @property
    def on(self) -> bool:
        """True if requests are kept."""
        return self._minutes() > 0

    def keep(self, request_id: str, request: RetainedRequest) -> None:
        """Keep one; what is too old or too much goes."""
        self._drop_old(request.until - 60 * self._minutes())
        self._known[request_id] = request
        self._size += len(request.body)
        while self._size > self._most:
            self._size -= len(self._known.popitem(last=False)[1].body)

    def until(self, now: float) -> float:
        """Until when a request that came now is kept."""
        return now + 60 * self._minutes()

    def get(self, request_id: str, now: float) -> RetainedRequest | None:
        """A request that is still kept."""
        self._drop_old(now)
        return self._known.get(request_id)

    def _drop_old(self, now: float) -> None:
        while self._known:
            oldest = next(iter(self._known.values()))
            if oldest.until > now:
                return
            self._size -= len(self._known.popitem(last=False)[1].body)


@dataclass(slots=True)
class Turn:
    """One use of an idempotency key. `ended`: monotonic seconds, None while in progress; the reply is kept only where
    retention is on."""

    digest: bytes
    request_id: str
    ended: float | None = None
    reply: tuple[int, tuple[bytes, ...], bytes] | None = None


class IdempotencyKeys:
    """`idempotency-key`: the same request is not worked on, and paid, twice. Of this process only."""

    def __init__(self) -> None:
        self._turns: OrderedDict[Owner, Turn] = OrderedDict()
        self._replies: deque[Turn] = deque()
        self._size = 0

    def begin(self, owner: Owner, body: bytes, request_id: str, now: float) -> Turn | Refusal:
        """A turn of one's own, or the finished turn with its reply, or a 409 that says why neither."""
        self._drop_old(now)
        digest = sha256(body).digest()
        known = self._turns.get(owner)
        if known is None:
            turn = self._turns[owner] = Turn(digest, request_id)
            while len(self._turns) > MOST_ONCE:
                self._turns.popitem(last=False)
            return turn
        if known.digest != digest:
            told = f"came with another body before ({known.request_id}). Use a new key for a new request."
        elif known.ended is None:
            told = f"is in progress ({known.request_id}). Wait for its answer."
        elif known.reply is not None:
            return known
        else:
            told = (
                f"was answered ({known.request_id}), and its answer is not kept. GET /v1/requests/{known.request_id} "
                "says how it went; send a new key to ask again, or switch `retention` on to have answers repeated."
            )
        return Refusal(409, "idempotency_conflict", f"This idempotency-key {told}", "idempotency-key")

    def end(self, owner: Owner, turn: Turn, *, answered: bool, now: float) -> None:
        """The turn is over. What failed may be tried again with the same key. Replies beyond MOST_RETAINED_BYTES in all
        are given up, oldest first."""
        if self._turns.get(owner) is not turn:
            return
        if not answered:
            del self._turns[owner]
            return
        turn.ended = now
        self._turns.move_to_end(owner)
        if turn.reply is not None:
            self._replies.append(turn)
            self._size += len(turn.reply[2])
        while self._replies and (self._size > MOST_RETAINED_BYTES or now - (self._replies[0].ended or 0.0) > ONCE_S):
            old = self._replies.popleft()
            if old.reply is not None:
                self._size -= len(old.reply[2])
                old.reply = None

    def _drop_old(self, now: float) -> None:
        for owner, turn in list(self._first(8)):
            if turn.ended is not None and now - turn.ended > ONCE_S:
                del self._turns[owner]

    def _first(self, count: int) -> list[tuple[Owner, Turn]]:
        return [item for item, _ in zip(self._turns.items(), range(count), strict=False)]


@dataclass(frozen=True, slots=True)
class Memory:
    """All of it."""

    sessions: Sessions = field(default_factory=Sessions)
    retained: Retained = field(default_factory=Retained)
    once: IdempotencyKeys = field(default_factory=IdempotencyKeys)

    def keep(self, facts: RequestFacts, headers: Mapping[str, str], body: bytes, now: float) -> None:
        """Retain a request that is not private, with those of its headers that say how it wants to be answered."""
        hints = {name: value for name, value in headers.items() if name.startswith("x-spillway-")}
        hints |= {"content-type": "application/json"}
        if "x-session-id" in headers:
            hints["x-session-id"] = headers["x-session-id"]
        until = self.retained.until(now)
        request = RetainedRequest(facts.endpoint, facts.caller.key_id, hints, body, until)
        self.retained.keep(facts.request_id, request)

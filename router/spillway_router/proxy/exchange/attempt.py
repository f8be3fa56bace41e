"""One upstream call and its books: hold, trip, outcome. `close` is the one place where an attempt ends."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from spillway_router.core.frozen import dataclass
from spillway_router.core.money.tariff import Usage, price
from spillway_router.core.routing.filters import TEMPLATE_TOKENS
from spillway_router.core.routing.model import Attempt, Candidate, ExpectedGain, Outcome, RequestFacts
from spillway_router.ledger.accounts import Accounts, Durable
from spillway_router.ledger.entries import Status
from spillway_router.ledger.holds import AttemptResult, Hold
from spillway_router.proxy.exchange.active_config import BackendRoute
from spillway_router.proxy.request import body as wire
from spillway_router.signals.board import Board, TrackedCall

IN_FLIGHT_TOKENS = 64
"""Tokens a provider may have produced beyond those that arrived, when a stream breaks off."""
MOST_TOKENS_PER_S = 1000
"""Faster than providers produce the tokens of one choice: what it may have thought before its first word."""
_STATUS: dict[str, Status] = {"ok": "ok", "cancelled": "aborted"}


@dataclass(frozen=True, slots=True)
class UpstreamBody:
    """What goes to a backend: the body with the rules' edits, and which of them the client must not see."""

    body: bytes
    usage_added: bool
    usage_asked: bool
    logprobs_added: bool


def prepare(
    facts: RequestFacts, raw: bytes, body: dict[str, object], channel: BackendRoute, top_logprobs: int = 0
) -> UpstreamBody:
    """The client's bytes with only those fields changed that a rule must change: model, usage, and, to be scored,
    logprobs with `top_logprobs` alternatives per token (0: not scored)."""
    changes: dict[str, object] = {}
    backend = channel.backend
    if body.get("model") != backend.model:
        changes["model"] = backend.model
    options = body.get("stream_options")
    usage_asked = isinstance(options, dict) and options.get("include_usage") is True
    usage_added = False
    if facts.stream and facts.endpoint in ("chat", "completions") and not usage_asked:
        known = options if isinstance(options, dict) else {}
        changes["stream_options"] = {**known, "include_usage": True}
        usage_added = True
    asked = body.get("logprobs")
    # 0 asks for the chosen tokens' logprobs. Alternatives tell how close a choice was, and what a grammar forced.
    logprobs_added = bool(top_logprobs) and (asked is None or asked is False)
    if logprobs_added:
        if facts.endpoint == "chat":
            changes |= {"logprobs": True, "top_logprobs": top_logprobs}
        else:
            changes["logprobs"] = top_logprobs
    drop = channel.provider.entry.drops_fields.intersection(body)
    return UpstreamBody(wire.edit(raw, body.keys(), changes, drop), usage_added, usage_asked, logprobs_added)


def without_logprobs(body: dict[str, object]) -> bytes:
    """A whole answer without the logprobs that only we asked for."""
    choices = body.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and "logprobs" in choice:
                choice["logprobs"] = None
    return orjson.dumps(body)


@dataclass(frozen=True, slots=True)
class ReceivedAnswer:
    """What came of a stream that was begun: events with data, the most bytes of text that can be in them, and the usage
    if the answer was whole."""

    events: int
    text_bytes: int
    usage: Usage | None = None


class UpstreamAttempt:
    """An attempt in progress. Make it when its money is set aside; end it exactly once with `close`."""

    __slots__ = (
        "_accounts",
        "_board",
        "_clock",
        "_draft",
        "_request_started",
        "candidate",
        "channel",
        "confidence",
        "cost_nano",
        "first_event_at",
        "hold",
        "no",
        "record",
        "row",
        "seen",
        "sent_at",
        "streamed",
        "trip",
    )

    def __init__(
        self,
        books: tuple[Accounts, Board, Callable[[], float]],
        channel: BackendRoute,
        candidate: Candidate,
        hold: Hold,
        trip: TrackedCall,
        request_started: float,
    ) -> None:
        self._accounts, self._board, self._clock = books
        self.channel = channel
        self.candidate = candidate
        self.hold = hold
        self.trip = trip
        self.no = hold.attempt_no
        self.sent_at = trip.sent_at
        self._request_started = request_started
        self.row: Durable | None = None
        """Done when the attempt's ledger row is on disk; set once it has ended."""
        self.record: Attempt | None = None
        self.first_event_at: float | None = None
        self.confidence: float | None = None
        self.cost_nano = 0
        self._draft: tuple[Outcome, Callable[[], None]] | None = None
        """Set while a better answer is sought: how it would end, and what stops its upstream."""
        self.seen: ReceivedAnswer | None = None
        """What came of a stream."""
        self.streamed = False

    def label(self) -> bytes:
        """Header line that names a paid call to the provider, so that its bill or its log can be told from ours."""
        if not self.hold.stored:
            return b""
        return f"x-client-request-id: {self.hold.facts.request_id}.{self.no}\r\n".encode("ascii")

    def expect_first_token(self) -> None:
        """A non-stream call shows no first token: presume it when it was predicted (see Board.presume_first)."""
        if self.channel.backend.local:
            self._board.presume_first(self.trip)

    def first_event(self) -> None:
        """The first content of a stream came."""
        self.first_event_at = self._clock()
        self._board.first_event(self.trip, self.first_event_at)

    def seconds_left(self) -> float | None:
        """What the reservation of a backend billed by the second still covers; None where time costs nothing."""
        backend = self.channel.backend
        if backend.tariff is None or not backend.tariff.per_second:
            return None
        return max(0.0, self.sent_at + backend.longest_s - self._clock())

    def close(self, outcome: Outcome, *, discarded: bool = False) -> None:
        """End the attempt: board, budgets and ledger learn it. Never waits; harmless when repeated."""
        if self.record is not None:
            return
        if self._draft is not None and outcome.kind == "cancelled":
            outcome, discarded = self._draft[0], True  # the client left while a better answer was sought
        now = self._clock()
        self._board.ended(self.trip, outcome, now, streamed=self.streamed)
        status: Status = "discarded" if discarded else _STATUS.get(outcome.kind, "error")
        billed = outcome.kind == "ok" or outcome.billed
        ended = AttemptResult(status, self._usage(outcome), billed, self.confidence, seconds=now - self.sent_at)
        self.cost_nano, self.row = self._accounts.settle(self.hold, self.channel.backend, ended)
        start = self._request_started
        self.record = Attempt(
            self.no,
            self.channel.backend.name,
            self.channel.backend.model,
            self.sent_at - start,
            now - start,
            outcome,
            None if self.first_event_at is None else self.first_event_at - start,
            self.cost_nano,
            self.confidence,
            self.candidate.reasons,
        )

    def doubt(self, outcome: Outcome) -> ExpectedGain:
        """What a better answer than this draft gains, and the tokens it is expected to take: those of the draft."""
        expected = outcome.usage or Usage(self.candidate.prompt_tokens, self.candidate.output_tokens)
        return ExpectedGain(1.0 - (self.confidence or 0.0), expected)

    def hold_as_draft(self, outcome: Outcome, stop: Callable[[], None]) -> None:
        """A better answer is sought: this one is discarded when that one begins, unless it is told to `stand`."""
        if outcome.usage is None:  # a stream that will be cut off: it is charged for what came of it
            outcome = Outcome("cancelled", outcome.status, "a better answer was sought", billed=True)
        self._draft = (outcome, stop)

    def stand(self) -> None:
        """No better answer was found: this draft is the answer."""
        self._draft = None

    def discard(self) -> None:
        """Another answer goes to the client. Only a draft has anything to end here."""
        if self._draft is not None:
            outcome, stop = self._draft
            self._draft = None
            stop()
            self.close(outcome, discarded=True)

    def _usage(self, outcome: Outcome) -> Usage | None:
        """Usage to charge. A broken paid stream without a usage event: the most that may have come about, if the
        provider stops billing on cancel; else None, which charges the whole bound."""
        if outcome.usage is not None or outcome.kind == "ok":
            return outcome.usage
        seen = self.seen
        if seen is not None and seen.usage is not None:
            return seen.usage  # the answer was whole, only its way to the client was not
        backend = self.channel.backend
        if backend.local:
            return Usage(self.candidate.prompt_tokens, 0 if seen is None else seen.events) if outcome.billed else None
        if outcome.billed and backend.stops_billing_on_cancel and seen is not None:
            prompt = self.trip.prompt_bytes + TEMPLATE_TOKENS
            service = self.hold.facts.service
            # Whether the prompt was written to a cache only a usage event tells: the dearest reading counts. So does
            # that of the output: every token has a byte or more, and while nothing came some were made unseen.
            usage = Usage(prompt, self._most_output(seen), 0, 0, prompt, prompt, service)
            return usage if self._within_bound(usage) else None
        return None

    def _most_output(self, seen: ReceivedAnswer) -> int:
        silent_s = 0.0 if self.first_event_at is None else self.first_event_at - self.sent_at
        choices = self.hold.facts.choices
        return seen.text_bytes + choices * (IN_FLIGHT_TOKENS + int(silent_s * MOST_TOKENS_PER_S))

    def _within_bound(self, usage: Usage) -> bool:
        tariff = self.channel.backend.tariff
        return tariff is None or price(usage, tariff) <= self.hold.reserved_nano

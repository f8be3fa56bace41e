"""One upstream attempt, from its hold to its charge.

    open_attempt      set its money aside, count its work; nothing was sent yet
    fetch_whole       send it and read a whole answer (a stream is read by streamed_answer.py)
    attempt.close     the one place where it ends: board, budgets and ledger hear of the outcome

The exchange, audits and self checks all make their upstream calls this way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.estimates import NO_OUTPUT, OutputCount, UntoldCall, estimated_usage
from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.filters import TEMPLATE_TOKENS, item_costs, most_input_tokens, output_bound
from spillway_router.core.routing.model import (
    Attempt,
    Backend,
    Candidate,
    Endpoint,
    ExpectedGain,
    Outcome,
    OutcomeKind,
    PrivacyVerdict,
    Refusal,
    RequestFacts,
)
from spillway_router.core.routing.rate_limits import exhausted_for_s
from spillway_router.http_client.connection import PendingCall, PrivateContentError, TransportError
from spillway_router.http_client.types import Pieces, Reply
from spillway_router.ledger.accounts import Durable
from spillway_router.ledger.entries import Status
from spillway_router.ledger.holds import AttemptReason, AttemptResult, Hold, HoldRefused
from spillway_router.providers.openai_compatible import NO_ANSWER
from spillway_router.providers.output_counts import count_answer
from spillway_router.providers.streams import MalformedObject, error_text, parse_object, says_overloaded
from spillway_router.proxy.exchange.active_config import ActiveConfig, BackendRoute
from spillway_router.proxy.exchange.departure import renew_verdict
from spillway_router.proxy.exchange.outcomes import PRIVATE, REPORTED_ERROR, transport_outcome
from spillway_router.proxy.exchange.passed_headers import PassedHeaders
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.large_body import LARGE_ANSWER, read_answer
from spillway_router.signals.board import TrackedCall

USUAL_TOKENS_PER_S = 100
"""What a provider makes of one answer in a second: how far an answer without a stream can be that it has stopped."""
_STATUS: dict[str, Status] = {"ok": "ok", "cancelled": "aborted"}


NOT_SENT = Outcome("cancelled", detail="it was not sent")


class AttemptNumbers:
    """Numbers the attempts of one request from 1 on. A number that may be on disk is never used again."""

    __slots__ = ("_taken",)

    def __init__(self, taken: int = 0) -> None:
        self._taken = taken

    @property
    def next(self) -> int:
        """The number of the next attempt."""
        return self._taken + 1

    def take(self) -> None:
        """Use up the next number."""
        self._taken += 1


@fast_frozen(frozen=True, slots=True)
class ReceivedAnswer:
    """What arrived of an answer: the number of events with data, and whether it is whole; then with its usage, if there
    was one. `told` is the usage as far as it was told, `count` the output of a paid answer."""

    events: int = 0
    whole: bool = False
    usage: Usage | None = None
    told: Usage | None = None
    count: OutputCount | None = None


class UpstreamAttempt:
    """An attempt in progress. `open_attempt` makes it; end it with `close`. Times are monotonic seconds."""

    __slots__ = (
        "_draft",
        "_draft_since_s",
        "_pending",
        "_request_started_s",
        "answers",
        "became_cloud",
        "candidate",
        "charge_nano",
        "confidence",
        "config",
        "due_s",
        "findings",
        "first_event_s",
        "hold",
        "leaves",
        "ledger_row",
        "left_out",
        "number",
        "passed_headers",
        "privacy",
        "received",
        "record",
        "route",
        "sent_s",
        "services",
        "streamed",
        "tracked",
        "upstream_headers",
    )

    def __init__(
        self,
        services: Services,
        config: ActiveConfig,
        route: BackendRoute,
        candidate: Candidate,
        hold: Hold,
        tracked: TrackedCall,
        request_started_s: float,
    ) -> None:
        self.services = services
        self.config = config
        self.route = route
        facts = hold.facts
        self.privacy = PrivacyVerdict(False, ("key",)) if facts.caller.local_only else facts.privacy
        """The verdict of the decision; `renew_verdict` can only make it stricter."""
        self.leaves = not route.pool.local
        self.became_cloud = False
        """Whether a reload took away that the backend is local."""
        self.answers = True
        """Whether the client gets what comes of it. Where it does not, no end of it counts as an answer."""
        self.candidate = candidate
        self.hold = hold
        self.tracked = tracked
        self.number = hold.attempt_no
        self.sent_s = tracked.sent_at
        self._request_started_s = request_started_s
        self.due_s = math.inf
        """When the answer must have begun, because a draft stands ready; infinity without a draft."""
        self.ledger_row: Durable | None = None
        """Done when the attempt's ledger row is on disk; set by `close`."""
        self.record: Attempt | None = None
        """Set by `close`."""
        self.first_event_s: float | None = None
        self.confidence: float | None = None
        self.charge_nano = 0
        self.findings: tuple[str, ...] = ()
        """What is known of the answer when the attempt closes, for the reasons of its row."""
        self._draft_since_s = 0.0
        self._draft: tuple[Outcome, Callable[[], None]] | None = None
        """Set while a better answer is sought: the outcome with which this one would end, and what stops its
        upstream."""
        self._pending: PendingCall | None = None
        self.received: ReceivedAnswer | None = None
        """What arrived of the answer, where that matters: of a stream, and of a whole answer without a usage."""
        self.streamed = False
        self.left_out: tuple[str, ...] = ()
        """What the router usually adds to such a request, and this backend refuses."""
        self.passed_headers: PassedHeaders = ()
        """Headers of the client that go to the backend."""
        self.upstream_headers: Mapping[str, str] | None = None
        """Those of a cloud's answer; None before it, and of a local engine."""

    @property
    def backend(self) -> Backend:
        """The backend that is asked."""
        return self.route.backend

    @property
    def facts(self) -> RequestFacts:
        """What is known of its request."""
        return self.hold.facts

    @property
    def verdict_stands(self) -> bool:
        """Whether nothing can have changed about the privacy of what is to be sent, as for all that stays here."""
        latest = self.services.config()  # a rule of the policy changes neither of the two, a reload both
        if latest.privacy is not self.config.privacy or latest.backend_routes is not self.config.backend_routes:
            return False
        if not self.leaves or not self.privacy.may_leave:
            return True
        facts = self.hold.facts
        return not facts.hints.session_id and not facts.caller.key_id

    def head(self, endpoint: Endpoint, length: int) -> bytes:
        """Request line and headers for a body of `length` bytes, with the caller's own credentials if there are any.

        A paid call carries an id, by which the provider's bill or log can be matched with the ledger. Raises
        PrivateContentError if the content must not leave for the backend. The caller has renewed the verdict.
        """
        private = not self.privacy.may_leave
        if private and self.became_cloud:
            raise PrivateContentError(f"{self.backend.name} is no local backend any more")
        extra = self.route.credentials
        if self.hold.stored:
            extra = b"x-client-request-id: %b.%d\r\n%b" % (
                self.hold.facts.request_id.encode("ascii"),
                self.number,
                extra,
            )
        replaced: frozenset[str] | None = None
        if self.passed_headers:
            own = self.route.own_headers
            passed = [(name, line) for name, line in self.passed_headers if name not in own]
            replaced = frozenset([name for name, _ in passed])
            extra += b"".join([line for _, line in passed])
        return self.route.pool.head(self.route.provider.path(endpoint), length, extra, replaced, private=private)

    def begin_wait(self) -> PendingCall:
        """Return the handle by which the board gives this call up, for as long as nothing of its answer is there."""
        pending = self._pending = PendingCall(outlives_reader=self.outlives_client)
        self.tracked.abandon = pending.abandon
        return pending

    @property
    def outlives_client(self) -> bool:
        """Whether it is worth reading the answer to its usage if the client leaves: the provider goes on, and bills all
        of it."""
        backend = self.route.backend
        return backend.drains and self.hold.stored and backend.goes_on(stream=self.streamed)

    @property
    def was_sent(self) -> bool:
        """Whether a byte of the request may have left."""
        return self._pending is not None and self._pending.was_sent

    @property
    def pending(self) -> PendingCall:
        """The handle of the call."""
        assert self._pending is not None
        return self._pending

    @property
    def is_left_open(self) -> bool:
        """Whether the call waits on an open connection for somebody to read on, as its reader was cancelled."""
        return self._pending is not None and self._pending.left_open is not None

    def output_count(self) -> OutputCount | None:
        """Return a new count of the output of a paid stream; None for a local one, whose events are enough."""
        return OutputCount() if self.hold.stored else None

    def end_wait(self) -> None:
        """Note that the answer is there, or is about to be shown: it is not given up for another one any more."""
        self.tracked.abandon = None

    def patience_s(self, limit_s: float) -> float:
        """Return the seconds that the answer may take to begin: `limit_s` or less."""
        now_s = self.services.clock()
        left_s = self.due_s - now_s
        if left_s < limit_s:
            limit_s = left_s
        if self.tracked.trial:
            limit_s = min(limit_s, self.services.board.patience_s(self.tracked, now_s, streamed=self.streamed))
        return limit_s if limit_s > 0.001 else 0.001

    def paid_for_nothing(self) -> bool:
        """Return whether it failed and is charged all the same, because its provider may have worked on it."""
        record = self.record
        return record is not None and self.charge_nano > 0 and record.outcome.kind != "ok"

    def is_overdue(self) -> bool:
        """Return whether the draft that stands ready has waited for this attempt as long as it may."""
        return self.services.clock() + 0.01 >= self.due_s

    def expect_first_token(self) -> None:
        """Presume the first token of a non-stream answer when it was predicted, as nobody sees it come."""
        if self.route.backend.local:
            self.services.board.presume_first(self.tracked)

    def on_first_event(self) -> None:
        """Note the first content of a stream."""
        self.first_event_s = self.services.clock()
        self.services.board.first_event(self.tracked, self.first_event_s)

    def on_whole_answer(self, outcome: Outcome) -> None:
        """Tell the board that the whole answer has come: the judging that may follow takes no time of the backend."""
        self._tell_board(outcome, self.services.clock())

    def on_held_up(self) -> None:
        """Note that the client has not read the stream on for a while."""
        self.services.board.held_up(self.tracked, self.services.clock())

    def on_response_headers(self, headers: Mapping[str, str]) -> None:
        """Keep a cloud's response headers for the client, and away from a cloud whose rate limit they say is
        exhausted."""
        backend = self.route.backend
        if not backend.local:
            self.upstream_headers = headers
            seconds = exhausted_for_s(headers, self.services.wall())
            if seconds:
                self.services.board.limited(backend.name, seconds, self.services.clock())

    def seconds_left(self) -> float | None:
        """Seconds that the reservation of a backend billed by the second still covers; None where time is free."""
        backend = self.route.backend
        if backend.tariff is None or not backend.tariff.per_second:
            return None
        return max(0.0, self.sent_s + backend.longest_s - self.services.clock())

    def close(self, outcome: Outcome, *, discarded: bool = False) -> None:
        """End the attempt: inform the board, settle the hold, make the record. Never waits; harmless when repeated."""
        if self.record is not None:
            return
        if self._draft is not None and outcome.kind == "cancelled":
            outcome, discarded = self._draft[0], True  # the client left while a better answer was sought
        now_s = self.services.clock()
        self._tell_board(outcome, now_s)
        if outcome.kind == "ok" and self.hold.stored:
            self._learn(outcome)
        status: Status = "discarded" if discarded else _STATUS.get(outcome.kind, "error") if self.answers else "error"
        settled = self._settle(outcome, status, now_s)
        self.record = replace(settled, discarded=True) if discarded else settled

    def _tell_board(self, outcome: Outcome, now_s: float) -> None:
        """Tell the board how the call ended, which lets the next request in."""
        self.services.board.ended(self.tracked, self._of_backend(outcome), now_s, streamed=self.streamed)
        if self.services.local_queues.count:
            self.services.local_queues.go_on(self.route.backend.name)

    def _of_backend(self, outcome: Outcome) -> Outcome:
        """Return what the outcome says of the backend. One model that is missing takes no other one away, and what was
        not sent for its privacy says nothing."""
        if outcome.fault == PRIVATE:
            return NOT_SENT
        if outcome.kind == "withdrawn" and self.route.backend.one_of_many:
            return replace(outcome, kind="unserved")
        return _without_doubt(outcome)

    def let_go(self, outcome: Outcome) -> None:
        """End the attempt for the request while its answer is read to its usage: the board learns `outcome`, and the
        hold stays until `settle_drained`."""
        now_s = self.services.clock()
        self.services.board.ended(self.tracked, self._of_backend(outcome), now_s, streamed=self.streamed)
        self.record = replace(self._record_of(outcome, now_s), draining=True)

    def settle_drained(self, outcome: Outcome) -> Attempt:
        """Settle the hold of an attempt that was let go, and complete its record. `outcome` is that of its answer,
        which nobody was there to get."""
        ended = self.record
        assert ended is not None
        if outcome.kind == "ok":
            self._learn(outcome)
        arrived = outcome.kind in ("ok", "cancelled") or outcome.billed
        status: Status = "aborted" if arrived and self.answers else "error"
        settled = self._settle(outcome, status, self.services.clock())
        # The request's record says how the attempt ended for the client.
        kept = replace(ended.outcome, usage=outcome.usage)
        record = replace(settled, outcome=kept, ended_s=ended.ended_s)
        self.services.records.replace_attempt(self.hold.facts.request_id, record)
        self.record = record
        return record

    def _settle(self, outcome: Outcome, status: Status, now_s: float) -> Attempt:
        """Charge the attempt or release its hold, and return its record."""
        usage, estimated = self._usage(outcome, now_s)
        result = AttemptResult(
            status,
            usage,
            outcome.kind == "ok" or outcome.billed or estimated,
            self.confidence,
            reasons=(*self.hold.reason.reasons, *self.findings) if self.findings else (),
            seconds=now_s - self.sent_s,
            took_s=now_s - self._request_started_s,
            estimated=estimated,
            keeps_bound=estimated and self._left_going(outcome),
        )
        self.charge_nano, self.ledger_row = self.services.accounts.settle(self.hold, self.route.backend, result)
        record = self._record_of(outcome, now_s)
        return replace(record, at_most_nano=self.hold.bound_nano) if estimated else record

    def _left_going(self, outcome: Outcome) -> bool:
        """Return whether we hung up on an answer that the provider may have gone on with."""
        return self._hung_up(outcome) and self.backend.may_go_on(stream=self.streamed)

    def _hung_up(self, outcome: Outcome) -> bool:
        """Return whether the connection was closed by us before the whole answer had come."""
        if self.received is not None and self.received.whole:
            return False
        return outcome.kind in ("cancelled", "timeout") and (not outcome.status or self.streamed)

    def _record_of(self, outcome: Outcome, now_s: float) -> Attempt:
        backend, start_s, first_event_s = self.route.backend, self._request_started_s, self.first_event_s
        return Attempt(
            no=self.number,
            backend=backend.name,
            model=self._model(outcome),
            started_s=self.sent_s - start_s,
            ended_s=now_s - start_s,
            outcome=outcome.without_text(),
            first_event_s=None if first_event_s is None else first_event_s - start_s,
            charge_nano=self.charge_nano,
            confidence=self.confidence,
            reasons=self.candidate.reasons,
            left_out=self.left_out,
        )

    def _model(self, outcome: Outcome) -> str:
        """Return the model that answered, where it may be another than the backend's, and the answer names it."""
        usage = outcome.usage
        if usage is None and self.received is not None:
            usage = self.received.told
        own = self.backend.model
        if usage is None or not usage.model or usage.model == own:
            return own
        return usage.model if self.route.redactor.cut(usage.model) == usage.model else own

    def _learn(self, outcome: Outcome) -> None:
        """Learn from a whole paid answer what the output of others is that are cut off."""
        if outcome.usage is not None and outcome.usage.certain:
            count = None if self.received is None else self.received.count
            self.services.memory.output_habits.of(self.backend.name).learn(count or NO_OUTPUT, outcome.usage)

    # a draft: an answer that waits while a better one is sought

    def expected_gain(self, outcome: Outcome) -> ExpectedGain:
        """What a better answer than this draft is expected to gain, and its tokens: as many as the draft took."""
        usage = outcome.usage or Usage(self.candidate.prompt_tokens, self.candidate.output_tokens)
        return ExpectedGain(1.0 - (self.confidence or 0.0), usage)

    def hold_as_draft(self, outcome: Outcome, stop: Callable[[], None]) -> None:
        """Keep this answer while a better one is sought. `stop` ends its upstream if it is discarded."""
        self.end_wait()
        if outcome.usage is None:  # a stream that would be cut off: it is charged for what arrived of it
            outcome = Outcome("cancelled", outcome.status, "a better answer was sought", billed=True)
        self._draft, self._draft_since_s = (outcome, stop), self.services.clock()

    def accept_draft(self) -> None:
        """Make the draft the answer, as no better one was found."""
        if self._draft is not None:
            self._draft = None
            self.tracked.held_up_s += self.services.clock() - self._draft_since_s

    def discard_draft(self) -> None:
        """End a draft because another answer goes to the client. Does nothing to an attempt that is no draft."""
        if self._draft is not None:
            outcome, stop = self._draft
            self._draft = None
            stop()
            self.close(outcome, discarded=True)

    # what is charged

    def _usage(self, outcome: Outcome, now_s: float) -> tuple[Usage | None, bool]:
        """Return the usage to charge, and whether it is an estimate. None charges nothing unless the outcome is billed:
        then the whole bound.

        A local answer without a usage counts by its predicted prompt and its events.
        """
        received, usage = self.received, outcome.usage
        if usage is not None and (usage.certain or self.backend.local):
            return self._counted(usage), False
        if received is not None and received.usage is not None and received.usage.certain:
            return received.usage, False  # the answer was whole; only its way to the client was not
        if self.route.backend.local:
            if outcome.kind == "ok":
                return (None if received is None else Usage(self.candidate.prompt_tokens, received.events)), False
            events = 0 if received is None else received.events
            return (Usage(self.candidate.prompt_tokens, events) if outcome.billed else None), False
        if not self.hold.bound_nano:
            return usage, False
        if outcome.doubtful:
            return Usage(0, 0), True
        if outcome.kind != "ok" and not outcome.billed:
            return None, False
        tariff = self.route.backend.tariff
        if tariff is None or not tariff.by_tokens:
            return usage, False
        return replace(self._estimate(outcome, now_s), certain=True), True

    def _counted(self, usage: Usage) -> Usage:
        """Return the usage that was told. What a local engine left out counts as for an answer without usage."""
        if usage.certain:
            return usage
        events = 0 if self.received is None else self.received.events
        return replace(
            usage,
            prompt_tokens=usage.prompt_tokens or self.candidate.prompt_tokens,
            completion_tokens=max(usage.completion_tokens, events),
        )

    def _estimate(self, outcome: Outcome, now_s: float) -> Usage:
        """Return the usage that is most likely, where a paid answer told none, or not all of it, or was not read to its
        end."""
        facts, backend, received = self.hold.facts, self.route.backend, self.received
        whole = outcome.kind == "ok" or (received is not None and received.whole)
        hung_up = self._hung_up(outcome)
        goes_on = hung_up and backend.goes_on(stream=self.streamed)
        unseen = not self.streamed and not whole and (hung_up or outcome.status == 200)
        waited_s = now_s - self.sent_s
        costs = item_costs(facts, backend)
        most_prompt_tokens = most_input_tokens(facts, backend, costs) // costs.passes + TEMPLATE_TOKENS
        most_tokens = output_bound(facts, backend) * max(facts.choices, facts.billed_choices)
        if facts.endpoint == "embeddings":
            most_tokens = 0
        elif unseen and backend.on_disconnect_whole == "stops":
            most_tokens = min(most_tokens, int(waited_s * USUAL_TOKENS_PER_S))
        call = UntoldCall(
            prompt_tokens=min(self.candidate.prompt_tokens, most_prompt_tokens),
            most_output_tokens=most_tokens,
            told=None if received is None else received.told,
            count=None if received is None else received.count,
            waited_s=waited_s,
            usual_first_s=self.candidate.ttft_s,
            goes_on=goes_on,
            unseen=unseen,
            service=facts.service,
        )
        return estimated_usage(call, self.services.memory.output_habits.of(backend.name))


def _without_doubt(outcome: Outcome) -> Outcome:
    """Return the outcome without usage from which nothing can be learned."""
    return outcome if outcome.usage is None or outcome.usage.certain else replace(outcome, usage=None)


@fast_frozen(frozen=True, slots=True)
class NotOpened:
    """Why an attempt was not opened: `budget`, `ledger` (durability can't be promised) or `backlog` (it is full)."""

    code: str
    message: str

    def refusal(self) -> Refusal:
        """The error for the client if no other backend answers."""
        if self.code == "budget":
            return Refusal(402, "budget_exceeded", self.message)
        if self.code == "ledger":
            return Refusal(503, "ledger_unavailable", self.message, retry_after_s=2.0)
        return Refusal(503, "overloaded", self.message, retry_after_s=1.0)


async def open_attempt(
    services: Services,
    config: ActiveConfig,
    facts: RequestFacts,
    candidate: Candidate,
    *,
    route: BackendRoute,
    reason: AttemptReason,
    numbers: AttemptNumbers,
    request_started_s: float,
) -> UpstreamAttempt | NotOpened:
    """Hold the cost bound of the candidate (durably, for a paid backend) and count its work on the board.

    Every attempt of the request takes its number from `numbers`; `request_started_s` is monotonic.
    """
    hold = await services.accounts.hold(facts, route.backend, reason, numbers.next, candidate.bound_nano)
    if isinstance(hold, HoldRefused):
        if hold.code == "ledger":
            numbers.take()  # the row of the hold may be on disk under this number
        return NotOpened(hold.code, hold.message)
    slo_ttft_s = facts.hints.slo_ttft_s or config.policy.slo.ttft_s
    # Tokens of pictures and of stored context would teach a wrong number of tokens per byte.
    text_bytes = 0 if facts.pictures or facts.media_tokens or facts.unseen_tokens else facts.prompt_bytes
    tracked = services.board.sent(candidate, text_bytes, slo_ttft_s, services.clock(), facts.caller.key_id)
    if tracked is None:
        if hold.stored:
            numbers.take()
        services.accounts.release(hold)
        return NotOpened("backlog", "The local backlog is at its bound.")
    numbers.take()
    return UpstreamAttempt(
        services=services,
        config=config,
        route=route,
        candidate=candidate,
        hold=hold,
        tracked=tracked,
        request_started_s=request_started_s,
    )


PAGE = Outcome("failed", 200, "a web page came instead of an answer")
"""No provider bills for it: a gateway, a login or a captcha stands before the API."""


def is_page(headers: Mapping[str, str]) -> bool:
    """Return whether an answer with status 200 is a web page."""
    return headers.get("content-type", "").startswith("text/html")


@fast_frozen(frozen=True, slots=True)
class FetchedAnswer:
    """How a whole answer came: `body` and its JSON `answer` are there only if the outcome is ok."""

    outcome: Outcome
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    answer: dict[str, Any] = field(default_factory=dict)


async def fetch_whole(
    attempt: UpstreamAttempt, endpoint: Endpoint, body: bytes | Pieces, within_s: float, limit_bytes: int
) -> FetchedAnswer:
    """Send `body` and read the whole answer within `within_s` seconds and `limit_bytes` bytes.

    A failure of the transport, of the backend or in the answer is the outcome of the reply, never an exception.
    """
    route = attempt.route
    try:
        if not attempt.verdict_stands:
            await renew_verdict(attempt, body)
        head = attempt.head(endpoint, len(body))
        reply = await route.pool.call(head, body, within_s, limit_bytes, attempt.begin_wait())
    except TransportError as error:
        return FetchedAnswer(transport_outcome(error))
    attempt.end_wait()
    return await judged(attempt, endpoint, reply)


async def judged(attempt: UpstreamAttempt, endpoint: Endpoint, reply: Reply) -> FetchedAnswer:
    """Return how a whole answer came, by its status and its body."""
    provider = attempt.route.provider
    outcome = provider.outcome(reply, attempt.services.wall())
    if outcome.kind != "ok":
        return FetchedAnswer(outcome, reply.headers)
    if is_page(reply.headers):
        return FetchedAnswer(PAGE, reply.headers)
    body = reply.body
    answer = parse_object(body) if len(body) <= LARGE_ANSWER else await read_answer(body)
    if isinstance(answer, MalformedObject):
        return FetchedAnswer(Outcome("failed", reply.status, answer.flaw, billed=True), reply.headers)
    flaw = provider.flaw(endpoint, answer)
    if flaw is not None:
        # An engine that aborts inside a 200 was full: it did not fail, and another backend may be asked.
        message = error_text(answer)
        aborted = attempt.backend.local and flaw != NO_ANSWER if message is None else says_overloaded(answer)
        kind: OutcomeKind = "overloaded" if aborted else "failed"
        detail, said = (flaw, "") if message is None else (REPORTED_ERROR, flaw)
        return FetchedAnswer(Outcome(kind, reply.status, detail, said, billed=not aborted), reply.headers)
    usage = provider.usage(endpoint, answer)
    ok = Outcome("ok", reply.status, usage=usage)
    if attempt.hold.stored and (usage is None or not usage.certain):
        attempt.received = ReceivedAnswer(whole=True, told=usage, count=count_answer(answer))
    return FetchedAnswer(ok, reply.headers, reply.body, answer)

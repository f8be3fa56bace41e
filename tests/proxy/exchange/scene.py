"""Parts of an exchange without a router: an upstream whose packets the test cuts, a client that records its bytes, and
the state of one request.

Everything here is made of public classes and works with the compiled and with the interpreted modules.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from typing import Any, cast

from spillway_router.aio.outbox import Outbox
from spillway_router.config.assemble import backend_routes
from spillway_router.config.derived import DerivedConfig
from spillway_router.config.load import Loaded, parse
from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.routing.model import Candidate, Decision, Endpoint, Refusal, RequestFacts, RequestRecord
from spillway_router.http_client.connection import Connection
from spillway_router.http_client.pool import Pool, PoolLimits, Response
from spillway_router.http_client.types import Target
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.credits import Credits
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.holds import AttemptReason
from spillway_router.ledger.pacer import Pacer, PacingRules
from spillway_router.ledger.provider_keys import ProviderKeys
from spillway_router.ledger.writer import LedgerWriter
from spillway_router.proxy.client.client import SentReply, StreamCopy
from spillway_router.proxy.client.error_shapes import error_event
from spillway_router.proxy.client.replies import Lines, refusal_reply
from spillway_router.proxy.exchange.active_config import ActiveConfig, DrainLimits
from spillway_router.proxy.exchange.attempt import AttemptNumbers, NotOpened, UpstreamAttempt, open_attempt
from spillway_router.proxy.exchange.audit_sample import AuditKind, AuditSample, LocalReading
from spillway_router.proxy.exchange.byok_pools import OwnKeys
from spillway_router.proxy.exchange.drains import Drains
from spillway_router.proxy.exchange.local_queue import LocalQueues
from spillway_router.proxy.exchange.ruled_configs import RuledConfigs
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.exchange.state import DecidedRequest, ExchangeState
from spillway_router.proxy.memory.memory import Memory
from spillway_router.proxy.memory.private_sessions import PrivateSessions
from spillway_router.proxy.memory.records import Records
from spillway_router.proxy.memory.sessions import Sessions
from spillway_router.proxy.memory.stored_responses import StoredResponses
from spillway_router.proxy.request.auth import Auth
from spillway_router.proxy.request.body_memory import BodyMemory
from spillway_router.proxy.request.facts import read_facts
from spillway_router.proxy.request.key_loads import KeyLoads
from spillway_router.proxy.request.verdicts import Verdicts
from spillway_router.proxy.shadows.shadows import Shadows
from spillway_router.signals.board import Board
from spillway_router.testing import MemoryLedger, openai_wire

STREAM_HEAD = openai_wire.http_stream_head()
TODAY = date(2026, 11, 28)


class UpstreamTransport(asyncio.Transport):
    """The router's side of an upstream socket; it notes an abort and the pauses of reading."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = self.paused = False

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class PacketUpstream:
    """An upstream whose answer arrives in exactly the packets that the test hands over. Make it in an event loop."""

    def __init__(self, head: bytes = STREAM_HEAD) -> None:
        loop = asyncio.get_running_loop()
        self.transport = UpstreamTransport()
        self._connection = Connection(loop, Outbox(loop), lambda _connection: None)
        self._connection.connection_made(self.transport)
        self._connection.data_received(head)
        target = Target(scheme="http", host="upstream", port=80, prefix="", headers=(), authority=b"upstream")
        self.response = Response(Pool(target, PoolLimits()), self._connection)

    def packet(self, data: bytes) -> None:
        """Deliver body bytes as one HTTP chunk in one packet."""
        self._connection.data_received(openai_wire.http_chunk(data))

    def end(self) -> None:
        """Deliver the proper end of the body."""
        self._connection.data_received(openai_wire.LAST_CHUNK)

    def break_off(self) -> None:
        """Close the connection in the middle of the body."""
        self._connection.connection_lost(None)

    def close(self) -> None:
        """Release the response and stop its timer."""
        self.response.close()
        self._connection.connection_lost(None)


class RecordingClient:
    """A client that records what it gets: `stream` for the bytes of a stream, `status` and `content` for a reply.

    It is not a subclass of `Client`, which may be compiled.
    """

    def __init__(self, endpoint: Endpoint = "chat", body: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
        self.request_id = "req_1"
        self.endpoint = endpoint
        self.headers = headers or {}
        self.body = body
        self.base_headers: tuple[bytes, ...] = (b"x-request-id: req_1\r\n",)
        self.started = self.waiting = self.disconnected = self.ended = False
        self.copy_reply = False
        self.stream_copy: StreamCopy | None = None
        self.sent_reply: SentReply | None = None
        self.status, self.content, self.stream = 0, b"", b""
        self.headers_sent: Lines = []
        self.slow = False
        self.on_write: Callable[[bytes], None] = lambda _data: None
        self.caught_up = asyncio.Event()

    def reply(self, status: int, headers: Lines, body: bytes) -> None:
        self.started = True
        self.status, self.headers_sent, self.content = status, headers, body

    def refuse(self, refusal: Refusal, headers: Lines | None = None) -> None:
        self.reply(*refusal_reply(refusal, [*self.base_headers, *(headers or ())]))

    def begin_stream(self, headers: Lines, first: bytes) -> None:
        self.started = True
        self.status, self.headers_sent, self.stream = 200, headers, first

    def send_waiting(self, headers: Lines) -> bool:
        self.waiting = not self.started
        return self.waiting

    def write(self, data: bytes) -> None:
        self.on_write(data)
        self.stream += data

    @property
    def paused(self) -> bool:
        return self.slow

    async def drain(self) -> None:
        await self.caught_up.wait()
        self.slow = False

    def fail(self, refusal: Refusal) -> bool:
        if self.ended or self.content:
            return False
        if self.started:
            self.end_stream(error_event(self.endpoint, refusal.code, refusal.message, 0))
        else:
            self.refuse(refusal)
        return True

    def end_stream(self, data: bytes = b"") -> None:
        self.stream += data
        self.ended = True

    def header(self, name: str) -> str:
        """The value of a header that was sent; "" without it."""
        lines = b"".join(self.headers_sent).decode().splitlines()
        return next((line.partition(": ")[2] for line in lines if line.startswith(f"{name}: ")), "")


class ScriptedAudits:
    """Audits as a test wants them: `moved` replaces the configured threshold, `draws` decides every draw."""

    def __init__(self) -> None:
        self.moved: float | None = None
        self.draws = False
        self.samples: list[AuditSample] = []

    def threshold(self, _kind: AuditKind, _config: ActiveConfig, configured: float) -> float:
        return configured if self.moved is None else self.moved

    def draws_chat(self, _config: ActiveConfig) -> bool:
        return self.draws

    def draws_document(self, _config: ActiveConfig, _reading: LocalReading) -> bool:
        return self.draws

    def is_probe(self, _config: ActiveConfig, _confidence: float | None) -> bool:
        return False

    def observe_probe(self, _config: ActiveConfig, _draft: str, _better: str) -> None: ...

    def offer(self, sample: AuditSample) -> None:
        self.samples.append(sample)


@dataclasses.dataclass
class Scene:
    """The services of one configuration, on a ledger in memory."""

    config: ActiveConfig
    services: Services
    ledger: MemoryLedger
    audits: ScriptedAudits
    hooked: list[RequestRecord]

    def facts(self, fields: dict[str, Any] | None = None, **headers: str) -> RequestFacts:
        """The facts of a chat request."""
        body = {"model": "auto", "messages": [{"role": "user", "content": "?"}], **(fields or {})}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return read_facts(
            "req_1", "chat", named, body, self.config.auth.caller({"host": "localhost"}, 0.0), self.config.privacy
        )  # type: ignore[arg-type]

    def candidate(self, name: str, bound_nano: int = 0) -> Candidate:
        """A candidate with round predictions."""
        return Candidate(
            backend=self.config.policy.backends[name],
            reasons=("test",),
            ttft_s=0.1,
            prompt_tokens=10,
            output_tokens=20,
            bound_nano=bound_nano,
        )

    def state(
        self, *names: str, facts: RequestFacts | None = None, client: RecordingClient | None = None
    ) -> ExchangeState:
        """The state of a chat request whose decision names these candidates."""
        candidates = tuple(self.candidate(name) for name in names)
        request = DecidedRequest(
            facts=facts or self.facts(),
            body={"model": "auto", "messages": []},
            decision=Decision(kind="local", candidates=candidates, reasons=(), removed=(), policy="v1"),
            started_s=self.services.clock(),
        )
        client_side = cast("Any", client or RecordingClient())
        return ExchangeState(self.services, self.config, client_side, request=request, numbers=AttemptNumbers())

    async def open(self, state: ExchangeState, name: str, bound_nano: int = 0) -> UpstreamAttempt | NotOpened:
        """Open an attempt at a backend for the state, and count it there."""
        attempt = await open_attempt(
            self.services,
            self.config,
            state.facts,
            self.candidate(name, bound_nano),
            route=self.config.backend_routes[name],
            reason=AttemptReason("local", ()),
            numbers=state.numbers,
            request_started_s=state.started_s,
        )
        if isinstance(attempt, UpstreamAttempt):
            state.attempts.append(attempt)
        return attempt

    async def opened(self, state: ExchangeState, name: str, bound_nano: int = 0) -> UpstreamAttempt:
        """The same, for an attempt that must open."""
        attempt = await self.open(state, name, bound_nano)
        assert isinstance(attempt, UpstreamAttempt), attempt
        return attempt

    async def rows(self, state: ExchangeState) -> list[Entry]:
        """The ledger rows of the request, once those of its attempts are on disk."""
        await state.durable()
        return list(self.ledger.entries_of(state.facts.request_id))


@asynccontextmanager
async def scene(text: str, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[Scene]:
    """Everything that an exchange works with under this configuration (spillway.yaml)."""
    derived = DerivedConfig.of(Loaded(parse(text, {}), None, text, {}), TODAY)
    assembly = derived.assembly
    routes = backend_routes(assembly.targets, {})
    config = ActiveConfig(
        policy=assembly.policy,
        backend_routes=routes,
        privacy=derived.privacy,
        auth=Auth(lambda _token, _now: None, False),
        limits=derived.limits,
        created=0,
        policy_header=b"x-spillway-policy: v1\r\n",
        scoring=assembly.scoring,
    )
    ledger, audits, hooked = MemoryLedger(), ScriptedAudits(), list[RequestRecord]()
    writer = LedgerWriter(ledger)
    accounts = Accounts(
        writer=writer,
        lines=(),
        coefficients=WorkCoefficients(),
        wall=time.time,
        on_alert=lambda _alert: None,
        router_id="router-1",
    )
    accounts.load(ledger, derived.budgets)
    board = Board()
    board.update(assembly.backends, assembly.rates)
    services = Services(
        config=lambda: config,
        board=board,
        accounts=accounts,
        records=Records(),
        hooks=(hooked.append,),
        clock=clock,
        wall=time.time,
        new_id=lambda: "req_1",
        loop=asyncio.get_running_loop(),
        pacer=Pacer(ledger, PacingRules()),
        own_keys=OwnKeys({}),
        provider_keys=ProviderKeys(ledger.provider_keys),
        feedback=ledger.feedback,
        memory=Memory(Sessions(PrivateSessions(ledger.private_sessions, time.time))),
        responses=StoredResponses(ledger.responses, time.time),
        audits=cast("Any", audits),
        shadows=Shadows(),
        bodies=BodyMemory(),
        credits=Credits(ledger.credits, time.time),
        verdicts=Verdicts(),
        key_loads=KeyLoads(),
        drains=Drains(DrainLimits, lambda _facts, _attempt: None),
        local_queues=LocalQueues(
            board, clock=clock, loop=asyncio.get_running_loop(), slo_ttft_s=lambda: config.policy.slo.ttft_s
        ),
        ruled_configs=RuledConfigs(),
    )
    try:
        yield Scene(config=config, services=services, ledger=ledger, audits=audits, hooked=hooked)
    finally:
        for route in routes.values():
            route.pool.close()
        await writer.close(1.0)

"""The composition root: builds a router from one configuration, and owns the order of start, reload and stop.

`Runtime.__init__` is the whole composition. Its list of services gives the order of the start; they stop in reverse, so
that what writes rows stops before the ledger's writer. Listening is serve.py's part.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI

from spillway_router.aio.watched import Watchdog
from spillway_router.caching.open import OpenCache
from spillway_router.config.assemble import backend_routes, local_hosts
from spillway_router.config.confidence import CALIBRATION
from spillway_router.config.costs import rental_defaults, unpriced_gpu
from spillway_router.config.derived import DerivedConfig
from spillway_router.config.discovery import Engines, loaded_with
from spillway_router.config.load import ConfigError, Loaded, located
from spillway_router.config.places import Lookup, look_up, named_places
from spillway_router.config.tls import renew
from spillway_router.core.confidence.drift import Drift
from spillway_router.core.redaction import Redactor
from spillway_router.core.trace_context import TraceContext, trace_of
from spillway_router.dashboard.parts import Parts
from spillway_router.dashboard.routes import Dashboard
from spillway_router.dashboard.traffic import Traffic
from spillway_router.documents.idempotency import IdempotentExtractions
from spillway_router.documents.reviews import ReviewQueue
from spillway_router.documents.routes import add_document_routes
from spillway_router.documents.services import DocumentServices
from spillway_router.http_client.pool import Pool
from spillway_router.http_client.types import Target
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.anchor import AnchorPlaces, LedgerAnchor
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.ledger.credits import Credits
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.ids import request_ids
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.journal import Journal, JournalPlace, recover
from spillway_router.ledger.maintenance import Upkeep
from spillway_router.ledger.pacer import Pacer
from spillway_router.ledger.provider_keys import ProviderKeys
from spillway_router.ledger.reports.days import ReportQuery
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.tables.acts import Change
from spillway_router.ledger.tables.keys import KeyStore
from spillway_router.ledger.writer import LedgerWriter
from spillway_router.metrics.backends import BackendMetrics, EngineMetrics, GpuMetrics
from spillway_router.metrics.caching import CacheMetrics
from spillway_router.metrics.confidence import AuditMetrics, ReviewMetrics
from spillway_router.metrics.drains import DrainMetrics
from spillway_router.metrics.hedges import HedgeMetrics
from spillway_router.metrics.ledger import BudgetMetrics, FixedCostMetrics, LedgerMetrics
from spillway_router.metrics.logins import LoginMetrics
from spillway_router.metrics.registry import Metrics, log_request
from spillway_router.metrics.shadows import ShadowMetrics
from spillway_router.metrics.shares import ShareMetrics
from spillway_router.metrics.tasks import TaskMetrics
from spillway_router.prices.listing import PriceListing, listed
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.providers.interface import CatalogueEntry
from spillway_router.proxy.audits.audits import Audits
from spillway_router.proxy.control.api import ControlHooks, build_control
from spillway_router.proxy.control.feedback import add_feedback_routes
from spillway_router.proxy.control.keys import add_key_routes
from spillway_router.proxy.control.prices import add_price_routes
from spillway_router.proxy.control.provider_keys import add_provider_key_routes
from spillway_router.proxy.control.rentals import add_rental_routes
from spillway_router.proxy.entry.app import App, build
from spillway_router.proxy.entry.frontend import FrontendState, frontend_factory
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.audit_sample import AuditKind
from spillway_router.proxy.exchange.byok_pools import OwnKeys
from spillway_router.proxy.exchange.drains import Drains
from spillway_router.proxy.exchange.local_queue import LocalQueues
from spillway_router.proxy.exchange.ruled_configs import RuledConfigs
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.memory.memory import Memory
from spillway_router.proxy.memory.private_sessions import PrivateSessions
from spillway_router.proxy.memory.records import Records
from spillway_router.proxy.memory.retained import RetainedRequests
from spillway_router.proxy.memory.sessions import Sessions
from spillway_router.proxy.memory.stored_responses import StoredResponses
from spillway_router.proxy.request.auth import Auth
from spillway_router.proxy.request.body_memory import BodyMemory
from spillway_router.proxy.request.failed_logins import FailedLogins
from spillway_router.proxy.request.key_loads import KeyLoads
from spillway_router.proxy.request.key_rates import KeyRates
from spillway_router.proxy.request.verdicts import Verdicts
from spillway_router.proxy.shadows.shadows import Shadows
from spillway_router.runtime.alerts import AlertHooks, Alerts
from spillway_router.runtime.allocator import HeapKeeper
from spillway_router.runtime.background import Background, Service
from spillway_router.runtime.day_change import DayChange, utc_day
from spillway_router.runtime.descriptors import of_process
from spillway_router.runtime.discovery import Discovery
from spillway_router.runtime.engine_watch import EngineWatch
from spillway_router.runtime.gpu_billing import GpuBilling
from spillway_router.runtime.morning import MorningReport, MorningSources, morning_plan
from spillway_router.runtime.recent_log import RecentLog
from spillway_router.runtime.reload_acts import needs_restart, refused_reload, reload_done
from spillway_router.runtime.request_log import RequestLog
from spillway_router.runtime.share_mover import ShareMover
from spillway_router.runtime.steady_clock import SteadyClock, system_sources
from spillway_router.runtime.trait_keeper import TraitKeeper
from spillway_router.runtime.verdict_acts import VerdictActs
from spillway_router.signals.board import Board
from spillway_router.telemetry.export import ExportSettings, Sender, TelemetryExport
from spillway_router.telemetry.spans import Place

if TYPE_CHECKING:
    from spillway_router.config.checkup import CheckReport
    from spillway_router.dashboard.letter import Letter
    from spillway_router.ledger.reports.model import Report
    from spillway_router.replay.fleet_now import FleetNow
    from spillway_router.replay.trials import Trial, TrialResult, Trials

log = logging.getLogger("spillway")
_T = TypeVar("_T")

FLUSH_S = 10.0
CLOSE_S = 5.0
REPORT_S = 120.0
ALERTS_FLUSH_S = 3.0
MOST_GROUPS = 20_000
"""The most groups of a report over HTTP: about 20 MB of JSON."""


class Runtime:
    """A running router. Make it inside the event loop with `Runtime.open`, and `close` it when done.

    `clock` is monotonic seconds: breakers, rate limits and the backlog go by it. `catalogue` lists the providers that
    callers may reach with keys of their own (None: the shipped one). `journals` is where rows wait while the ledger is
    away (None: in memory only), `steady` the time of day (None: the wall clock). `config` is the one in force.
    """

    def __init__(
        self,
        loaded: Loaded,
        ledger: Ledger,
        version: str,
        clock: Callable[[], float] = time.monotonic,
        catalogue: Mapping[str, CatalogueEntry] | None = None,
        journals: JournalPlace | None = None,
        steady: SteadyClock | None = None,
    ) -> None:
        self._steady = steady
        self._wall: Callable[[], float] = time.time if steady is None else steady.now
        self._written, self._engines = loaded, dict[str, tuple[str, ...]]()
        config = DerivedConfig.of(loaded_with(loaded, {}), utc_day(self._wall()))
        router_id = f"router-{secrets.token_hex(8)}"
        self._recent_log = RecentLog()
        self._telemetry = self._make_telemetry(loaded, version, router_id)
        self.ledger = ledger
        ledger.actor = router_id
        self.board = Board()
        self.metrics = Metrics()
        self.alerts = Alerts(AlertHooks(self.metrics.on_alert, self.metrics.on_delivery, self.metrics.on_excess))
        self.writer = self._make_writer(loaded, Journal(None if journals is None else journals.file_of(router_id)))
        self.accounts = self._make_accounts(config, router_id)
        self.pacer = Pacer(ledger, config.pacing, self._wall)
        self.gpu_billing = GpuBilling(ledger, config.fixed, self._wall)
        self.engine_watch = EngineWatch(self.board, clock, self.alerts.engine_outage)
        self.watchdog = Watchdog(self.alerts.task_stopped)
        self._keys = KeyStore(ledger.keys)
        self.credits = Credits(ledger.credits, self._wall)
        self.provider_keys = ProviderKeys(ledger.provider_keys)
        self._key_rates = KeyRates()
        self.verdicts = Verdicts()
        self.failed_logins = FailedLogins()
        self._pools: dict[str, tuple[Target, Pool]] = {}
        self._descriptors = of_process()
        self._is_leaving = False
        self._started_with = loaded.settings
        self._open_cache = OpenCache(clock, self._wall)
        self.lookup: Lookup = look_up
        """What finds out where the names of local backends lead."""
        self._changing = asyncio.Lock()
        """Held while a configuration is judged and put in force, so that a slower one does not replace a newer one."""
        self.tls: ssl.SSLContext | None = None
        """What the listener speaks TLS with, into which a reload loads renewed files."""
        self.share_mover = ShareMover(ledger, self._wall, self._place_shares)
        self._apply(config)
        self._traffic = Traffic()
        self.audits = Audits(random.random, self._on_certificate_revoked, ledger.labels.put)
        self.shadows = Shadows()
        self.drains = Drains(lambda: self._active_config.limits.drains, self.metrics.on_drained)
        self.private_sessions = PrivateSessions(ledger.private_sessions, self._wall)
        self.private_sessions.load()
        self.trait_keeper = TraitKeeper(ledger.traits, self._wall)
        self.services = self._make_services(clock, load_catalogue() if catalogue is None else catalogue)
        self.reviews = ReviewQueue(
            ledger.reviews,
            lambda: self.config.review_queue,
            self._wall,
            request_ids(self._wall, "rev_").__next__,
        )
        extractions = IdempotentExtractions(clock)
        self._add_metrics(clock)
        self._reporting = asyncio.Lock()
        self._trials: Trials | None = None
        self.engine_log: Path | None = None
        """The log file of the engine that this process runs."""
        self._background = Background(self._background_services(router_id, extractions))
        self.dashboard = Dashboard(self._dashboard_parts(version), self._traffic)
        self.control = self._control_api(version, extractions)
        self.app: App = build(self.control, self.services.bodies, lambda: self._active_config.cors_origins)
        self._front_state = FrontendState(self.services)
        self.front: Callable[..., asyncio.Protocol] = frontend_factory(self._front_state)

    def _make_writer(self, loaded: Loaded, journal: Journal) -> LedgerWriter:
        return LedgerWriter(
            self.ledger,
            away_after_s=loaded.settings.ledger.away_after_ms / 1000,
            journal=journal,
            on_change=self.alerts.ledger_changed,
        )

    def _make_telemetry(self, loaded: Loaded, version: str, router_id: str) -> TelemetryExport | None:
        """Return the export of spans and metrics; None if none is configured. Its packages are imported when it runs:
        most routers have none."""
        part = loaded.settings.telemetry
        if part.otlp_url is None:
            return None
        settings = ExportSettings(
            url=part.otlp_url.rstrip("/"),
            headers=part.headers,
            service_name=part.service_name,
            version=version,
            instance=router_id,
            interval_s=part.interval_s,
        )

        def sender() -> Sender:
            from spillway_router.telemetry.otlp import open_sender

            return open_sender(settings)

        return TelemetryExport(sender, self._places)

    def _places(self) -> dict[str, Place]:
        return {
            name: Place(target.backend.provider, target.target.host, target.target.port)
            for name, target in self.config.assembly.targets.items()
        }

    def _make_accounts(self, config: DerivedConfig, router_id: str) -> Accounts:
        return Accounts(
            writer=self.writer,
            lines=(),
            coefficients=config.report.coefficients,
            wall=self._wall,
            on_alert=self.alerts.budget_reached,
            router_id=router_id,
            on_excess=self.alerts.charge_above_hold,
        )

    @classmethod
    def open(cls, loaded: Loaded, version: str) -> Runtime:
        """Open the configured ledger and build a router on it. Raises ConfigError or LedgerError."""
        ledger = open_ledger(loaded.settings.ledger.url)
        if ledger.notice:
            log.warning("the ledger is not whole: %s", ledger.notice)
        part = loaded.settings.ledger
        journals = JournalPlace.of(ledger.name, part.path, part.journal)
        try:
            _recover(ledger, journals)
            steady = SteadyClock(system_sources(), journals.clock_file, ledger.server_s)
            return cls(loaded, ledger, version, journals=journals, steady=steady)
        except BaseException:
            ledger.close()
            raise

    def start(self) -> None:
        """Start the background services."""
        self._background.start()
        self._report_findings()

    def leave(self) -> float:
        """Say by /ready that no more requests should come; return for how many seconds they may come anyway."""
        self._is_leaving = self._front_state.is_leaving = True
        self.dashboard.close()
        return self.config.loaded.settings.limits.stop_unready_s

    def needs_restart(self) -> tuple[str, ...]:
        """Return the names of changed settings that only a restart applies."""
        return needs_restart(self._started_with, self.config.loaded.settings)

    def withdraw(self) -> None:
        """Prepare for the end of the machine: /ready says 503, and new requests go to the cloud where they may."""
        self._is_leaving = self._front_state.is_leaving = True
        self.board.leave()
        log.warning("the machine is about to be taken away: new requests go to the cloud where they may")

    async def close(self) -> None:
        """Stop the background services in order; the last rows are written."""
        await self._background.stop()

    async def reload(self, by: str) -> list[str]:
        """Read the configuration again, as somebody asked. A bad one changes nothing, and its problems are returned."""
        before = self.config
        try:
            async with self._changing:
                written = self._written.again()
                config = DerivedConfig.of(loaded_with(written, self._engines), utc_day(self._wall()))
                await self._judge_places(config)
                await self._replace(config, written)
        except ConfigError as error:
            for problem in error.problems:
                log.warning("configuration not reloaded: %s", problem)
            await self._record(refused_reload(before, len(error.problems), by))
            return [str(problem) for problem in error.problems]
        self._renew_certificate()
        log.info("configuration reloaded, policy %s", self.config.assembly.policy.version)
        waiting = self.needs_restart()
        if waiting:
            log.warning("only a restart applies what changed in: %s", ", ".join(waiting))
        await self._record(reload_done(before, self.config, by))
        return []

    async def use_engines(self, engines: Engines) -> bool:
        """Use the engines that were found for discovered backends; False, with a warning, if they can't be used."""
        try:
            async with self._changing:
                config = DerivedConfig.of(loaded_with(self._written, engines), utc_day(self._wall()))
                await self._judge_places(config)
                await self._replace(config, engines=engines)
        except ConfigError as error:
            for problem in error.problems:
                log.warning("the engines that were found are not used: %s", problem)
            return False
        log.info("using the engines %s", "; ".join(f"{name}: {', '.join(urls)}" for name, urls in engines.items()))
        return True

    async def judge_places(self) -> None:
        """Find out where the names of local backends lead, at the start. Raises ConfigError for a public place."""
        await self._judge_places(self.config)

    async def _judge_places(self, config: DerivedConfig) -> None:
        """Raise ConfigError if the name of a local backend leads to public addresses; warn of what nobody knows."""
        hosts = local_hosts(config.assembly.targets)
        places = await asyncio.to_thread(named_places, hosts, self.lookup)
        if places.problems:
            raise ConfigError([located(config.loaded.text, problem) for problem in places.problems])
        for finding in (*places.warnings, *places.unresolved):
            log.warning("%s %s", finding.where, finding.problem)

    def _renew_certificate(self) -> None:
        """Have the listener use renewed files, which were checked with the rest of the configuration."""
        part = self.config.loaded.settings.tls
        if self.tls is None or part is None:
            return
        try:
            renew(self.tls, part)
        except OSError as error:
            log.warning("the certificate %s was not loaded: %s", part.certificate, error)

    async def _record(self, change: Change) -> None:
        """Append an act. While the ledger is away it is only logged: nothing administrative waits for it."""
        try:
            await LEDGER_CALLS.run(self.ledger.acts.record, change, limit_s=CLIENT_LIMIT_S)
        except LedgerError as error:
            log.warning("the act %s by %s is not in the ledger: %s", change.kind, change.by, error)

    async def reprice(self, today: date) -> None:
        """Use the prices and the model withdrawals of a day; the configuration stays as it is.

        Raises ConfigError if the price list was damaged since it was last read; nothing changes then.
        """
        await self._replace(DerivedConfig.of(self.config.loaded, today))
        log.info("using the prices of %s", today)

    def _make_services(self, clock: Callable[[], float], catalogue: Mapping[str, CatalogueEntry]) -> Services:
        """Return what a request needs from the router."""
        return Services(
            config=lambda: self._active_config,
            board=self.board,
            accounts=self.accounts,
            records=Records(),
            hooks=(
                self.metrics.on_request,
                self.verdicts.on_request,
                log_request,
                self.trait_keeper.on_request,
                self._traffic.on_request,
                RequestLog(lambda: self.config.loaded.settings.log.requests).on_request,
                *(() if self._telemetry is None else (self._telemetry.on_request,)),
            ),
            clock=clock,
            wall=self._wall,
            new_id=request_ids(self._wall).__next__,
            loop=asyncio.get_running_loop(),
            pacer=self.pacer,
            own_keys=OwnKeys(catalogue),
            provider_keys=self.provider_keys,
            feedback=self.ledger.feedback,
            memory=Memory(
                sessions=Sessions(self.private_sessions),
                retained=RetainedRequests(lambda: self.config.retention_minutes),
            ),
            responses=StoredResponses(self.ledger.responses, self._wall),
            audits=self.audits,
            shadows=self.shadows,
            bodies=BodyMemory(),
            credits=self.credits,
            verdicts=self.verdicts,
            key_loads=KeyLoads(),
            drains=self.drains,
            local_queues=LocalQueues(
                self.board,
                clock=clock,
                loop=asyncio.get_running_loop(),
                slo_ttft_s=lambda: self._active_config.policy.slo.ttft_s,
            ),
            ruled_configs=RuledConfigs(),
            trace_of=None if self._telemetry is None else self._trace_of,
        )

    def _trace_of(self, request_id: str, headers: Mapping[str, str]) -> TraceContext:
        return trace_of(request_id, headers, self._started_with.telemetry.sample)

    def _add_metrics(self, clock: Callable[[], float]) -> None:
        """Have every scrape read the metrics of the router's parts."""
        self.metrics.add(
            BackendMetrics(self.board, clock, lambda: self.engine_watch.metrics_complete),
            LedgerMetrics(self.writer, self.accounts),
            BudgetMetrics(self.accounts, self.pacer),
            GpuMetrics(lambda: self.engine_watch.gpus),
            FixedCostMetrics(lambda: self.gpu_billing.today),
            AuditMetrics(self.audits, self.services.config),
            ReviewMetrics(self.reviews),
            DrainMetrics(self.drains),
            EngineMetrics(self.engine_watch.outages),
            TaskMetrics(self.watchdog),
            LoginMetrics(self.failed_logins),
            CacheMetrics(lambda: self._open_cache.cache),
            ShadowMetrics(self.shadows),
            ShareMetrics(self.services.config, lambda: self.share_mover.moves),
            HedgeMetrics(self.services.memory.hedges),
        )

    def _background_services(self, router_id: str, extractions: IdempotentExtractions) -> tuple[Service, ...]:
        """Return the background services in the order of their start."""
        upkeep = Upkeep(self.ledger, self.accounts, router_id, self._wall)
        days, heap = DayChange(self.reprice, self._wall), HeapKeeper(self.services.bodies)
        discovery = Discovery(lambda: self._written.settings, self.use_engines)
        verdicts = VerdictActs(self.ledger.acts, self.verdicts, self._wall)
        part = self.config.loaded.settings.ledger.anchor
        places = AnchorPlaces(part.file, self.alerts.ledger_anchored if part.webhook else None)
        anchor = LedgerAnchor(self.ledger, places, part.every_s, self._wall)
        clock = () if self._steady is None else (self._clock_service(self._steady),)
        export = self._telemetry
        morning = MorningReport(
            MorningSources(
                plan=lambda: morning_plan(self.config),
                letter=self._letter,
                claims=self.ledger.alerts,
                wall=self._wall,
                zone=lambda: self.config.report.zone,
            )
        )
        telemetry = () if export is None else (Service("telemetry", export.stop, export.start),)
        return (
            Service("recent log", self._recent_log.detach, self._recent_log.attach),
            *clock,
            *telemetry,
            Service("ledger", lambda: LEDGER_CALLS.run(self.ledger.close, limit_s=CLOSE_S)),
            # The writer's last flush may raise an alert, so alerts stop after it.
            Service("alerts", lambda: self.alerts.close(ALERTS_FLUSH_S), self.alerts.start),
            # The last head is noted once the writer has stored its last row.
            Service("ledger anchor", anchor.stop, anchor.start),
            Service("private sessions", self.private_sessions.stop),
            Service("request traits", self.trait_keeper.stop, self.trait_keeper.start),
            Service("ledger writer", lambda: self.writer.close(FLUSH_S)),
            Service("credits", self.credits.close),
            Service("verdict acts", verdicts.stop, verdicts.start),
            Service("ledger upkeep", upkeep.stop, upkeep.start),
            Service("connections", self._disconnect),
            Service("cache", self._open_cache.close),
            Service("drains", self.drains.close),
            Service("GPU billing", self.gpu_billing.stop, self.gpu_billing.start),
            Service("pacer", self.pacer.stop, self.pacer.start),
            Service("audits", self.audits.stop, lambda: self.audits.start(self.services)),
            Service("shadows", self.shadows.stop, lambda: self.shadows.start(self.services)),
            Service("engine watch", self.engine_watch.stop, self._watch_engines),
            Service("discovery", discovery.stop, discovery.start),
            Service("heap", heap.stop, heap.start),
            Service("experiment shares", self.share_mover.stop, self.share_mover.start),
            Service("day change", days.stop, days.start),
            Service("reviews", self.reviews.stop, self.reviews.start),
            Service("keyed extractions", extractions.stop),
            Service("morning report", morning.stop, morning.start),
            Service("watchdog", self.watchdog.close, self.watchdog.start),
        )

    def _clock_service(self, steady: SteadyClock) -> Service:
        steady.on_jump = self.alerts.clock_jumped
        periodic = steady.periodic()
        return Service("clock", periodic.stop, periodic.start)

    async def _replace(
        self, config: DerivedConfig, written: Loaded | None = None, engines: Engines | None = None
    ) -> None:
        """Put another configuration in force while the router runs. `written` and `engines` are what it was made from,
        where that is new: the next change starts from them, even if it comes while this one waits."""
        self._apply(config)
        self._written = self._written if written is None else written
        self._engines = self._engines if engines is None else dict(engines)
        self.services.memory.refused_additions.forget()
        await self.gpu_billing.reprice(config.fixed)
        self._watch_engines()
        self._report_findings()

    def _apply(self, config: DerivedConfig) -> None:
        """Hand every derived value to what works with it, at the start and at every reload.

        The rest of `config` is read where it is needed. Raises LedgerError if the balances can't be read or a price
        can't be kept.
        """
        assembly = config.assembly
        self.alerts.configure(config.webhook)
        self.accounts.set_coefficients(config.report.coefficients)
        self.accounts.load(self.ledger, config.budgets)
        self.credits.load(config.credits)
        self.provider_keys.use(config.vault)
        self.accounts.keep_prices(backend.tariff for backend in assembly.backends)
        self.share_mover.use(config.bandits, assembly.rules)
        self.board.update(assembly.backends, assembly.rates)
        self.pacer.configure(config.pacing)
        self._active_config = self._make_active_config(config)
        self.config = config

    def _make_active_config(self, config: DerivedConfig) -> ActiveConfig:
        assembly = config.assembly
        routes = backend_routes(assembly.targets, self._pools)
        left = self._pools
        self._pools = {name: (assembly.targets[name].target, route.pool) for name, route in routes.items()}
        kept = {id(pool) for _, pool in self._pools.values()}
        for _, pool in left.values():
            if id(pool) not in kept:
                pool.retire()
        return ActiveConfig(
            policy=assembly.policy,
            backend_routes=routes,
            privacy=config.privacy,
            auth=Auth(
                verify=self._keys.verify,
                required=config.keys_required,
                origins=config.cors_origins,
                scrape_token=config.scrape_token,
                rules=self._keys.rules,
                valid=self._keys.valid,
                rates=self._key_rates,
                failures=self.failed_logins,
                verdicts=self.verdicts,
                failures_per_minute=config.failed_logins_per_minute,
            ),
            limits=replace(config.limits, in_flight=min(config.limits.in_flight, self._descriptors.requests)),
            created=int(self._wall()),
            policy_header=b"x-spillway-policy: %b\r\n" % assembly.policy.version.encode(),
            scoring=assembly.scoring,
            redactor=Redactor(secret for target in assembly.targets.values() for secret in target.secrets),
            cors_origins=config.cors_origins,
            page_origins=config.page_origins,
            rules=self.share_mover.placed(assembly.rules),
            traits=config.traits,
            hedging=config.loaded.settings.hedging.rule(),
            cache=self._open_cache.configure(config.cache),
            leaves_by_price=config.report.coefficients if config.loaded.settings.overflow.by_price else None,
        )

    def _place_shares(self) -> None:
        """Put the shares in force that a bandit has moved; all else stays."""
        rules = self.share_mover.placed(self.config.assembly.rules)
        self._active_config = replace(self._active_config, rules=rules)

    def _watch_engines(self) -> None:
        overflow = self.config.loaded.settings.overflow
        self.engine_watch.watch(self.config.assembly.targets, overflow.busy_for_s)

    async def _disconnect(self) -> None:
        for _, pool in self._pools.values():
            pool.close()
        self.services.own_keys.close()

    def _control_api(self, version: str, extractions: IdempotentExtractions) -> FastAPI:
        """Return the control API with the routes of feedback, keys and documents."""
        hooks = ControlHooks(
            metrics=self.metrics.render,
            usage=self._usage,
            stored=self._stored_entries,
            entries_before=self.ledger.entries_before,
            reload=self.reload,
            home=self.dashboard.home,
            is_leaving=lambda: self._is_leaving,
            needs_restart=self.needs_restart,
        )
        control = build_control(self.services, hooks, version)
        add_feedback_routes(control, self.services, self._stored_entries)
        add_key_routes(control, self.services, self._keys)
        add_provider_key_routes(control, self.services)
        add_rental_routes(control, self.services, self.ledger, lambda: rental_defaults(self.config.loaded.settings))
        add_price_routes(control, self.services, self._prices)
        documents = DocumentServices(self.services, lambda: self.config.documents, self.reviews, extractions)
        add_document_routes(control, documents)
        self.dashboard.add_to(control)
        return control

    def _dashboard_parts(self, version: str) -> Parts:
        return Parts(
            services=self.services,
            version=version,
            report=self._report,
            focus=self._focus,
            entries_of=self.ledger.entries_of,
            entries_before=self.ledger.entries_before,
            zone=lambda: self.config.report.zone,
            valid_key=self._keys.valid,
            key_names=self._keys.names,
            keys=self._keys,
            labels=self.ledger.labels,
            experiments=self.ledger.experiments,
            fleet=self._fleet,
            trial=self._trial,
            thresholds=lambda: self.audits.threshold_states(self.services.config()),
            audit_counts=lambda: self.audits.counts,
            reviews=self.reviews,
            config=lambda: self.config,
            reload=self.reload,
            ledger_health=lambda: self.writer.health,
            gpus=lambda: self.engine_watch.gpus.readings,
            is_leaving=lambda: self._is_leaving,
            log_lines=lambda: self._recent_log.lines,
            engine_lines=self._engine_lines,
            checked=self._checked,
        )

    async def _usage(self, query: ReportQuery) -> Mapping[str, Any]:
        """Return a report as JSON values. Raises RangeError or LedgerError."""

        def work(now_ms: int) -> Mapping[str, Any]:
            from spillway_router.ledger.reports.json_report import report_values

            return report_values(self._reported(query, now_ms))

        return await self._alone(work)

    async def _report(self, query: ReportQuery) -> Report:
        """Return a report. Raises RangeError or LedgerError."""
        return await self._alone(partial(self._reported, query))

    async def _focus(self, query: ReportQuery) -> str:
        """Return the days of a query as FOCUS CSV, one row per day, group and key. Raises RangeError or LedgerError."""

        def work(now_ms: int) -> str:
            from spillway_router.ledger.reports.days import read_range
            from spillway_router.ledger.reports.export import export_focus

            out = StringIO()
            export_focus(self.ledger, read_range(query, now_ms), now_ms, out, daily=True)
            return out.getvalue()

        return await self._alone(work)

    async def _fleet(self, days: int) -> FleetNow:
        """Return how many GPUs there should be by the requests of so many days. Raises FleetError, ConfigError or
        LedgerError."""

        def work(now_ms: int) -> FleetNow:
            from spillway_router.replay.fleet_now import fleet_now, fleet_setup

            loaded, now_s = self.config.loaded, now_ms // 1000
            setup = fleet_setup(loaded, datetime.fromtimestamp(now_s, UTC).date())
            return fleet_now(loaded, self.ledger, (now_s - days * 86_400, now_s), setup)

        return await self._alone(work)

    def _prices(self, provider: str | None, day: date) -> PriceListing:
        settings = self.config.loaded.settings
        return listed(settings.price_file, provider, day, settings.prices.stale_after_days)

    def _engine_lines(self) -> Sequence[str] | None:
        from spillway_router.runtime.engine_tail import engine_tail

        return None if self.engine_log is None else engine_tail(self.engine_log, self.services.config().redactor.cut)

    def _checked(self) -> CheckReport:
        from spillway_router.config.checkup import checked

        return checked(self.config.loaded, offline=False)[0]

    async def _trial(self, trial: Trial) -> TrialResult:
        """Return what another policy does with the newest requests. Raises TrialError, ConfigError or LedgerError."""

        def work(now_ms: int) -> TrialResult:
            if self._trials is None:
                from spillway_router.replay.trials import Trials

                self._trials = Trials(self.ledger)
            return self._trials.result(self.config.loaded, trial, now_ms)

        return await self._alone(work)

    async def _letter(self, day: date) -> Letter:
        """Return the morning report of a day. Raises LedgerError."""

        def work(now_ms: int) -> Letter:
            from spillway_router.dashboard.letter import letter_of
            from spillway_router.dashboard.report_file import Breakdown

            of_day = ReportQuery(day=day.isoformat())
            of_month = ReportQuery(first=day.replace(day=1).isoformat(), last=day.isoformat(), by=("day",))
            by = [self._reported(replace(of_day, by=by), now_ms) for by in (("day",), ("key", "backend"))]
            return letter_of(Breakdown(*by), self._reported(of_month, now_ms))

        return await self._alone(work)

    async def _alone(self, work: Callable[[int], _T]) -> _T:
        """Return what a function of the present (epoch ms) makes of the ledger, on a thread. One works at a time,
        because this process also serves requests."""
        async with self._reporting:
            now_ms = int(self._wall() * 1000)
            return await LEDGER_CALLS.run(partial(work, now_ms), limit_s=REPORT_S)

    def _reported(self, query: ReportQuery, now_ms: int) -> Report:
        # Imported here, since most routers are asked for no report, and an idle one has to be small.
        from spillway_router.ledger.reports.build import report_for

        return report_for(self.ledger, query, self.config.report, now_ms, most_groups=MOST_GROUPS)

    def _stored_entries(self, request_id: str) -> list[Mapping[str, Any]]:
        return [entry._asdict() for entry in self.ledger.entries_of(request_id)]

    def _report_findings(self) -> None:
        """Log what is disabled or needs attention, and post an alert if the calibration is not used."""
        assembly = self.config.assembly
        unpriced = unpriced_gpu(self.config.loaded.settings, assembly)
        for finding in (*assembly.disabled, *assembly.warnings, *unpriced):
            log.warning("%s %s", finding.where, finding.problem)
        self.alerts.calibration_unused([w.problem for w in assembly.warnings if w.where == CALIBRATION])

    def _on_certificate_revoked(self, kind: AuditKind, drift: Drift) -> None:
        self.alerts.certificate_revoked(kind, sum(drift.losses), len(drift.losses))


def _recover(ledger: Ledger, journals: JournalPlace) -> None:
    """Store what a router left behind that ended while the ledger was away. It must not keep this one from starting."""
    try:
        rows = recover(ledger, journals)
    except LedgerError as error:
        log.warning("rows of an earlier router wait in %s, and can't be stored now: %s", journals.folder, error)
    else:
        if rows:
            log.warning("%d rows that an earlier router could not store are in the ledger now", rows)

"""The composition root: builds everything from one configuration, owns the order of start and stop.

Start: ledger -> writer -> accounts -> board -> policy and channels -> what runs beside the requests (`_beside` has its
order) -> listening (serving.py). Stop, in reverse: no new connections, requests in progress end, watchers stop, the
rental ends and its last row is written, the writer flushes, the ledger closes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from fastapi import FastAPI

from spillway_router.config.assemble import Assembly, assembled, channels, limits
from spillway_router.config.confidence import CALIBRATION
from spillway_router.config.documents import document_rules, queue_rules
from spillway_router.config.load import ConfigError, Loaded
from spillway_router.config.settings import Settings
from spillway_router.core.confidence.drift import Drift
from spillway_router.core.money.tariff import NANO
from spillway_router.documents.repeats import Repeats
from spillway_router.documents.reviews import ReviewQueue
from spillway_router.documents.routes import add_document_routes
from spillway_router.documents.services import DocumentServices
from spillway_router.http_client.pool import Pool
from spillway_router.http_client.types import Target
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.ids import request_ids
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.maintenance import Upkeep
from spillway_router.ledger.pacer import Pacer, PacingRules
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.tables.keys import KeyStore
from spillway_router.ledger.writer import LedgerWriter, WriterHealth
from spillway_router.metrics.confidence import AuditGauge, ConfidenceMetrics, ReviewGauge, ThresholdGauge
from spillway_router.metrics.registry import BudgetGauge, Metrics, log_request
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.providers.interface import CatalogueEntry
from spillway_router.proxy.audits.audits import Audits
from spillway_router.proxy.audits.thresholds import KINDS, Kind
from spillway_router.proxy.control.api import ControlHooks, build_control
from spillway_router.proxy.control.feedback import add_feedback_routes
from spillway_router.proxy.control.gateway import ControlGateway
from spillway_router.proxy.entry.app import App, build
from spillway_router.proxy.entry.frontend import fronts
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.byok_pools import OwnKeys
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.memory.memory import Memory, Retained
from spillway_router.proxy.memory.records import Records
from spillway_router.proxy.request.auth import Auth
from spillway_router.proxy.request.facts import PrivacyRule, keyword_pattern
from spillway_router.runtime.alerts import AlertHooks, Alerts, Webhook
from spillway_router.runtime.background import Background, Service
from spillway_router.runtime.day_change import DayChange, utc_day
from spillway_router.runtime.engine_watch import EngineObservers, EngineWatch
from spillway_router.runtime.gpu_billing import GpuBilling, coefficients
from spillway_router.signals.board import Board, BoardRules

log = logging.getLogger("spillway")

FLUSH_S = 10.0
ALERTS_FLUSH_S = 3.0


class Runtime:
    """A running router. Make it inside the event loop with `Runtime.open`; `close` when done.

    `clock` is monotonic seconds: what breakers, rate limits and the backlog go by. `catalogue` says where callers may
    go with keys of their own (None: the shipped one).
    """

    def __init__(
        self,
        loaded: Loaded,
        ledger: Ledger,
        version: str,
        clock: Callable[[], float] = time.monotonic,
        catalogue: Mapping[str, CatalogueEntry] | None = None,
    ) -> None:
        settings = loaded.settings
        assembly = assembled(loaded, utc_day(time.time()))
        self._loaded = loaded
        self._ledger = ledger
        self._assembly = assembly
        router_id = f"router-{secrets.token_hex(8)}"
        self.writer = LedgerWriter(ledger, on_change=self._on_writer)
        self._keys = KeyStore(ledger)
        backends = [place.backend for place in assembly.places.values()]
        self.board = Board(backends, BoardRules(rates=assembly.rates))
        self._pools: dict[str, tuple[Target, Pool]] = {}
        self.metrics = Metrics(self.board, clock, self._writer_gauges)
        self._alerts = Alerts(AlertHooks(self.metrics.on_alert, self.metrics.on_delivery), _webhook(settings))
        self._accounts = Accounts(self.writer, (), coefficients(settings), time.time, self._alerts.told, router_id)
        self._accounts.load(ledger, [b.line() for b in settings.budgets])
        self._pacer = Pacer(ledger, _pacing(settings, assembly))
        self._own_keys = OwnKeys(load_catalogue() if catalogue is None else catalogue)
        self.metrics.budgets = self._budget_gauges
        self._live = self._make_live(settings, assembly)
        self._documents = document_rules(settings, assembly.policy, assembly.scoring.for_documents)
        self.services = Services(
            lambda: self._live,
            self.board,
            self._accounts,
            Records(),
            (self.metrics.on_request, log_request),
            clock,
            time.time,
            request_ids(time.time).__next__,
            asyncio.get_running_loop(),
            self._pacer,
            self._own_keys,
            ledger.feedback,
            Memory(retained=Retained(lambda: self._loaded.settings.retention.minutes)),
            Audits(random.random, self._on_revoked, ledger.labels.put),
        )
        self._upkeep = Upkeep(ledger, self._accounts, router_id, time.time)
        self._days = DayChange(self.reprice, time.time)
        self._watchers = EngineWatch(EngineObservers(self.board, self.metrics, clock))
        self._books = GpuBilling(ledger, loaded, assembly)
        self.reviews = ReviewQueue(
            ledger.reviews,
            lambda: queue_rules(self._loaded.settings.documents),
            time.time,
            request_ids(time.time, "rev_").__next__,
        )
        self._repeats = Repeats(clock)
        self._background = self._beside()
        self.metrics.add(ConfidenceMetrics(self._audit_gauges, self._gate_gauges, self._review_gauge))
        self.app: App = build(self._control(version))
        self.front: Callable[..., asyncio.Protocol] = fronts(self.services)

    def _control(self, version: str) -> FastAPI:
        """The control API with the routes of feedback and documents."""
        hooks = ControlHooks(self.metrics.render, self._books.usage, self._stored, self.reload)
        control = build_control(self.services, hooks, version)
        desk = ControlGateway(self.services)
        add_feedback_routes(control, desk, self.services, self._stored)
        documents = DocumentServices(desk, lambda: self._documents, self.reviews, self._repeats)
        add_document_routes(control, documents)
        return control

    @classmethod
    def open(cls, loaded: Loaded, version: str) -> Runtime:
        """Build everything. Raises ConfigError or LedgerError."""
        ledger = open_ledger(loaded.settings.ledger.url)
        try:
            return cls(loaded, ledger, version)
        except BaseException:
            ledger.close()
            raise

    def start(self) -> None:
        """Begin what runs beside the requests."""
        self._background.start()
        self._tell()

    async def close(self) -> None:
        """Stop in order; the last rows are written."""
        await self._background.stop()

    def _beside(self) -> Background:
        """What runs beside the requests. It stops in reverse: who writes rows before the ledger's writer, alerts after
        it, as it may bring one."""
        audits = self.services.audits
        return Background(
            Service("ledger", lambda: asyncio.to_thread(self._ledger.close)),
            Service("alerts", lambda: self._alerts.close(ALERTS_FLUSH_S), self._alerts.start),
            Service("ledger writer", lambda: self.writer.close(FLUSH_S)),
            Service("ledger upkeep", self._upkeep.stop, self._upkeep.start),
            Service("connections", self._disconnect),
            Service("GPU time", self._books.stop, self._books.start),
            Service("pacer", self._pacer.stop, self._pacer.start),
            Service("audits", audits.stop, lambda: audits.start(self.services)),
            Service("watchers", self._watchers.stop, lambda: self._watchers.start(self._assembly.places)),
            Service("days", self._days.stop, self._days.start),
            Service("reviews", self.reviews.stop, self.reviews.start),
            Service("repeated documents", self._repeats.stop),
        )

    async def _disconnect(self) -> None:
        for _, pool in self._pools.values():
            pool.close()
        self._own_keys.close()

    async def reload(self) -> list[str]:
        """Read the configuration again; a bad one changes nothing and its mistakes are returned."""
        try:
            loaded = self._loaded.again()
            assembly = assembled(loaded, utc_day(time.time()))
            await self._apply(loaded, assembly)
        except ConfigError as error:
            for mistake in error.mistakes:
                log.warning("configuration not reloaded: %s", mistake)
            return [str(m) for m in error.mistakes]
        log.info("configuration reloaded, policy %s", assembly.policy.version)
        return []

    async def reprice(self, today: date) -> None:
        """Take up the prices of a day, and what was withdrawn on it; the configuration stays as it is.

        Raises ConfigError where the price list was damaged since; nothing changes then.
        """
        await self._apply(self._loaded, assembled(self._loaded, today))
        log.info("prices of %s taken up", today)

    async def _apply(self, loaded: Loaded, assembly: Assembly) -> None:
        settings = loaded.settings
        documents = document_rules(settings, assembly.policy, assembly.scoring.for_documents)
        self._loaded, self._assembly = loaded, assembly
        self.board.update([place.backend for place in assembly.places.values()])
        self._accounts.load(self._ledger, [b.line() for b in settings.budgets])
        self._live = self._make_live(settings, assembly)
        self._documents = documents
        self._alerts.configure(_webhook(settings))
        self._pacer.configure(_pacing(settings, assembly))
        await self._books.reload(loaded, assembly)
        self._watchers.start(assembly.places)
        self._tell()

    def _make_live(self, settings: Settings, assembly: Assembly) -> ActiveConfig:
        found = channels(assembly, self._pools)
        self._pools = {name: (assembly.places[name].target, channel.pool) for name, channel in found.items()}
        required = settings.keys.required or not settings.loopback
        privacy = PrivacyRule(settings.privacy.default == "local-only", keyword_pattern(settings.privacy.keywords))
        auth = Auth(self._keys.verify, required)
        opening = b"x-spillway-policy: %b\r\n" % assembly.policy.version.encode()
        created = int(time.time())
        return ActiveConfig(assembly.policy, found, privacy, auth, limits(settings), created, opening, assembly.scoring)

    def _stored(self, request_id: str) -> list[Mapping[str, Any]]:
        return [entry._asdict() for entry in self._ledger.entries_of(request_id)]

    def _budget_gauges(self) -> list[BudgetGauge]:
        return [
            BudgetGauge(
                line.scope,
                line.period,
                line.limit_nano / NANO,
                balance.spent / NANO,
                balance.reserved / NANO,
                self._pacer.price_of(line.key, balance.taken / line.limit_nano if line.limit_nano else 1.0),
            )
            for line, balance in self._accounts.standing()
        ]

    def _audit_gauges(self) -> list[AuditGauge]:
        counts = self.services.audits.counts
        return [
            AuditGauge(
                kind,
                counts.asked.get(kind, 0),
                {result: n for (k, result), n in counts.ended.items() if k == kind},
                {result: n for (k, result), n in counts.probes.items() if k == kind},
            )
            for kind in KINDS
        ]

    def _gate_gauges(self) -> list[ThresholdGauge]:
        states = self.services.audits.gates(self._live)
        return [ThresholdGauge(g.kind, g.configured, g.threshold, g.drift.revoked) for g in states]

    def _review_gauge(self) -> ReviewGauge | None:
        known = self.reviews.standing()
        return None if known is None else ReviewGauge(*known)

    def _writer_gauges(self) -> Mapping[str, float]:
        health = self.writer.health
        return {
            "spillway_ledger_up": float(not health.degraded),
            "spillway_ledger_queued_rows": float(health.queued_rows),
            "spillway_ledger_owed_rows": float(self._accounts.owed_rows),
            "spillway_ledger_lost_rows": float(self._accounts.lost_rows),
        }

    def _tell(self) -> None:
        for told in (*self._assembly.off, *self._assembly.warnings):
            log.warning("%s %s", told.where, told.problem)
        self._alerts.calibration_unused([w.problem for w in self._assembly.warnings if w.where == CALIBRATION])

    def _on_revoked(self, kind: Kind, found: Drift) -> None:
        self._alerts.certificate_revoked(kind, sum(found.losses), len(found.losses))

    @staticmethod
    def _on_writer(health: WriterHealth) -> None:
        if health.degraded:
            log.error("ledger can't write (%s): paid calls are refused, local answers go on", health.reason)
        else:
            log.warning("ledger writes again")


def _pacing(settings: Settings, assembly: Assembly) -> PacingRules:
    lines = tuple(part.line() for part in settings.budgets if part.pacing)
    rule = assembly.policy.confidence
    tiers = (assembly.policy.backends[name] for name in rule.escalate_to)
    return PacingRules(lines, tuple(tier for tier in tiers if tier.tariff is not None), rule.threshold)


def _webhook(settings: Settings) -> Webhook | None:
    part = settings.alerts
    return None if part.webhook_url is None else Webhook(part.webhook_url, part.secret or "")

"""The one derivation from a loaded configuration to everything that a running router works with.

The start and every reload take their values from here, so that a reload can't miss one.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from datetime import date
from urllib.parse import urlsplit

from spillway_router.caching.open import CacheSettings
from spillway_router.config.assemble import Assembly, assembly_of, request_limits
from spillway_router.config.caching import cache_settings
from spillway_router.config.costs import budget_lines, fixed_terms, pacing_rules, report_terms
from spillway_router.config.documents import document_rules, queue_rules
from spillway_router.config.experiments import bandits
from spillway_router.config.load import ConfigError, ConfigProblem, Loaded
from spillway_router.config.rules import trait_reader
from spillway_router.config.secret_keys import vault_of
from spillway_router.config.settings import SCRAPE_VARIABLE, SHORTEST_TOKEN, AlertsPart, PresidioPart, Settings
from spillway_router.core.money.budget import BudgetLine
from spillway_router.core.money.credits import CreditLine
from spillway_router.core.routing.moving_arms import Bandit
from spillway_router.core.routing.traits.reader import TraitReader
from spillway_router.documents.reviews import QueueRules
from spillway_router.documents.services import DocumentRules
from spillway_router.ledger.pacer import PacingRules
from spillway_router.ledger.rentals.keeper import FixedTerms
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.ledger.vault import Vault
from spillway_router.privacy.detectors import PATTERN_NAMES, Detectors
from spillway_router.privacy.recognizer import Recognizer
from spillway_router.proxy.exchange.active_config import Limits
from spillway_router.proxy.request.facts import PrivacyRule


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where alerts are posted. The URL may carry a secret in its path, so neither field is ever logged."""

    url: str = field(repr=False)
    secret: str = field(default="", repr=False)

    @property
    def host(self) -> str:
        """The host name, which is the only part that may be logged."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class DerivedConfig:
    """Everything that a router takes from one configuration and the prices of one day."""

    loaded: Loaded
    """The source, from which a reload reads again."""
    assembly: Assembly
    """Backends, policy and scoring."""
    limits: Limits
    privacy: PrivacyRule
    traits: TraitReader | None
    """Judges what requests ask for, where a rule of the policy looks at it."""
    keys_required: bool
    failed_logins_per_minute: int
    """Of one address; 0: any number."""
    """Whether requests need an API key: configured, or the router listens beyond loopback."""
    budgets: tuple[BudgetLine, ...]
    credits: tuple[CreditLine, ...]
    pacing: PacingRules
    fixed: FixedTerms
    """What the router bills for its GPUs and as other fixed costs."""
    report: ReportTerms
    """What reports compare with, and the work coefficients by which GPU time is attributed."""
    documents: DocumentRules
    review_queue: QueueRules
    retention_minutes: float
    """How long finished requests are kept in memory."""
    bandits: tuple[Bandit, ...]
    """The experiments whose shares move by themselves."""
    cache: CacheSettings | None
    """Where answers are stored that are given again; None if they are not."""
    webhook: Webhook | None
    scrape_token: str = field(repr=False)
    """What Prometheus may send instead of a key to read metrics; "" if nothing is configured."""
    vault: Vault | None
    """What seals and opens the provider keys that callers have stored; None without a secret key."""
    cors_origins: frozenset[str]
    page_origins: frozenset[str]
    """Origins whose web pages may call the router."""

    @staticmethod
    def of(loaded: Loaded, today: date) -> DerivedConfig:
        """Derive the values of a configuration with the prices of a UTC day. Raises ConfigError with every problem."""
        settings = loaded.settings
        assembly = assembly_of(loaded, today)
        return DerivedConfig(
            loaded=loaded,
            assembly=assembly,
            limits=request_limits(settings),
            privacy=_privacy_rule(settings),
            traits=trait_reader(settings.policy, assembly.rules, assembly.learned_complexity),
            keys_required=settings.keys.required or not settings.loopback,
            failed_logins_per_minute=settings.keys.failed_logins_per_minute,
            budgets=budget_lines(settings),
            credits=tuple(line for part in settings.credits for line in part.lines()),
            pacing=pacing_rules(settings, assembly),
            fixed=fixed_terms(settings, assembly, socket.gethostname()),
            report=report_terms(settings, assembly),
            documents=document_rules(settings, assembly.policy, assembly.scoring.document_calibration),
            review_queue=queue_rules(settings.documents),
            retention_minutes=settings.retention.minutes,
            bandits=bandits(settings.experiments),
            cache=cache_settings(settings.cache, assembly.semantic),
            webhook=_webhook(settings.alerts),
            scrape_token=_scrape_token(loaded),
            vault=vault_of(loaded),
            cors_origins=frozenset(settings.cors.origins),
            page_origins=frozenset(settings.dashboard.origins),
        )


def _privacy_rule(settings: Settings) -> PrivacyRule:
    part = settings.privacy
    detectors = Detectors(
        part.keywords,
        match=part.match,
        word_lists=part.word_lists,
        patterns=[name for name in PATTERN_NAMES if part.patterns.get(name, True)],
    )
    return PrivacyRule(
        local_only=part.default == "local-only",
        detectors=detectors if detectors.active else None,
        unreadable=part.unreadable == "local-only",
        recognizer=_recognizer(part.presidio),
        media_hosts=frozenset(host.lower() for host in settings.media.allowed_hosts),
        media_domains=frozenset(host.lower() for host in settings.media.domains),
    )


def _recognizer(part: PresidioPart | None) -> Recognizer | None:
    if part is None:
        return None
    # Few routers have one, and none without it should pay for the module.
    from spillway_router.privacy.presidio import PresidioRecognizer, RecognizerMissingError

    try:
        return PresidioRecognizer(part.language, part.model, part.entities, part.min_score)
    except RecognizerMissingError as error:
        raise ConfigError([ConfigProblem("privacy.presidio", 0, str(error))]) from None


def _scrape_token(loaded: Loaded) -> str:
    """Return the token of the configuration, else the one of the environment. Raises ConfigError if it is too short."""
    token = loaded.settings.metrics.token or loaded.environment.get(SCRAPE_VARIABLE, "")
    if token and len(token) < SHORTEST_TOKEN:
        problem = (
            f"{SCRAPE_VARIABLE} is shorter than {SHORTEST_TOKEN} characters; use the output of openssl rand -hex 24"
        )
        raise ConfigError([ConfigProblem("metrics.token", 0, problem)])
    return token


def _webhook(part: AlertsPart) -> Webhook | None:
    return None if part.webhook_url is None else Webhook(part.webhook_url, part.secret or "")

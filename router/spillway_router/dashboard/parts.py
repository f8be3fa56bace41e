"""What the dashboard needs of the router, so that it depends on none of what runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING

from spillway_router.ledger.entries import Entry
from spillway_router.ledger.records import KeyRecord
from spillway_router.ledger.reports.days import ReportQuery
from spillway_router.ledger.tables.experiments import ExperimentTable
from spillway_router.ledger.tables.keys import KeyStore
from spillway_router.ledger.tables.labels import LabelTable
from spillway_router.ledger.writer import WriterHealth
from spillway_router.proxy.control.request_list import EntriesBefore
from spillway_router.proxy.exchange.services import Services
from spillway_router.signals.gpu import GpuReading

if TYPE_CHECKING:  # imported for its first reader; an idle router has to be small
    from spillway_router.config.checkup import CheckReport
    from spillway_router.config.derived import DerivedConfig
    from spillway_router.documents.reviews import ReviewQueue
    from spillway_router.ledger.reports.model import Report
    from spillway_router.proxy.audits.audits import AuditCounts
    from spillway_router.proxy.audits.thresholds import ThresholdState
    from spillway_router.replay.fleet_now import FleetNow
    from spillway_router.replay.trials import Trial, TrialResult


@dataclass(frozen=True, slots=True)
class Parts:
    """The router as the dashboard sees it."""

    services: Services
    version: str
    report: Callable[[ReportQuery], Awaitable[Report]]
    """Build a report. Raises RangeError for what can't be asked, and LedgerError."""
    focus: Callable[[ReportQuery], Awaitable[str]]
    """Return the days of a query as FOCUS CSV, one row per day, group and key. Raises RangeError and LedgerError."""
    entries_of: Callable[[str], Sequence[Entry]]
    """Return the ledger's rows of a request, in the order of writing. It blocks."""
    entries_before: EntriesBefore
    zone: Callable[[], tzinfo]
    """Return the time zone of reports."""
    valid_key: Callable[[str, float], KeyRecord | None]
    """Return the key of an id if it is valid at a time (monotonic seconds)."""
    key_names: Callable[[], Mapping[str, str]]
    """Return the names of the valid keys by their ids."""
    keys: KeyStore
    labels: LabelTable
    experiments: ExperimentTable
    fleet: Callable[[int], Awaitable[FleetNow]]
    """Return how many GPUs there should be by the requests of so many days. Raises FleetError, ConfigError and
    LedgerError."""
    trial: Callable[[Trial], Awaitable[TrialResult]]
    """Replay the newest requests under another policy. Raises TrialError, ConfigError or LedgerError."""
    thresholds: Callable[[], Sequence[ThresholdState]]
    """Return the thresholds as audits moved them."""
    audit_counts: Callable[[], AuditCounts]
    reviews: ReviewQueue
    config: Callable[[], DerivedConfig]
    """Return the configuration in force."""
    reload: Callable[[str], Awaitable[list[str]]]
    """Reload the configuration for somebody; return the problems that kept the running one in force."""
    ledger_health: Callable[[], WriterHealth]
    gpus: Callable[[], Sequence[GpuReading]]
    is_leaving: Callable[[], bool]
    log_lines: Callable[[], Sequence[str]]
    """Return the last lines of the router's log, oldest first."""
    engine_lines: Callable[[], Sequence[str] | None]
    """Return the last lines of the engine's log, oldest first; None where this router runs no engine. It blocks."""
    checked: Callable[[], CheckReport]
    """Do what `spillway check` does for the configuration in force. It blocks."""

"""Check a configuration and everything that it refers to: keys, prices, the ledger, and whether backends answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from spillway_router.config.load import ConfigProblem, ConfigRejected, located
from spillway_router.config.running_proxies import running_proxies

if TYPE_CHECKING:
    from spillway_router.config.assemble import Assembly
    from spillway_router.config.load import Loaded
    from spillway_router.config.reachability import Reach
    from spillway_router.config.settings import Settings


@dataclass(slots=True)
class CheckReport:
    """The result of a check.

    `errors` prevent the configuration from being used. `disabled` are backends that are left out, `warnings` need
    attention.
    """

    errors: list[ConfigProblem] = field(default_factory=list)
    disabled: list[ConfigProblem] = field(default_factory=list)
    warnings: list[ConfigProblem] = field(default_factory=list)
    reached: tuple[Reach, ...] = ()

    @property
    def lacks_backends(self) -> bool:
        """Whether a backend is disabled, or did not answer."""
        return bool(self.disabled) or any(reach.verdict != "reachable" for reach in self.reached)


def checked(loaded: Loaded, offline: bool) -> tuple[CheckReport, Assembly | None]:
    """Check a configuration; the Assembly is None where errors prevent it. It blocks for some seconds."""
    from spillway_router.config.assemble import assemble, local_hosts
    from spillway_router.config.cache_reach import cache_warnings
    from spillway_router.config.documents import document_problems
    from spillway_router.config.places import named_places
    from spillway_router.config.reachability import ask_all

    outcome = assemble(loaded.settings, loaded.environment, datetime.now(UTC).date())
    if isinstance(outcome, ConfigRejected):
        problems = [*outcome.problems, *document_problems(loaded.settings), *_ledger_problems(loaded, offline)]
        return CheckReport(_located(loaded, problems)), None
    report = CheckReport(
        errors=_located(loaded, [*document_problems(loaded.settings), *_ledger_problems(loaded, offline)]),
        disabled=_located(loaded, outcome.disabled),
        warnings=_located(loaded, _warnings(loaded.settings, outcome)),
    )
    if not offline:
        report.warnings += _located(loaded, cache_warnings(loaded.settings))
        places = named_places(local_hosts(outcome.targets))  # `reached` names those that do not resolve
        report.errors += _located(loaded, places.problems)
        report.warnings += _located(loaded, places.warnings)
    report.reached = () if offline else ask_all(outcome.targets.values())
    for reach in report.reached:
        if reach.fix:
            problem = ConfigProblem(f"backends.{reach.backend}", 0, f"is {reach.sentence}")
            severity = report.errors if reach.verdict == "unauthorized" else report.warnings
            severity.extend(_located(loaded, [problem]))
    return report, outcome


def _ledger_problems(loaded: Loaded, offline: bool) -> list[ConfigProblem]:
    """Return why a router could not use the ledger; a ledger that doesn't exist yet is not made here.
    `offline`: a database server is not asked."""
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.store.open import check_ledger

    try:
        check_ledger(loaded.settings.ledger.url, offline=offline)
    except LedgerError as error:
        return [ConfigProblem("ledger.url", 0, str(error))]
    return []


def _located(loaded: Loaded, problems: Sequence[ConfigProblem]) -> list[ConfigProblem]:
    return [located(loaded.text, problem) for problem in problems]


def _warnings(settings: Settings, assembly: Assembly) -> tuple[ConfigProblem, ...]:
    from spillway_router.config.confidence import served_models, unverified
    from spillway_router.config.costs import unpriced_gpu
    from spillway_router.config.exposure import exposure_warnings
    from spillway_router.config.gpu_rules import looks_at_gpus, unread_gpus
    from spillway_router.signals.nvml import gpus_unread

    local = {backend.name: backend for backend in assembly.backends if backend.local}
    without_gpus = "" if not looks_at_gpus(assembly) else gpus_unread()
    return (
        *assembly.warnings,
        *unpriced_gpu(settings, assembly),
        *unread_gpus(assembly, without_gpus),
        *exposure_warnings(settings, running_proxies()),
        *unverified(assembly.scoring, served_models(settings.backends, local)),
    )

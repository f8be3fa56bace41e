"""The thresholds from which on local answers are accepted, as audits move them (core/confidence/drift.py).

Chat accepts answers from `confidence.threshold` on, documents from `documents.thresholds.local` on. What audits find of
one says nothing of the other, so each has a controller of its own. A new configured threshold or a new certificate
starts the controller anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spillway_router.core.confidence import drift
from spillway_router.core.confidence.calibration import Calibration, Certificate
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.audit_sample import AuditKind

ALPHA = 0.05
"""P(wrong | accepted local) that the threshold is moved towards where no certificate promises another."""
SCALE = tuple(step / 1000 for step in range(1001))
"""Reference quantiles where a calibration has none: theta is then the threshold itself."""


@dataclass(frozen=True, slots=True)
class ThresholdState:
    """A threshold now. `configured` and `threshold` are the least confidence that is accepted, as configured and as
    moved (above 1: nothing is accepted)."""

    kind: AuditKind
    configured: float
    threshold: float
    drift: drift.Drift


class AuditedThreshold:
    """One threshold and its controller. `configured` is always the configured threshold; `on_revoked` is called once,
    when audits contradict it."""

    def __init__(self, kind: AuditKind, on_revoked: Callable[[drift.Drift], None]) -> None:
        self.kind = kind
        self._on_revoked = on_revoked
        self._basis: tuple[float, Certificate | None] | None = None
        self.drift = drift.Drift(0.0)

    def threshold(self, config: ActiveConfig, configured: float) -> float:
        """The threshold in use."""
        if not config.scoring.audit_share:
            return configured
        self._begin(config, configured)
        return drift.threshold(self.drift, self._terms(config, configured), configured, self._reference(config))

    def is_probe(self, config: ActiveConfig, configured: float, confidence: float | None) -> bool:
        """True if an answer of this confidence, which is not accepted, is to be compared with its better answer."""
        if not config.scoring.audit_share or confidence is None:
            return False
        self._begin(config, configured)
        return drift.is_probe(self.drift, confidence, self._terms(config, configured), self._reference(config))

    def observe(self, config: ActiveConfig, configured: float, *, wrong: bool, accepted: bool) -> None:
        """Learn from the comparison of an answer, or of a probe (`accepted` false), with its better answer."""
        if not config.scoring.audit_share:
            return
        self._begin(config, configured)
        before = self.drift
        self.drift = drift.observe(before, wrong, self._terms(config, configured), kept=accepted)
        if self.drift.revoked and not before.revoked:
            self._on_revoked(self.drift)

    def state(self, config: ActiveConfig) -> ThresholdState | None:
        """The threshold now; None before the first answer that could be audited."""
        if self._basis is None:
            return None
        configured = self._basis[0]
        return ThresholdState(self.kind, configured, self.threshold(config, configured), self.drift)

    def _begin(self, config: ActiveConfig, configured: float) -> None:
        calibration = self._calibration(config)
        basis = (configured, None if calibration is None else calibration.certificate)
        if basis != self._basis:
            self._basis, self.drift = basis, drift.initial_state(configured, self._reference(config))

    def _calibration(self, config: ActiveConfig) -> Calibration | None:
        scoring = config.scoring
        return scoring.document_calibration if self.kind == "document" else scoring.calibration

    def _terms(self, config: ActiveConfig, configured: float) -> drift.DriftTerms:
        calibration = self._calibration(config)
        alpha = ALPHA if calibration is None else calibration.certificate.alpha
        theta = drift.theta_of(configured, self._reference(config))
        return drift.DriftTerms(alpha, config.scoring.audit_share, theta)

    def _reference(self, config: ActiveConfig) -> tuple[float, ...]:
        calibration = self._calibration(config)
        return SCALE if calibration is None or len(calibration.reference) < 2 else calibration.reference

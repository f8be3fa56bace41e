"""The thresholds from which on local answers are kept, as audits move them (core/confidence/drift.py): one gate per
threshold.

Chat keeps answers from `confidence.threshold` on, documents from `documents.thresholds.local` on. What audits find of
the one says nothing of the other, so each has a controller of its own. A new threshold or certificate begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from spillway_router.core.confidence import drift
from spillway_router.core.confidence.calibration import Calibration, Certificate
from spillway_router.core.frozen import dataclass
from spillway_router.proxy.exchange.active_config import ActiveConfig

Kind = Literal["chat", "document"]
KINDS: tuple[Kind, ...] = ("chat", "document")

ALPHA = 0.05
"""P(wrong | kept local) that the threshold is moved towards where no certificate promises another."""
SCALE = tuple(step / 1000 for step in range(1001))
"""Reference quantiles where a calibration brings none: theta is then the threshold itself."""


@dataclass(frozen=True, slots=True)
class ThresholdState:
    """A gate as it stands. `configured` and `threshold`: the least confidence that is kept, as configured and as moved
    (above 1: nothing is kept)."""

    kind: Kind
    configured: float
    threshold: float
    drift: drift.Drift


class AuditedThreshold:
    """See the module docstring. `own` is always the configured threshold; `on_revoked` is told once, when audits speak
    against it."""

    def __init__(self, kind: Kind, on_revoked: Callable[[drift.Drift], None]) -> None:
        self.kind = kind
        self._on_revoked = on_revoked
        self._basis: tuple[float, Certificate | None] | None = None
        self.drift = drift.Drift(0.0)

    def threshold(self, live: ActiveConfig, own: float) -> float:
        """The threshold in use."""
        if not live.scoring.audit_share:
            return own
        self._begin(live, own)
        return drift.threshold(self.drift, self._terms(live, own), own, self._reference(live))

    def is_probe(self, live: ActiveConfig, own: float, confidence: float | None) -> bool:
        """True if an answer of this confidence, which is not kept, is to be compared with its better one."""
        if not live.scoring.audit_share or confidence is None:
            return False
        self._begin(live, own)
        return drift.is_probe(self.drift, confidence, self._terms(live, own), self._reference(live))

    def observe(self, live: ActiveConfig, own: float, *, wrong: bool, kept: bool) -> None:
        """One comparison more."""
        if not live.scoring.audit_share:
            return
        self._begin(live, own)
        before = self.drift
        self.drift = drift.observe(before, wrong, self._terms(live, own), kept=kept)
        if self.drift.revoked and not before.revoked:
            self._on_revoked(self.drift)

    def state(self, live: ActiveConfig) -> ThresholdState | None:
        """As it stands; None before the first answer that could be audited."""
        if self._basis is None:
            return None
        own = self._basis[0]
        return ThresholdState(self.kind, own, self.threshold(live, own), self.drift)

    def _begin(self, live: ActiveConfig, own: float) -> None:
        calibration = self._calibration(live)
        basis = (own, None if calibration is None else calibration.certificate)
        if basis != self._basis:
            self._basis, self.drift = basis, drift.initial_state(own, self._reference(live))

    def _calibration(self, live: ActiveConfig) -> Calibration | None:
        return live.scoring.for_documents if self.kind == "document" else live.scoring.calibration

    def _terms(self, live: ActiveConfig, own: float) -> drift.DriftTerms:
        calibration = self._calibration(live)
        alpha = ALPHA if calibration is None else calibration.certificate.alpha
        return drift.DriftTerms(alpha, live.scoring.audit_share, drift.theta_of(own, self._reference(live)))

    def _reference(self, live: ActiveConfig) -> tuple[float, ...]:
        calibration = self._calibration(live)
        return SCALE if calibration is None or len(calibration.reference) < 2 else calibration.reference

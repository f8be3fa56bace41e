"""What `spillway up` knows of the engine it launches, for the router that it starts beside it."""

from __future__ import annotations

from pathlib import Path

from spillway_router.calibration.fingerprint import FingerprintError, fingerprint
from spillway_router.settings_confidence import FingerprintPart
from spillway_server.models import ModelSpec


def fingerprint_of(model: ModelSpec) -> FingerprintPart:
    """Marks of the weights and the chat template where the model is on this disk, and its quantisation (the type of
    its weights where they are not quantised)."""
    quantisation = model.quantisation or model.dtype
    if not model.is_local:
        return FingerprintPart(quantisation=quantisation)
    try:
        marks = fingerprint(Path(model.location))
    except FingerprintError:
        return FingerprintPart(quantisation=quantisation)
    return FingerprintPart(weights=marks["weights"], template=_known(marks["template"]), quantisation=quantisation)


def _known(mark: str) -> str | None:
    return None if mark == "*" else mark

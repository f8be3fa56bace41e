"""What a model is, as calibrations are keyed: `spillway up` tells it the router that it starts beside the engine."""

from __future__ import annotations

from pathlib import Path

from spillway_router.calibration.fingerprint import FingerprintError, fingerprint
from spillway_router.config.settings_confidence import FingerprintPart
from spillway_server.environment import hub_cache
from spillway_server.planning.models import ModelSpec


def fingerprint_of(model: ModelSpec) -> FingerprintPart:
    """Marks of the weights and the chat template where the model is on this disk, and its quantisation (the type of
    its weights where they are not quantised)."""
    quantisation = model.quantisation or model.dtype
    folder = _folder(model)
    if folder is None:
        return FingerprintPart(quantisation=quantisation)
    try:
        marks = fingerprint(folder)
    except FingerprintError:
        return FingerprintPart(quantisation=quantisation)
    return FingerprintPart(weights=marks["weights"], template=_known(marks["template"]), quantisation=quantisation)


def _folder(model: ModelSpec) -> Path | None:
    """Where its files are; of a hub model the one downloaded snapshot, None where there is none or several."""
    if model.is_local:
        return Path(model.location)
    found = list(hub_cache().glob(f"models--{model.location.replace('/', '--')}/snapshots/*"))
    return found[0] if len(found) == 1 else None


def _known(mark: str) -> str | None:
    return None if mark == "*" else mark

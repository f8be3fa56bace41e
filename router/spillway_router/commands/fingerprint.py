"""Fingerprint a model as calibrations are keyed; `spillway up` passes the fingerprint to the router that it starts."""

from __future__ import annotations

from pathlib import Path

from spillway_router.calibration.fingerprint import FingerprintError, fingerprint
from spillway_router.config.settings import FingerprintPart
from spillway_server.environment import hub_cache
from spillway_server.planning.models import ModelSpec


def fingerprint_of(model: ModelSpec) -> FingerprintPart:
    """Return the model's quantisation (the type of its weights where they are not quantised), and marks of its weights
    and chat template where the model is on this disk."""
    quantisation = model.quantisation or model.dtype
    folder = _folder(model)
    if folder is None:
        return FingerprintPart(quantisation=quantisation)
    try:
        marks = fingerprint(folder)
    except FingerprintError:
        return FingerprintPart(quantisation=quantisation)
    return FingerprintPart(weights=marks["weights"], template=_specific(marks["template"]), quantisation=quantisation)


def _folder(model: ModelSpec) -> Path | None:
    """Return the folder of the model's files: for a hub model the downloaded snapshot, None unless there is exactly
    one."""
    if model.is_local:
        return Path(model.location)
    snapshots = list(hub_cache().glob(f"models--{model.location.replace('/', '--')}/snapshots/*"))
    return snapshots[0] if len(snapshots) == 1 else None


def _specific(mark: str) -> str | None:
    return None if mark == "*" else mark

"""Derives from Settings how local answers are scored: the calibration, the backends it is valid for, the self-check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spillway_router.config.fitted_file import FittedFile
from spillway_router.config.load import ConfigProblem, Findings
from spillway_router.config.settings import BackendPart, ConfidencePart, RefereePart, SelfCheckPart
from spillway_router.core.confidence.calibration import ANY, Calibration, CalibrationError, Fingerprint
from spillway_router.core.confidence.referee import QUESTION, Referee
from spillway_router.core.confidence.self_check import QUESTIONS, SelfCheck
from spillway_router.core.confidence.validators import ValueRule
from spillway_router.core.routing.model import Backend
from spillway_router.proxy.exchange.active_config import ScoringRules

MOST_LOGPROBS = 20
"""The most alternatives per token that vLLM returns."""
CALIBRATION = "confidence.calibration"
"""The setting that problems and warnings about the calibration name."""
_CALIBRATION_FILE = FittedFile(
    setting=CALIBRATION,
    from_json=Calibration.from_json,
    malformed=CalibrationError,
    make_one="make it with `spillway calibrate`",
)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a local backend serves: the model's name, and its fingerprint as far as it is known."""

    model: str
    fingerprint: Fingerprint


def served_models(parts: Sequence[BackendPart], local: Mapping[str, Backend]) -> dict[str, ServedModel]:
    """Return what each of the local backends serves, by the backend's name."""
    configured = {part.name: part.fingerprint for part in parts}
    served = {}
    for name, backend in local.items():
        part = configured.get(name)
        served[name] = ServedModel(backend.model, Fingerprint() if part is None else part.fingerprint())
    return served


def scoring_rules(part: ConfidencePart, served: Mapping[str, ServedModel], findings: Findings) -> ScoringRules:
    """Return how local answers are scored. The calibration file is read; its problems are added to `findings`."""
    calibration, uncalibrated = None, frozenset[str]()
    if part.calibration is not None:
        calibration = _CALIBRATION_FILE.read(part.calibration, findings)
    if calibration is not None:
        matching = _of_its_model(calibration, served)
        if not matching:
            problem = f"was made for the model {calibration.key.model!r}, which no local backend serves; it is not used"
            findings.warnings.append(ConfigProblem(CALIBRATION, 0, problem))
        uncalibrated = _backends_without_calibration(calibration, matching, findings)
        if not matching.keys() - uncalibrated:
            calibration = None
    made_with = None if calibration is None else calibration.alternatives
    return ScoringRules(
        calibration=calibration,
        hold_tokens=None if part.hold_tokens == "auto" else part.hold_tokens,
        top_logprobs=part.top_logprobs if made_with is None else min(made_with, MOST_LOGPROBS),
        audit_share=part.audit_share,
        rules=tuple(
            ValueRule(pointer=r.field, pattern=r.pattern, least=r.min, most=r.max, in_source=r.in_source)
            for r in part.rules
        ),
        self_check=_self_check(part.self_check, calibration, findings),
        referee=_referee(part.referee),
        uncalibrated_backends=uncalibrated,
    )


def _referee(part: RefereePart) -> Referee | None:
    if not part.backend:
        return None
    return Referee(
        backend=part.backend,
        longest_s=part.timeout_ms / 1000,
        question=part.question or QUESTION,
        max_tokens=part.max_tokens,
    )


def threshold(part: ConfidencePart, calibration: Calibration | None) -> float:
    """Return the user's own threshold, else the certified one, else the default."""
    certified = None if calibration is None or "threshold" in part.model_fields_set else calibration.threshold
    return part.threshold if certified is None else certified


def unverified(scoring: ScoringRules, served: Mapping[str, ServedModel]) -> tuple[ConfigProblem, ...]:
    """Return a warning for each backend whose fingerprint is too incomplete to verify that the calibration fits it."""
    calibration = scoring.calibration
    if calibration is None:
        return ()
    warnings = []
    for name, model in _of_its_model(calibration, served).items():
        missing = calibration.key.compare(model.fingerprint).unverified
        if missing and name not in scoring.uncalibrated_backends:
            problem = f"the calibration is used because the model's name matches; {' and '.join(missing)} unverified"
            fix = "set `fingerprint`, or start the engine with `spillway up`"
            warnings.append(ConfigProblem(f"backends.{name}", 0, f"{problem}; {fix}"))
    return tuple(warnings)


def _of_its_model(calibration: Calibration, served: Mapping[str, ServedModel]) -> dict[str, ServedModel]:
    return {name: model for name, model in served.items() if calibration.key.model in (ANY, model.model)}


def _backends_without_calibration(
    calibration: Calibration, served: Mapping[str, ServedModel], findings: Findings
) -> frozenset[str]:
    """Return the backends that serve something else than the calibration was made for, each with a warning."""
    uncalibrated = set()
    for name, model in served.items():
        differences = calibration.key.compare(model.fingerprint).differs
        if differences:
            uncalibrated.add(name)
            problem = (
                f"is not used for {name}, which serves something else than it was made for: {'; '.join(differences)}. "
                "The conservative rule applies there; label its answers and run `spillway calibrate`"
            )
            findings.warnings.append(ConfigProblem(CALIBRATION, 0, problem))
    return frozenset(uncalibrated)


def _self_check(part: SelfCheckPart, calibration: Calibration | None, findings: Findings) -> SelfCheck | None:
    """Return the self-check if it is configured. A self-check that can change nothing gives a warning."""
    if part.ask == "none":
        return None
    where = "confidence.self_check"
    if calibration is None:
        problem = (
            "asks nothing, because only a calibration says where a second question is worth it; "
            "make one with `spillway calibrate`"
        )
        findings.warnings.append(ConfigProblem(where, 0, problem))
        return None
    if not calibration.knows(part.ask):
        problem = (
            f"the calibration was made without {part.ask}: its reply is recorded with the request but changes no "
            "confidence until a calibration is made with it"
        )
        findings.warnings.append(ConfigProblem(where, 0, problem))
    return SelfCheck(
        kind=part.ask,
        band=part.band,
        longest_s=part.timeout_ms / 1000,
        question=part.question or QUESTIONS[part.ask],
        words=part.words,
    )

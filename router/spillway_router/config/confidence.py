"""From the settings to how local answers are scored: the calibration, whether it holds for what is served, the second
look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spillway_router.config.load import ConfigProblem
from spillway_router.config.settings import BackendPart
from spillway_router.config.settings_confidence import ConfidencePart, SelfCheckPart
from spillway_router.core.confidence.calibration import ANY, Calibration, CalibrationError, Fingerprint
from spillway_router.core.confidence.self_check import QUESTIONS, SelfCheck
from spillway_router.core.confidence.validators import ValueRule
from spillway_router.core.routing.model import Backend
from spillway_router.proxy.exchange.active_config import ScoringRules

MOST_LOGPROBS = 20
"""Alternatives per token that vLLM gives at most."""
CALIBRATION = "confidence.calibration"
"""Where mistakes and warnings of the calibration are said to be."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a local backend serves: the model's name, and as much of its fingerprint as somebody told."""

    model: str
    fingerprint: Fingerprint


def fingerprinted(parts: Sequence[BackendPart], nearby: Mapping[str, Backend]) -> dict[str, ServedModel]:
    """What each of the local backends serves."""
    told = {part.name: part.fingerprint for part in parts}
    found = {}
    for name, backend in nearby.items():
        part = told.get(name)
        found[name] = ServedModel(backend.model, Fingerprint() if part is None else part.fingerprint())
    return found


def scoring_rules(
    part: ConfidencePart,
    served: Mapping[str, ServedModel],
    mistakes: list[ConfigProblem],
    warnings: list[ConfigProblem],
) -> ScoringRules:
    """How local answers are scored, with the calibration file read; what is wrong with it is added to the lists."""
    calibration, barred = _calibration(part, mistakes), frozenset[str]()
    if calibration is not None:
        mine = _of_its_model(calibration, served)
        if not mine:
            told = f"was made for the model {calibration.key.model!r}, which no local backend serves; it is not used"
            warnings.append(ConfigProblem(CALIBRATION, 0, told))
        barred = _barred(calibration, mine, warnings)
        if not mine.keys() - barred:
            calibration = None
    tokens = None if part.hold_tokens == "auto" else part.hold_tokens
    made_with = None if calibration is None else calibration.alternatives
    alternatives = part.top_logprobs if made_with is None else min(made_with, MOST_LOGPROBS)
    rules = tuple(ValueRule(r.field, r.pattern, r.min, r.max, r.in_source) for r in part.rules)
    check = _self_check(part.self_check, calibration, warnings)
    return ScoringRules(calibration, tokens, alternatives, part.audit_share, rules, check, barred)


def threshold(part: ConfidencePart, calibration: Calibration | None) -> float:
    """The user's own threshold, else the certified one, else the default."""
    certified = None if calibration is None or "threshold" in part.model_fields_set else calibration.threshold
    return part.threshold if certified is None else certified


def unverified(scoring: ScoringRules, served: Mapping[str, ServedModel]) -> tuple[ConfigProblem, ...]:
    """Where the calibration is used by the model's name alone, as nobody told all that it was made for."""
    calibration = scoring.calibration
    if calibration is None:
        return ()
    found = []
    for name, one in _of_its_model(calibration, served).items():
        missing = calibration.key.compared(one.fingerprint).unverified
        if missing and name not in scoring.barred:
            told = f"the calibration is used by the model's name, unverified: nobody told its {' and '.join(missing)}"
            found.append(
                ConfigProblem(f"backends.{name}", 0, f"{told}; set `fingerprint`, or start it with `spillway up`")
            )
    return tuple(found)


def _calibration(part: ConfidencePart, mistakes: list[ConfigProblem]) -> Calibration | None:
    if part.calibration is None:
        return None
    try:
        return Calibration.from_json(part.calibration.expanduser().read_bytes())
    except OSError as error:
        told = f"{part.calibration} can't be read ({error.strerror}); make it with `spillway calibrate`"
        mistakes.append(ConfigProblem(CALIBRATION, 0, told))
    except CalibrationError as error:
        mistakes.append(ConfigProblem(CALIBRATION, 0, f"{part.calibration} can't be used: {error}"))
    return None


def _of_its_model(calibration: Calibration, served: Mapping[str, ServedModel]) -> dict[str, ServedModel]:
    return {name: one for name, one in served.items() if calibration.key.model in (ANY, one.model)}


def _barred(
    calibration: Calibration, served: Mapping[str, ServedModel], warnings: list[ConfigProblem]
) -> frozenset[str]:
    """Backends that serve something else than the calibration was made for, each told."""
    barred = set()
    for name, one in served.items():
        differs = calibration.key.compared(one.fingerprint).differs
        if differs:
            barred.add(name)
            told = f"is not used for {name}, which serves something else than it was made for: {'; '.join(differs)}"
            told += ". The conservative rule counts there; label its answers and run `spillway calibrate`"
            warnings.append(ConfigProblem(CALIBRATION, 0, told))
    return frozenset(barred)


def _self_check(
    part: SelfCheckPart, calibration: Calibration | None, warnings: list[ConfigProblem]
) -> SelfCheck | None:
    """The second look, if one is asked for; told where it can change nothing."""
    if part.ask == "none":
        return None
    where = "confidence.self_check"
    if calibration is None:
        told = (
            "asks nothing: only a calibration says where a second look is worth it; make one with `spillway calibrate`"
        )
        warnings.append(ConfigProblem(where, 0, told))
        return None
    if not calibration.knows(part.ask):
        told = f"the calibration was made without {part.ask}, which is asked and stands in the request's record, but"
        warnings.append(ConfigProblem(where, 0, f"{told} changes no confidence until a calibration is made with it"))
    question = part.question or QUESTIONS[part.ask]
    return SelfCheck(part.ask, part.band, part.timeout_ms / 1000, question, part.words)

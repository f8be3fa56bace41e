"""Derives from Settings the steps of escalation: their thresholds and calibrations, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from spillway_router.config.load import ConfigProblem, Findings
from spillway_router.config.policy_part import Steps, own_thresholds, step_names
from spillway_router.config.settings import ConfidencePart
from spillway_router.core.confidence.calibration import ANY, Calibration, CalibrationError
from spillway_router.core.confidence.referee import SELF
from spillway_router.core.routing.policy import ConfidenceRule, Policy
from spillway_router.core.routing.rules import Rules

_WHERE = "confidence.escalate_to"
_CALIBRATIONS = "confidence.step_calibrations"


def step_calibrations(part: ConfidencePart, findings: Findings) -> dict[str, Calibration]:
    """Return the calibrations of the steps by backend. Files that can't be used are problems."""
    calibrations = {}
    for name, file in part.step_calibrations.items():
        try:
            calibrations[name] = Calibration.from_json(file.expanduser().read_bytes())
        except OSError as error:
            problem = f"{file} can't be read ({error.strerror}); make it with `spillway calibrate`"
            findings.problems.append(ConfigProblem(f"{_CALIBRATIONS}.{name}", 0, problem))
        except CalibrationError as error:
            findings.problems.append(ConfigProblem(f"{_CALIBRATIONS}.{name}", 0, f"{file} can't be used: {error}"))
    return calibrations


def step_thresholds(steps: Steps, calibrations: Mapping[str, Calibration]) -> dict[str, float]:
    """Return the thresholds of the steps that have one: their own, else the certified one of their calibration."""
    certified = {
        name: calibration.threshold for name, calibration in calibrations.items() if calibration.threshold is not None
    }
    return {**certified, **own_thresholds(steps)}


def step_problems(
    part: ConfidencePart, policy: Policy, calibrations: Mapping[str, Calibration]
) -> Iterator[ConfigProblem]:
    """Yield a problem for each step that occurs twice, and for each calibration that fits no step."""
    names = step_names(part.escalate_to)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield ConfigProblem(_WHERE, 0, f"names {twice[0]} twice; each step is asked once")
    for name, calibration in calibrations.items():
        where, backend = f"{_CALIBRATIONS}.{name}", policy.backends.get(name)
        if name not in names:
            yield ConfigProblem(where, 0, f"{name} is no step of {_WHERE}")
        elif backend is not None and calibration.key.model not in (ANY, backend.model):
            problem = f"was made for the model {calibration.key.model!r}, and {name} serves {backend.model!r}"
            yield ConfigProblem(where, 0, problem)


def referee_warnings(part: ConfidencePart, policy: Policy) -> Iterator[ConfigProblem]:
    """Yield a warning if the referee can't be asked or has nothing to do."""
    name = part.referee.backend
    if not name:
        return
    where = "confidence.referee.backend"
    if name != SELF and name not in policy.backends:
        yield ConfigProblem(where, 0, f"{name} is disabled, so that nobody judges answers without log-probabilities")
    if not policy.confidence.escalate_to:
        yield ConfigProblem(where, 0, "asks nothing, because confidence.escalate_to names no backend; add one")


def step_warnings(policy: Policy, rules: Rules, *, refereed: bool) -> Iterator[ConfigProblem]:
    """Yield a warning for each threshold of a step that changes nothing. `refereed`: answers without log-probabilities
    are judged."""
    yield from _idle(policy.confidence, policy, _WHERE, refereed=refereed)
    for rule in rules.rules:
        if rule.confidence is not None and rule.confidence.escalate_to != policy.confidence.escalate_to:
            where = "policy.rules" if rule.arm is None else "experiments"
            yield from _idle(rule.confidence, policy, where, refereed=refereed)


def _idle(rule: ConfidenceRule, policy: Policy, where: str, *, refereed: bool) -> Iterator[ConfigProblem]:
    for name in rule.escalate_to:
        if name not in rule.step_thresholds:
            continue
        if name == rule.escalate_to[-1]:
            yield ConfigProblem(where, 0, f"the threshold of {name} changes nothing, as no step comes after it")
        elif "logprobs" not in policy.backends[name].capabilities and not refereed:
            problem = (
                f"the threshold of {name} changes nothing: {policy.backends[name].provider} sends no "
                "log-probabilities, so its answer is final; set confidence.referee to have it judged"
            )
            yield ConfigProblem(where, 0, problem)

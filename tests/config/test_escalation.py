"""The steps of escalation from the configuration: both forms, thresholds, and what is refused or changes nothing."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from tests.proxy.helpers import CALIBRATION

from spillway_router.config.assemble import Assembly, ConfigRejected, assemble
from spillway_router.config.load import ConfigError, parse
from spillway_router.core.routing.policy import ConfidenceRule

BACKENDS = """
backends:
  - {name: local, provider: vllm, model: demo, base_url: "http://127.0.0.1:8001/v1"}
  - {name: groq, provider: groq, model: openai/gpt-oss-20b, api_key: k}
  - {name: mini, provider: openai, model: gpt-5.4-mini, api_key: k}
  - {name: large, provider: openai, model: gpt-5.4, api_key: k}
"""
TODAY = date(2026, 11, 29)


def outcome(more: str) -> Assembly | ConfigRejected:
    return assemble(parse(BACKENDS + more, {}), {}, TODAY)


def assembled(more: str) -> Assembly:
    assembly = outcome(more)
    assert isinstance(assembly, Assembly), assembly
    return assembly


def test_names_and_steps_may_be_mixed() -> None:
    more = "confidence: {threshold: 0.8, escalate_to: [groq, {backend: mini, threshold: 0.7}, large]}\n"
    rule = assembled(more).policy.confidence
    assert rule == ConfidenceRule(0.8, ("groq", "mini", "large"), {"mini": 0.7})
    assert [rule.step_threshold(name) for name in rule.escalate_to] == [None, 0.7, None]


def test_a_rule_of_the_policy_may_have_steps() -> None:
    more = (
        "confidence: {escalate_to: [{backend: mini, threshold: 0.7}, large]}\n"
        "policy: {rules: [{name: a, escalate: {to: [mini, {backend: groq, threshold: 0.5}, large]}},"
        " {name: b, escalate: {threshold: 0.9}}, {name: c, escalate: never}]}\n"
    )
    own, general, never = (rule.confidence for rule in assembled(more).rules.rules)
    assert own == ConfidenceRule(0.8, ("mini", "groq", "large"), {"mini": 0.7, "groq": 0.5})
    assert general == ConfidenceRule(0.9, ("mini", "large"), {"mini": 0.7})
    assert never == ConfidenceRule(0.8, ())


@pytest.mark.parametrize(
    ("steps", "part"),
    [
        ("{backend: groq, threshold: 0.7}, large", "groq sends no log-probabilities, so its answer is final"),
        ("groq, {backend: large, threshold: 0.7}", "changes nothing, as no step comes after it"),
    ],
)
def test_a_threshold_that_changes_nothing_is_a_warning(steps: str, part: str) -> None:
    warnings = [str(warning) for warning in assembled(f"confidence: {{escalate_to: [{steps}]}}\n").warnings]
    assert any(part in warning for warning in warnings), warnings


@pytest.mark.parametrize(
    ("confidence", "part"),
    [
        ("escalate_to: [mini, {backend: mini, threshold: 0.7}, large]", "names mini twice"),
        ("escalate_to: [large], step_calibrations: {mini: FILE}", "mini is no step"),
        ("escalate_to: [large, mini], step_calibrations: {large: FILE}", "made for the model 'gpt-5.4-mini'"),
        ("escalate_to: [mini], step_calibrations: {mini: /nowhere.json}", "can't be read"),
    ],
)
def test_steps_that_cannot_be(confidence: str, part: str, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps({**CALIBRATION, "key": {**CALIBRATION["key"], "model": "gpt-5.4-mini"}}))
    rejected = outcome(f"confidence: {{{confidence.replace('FILE', str(file))}}}\n")
    assert isinstance(rejected, ConfigRejected)
    assert part in str(rejected.problems[0])


def test_an_unknown_step_is_named_with_its_line() -> None:
    with pytest.raises(ConfigError, match="nobody") as caught:
        parse(BACKENDS + "confidence: {escalate_to: [{backend: nobody, threshold: 0.7}]}\n", {})
    assert caught.value.problems[0].line == 7

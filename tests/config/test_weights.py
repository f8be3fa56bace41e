"""The weights of an alias: an experiment of which each arm puts one backend first."""

from __future__ import annotations

from datetime import date

import pytest

from spillway_router.config.assemble import Assembly, assemble
from spillway_router.config.load import ConfigError, parse
from spillway_router.core.routing.experiments import PLACES
from spillway_router.core.routing.rules import Rule

BACKENDS = """backends:
  - {name: local, provider: vllm, local: true, base_url: "http://127.0.0.1:8001/v1", model: demo}
  - {name: Groq, provider: groq, model: openai/gpt-oss-20b, api_key: k}
  - {name: gpt, provider: openai, model: gpt-5.4-mini, api_key: k}
"""


def assembled(aliases: str) -> Assembly:
    assembly = assemble(parse(f"{BACKENDS}aliases: {aliases}\n", {}), {}, date(2026, 11, 30))
    assert isinstance(assembly, Assembly)
    return assembly


def arms(aliases: str) -> list[tuple[str, tuple[str, ...], float]]:
    """Return the title, the preference and the share of each arm."""
    return [(rule.name, rule.prefer, round(_share(rule), 3)) for rule in assembled(aliases).rules.rules]


def _share(rule: Rule) -> float:
    assert rule.arm is not None
    return (rule.arm.ends - rule.arm.begins) / PLACES


def test_a_weight_puts_a_backend_first_for_its_share() -> None:
    assert arms("{auto: {chain: [local, Groq, gpt], weights: {local: 9, Groq: 1, gpt: 0}, weights_by: user}}") == [
        ("weights.auto/local", ("local",), 0.9),
        ("weights.auto/groq", ("Groq",), 0.1),
    ]


def test_every_alias_has_its_own_draw() -> None:
    both = arms(
        "{My/Alias: {chain: [local, gpt], weights: {local: 1, gpt: 1}}, my-alias: {chain: [gpt], weights: {gpt: 1}}}"
    )
    assert [title for title, _, _ in both] == [
        "weights.my-alias/local",
        "weights.my-alias/gpt",
        "weights.my-alias-1/gpt",
    ]


@pytest.mark.parametrize(
    ("alias", "text"),
    [
        ("{chain: [local], weights: {gpt: 1}}", "gpt has a weight and is not in the chain"),
        ("{chain: [local], weights: {local: 0}}", "all weights are 0"),
        ("{chain: [local], weights: {local: -1}}", "is negative and must be at least 0"),
        ("{chain: [local, gpt], weights: [9, 1]}", "must be a mapping"),
        ("[local, gpt]", "write auto: {chain: [local, gpt]}"),
    ],
)
def test_a_mistake_is_told(alias: str, text: str) -> None:
    with pytest.raises(ConfigError, match=r"auto") as error:
        parse(f"{BACKENDS}aliases: {{auto: {alias}}}\n", {})
    assert text in str(error.value.problems[0])


def test_what_no_request_can_meet_is_a_warning() -> None:
    rules = "{name: a, when: {alias: fast}, forbid: cloud}, {name: b, when: {language: zh}, forbid: cloud}"
    outcome = assemble(parse(f"{BACKENDS}policy: {{rules: [{rules}]}}\n", {}), {}, date(2026, 11, 30))
    assert isinstance(outcome, Assembly)
    warnings = [str(warning) for warning in outcome.warnings]
    assert any("nothing here is called 'fast', so the rule never holds" in warning for warning in warnings)
    assert any("zh is never found" in warning for warning in warnings)

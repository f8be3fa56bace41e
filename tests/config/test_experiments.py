"""Experiments from the configuration: the rules that they become, and what is refused with its line."""

from __future__ import annotations

import pytest
from tests.config.assembled import assembled, only_problem

from spillway_router.config.assemble import Assembly
from spillway_router.config.load import ConfigError, parse
from spillway_router.core.money.budget import EACH_USER, BudgetLine
from spillway_router.core.routing.experiments import PLACES, Arm
from spillway_router.core.routing.policy import ConfidenceRule

TEXT = """
backends:
  - {name: local, provider: vllm, model: demo, base_url: "http://127.0.0.1:8001/v1"}
  - {name: groq, provider: groq, model: openai/gpt-oss-20b, api_key: k}
  - {name: openai, provider: openai, model: gpt-5.4-mini, api_key: k}
confidence: {threshold: 0.8, escalate_to: [groq]}
policy: {rules: [{name: nights, forbid: cloud}]}
experiments:
"""
CHEAPER = "{name: cheaper, by: key, when: {task: code}, arms: [{name: b, share: 0.25, chain: [groq, local]}]}"


def with_experiments(*experiments: str) -> Assembly:
    """What follows from a configuration with these experiments."""
    return assembled(TEXT + "".join(f"  - {one}\n" for one in experiments))


def problem(experiment: str) -> str:
    """The only problem of a configuration with this experiment."""
    return only_problem(TEXT + f"  - {experiment}\n", line=9)


def test_arms_come_before_the_rules_and_the_control_has_the_rest() -> None:
    b, control, nights = with_experiments(CHEAPER).rules.rules
    assert b.arm == Arm(experiment="cheaper", name="b", by="key", begins=0, ends=PLACES // 4)
    assert (b.name, b.chain, b.when.models, b.when.tasks) == ("cheaper/b", ("groq", "local"), {"auto"}, {"code"})
    assert "embeddings" not in b.when.endpoints
    assert control.arm == Arm(experiment="cheaper", name="control", by="key", begins=PLACES // 4, ends=PLACES)
    assert (control.chain, control.forbid, control.confidence) == ((), frozenset(), None)
    assert nights.arm is None
    assert with_experiments(CHEAPER).rules.reads_text


def test_a_weighted_alias_is_an_experiment_without_a_control() -> None:
    rules = with_experiments(
        "{name: split, by: request, when: {alias: auto},"
        " arms: [{name: a, share: 0.9, chain: [groq]}, {name: b, share: 0.1, escalate: {to: [openai]}}]}"
    ).rules.rules
    assert [(rule.arm.begins, rule.arm.ends) for rule in rules if rule.arm] == [
        (0, round(0.9 * PLACES)),
        (round(0.9 * PLACES), PLACES),
    ]
    assert rules[1].confidence == ConfidenceRule(0.8, ("openai",))


def test_a_shadow_has_a_budget_of_its_own() -> None:
    shadow = CHEAPER.replace("share: 0.25", "share: 0.25, shadow: asked, budget_usd_per_day: '2.5'")
    rule = with_experiments(shadow).rules.rules[0]
    assert rule.arm is not None
    assert rule.arm.shadow == "asked"
    assert rule.arm.budget == BudgetLine(EACH_USER, "day", 2_500_000_000)
    assert rule.chain == ("groq", "local")


@pytest.mark.parametrize(
    ("experiment", "text"),
    [
        (CHEAPER.replace("share: 0.25", "share: 0.25, shadow: asked"), "add budget_usd_per_day"),
        (CHEAPER.replace("share: 0.25", "share: 0.25, shadow: dry, budget_usd_per_day: 1"), "is for an arm with"),
        (CHEAPER.replace("share: 0.25", "share: 0.25, budget_usd_per_day: 1"), "is for an arm with `shadow: asked`"),
        (CHEAPER.replace("groq", "grok"), "experiments.0.arms.0.chain.0: no backend has the name 'grok'"),
        (CHEAPER.replace("chain: [groq, local]", "forbid: opnai"), "arms.0.forbid.0: no backend has the name 'opnai'"),
        (CHEAPER.replace("task: code", "alias: fast"), "no alias is called 'fast'"),
        (CHEAPER.replace("task: code", "endpoint: embeddings"), "takes no embeddings"),
        (CHEAPER.replace("name: b", "name: control"), "no arm may be called control"),
        (CHEAPER.replace("0.25", "1.25"), "experiments.0.arms.0.share"),
        (CHEAPER.replace("chain: [groq, local]", "chain: []"), "does nothing; add chain, prefer, forbid or escalate"),
        (CHEAPER.replace("chain: [groq, local]", "escalate: {to: [local]}"), "local is local"),
        (CHEAPER.replace("]}", "]}, {name: b, share: 0.1, forbid: cloud}]}", 1).replace("}]}]}", "}]}"), "two arms"),
        (
            CHEAPER.replace("by: key", "by: key, bandit: agreement"),
            "has a bandit on agreement and 0 arms with `shadow",
        ),
        (CHEAPER.replace("0.25", "1").replace("by: key", "by: key, bandit: rating"), "1 arms that answer clients"),
        (CHEAPER.replace("by: key", "by: key, bandit: {worth: rating, floor: 0.6}"), "bandit.floor"),
        (CHEAPER.replace("by: key", "by: key, bandit: likes"), "experiments.0.bandit.worth"),
        ("{name: e, arms: [{name: a, share: 0.6, forbid: cloud}, {name: b, share: 0.5, forbid: local}]}", "are 1.1"),
    ],
)
def test_a_wrong_experiment_is_refused_with_its_line(experiment: str, text: str) -> None:
    assert text in problem(experiment)


def test_names_differ() -> None:
    with pytest.raises(ConfigError, match="two experiments are called 'cheaper'"):
        parse(TEXT + f"  - {CHEAPER}\n  - {CHEAPER}\n", {})

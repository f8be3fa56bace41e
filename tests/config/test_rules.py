"""The rules of the policy from the configuration: what they become, and what is refused with its line."""

from __future__ import annotations

from datetime import date

import pytest
from tests.config.assembled import assembled, only_problem

from spillway_router.config.assemble import Assembly
from spillway_router.config.load import ConfigError, parse
from spillway_router.config.rules import trait_reader
from spillway_router.core.routing.policy import ConfidenceRule
from spillway_router.core.routing.rules import DAYS, Conditions, Hours, Rule, Span

BACKENDS = """
backends:
  - {name: local, provider: vllm, model: demo, base_url: "http://127.0.0.1:8001/v1"}
  - {name: groq, provider: groq, model: openai/gpt-oss-20b, api_key: k}
  - {name: openai, provider: openai, model: gpt-5.4-mini, api_key: k}
confidence: {threshold: 0.8, escalate_to: [groq]}
policy:
  rules:
"""


def with_rules(*rules: str) -> Assembly:
    """What follows from a configuration with these rules."""
    return assembled(BACKENDS + "".join(f"    - {one}\n" for one in rules))


def problem(rule: str) -> str:
    """The only problem of a configuration with this rule."""
    return only_problem(BACKENDS + f"    - {rule}\n", line=9)


def test_a_rule_with_everything() -> None:
    (rule, escalation) = with_rules(
        "{name: hard, when: {alias: auto, task: [code, chat], complexity: {at_least: 6}, tier: paid, language: de,"
        ' needs: tools, prompt_tokens: {at_most: 9}, private: false, hours: "22:00-06:30", days: [fri, sat],'
        " budget_left_below: 0.2, waiting: {at_least: 2}, endpoint: chat, key: k1}, chain: [groq, openai],"
        " prefer: openai, escalate: {to: [openai], threshold: 0.9}}".replace("prefer: openai", "prefer: [openai]")
    ).rules.rules
    assert rule == Rule(
        "hard",
        Conditions(
            models=frozenset({"auto"}),
            endpoints=frozenset({"chat"}),
            tasks=frozenset({"code", "chat"}),
            languages=frozenset({"de"}),
            tiers=frozenset({"paid"}),
            keys=frozenset({"k1"}),
            needs=frozenset({"tools"}),
            complexity=Span(6),
            prompt_tokens=Span(None, 9),
            private=False,
            hours=(Hours(1320, 390, frozenset({"fri", "sat"})),),
            budget_left_below=0.2,
            waiting=Span(2),
        ),
        chain=("groq", "openai"),
        prefer=("openai",),
    )
    assert escalation.confidence == ConfidenceRule(0.9, ("openai",))


def test_embeddings_stay_where_they_are_unless_a_rule_names_them() -> None:
    """Another model's vectors lie in another space. What is forbidden is so for embeddings too."""
    forbids, sends = with_rules("{name: away, chain: [groq], forbid: openai}").rules.rules
    assert (forbids.forbid, forbids.when.endpoints) == ({"openai"}, frozenset())
    assert (sends.chain, "embeddings" in sends.when.endpoints) == (("groq",), False)
    (moved,) = with_rules("{name: away, when: {endpoint: embeddings}, chain: [openai]}").rules.rules
    assert moved.when.endpoints == {"embeddings"}


def test_the_words_of_a_side_and_never() -> None:
    cloud, local, never = with_rules(
        "{name: a, forbid: cloud}", "{name: b, forbid: [local]}", "{name: c, escalate: never}"
    ).rules.rules
    assert cloud.forbid == {"groq", "openai"}
    assert local.forbid == {"local"}
    assert never.confidence == ConfidenceRule(0.8, ())


def test_days_alone_are_whole_days() -> None:
    (rule,) = with_rules("{name: weekend, when: {days: [sat, sun]}, forbid: openai}").rules.rules
    assert rule.when.hours == (Hours(0, 1440, frozenset({"sat", "sun"})),)
    assert DAYS.index("sat") == date(2026, 11, 28).weekday()


def test_text_is_read_only_where_a_rule_looks_at_it() -> None:
    policy = parse(BACKENDS + "    - {name: a, when: {tier: free}, forbid: openai}\n", {}).policy
    assert trait_reader(policy, with_rules("{name: a, when: {tier: free}, forbid: openai}").rules) is None
    assert trait_reader(policy, with_rules("{name: a, when: {task: code}, forbid: openai}").rules) is not None


def test_a_chain_whose_backends_are_all_disabled_is_a_warning() -> None:
    text = BACKENDS.replace("gpt-5.4-mini, api_key: k", "gpt-5.4-mini") + "    - {name: dear, chain: [openai]}\n"
    warnings = assembled(text).warnings
    assert any("'dear' sends nothing anywhere" in str(warning) for warning in warnings)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("{name: a, chain: [grok]}", "policy.rules.0.chain.0: no backend has the name 'grok'; use one of groq"),
        ("{name: a, forbid: [opnai]}", "policy.rules.0.forbid.0: no backend has the name 'opnai'"),
        ("{name: a, escalate: {to: [grok]}}", "policy.rules.0.escalate.to.0: no backend has the name 'grok'"),
        ("{name: a, escalate: {to: [local]}}", "local is local; an unsure local answer goes to a cloud"),
        ("{name: a}", "does nothing; add chain, prefer, forbid or escalate"),
        ("{name: a, when: {hours: 25}, forbid: cloud}", "policy.rules.0.when.hours"),
        ('{name: a, when: {hours: "8-17"}, forbid: cloud}', "is no time of day; write it in quotes"),
        ("{name: a, when: {complexity: {}}, forbid: cloud}", "give at_least, at_most or both"),
        ("{name: a, when: {complexity: {at_least: 5, at_most: 4}}, forbid: cloud}", "at_least 5 is above at_most 4"),
        ("{name: a, when: {taks: code}, forbid: cloud}", "when.taks: unknown setting"),
        ("{name: a, when: {task: cooking}, forbid: cloud}", "policy.rules.0.when.task"),
        ("{name: a, when: {confidence_below: 0.4}, forbid: cloud}", "write escalate: {to: [...]} and nothing else"),
        ("{name: a, when: {confidence_below: 0.4}, escalate: {to: [groq], threshold: 0.9}}", "and nothing else"),
        ("{name: a, when: {complexity: {at_least: 11}}, forbid: cloud}", "must be at most 10"),
        ("{name: a, escalate: true}", "write escalate: never, or escalate: {to: [BACKEND]}"),
        ("{name: a, escalate: groq}", "write escalate: never, or escalate: {to: [groq]}"),
        ("{name: a, escalate: {to: [{backend: groq, threshold: 70}]}}", "escalate.to.0.threshold: is a share and must"),
        ("{name: a, when: {experiment: x/b}, forbid: cloud}", "no arm that answers is called 'x/b'"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_line(rule: str, text: str) -> None:
    assert text in problem(rule)


def test_names_and_words_are_checked() -> None:
    with pytest.raises(ConfigError, match="two rules are called 'a'"):
        parse(BACKENDS + "    - {name: a, forbid: cloud}\n    - {name: a, forbid: local}\n", {})
    with pytest.raises(ConfigError, match="no factor or task is called 'sarcasm'"):
        parse("policy: {words: {sarcasm: [oh great]}}\n", {})
    with pytest.raises(ConfigError, match="time zone 'Mars' is unknown"):
        parse("policy: {timezone: Mars}\n", {})

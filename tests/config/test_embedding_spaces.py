"""Which chains of embeddings a configuration may have, and the space of each alias."""

from __future__ import annotations

from datetime import date

import pytest

from spillway_router.config.assemble import Assembly, ConfigRejected, assemble
from spillway_router.config.load import parse
from spillway_router.core.routing.policy import Policy

BACKENDS = """
backends:
  - {name: embed, provider: vllm, model: bge, base_url: "http://127.0.0.1:8001/v1"EMBED}
  - {name: chat, provider: vllm, model: demo, base_url: "http://127.0.0.1:8002/v1"CHAT}
  - {name: small, provider: openai, model: text-embedding-3-small, api_key: k}
  - {name: again, provider: openai, model: text-embedding-3-small, api_key: k2}
  - {name: large, provider: openai, model: text-embedding-3-large, api_key: k}
  - {name: gpt, provider: openai, model: gpt-5.4-mini, api_key: k}
"""


def outcome(more: str, embed: str = "", chat: str = "") -> Assembly | ConfigRejected:
    """What follows from a configuration; `embed` and `chat` are more settings of the two engines."""
    text = BACKENDS.replace("EMBED", embed).replace("CHAT", chat)
    return assemble(parse(text + more, {}), {}, date(2026, 11, 29))


def policy(more: str, embed: str = "", chat: str = "") -> Policy:
    assembly = outcome(more, embed, chat)
    assert isinstance(assembly, Assembly), assembly
    return assembly.policy


def problem(more: str, embed: str = "") -> str:
    rejected = outcome(more, embed)
    assert isinstance(rejected, ConfigRejected)
    (only,) = rejected.problems
    return str(only)


@pytest.mark.parametrize("chain", ["embed, small", "small, large", "small, again, large", "gpt, small, large"])
def test_a_chain_of_several_spaces_is_refused(chain: str) -> None:
    assert "mixes embeddings" in problem(f"aliases: {{e: {{chain: [{chain}]}}}}\n")


def test_backends_of_one_space_may_stand_in_for_each_other() -> None:
    assert policy("aliases: {e: {chain: [small, again]}}\n").spaces["e"] == "openai/text-embedding-3-small"
    more = "aliases: {e: {chain: [embed, chat]}}\n"
    assert policy(more, ", embedding_space: s", ", embedding_space: s").spaces["e"] == "s"


@pytest.mark.parametrize(("chain", "chat"), [("gpt, small", ""), ("chat, small", ", endpoints: [chat]")])
def test_a_chain_of_chats_may_have_one_backend_for_embeddings(chain: str, chat: str) -> None:
    spaces = policy(f"aliases: {{auto: {{chain: [{chain}]}}}}\n", chat=chat).spaces
    assert spaces["auto"] == "openai/text-embedding-3-small"


def test_auto_without_a_chain_warns_instead() -> None:
    assembly = outcome("")
    assert isinstance(assembly, Assembly)
    assert assembly.policy.spaces["auto"] == "openai/text-embedding-3-small"
    assert [str(w) for w in assembly.warnings if "has embeddings in the space" in str(w)]


def test_a_rule_that_always_holds_sets_the_space_and_another_one_must_keep_it() -> None:
    rules = "policy: {{rules: [{{name: r, when: {{endpoint: embeddings{}}}, chain: [{}]}}]}}\n"
    aliases = "aliases: {auto: {chain: [gpt, small]}}\n"
    assert policy(aliases + rules.format("", "large")).spaces["auto"] == "openai/text-embedding-3-large"
    assert policy(aliases + rules.format(", budget_left_below: 0.2", "again")).spaces["auto"].endswith("small")
    text = problem(aliases + rules.format(", budget_left_below: 0.2", "large"))
    assert "sends embeddings for 'auto' to another embedding space" in text
    assert "mixes embeddings" in problem(aliases + rules.format("", "small, large"))


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ("provider: groq, model: openai/gpt-oss-20b, endpoints: [chat, embeddings]", "does not serve embeddings"),
        ('provider: openai, model: "*", embedding_space: s', "each has an embedding space of its own"),
    ],
)
def test_endpoints_and_spaces_that_cannot_be(settings: str, part: str) -> None:
    rejected = assemble(parse(f"backends: [{{name: b, api_key: k, {settings}}}]\n", {}), {}, date(2026, 11, 29))
    assert isinstance(rejected, ConfigRejected)
    assert part in str(rejected.problems[0])

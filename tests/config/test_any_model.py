"""A backend with the model "*": every model of the price lists, each with its own price, context and capabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest

from spillway_router.config import load
from spillway_router.config.any_model import MOST_KEPT
from spillway_router.config.assemble import Assembly, assembly_of
from spillway_router.config.derived import DerivedConfig
from spillway_router.config.load import ConfigError, Loaded
from spillway_router.core.routing.model import Backend

TODAY = date(2026, 11, 29)
GROQ = '{name: groq, provider: groq, model: "*", api_key: k}'


def loaded(*backends: str, more: str = "") -> Loaded:
    text = "backends:\n" + "".join(f"  - {line}\n" for line in backends) + more
    return Loaded(load.parse(text, {}), None, text, {})


def assembled(*backends: str, more: str = "") -> Assembly:
    return assembly_of(loaded(*backends, more=more), TODAY)


def served(assembly: Assembly, name: str, model: str) -> Backend:
    backend = assembly.policy.any_model[name].lookup(model)
    assert isinstance(backend, Backend), backend
    return backend


def test_each_model_has_its_own_price_context_and_capabilities() -> None:
    assembly = assembled(GROQ)
    small, seeing = (served(assembly, "groq", model) for model in ("openai/gpt-oss-20b", "qwen/qwen3.8-27b"))
    assert small.tariff is not None
    assert seeing.tariff is not None
    assert (str(small.tariff.input_per_million), str(seeing.tariff.input_per_million)) == ("0.075", "0.8")
    assert (small.context_tokens, small.max_output_tokens, small.output_is_bounded) == (131_072, 65_536, True)
    assert ("vision" in small.capabilities, "vision" in seeing.capabilities) == (False, True)
    assert (small.name, small.one_of_many, small.any_model) == ("groq", True, False)
    assert small.item_rules == assembly.policy.backends["groq"].item_rules
    assert served(assembly, "groq", "openai/gpt-oss-20b") is small  # derived once


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("no/such", "no known price for 'no/such', and an unknown price is never 0"),
        ("", "name one, as groq/MODEL"),
        ("*", "name one, as groq/MODEL"),
        ("llama-guard-3-8b", "withdrew the model on 2025-06-06"),
        ("openai/gpt-oss-20b:fastest", "no known price"),
    ],
)
def test_a_model_that_cannot_be_used_has_a_reason_and_no_price_of_0(model: str, says: str) -> None:
    reason = assembled(GROQ).policy.any_model["groq"].lookup(model)
    assert isinstance(reason, str)
    assert says in reason


def test_a_suffix_of_the_provider_costs_what_the_list_says() -> None:
    assembly = assembled('{name: huggingface, provider: huggingface, model: "*", api_key: k}')
    plain, fastest = (served(assembly, "huggingface", f"openai/gpt-oss-20b{end}") for end in ("", ":fastest"))
    assert fastest.model == "openai/gpt-oss-20b:fastest"
    assert fastest.tariff == plain.tariff


def test_a_model_whose_cost_is_not_bounded_is_known_among_many() -> None:
    assembly = assembled('{name: openrouter, provider: openrouter, model: "*", api_key: k}')
    plain, pro = (served(assembly, "openrouter", f"openai/gpt-5.6-sol{end}") for end in ("", "-pro"))
    assert plain.unbounded_model is None
    assert pro.unbounded_model is not None


def test_the_names_are_those_that_can_be_asked_for() -> None:
    assembly = assembled(GROQ, '{name: openrouter, provider: openrouter, model: "*", api_key: k}')
    names = assembly.policy.any_model["groq"].names()
    assert "openai/gpt-oss-20b" in names
    assert "llama-guard-3-8b" not in names
    for backend, any_model in assembly.policy.any_model.items():
        assert names_of_backends([any_model.lookup(name) for name in any_model.names()]) == {backend}


def names_of_backends(backends: Sequence[Backend | str]) -> set[str]:
    return {backend.name if isinstance(backend, Backend) else backend for backend in backends}


def test_the_users_list_counts_before_the_shipped_one(tmp_path: Path) -> None:
    own = tmp_path / "prices.json"
    price = {"from": "2026-01-01", "input": "7", "output": "9"}
    own.write_text(
        json.dumps({"providers": {"groq": {"openai/gpt-oss-20b": {"prices": [price]}, "my/own": {"prices": [price]}}}})
    )
    more = f"prices: {{file: '{own}'}}\n"
    for model in ("my/own",):
        tariff = served(assembled(GROQ, more=more), "groq", model).tariff
        assert tariff is not None
        assert (str(tariff.input_per_million), tariff.source) == ("7", "import")


def test_few_models_are_kept() -> None:
    assembly = assembled('{name: openrouter, provider: openrouter, model: "*", api_key: k}')
    any_model = assembly.policy.any_model["openrouter"]
    names = any_model.names()
    assert len(names) > MOST_KEPT + 1
    first = any_model.lookup(names[0])
    for name in names[1 : MOST_KEPT + 1]:
        any_model.lookup(name)
    again = any_model.lookup(names[0])
    assert again == first
    assert again is not first


def test_the_configuration_may_name_a_model_wherever_it_names_a_backend() -> None:
    more = (
        "aliases: {auto: {chain: [groq/openai/gpt-oss-20b]}}\n"
        "confidence: {escalate_to: [groq/openai/gpt-oss-120b]}\n"
        "documents: {external: [groq/openai/gpt-oss-120b]}\n"
        "budgets: [{scope: 'backend:groq', period: day, limit_usd: '5', degrade: [{at: 0.5, drop: [groq]}]}]\n"
    )
    derived = DerivedConfig.of(loaded(GROQ, more=more), TODAY)
    policy = derived.assembly.policy
    assert policy.aliases["auto"] == ("groq/openai/gpt-oss-20b",)
    assert policy.backends["groq/openai/gpt-oss-20b"].name == "groq"
    assert policy.confidence.escalate_to == ("groq/openai/gpt-oss-120b",)
    assert derived.documents.cascade.external == ("groq/openai/gpt-oss-120b",)
    assert policy.backends["groq/openai/gpt-oss-20b"].degrade_steps


def test_it_stands_in_no_chain_by_itself() -> None:
    assert assembled(GROQ).policy.aliases == {}
    with pytest.raises(ConfigError, match="groq serves any model; name one, as groq/MODEL"):
        assembled(GROQ, more="aliases: {auto: {chain: [groq]}}\n")


@pytest.mark.parametrize(
    ("backend", "more", "says"),
    [
        (GROQ, "aliases: {auto: {chain: [groq/no/such]}}\n", "no known price for 'no/such'"),
        (GROQ, "aliases: {auto: {chain: [other/m]}}\n", "no backend has the name 'other/m'"),
        ('{name: b, provider: vllm, model: "*"}', "", "an engine serves the models it was started with"),
        (
            '{name: b, provider: generic, base_url: "http://h/v1", api_key: k, model: "*"}',
            "",
            "no price of that provider",
        ),
        (
            '{name: b, provider: groq, api_key: k, model: "*", price: {input_per_million: 1, output_per_million: 1}}',
            "",
            "has one price for every model",
        ),
    ],
)
def test_what_cannot_be_is_a_problem_of_the_file(backend: str, more: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        assembled(backend, more=more)


def test_a_named_model_that_is_withdrawn_soon_is_a_warning() -> None:
    anthropic = '{name: claude, provider: anthropic, model: "*", api_key: k}'
    assembly = assembled(anthropic, more="aliases: {auto: {chain: [claude/claude-sonnet-4-5]}}\n")
    (warning,) = assembly.warnings
    assert warning.where == "aliases.auto.chain"
    assert "claude/claude-sonnet-4-5: the model is withdrawn on 2026-11-30, tomorrow" in warning.problem

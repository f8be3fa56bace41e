"""A backend derived from its settings, its provider's catalogue entry and the price list."""

from __future__ import annotations

from datetime import date

import pytest
from tests.config.assembled import assembled

from spillway_router.config import load
from spillway_router.config.assemble import assembly_of, backend_routes
from spillway_router.config.load import Loaded


@pytest.mark.parametrize(
    ("provider", "backend_line", "limits", "plain_s", "tools_s"),
    [
        ("generic", "", "", 120, 120),  # anything may stand behind it
        ("vllm", "", "", 0, 120),  # 0: the general limit
        ("groq", "", "", 0, 0),
        ("generic", "", "limits: {stall_s: 5}", 0, 0),
        ("generic", ", stall_s: 7", "limits: {stall_s: 5}", 7, 7),
        ("vllm", ", stall_s: 7", "", 7, 7),
    ],
)
def test_the_file_and_then_the_catalogue_say_how_long_a_stream_may_be_silent(
    provider: str, backend_line: str, limits: str, plain_s: float, tools_s: float
) -> None:
    line = f"{{name: b, provider: {provider}, model: m, api_key: k, base_url: 'http://127.0.0.1:1/v1'{backend_line}"
    price = "" if provider == "vllm" else ", price: {input_per_million: '1', output_per_million: '2'}"
    text = f"backends: [{line}{price}}}]\n{limits}\n"
    assembly = assembly_of(Loaded(load.parse(text, {}), None, text, {}), date(2026, 11, 20))
    route = backend_routes(assembly.targets, {})["b"]
    assert (route.stall_s(tools=False), route.stall_s(tools=True)) == (plain_s, tools_s)


@pytest.mark.parametrize(
    ("model", "vision"),
    [("openai/gpt-oss-20b", False), ("qwen/qwen3.8-27b", True)],
)
def test_the_price_list_says_which_models_see_images(model: str, vision: bool) -> None:
    environment = {"GROQ_API_KEY": "k"}
    text = f"backends: [{{name: groq, provider: groq, model: {model}}}]\n"
    assembly = assembly_of(Loaded(load.parse(text, environment), None, text, environment), date(2026, 11, 20))
    assert ("vision" in assembly.policy.backends["groq"].capabilities) == vision


@pytest.mark.parametrize(("price", "warned"), [("1", True), ("0", False)])
def test_a_price_at_a_local_backend_is_said_to_have_no_effect(price: str, warned: bool) -> None:
    text = (
        "backends:\n- {name: a, provider: vllm, local: true, base_url: 'http://127.0.0.1:9/v1', model: m, "
        f"price: {{input_per_million: '{price}', output_per_million: '{price}'}}}}\n"
    )
    warnings = [str(warning) for warning in assembled(text).warnings]
    assert any("its `price` is not used" in warning for warning in warnings) is warned


@pytest.mark.parametrize(
    ("model", "host", "more", "says"),
    [
        (
            "sonar-pro",
            "api.perplexity.ai",
            "",
            "every request to sonar-pro has a fee besides its tokens, so budgets refuse all of them; set "
            "backends[b].price.per_request or .unbounded: hold",
        ),
        ("sonar-pro", "api.perplexity.ai", ", per_request: '0.006'", ""),
        ("sonar-pro", "api.perplexity.ai", ", per_request: '0'", ""),  # stated: none is billed
        ("sonar-deep-research", "api.perplexity.ai", ", per_request: '0.006'", "is not bounded"),
        (
            "qwen3-8b",
            "api.siliconflow.com",
            "",
            "api.siliconflow.com bills reasoning beyond max_tokens, so budgets refuse all of them; set "
            "backends[b].output_bound_field or .unbounded: hold",
        ),
        ("qwen3-8b", "api.siliconflow.com", "}, output_bound_field: max_completion_tokens, headers: {x-a: b", ""),
        ("qwen3-8b", "api.deepseek.com", "", ""),
    ],
)
def test_a_model_whose_requests_are_not_bounded_is_told_with_the_setting(
    model: str, host: str, more: str, says: str
) -> None:
    line = f"name: b, provider: generic, model: {model}, api_key: k, base_url: 'https://{host}/v1'"
    price = f"price: {{input_per_million: '1', output_per_million: '2'{more}}}"
    text = f"backends: [{{{line}, {price}}}]\nbudgets: [{{scope: all, period: day, limit_usd: '1'}}]\n"
    assembly = assembled(text)
    warnings = [str(warning) for warning in assembly.warnings if "budgets refuse" in str(warning)]
    assert (assembly.policy.backends["b"].unbounded_model is not None) is bool(says)
    assert [says in warning for warning in warnings] == ([True] if says else [])


def test_a_local_backend_has_no_bill_that_could_be_unbounded() -> None:
    text = (
        "backends: [{name: a, provider: generic, local: true, base_url: 'http://127.0.0.1:9/v1', model: sonar}]\n"
        "budgets: [{scope: all, period: day, limit_usd: '1'}]\n"
    )
    assembly = assembled(text)
    assert assembly.policy.backends["a"].unbounded_model is None
    assert not [warning for warning in assembly.warnings if "budgets refuse" in str(warning)]

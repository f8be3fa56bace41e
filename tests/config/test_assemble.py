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

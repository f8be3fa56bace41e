"""A backend is not local because the file says so."""

from __future__ import annotations

from datetime import date

import pytest

from spillway_router.config.assemble import assemble
from spillway_router.config.load import ConfigRejected, parse

PRICE = 'price: {input_per_million: "1", output_per_million: "2"}'


def problems(line: str) -> str:
    outcome = assemble(parse(f"backends: [{{name: a, model: m, {line}}}]\n", {"OPENAI_API_KEY": "k"}), {}, date.today())
    return " ".join(str(problem) for problem in outcome.problems) if isinstance(outcome, ConfigRejected) else ""


def warnings(line: str) -> str:
    outcome = assemble(parse(f"backends: [{{name: a, model: m, {line}}}]\n", {}), {}, date.today())
    assert not isinstance(outcome, ConfigRejected), outcome.problems
    return " ".join(str(problem) for problem in outcome.warnings)


@pytest.mark.parametrize(
    "line",
    [
        "provider: openai, local: true, api_key: k",
        "provider: openai, local: true, api_key: k, base_url: 'https://api.openai.com/v1'",
        "provider: generic, local: true, base_url: 'https://api.openai.com/v1'",
        "provider: generic, local: true, base_url: 'https://API.OpenAI.com./v1'",
        "provider: vllm, base_url: 'https://api.groq.com/openai/v1'",
        "provider: vllm, local: true, base_url: 'https://eu.api.together.xyz/v1'",
        "provider: generic, local: true, base_url: 'http://8.8.8.8:8000/v1'",
        "provider: vllm, base_url: 'http://8.8.8.8:8000/v1'",
        "provider: ollama, base_url: 'http://134744072:11434/v1'",
        "provider: vllm, base_url: 'http://[2606:4700::1111]:8000/v1'",
        "provider: openai, local: true, own_host: mine, api_key: k",
    ],
)
def test_a_cloud_or_a_public_address_is_not_local(line: str) -> None:
    assert "is local, but" in problems(line)


@pytest.mark.parametrize(
    "line",
    [
        "provider: vllm, base_url: 'http://127.0.0.1:8001/v1'",
        "provider: vllm, base_url: 'http://10.0.0.5:8001/v1'",
        "provider: vllm, base_url: 'http://100.64.0.9:8001/v1'",
        "provider: vllm, base_url: 'http://[fd00::5]:8001/v1'",
        "provider: vllm, base_url: 'http://vllm-0.vllm:8000/v1'",
        "provider: vllm, base_url: 'http://vllm:8000/v1'",
        "provider: vllm, base_url: 'unix:///run/engine.sock'",
        "provider: generic, local: true, base_url: 'https://gpu.example.com/v1'",
        "provider: vllm, own_host: 'our rented box behind TLS', base_url: 'https://8.8.8.8/v1'",
        "provider: openai, local: true, api_key: k, base_url: 'http://127.0.0.1:9/v1'",
    ],
)
def test_an_own_address_is_local(line: str) -> None:
    assert problems(line) == ""


def test_a_key_in_clear_is_warned_of() -> None:
    public = f"provider: generic, api_key: k, {PRICE}, base_url: "
    assert "without TLS" in warnings(public + "'http://llm.example.com/v1'")
    assert "without TLS" in warnings(public + "'http://8.8.8.8/v1'")
    assert "without TLS" not in warnings(public + "'https://llm.example.com/v1'")
    assert "without TLS" not in warnings(public + "'http://10.0.0.5/v1'")
    assert "without TLS" not in warnings(public + "'http://127.0.0.1:9/v1'")

"""The catalogue's entries, prices and targets."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.money.tariff import Tariff, Usage, price
from spillway_router.prices.book import record
from spillway_router.providers.catalogue import (
    capabilities_for,
    load_catalogue,
    provider_for,
    target,
)
from spillway_router.providers.interface import ProviderError

CATALOGUE = load_catalogue()
TODAY = date(2026, 11, 20)


def tariff_for(provider: str, model: str, today: date) -> Tariff | None:
    """The shipped price of a model on a day."""
    found = record(provider, model)
    return None if found is None else found.tariff(today)


def test_the_promised_providers_are_there() -> None:
    clouds = {"groq", "together", "openai", "openrouter", "huggingface", "cerebras", "anthropic"}
    engines = {"vllm", "sglang", "llamacpp", "ollama"}
    assert CATALOGUE.keys() >= clouds | engines | {"generic"}
    assert {name for name, entry in CATALOGUE.items() if entry.local} == engines
    for name in clouds:
        assert CATALOGUE[name].key_variable
        assert CATALOGUE[name].base_url.startswith("https://")
        assert target(CATALOGUE[name], None, "k").scheme == "https"
    assert {name for name, entry in CATALOGUE.items() if "models" not in entry.drops_fields} == {"openrouter"}
    assert all(provider_for(entry).entry is entry for entry in CATALOGUE.values())


@pytest.mark.parametrize("provider", ["vllm", "sglang", "llamacpp", "ollama"])
def test_a_full_queue_is_load_only_at_local_engines(provider: str) -> None:
    assert provider_for(CATALOGUE[provider]).entry.adapter == "engine"


def test_a_price_is_exact_and_dated() -> None:
    tariff = tariff_for("groq", "openai/gpt-oss-20b", TODAY)
    assert tariff is not None
    assert (tariff.input_per_million, tariff.output_per_million) == (Decimal("0.075"), Decimal("0.3"))
    assert tariff.cached_input_per_million == Decimal("0.0375")
    assert tariff.ref == "snapshot@2026-11-20"
    assert price(Usage(1_000_000, 0), tariff) == 75_000_000
    assert CATALOGUE["groq"].prices["openai/gpt-oss-20b"] == tariff
    known = record("groq", "openai/gpt-oss-20b")
    assert known is not None
    assert known.context_tokens == CATALOGUE["groq"].context_tokens["openai/gpt-oss-20b"] == 131_072
    assert known.max_output_tokens == 65_536


def test_an_unknown_model_has_no_price() -> None:
    assert tariff_for("groq", "no/such", TODAY) is None
    assert tariff_for("openrouter", "openai/gpt-5.4", TODAY) is None
    assert record("nobody", "m") is None
    assert "no/such" not in CATALOGUE["groq"].prices
    assert len(CATALOGUE["generic"].prices) == 0
    # The source has these at 0 or without a price: a gap, not a gift.
    assert tariff_for("together", "Prism-ML/Ternary-Bonsai-27B", TODAY) is None


def test_long_prompts_are_priced_not_refused() -> None:
    known = record("openai", "gpt-5.4")
    assert known is not None
    assert known.context_tokens == 1_050_000
    tariff = tariff_for("openai", "gpt-5.4", TODAY)
    assert tariff is not None
    assert price(Usage(272_000, 0), tariff) == 680_000_000  # at 2.50 USD per million
    assert price(Usage(300_000, 0), tariff) == 1_500_000_000  # at 5.00


def test_a_fine_tuned_model_costs_what_its_base_says() -> None:
    tuned = tariff_for("openai", "ft:gpt-4.1-mini-2025-04-14:acme::abc", TODAY)
    assert tuned is not None
    assert tuned == tariff_for("openai", "ft:gpt-4.1-mini-2025-04-14", TODAY)


def test_vision_follows_the_model() -> None:
    groq = CATALOGUE["groq"]
    assert "vision" not in capabilities_for(groq, record("groq", "openai/gpt-oss-20b"))
    assert "vision" in capabilities_for(groq, record("groq", "qwen/qwen3.8-27b"))
    assert capabilities_for(groq, None) == groq.capabilities


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8001/v1", ("http", "127.0.0.1", 8001, "/v1", b"127.0.0.1:8001")),
        ("https://api.example.com/v1/", ("https", "api.example.com", 443, "/v1", b"api.example.com")),
        ("http://box:80", ("http", "box", 80, "", b"box")),
        ("https://box:80/a/b", ("https", "box", 80, "/a/b", b"box:80")),
        ("http://[::1]:9000/v1", ("http", "::1", 9000, "/v1", b"[::1]:9000")),
        (" https://API.Example.com/v1\n", ("https", "api.example.com", 443, "/v1", b"api.example.com")),
        ("http://engine_1.svc.cluster.local./v1", None),
    ],
)
def test_urls(url: str, shown: tuple[str, str, int, str, bytes] | None) -> None:
    made = target(CATALOGUE["generic"], url)
    if shown is not None:
        assert (made.scheme, made.host, made.port, made.prefix, made.authority) == shown
    assert made.headers == ()


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("", "needs a base_url"),
        ("127.0.0.1:8000/v1", "must begin with http"),
        ("ftp://host/v1", "must begin with http"),
        ("http://", "no usable host"),
        ("http:///v1", "no usable host"),
        ("http://host:0/v1", "no usable host and port"),
        ("http://host:99999/v1", "host or port"),
        ("http://host:port/v1", "host or port"),
        ("http://[::1/v1", "host or port"),
        ("http://ho st/v1", "no usable host"),
        ("http://höst/v1", "no usable host"),
        ("https://user:hunter2@host/v1", "no user or password"),
        ("https://host/v1?key=hunter2", r"what follows '\?' or '#'"),
        ("https://host/v1#hunter2", r"what follows '\?' or '#'"),
        ("https://host/v1/chat/completions", "must end before /chat/completions"),
        ("https://host/a/../v1", "unusable path"),
        ("https://host/v1\r\nx: y", "unusable path|host or port|no usable"),
        ("unix://", "absolute path"),
        ("unix://run/x.sock", "absolute path"),
        ("unix:///", "absolute path"),
    ],
)
def test_bad_urls_say_what_to_change(url: str, fix: str) -> None:
    with pytest.raises(ProviderError, match=fix) as caught:
        target(CATALOGUE["generic"], url)
    assert "hunter2" not in str(caught.value)


def test_a_unix_socket() -> None:
    made = target(CATALOGUE["vllm"], "unix:///run/spillway/vllm.sock", "k")
    assert (made.uds, made.prefix, made.authority) == ("/run/spillway/vllm.sock", "/v1", b"localhost")
    assert made.headers == ((b"authorization", b"Bearer k"),)


def test_keys() -> None:
    anthropic = target(CATALOGUE["anthropic"], None, "sk-ant-1")
    assert anthropic.headers == ((b"x-api-key", b"sk-ant-1"), (b"anthropic-version", b"2023-06-01"))
    with pytest.raises(ProviderError, match="set GROQ_API_KEY"):
        target(CATALOGUE["groq"])
    with pytest.raises(ProviderError, match="set GROQ_API_KEY"):
        target(CATALOGUE["groq"], None, "")
    assert target(CATALOGUE["vllm"]).headers == ()


@given(st.text(min_size=1))
def test_no_key_breaks_a_header_or_shows_in_a_message(key: str) -> None:
    usable = all("!" <= char <= "~" for char in key)
    if not usable:
        with pytest.raises(ProviderError, match="copy it again") as caught:
            target(CATALOGUE["groq"], None, key)
        assert len(key) < 12 or key not in str(caught.value)
        return
    ((_, value),) = target(CATALOGUE["groq"], None, key).headers
    assert value == b"Bearer " + key.encode("ascii")


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ("auth: bearer", "auth: basic"),
        ("local: false", "local: nope"),
        ("billing_on_cancel: continues", "billing_on_cancel: maybe"),
        ("endpoints: [chat, responses]", "endpoints: [chat, images]"),
        ("key_variable: GROQ_API_KEY", "keyvariable: GROQ_API_KEY"),
        ("auth: bearer", "auth: bearer\n    adapter: own"),
    ],
)
def test_a_mistake_in_an_entry_is_told(tmp_path: Path, change: str, fix: str) -> None:
    text = (Path(__file__).parents[2] / "router/spillway_router/providers/catalogue.yaml").read_text()
    path = tmp_path / "catalogue.yaml"
    path.write_text(text.replace(change, fix, 1))
    with pytest.raises(ProviderError, match=r"groq|keyvariable"):
        load_catalogue(path)


def test_the_prices_are_not_kept_in_memory() -> None:
    """Looking up a price leaves nothing of the file behind: a router knows a handful of models."""
    code = (
        "import tracemalloc\n"
        "from spillway_router.providers import prices\n"
        "prices.book().record('groq', 'openai/gpt-oss-20b')\n"
        "tracemalloc.start(); before = tracemalloc.get_traced_memory()[0]\n"
        "kept = [prices.book().record('openai', 'gpt-5.4') for _ in range(5)]\n"
        "assert all(kept); print(tracemalloc.get_traced_memory()[0] - before)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert int(ran.stdout) < 32_768

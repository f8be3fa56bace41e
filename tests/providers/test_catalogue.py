"""The catalogue's entries and the targets made from them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.providers.catalogue import (
    load_catalogue,
    provider_for,
    target,
)
from spillway_router.providers.interface import ProviderError

CATALOGUE = load_catalogue()
ROUTER = Path(__file__).parents[2] / "router/spillway_router"


def test_the_promised_providers_are_there() -> None:
    clouds = {"groq", "together", "openai", "openrouter", "huggingface", "cerebras", "anthropic"}
    engines = {"vllm", "sglang", "llamacpp", "llamacpp-python", "ollama", "tei"}
    assert CATALOGUE.keys() >= clouds | engines | {"generic"}
    assert {name for name, entry in CATALOGUE.items() if entry.local} == engines
    for name in clouds:
        assert CATALOGUE[name].key_variable
        assert CATALOGUE[name].base_url.startswith("https://")
        assert target(CATALOGUE[name], None, "k").scheme == "https"
    assert all(provider_for(entry).entry is entry for entry in CATALOGUE.values())


@pytest.mark.parametrize("provider", ["vllm", "sglang", "llamacpp", "llamacpp-python", "ollama", "tei"])
def test_a_full_queue_is_load_only_at_local_engines(provider: str) -> None:
    assert provider_for(CATALOGUE[provider]).entry.adapter == "engine"


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
    address = target(CATALOGUE["generic"], url)
    if shown is not None:
        assert (address.scheme, address.host, address.port, address.prefix, address.authority) == shown
    assert address.headers == ()


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
    address = target(CATALOGUE["vllm"], "unix:///run/spillway/vllm.sock", "k")
    assert (address.uds, address.prefix, address.authority) == ("/run/spillway/vllm.sock", "/v1", b"localhost")
    assert address.headers == ((b"authorization", b"Bearer k"),)


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
        ("on_disconnect: continues", "on_disconnect: maybe"),
        ("on_disconnect: continues", "on_disconnect: continues\n    on_disconnect_whole: maybe"),
        ("tells_usage: true", "tells_usage: often"),
        ("endpoints: [chat, responses]", "endpoints: [chat, images]"),
        ("key_variable: GROQ_API_KEY", "keyvariable: GROQ_API_KEY"),
        ("auth: bearer", "auth: bearer\n    adapter: own"),
        ("output_bound_field: max_completion_tokens", "output_bound_field: max_words"),
        ("local: false", "local: false\n    keeps_routing_fields: perhaps"),
    ],
)
def test_a_mistake_in_an_entry_is_reported(tmp_path: Path, change: str, fix: str) -> None:
    text = (ROUTER / "providers/catalogue.yaml").read_text()
    path = tmp_path / "catalogue.yaml"
    path.write_text(text.replace(change, fix, 1))
    with pytest.raises(ProviderError, match=r"groq|keyvariable"):
        load_catalogue(path)


def test_only_openrouter_receives_its_routing_fields() -> None:
    keeps = {name for name, entry in CATALOGUE.items() if not {"models", "provider"} <= entry.drops_fields}
    assert keeps == {"openrouter"}


def test_providers_whose_newer_models_refuse_max_tokens() -> None:
    renamed = {name for name, entry in CATALOGUE.items() if entry.output_bound_field == "max_completion_tokens"}
    assert renamed == {"openai", "groq", "cerebras"}


def test_the_proxy_knows_no_provider_by_name() -> None:
    """Habits of a provider belong into catalogue.yaml, where the next provider can have them too."""
    sources = sorted((ROUTER / "proxy").rglob("*.py"))
    assert sources
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value.lower() not in CATALOGUE, f"{source}, line {node.lineno}: {node.value!r}"

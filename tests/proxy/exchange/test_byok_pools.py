"""A caller's own key reaches only providers of the catalogue and never shows in a message."""

from __future__ import annotations

import pytest

from spillway_router.providers.catalogue import load_catalogue
from spillway_router.providers.interface import ProviderError
from spillway_router.proxy.exchange.byok_pools import OwnKeys

KEY = "sk-canary-0123456789"


def test_a_known_provider_is_reached_with_the_callers_key_and_no_other() -> None:
    reach = OwnKeys(load_catalogue()).reach("groq", "openai/gpt-oss-20b", KEY)
    assert reach.credentials == b"authorization: Bearer " + KEY.encode() + b"\r\n"
    assert (reach.backend.provider, reach.backend.model, reach.backend.local) == ("groq", "openai/gpt-oss-20b", False)
    head = reach.pool.head("/chat/completions", 2, private=False)
    assert b"host: api.groq.com" in head
    assert KEY.encode() not in head
    assert b"authorization" not in head
    assert KEY not in repr(reach)


def test_anthropic_takes_its_key_and_version_in_its_own_headers() -> None:
    reach = OwnKeys(load_catalogue()).reach("anthropic", "claude", KEY)
    assert reach.credentials == b"x-api-key: " + KEY.encode() + b"\r\n"
    assert b"anthropic-version: " in reach.pool.head("/messages", 2, private=False)


def test_all_callers_of_a_provider_share_its_connections() -> None:
    keys = OwnKeys(load_catalogue())
    assert keys.reach("groq", "a", KEY).pool is keys.reach("groq", "b", "another-key").pool


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("nobody", KEY),
        ("vllm", KEY),  # an engine of ours
        ("generic", KEY),  # has no address of its own
        ("http://evil.example", KEY),
        ("groq", ""),
        ("groq", KEY + "\r\nx-injected: 1"),
    ],
)
def test_anything_else_is_refused_without_repeating_the_key(name: str, key: str) -> None:
    with pytest.raises(ProviderError) as error:
        OwnKeys(load_catalogue()).reach(name, "m", key)
    assert "canary" not in str(error.value)

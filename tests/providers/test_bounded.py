"""The lists of what is bounded at each provider, and their reading."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from spillway_router.core.money.bounds import UnboundedModel
from spillway_router.prices.book import LISTS as PRICES
from spillway_router.prices.book import read_list
from spillway_router.providers.bounded import BOUNDED_FILE, bounded_lists, load_bounded
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.providers.interface import ProviderError
from spillway_router.proxy.request import facts
from spillway_router.proxy.request.items import PLAIN_MESSAGE

CATALOGUE = load_catalogue()
PAID = {name: entry for name, entry in CATALOGUE.items() if not entry.local}
LISTS = bounded_lists()
COUNTED = {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens"}
"""What the bound counts by itself."""


def unbounded(
    provider: str, model: str, host: str = "127.0.0.1", *, fee_known: bool = False, field_known: bool = False
) -> UnboundedModel | None:
    return LISTS.providers[provider].unbounded_model(model, host, fee_known=fee_known, field_known=field_known)


def test_every_paid_provider_has_a_list_for_each_endpoint() -> None:
    assert LISTS.providers.keys() == PAID.keys()
    assert {name: set(entry.rules) for name, entry in LISTS.providers.items()} == {
        name: set(entry.endpoints) for name, entry in PAID.items()
    }


def test_every_row_and_every_fee_has_a_source() -> None:
    unsourced = [place for place, source in LISTS.sources.items() if not source.startswith("https://")]
    fees = [fee for entry in LISTS.providers.values() for fee in entry.fees.values()]
    assert not unsourced
    assert len(fees) >= 6
    assert all(fee.source.startswith("https://") for fee in fees)


@pytest.mark.parametrize("provider", sorted(PAID))
def test_a_plain_conversation_is_bounded_everywhere(provider: str) -> None:
    """Such a request has no items, so that nobody looks at the list."""
    rules = LISTS.providers[provider].rules["chat"]
    fields = facts._PLAIN - COUNTED - PAID[provider].drops_fields
    assert fields <= rules.keys()
    assert {f"messages.{key}" for key in PLAIN_MESSAGE - {"role", "content"}} <= rules.keys()


def test_the_bound_that_spillway_writes_is_one_that_the_provider_obeys() -> None:
    for name, entry in PAID.items():
        assert entry.output_bound_field in LISTS.providers[name].chat_output_fields, name


def test_a_regional_host_has_a_surcharge() -> None:
    openai = LISTS.providers["openai"]
    assert openai.factor("eu.api.openai.com") == Decimal("1.1")
    assert openai.factor("api.openai.com") == openai.factor("127.0.0.1") == 1


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openrouter", "openai/gpt-5.6-sol-pro"),
        ("openrouter", "z-ai/glm-5:online"),
        ("generic", "gpt-4o:online/linkup-deep"),
        ("generic", "qwen3-4b:enable_web_search=on&enable_web_citations=true"),
        ("generic", "gpt-4o-deep-search"),
        ("generic", "jina-deepsearch-v1"),
        ("generic", "brave-pro"),
        ("generic", "gemini-2.5-pro-search"),
        ("generic", "compound-beta-mini"),
        ("generic", "doubao-pro-4k-browsing-240524"),
        ("openai", "gpt-4o-search-preview-2025-03-11"),
        ("openai", "o3-deep-research"),
        ("openai", "GPT-5-search-api"),
        ("openrouter", "openai/gpt-4o-mini-search-preview"),
        ("openrouter", "openai/o4-mini-deep-research"),
        ("openrouter", "x-ai/grok-4.20-multi-agent-20260309"),
        ("generic", "grok-4.20-multi-agent"),
        ("generic", "sonar-deep-research"),
    ],
)
def test_models_that_search_or_ask_others_by_themselves_are_not_bounded(provider: str, model: str) -> None:
    assert unbounded(provider, model)
    others = (
        "gpt-4o",
        "x-ai/grok-4.20",
        "nousresearch/hermes-4-70b",
        "openai/gpt-5.6-sol",
        "gemini-3-pro",
        "brave-13b",
    )
    assert not any(unbounded(provider, other) for other in others)


@pytest.mark.parametrize(
    "model", ["sonar", "Sonar-Pro", "perplexity/sonar-reasoning-pro", "llama-3.1-sonar-small-online"]
)
def test_models_with_a_fee_for_each_request_are_bounded_where_it_is_stated(model: str) -> None:
    assert unbounded("generic", model) == UnboundedModel(
        f"every request to {model} has a fee besides its tokens", "price.per_request"
    )
    assert unbounded("generic", model, fee_known=True) is None
    assert unbounded("generic", "resonar-7b") is None


@pytest.mark.parametrize("host", ["api.siliconflow.com", "API.siliconflow.cn", "ark.cn-beijing.volces.com"])
def test_hosts_that_bill_reasoning_beyond_max_tokens_are_bounded_by_the_field_that_covers_it(host: str) -> None:
    assert unbounded("generic", "qwen3-8b", host) == UnboundedModel(
        f"{host} bills reasoning beyond max_tokens", "output_bound_field"
    )
    assert unbounded("generic", "qwen3-8b", host, field_known=True) is None
    assert unbounded("generic", "qwen3-8b", "api.deepseek.com") is None


def test_every_shipped_model_that_searches_by_itself_is_known() -> None:
    """Their prices are in the lists, so anybody may configure them under a cap."""
    for path in PRICES.glob("*.json"):
        for model in read_list(path, "snapshot").providers[path.stem]:
            if re.search(r"search-preview|search-api|deep-research|multi-agent|sonar|:online", model):
                assert unbounded(path.stem, model), (path.stem, model)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("limit: max_uses", "limit: max_users"),
        ("most_uses: 3, fee: web_search,", "fee: web_search,"),
        ("fee: file_search", "fee: file_find"),
        ('usd: "0.01"', "usd: 0.01"),
        ('factor: "1.1"', "factor: 1.1"),
        ("checked_on: 2026-11-29", "checked: 2026-11-29"),
        ("as_output: true", "is_output: true"),
        ("    chat: [chat, function_tools, files]", "    chat: [chat, function_tools, folders]"),
        ("    default_modes: [us]", "    default_mode: [us]"),
        ('hosts: ["*.volces.com"', 'host: ["*.volces.com"'),
    ],
)
def test_a_mistake_in_the_file_is_an_error(text: str, other: str, tmp_path: Path) -> None:
    whole = BOUNDED_FILE.read_text("utf-8")
    assert text in whole
    path = tmp_path / "bounded.yaml"
    path.write_text(whole.replace(text, other, 1), "utf-8")
    with pytest.raises(ProviderError):
        load_bounded(path)

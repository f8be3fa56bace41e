"""The lists of what is bounded at each provider, and their reading."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

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
    bounded = LISTS.providers[provider]
    assert bounded.unbounded_model(model)
    assert not any(map(bounded.unbounded_model, ("gpt-4o", "x-ai/grok-4.20", "nousresearch/hermes-4-70b")))


def test_every_shipped_model_that_searches_by_itself_is_known() -> None:
    """Their prices are in the lists, so anybody may configure them under a cap."""
    for path in PRICES.glob("*.json"):
        for model in read_list(path, "snapshot").providers[path.stem]:
            if re.search(r"search-preview|search-api|deep-research|multi-agent|sonar|:online", model):
                assert LISTS.providers[path.stem].unbounded_model(model), (path.stem, model)


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
    ],
)
def test_a_mistake_in_the_file_is_an_error(text: str, other: str, tmp_path: Path) -> None:
    whole = BOUNDED_FILE.read_text("utf-8")
    assert text in whole
    path = tmp_path / "bounded.yaml"
    path.write_text(whole.replace(text, other, 1), "utf-8")
    with pytest.raises(ProviderError):
        load_bounded(path)

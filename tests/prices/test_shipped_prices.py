"""The price list that comes with Spillway."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from decimal import Decimal

from spillway_router.core.money.tariff import Tariff, Usage, price
from spillway_router.prices.book import record

TODAY = date(2026, 11, 20)


def tariff_for(provider: str, model: str, today: date) -> Tariff | None:
    """Return the shipped price of a model on a day, None where it has none."""
    model_record = record(provider, model)
    return None if model_record is None else model_record.tariff(today)


def test_a_price_is_exact_and_dated() -> None:
    tariff = tariff_for("groq", "openai/gpt-oss-20b", TODAY)
    assert tariff is not None
    assert (tariff.input_per_million, tariff.output_per_million) == (Decimal("0.075"), Decimal("0.3"))
    assert tariff.cached_input_per_million == Decimal("0.0375")
    assert tariff.ref.partition("#")[0] == "snapshot@2026-11-20"
    assert price(Usage(1_000_000, 0), tariff) == 75_000_000
    model_record = record("groq", "openai/gpt-oss-20b")
    assert model_record is not None
    assert model_record.context_tokens == 131_072
    assert model_record.max_output_tokens == 65_536


def test_an_unknown_model_has_no_price() -> None:
    assert tariff_for("groq", "no/such", TODAY) is None
    assert tariff_for("openrouter", "openai/gpt-5.4", TODAY) is None
    assert record("nobody", "m") is None
    # The source lists this model at 0 or without a price, which is a gap and not a gift.
    assert tariff_for("together", "Prism-ML/Ternary-Bonsai-27B", TODAY) is None


def test_long_prompts_are_priced_not_refused() -> None:
    model_record = record("openai", "gpt-5.4")
    assert model_record is not None
    assert model_record.context_tokens == 1_050_000
    tariff = tariff_for("openai", "gpt-5.4", TODAY)
    assert tariff is not None
    assert price(Usage(272_000, 0), tariff) == 680_000_000  # at 2.50 USD per million
    assert price(Usage(300_000, 0), tariff) == 1_500_000_000  # at 5.00


def test_a_fine_tuned_model_costs_what_its_base_says() -> None:
    tuned = tariff_for("openai", "ft:gpt-4.1-mini-2025-04-14:acme::abc", TODAY)
    assert tuned is not None
    assert tuned == tariff_for("openai", "ft:gpt-4.1-mini-2025-04-14", TODAY)


def test_the_prices_are_not_kept_in_memory() -> None:
    """Looking up a price leaves nothing of the file in memory, since a router needs only a handful of models."""
    code = (
        "import tracemalloc\n"
        "from spillway_router.prices import book as prices\n"
        "prices.book().record('groq', 'openai/gpt-oss-20b')\n"
        "tracemalloc.start(); before = tracemalloc.get_traced_memory()[0]\n"
        "kept = [prices.book().record('openai', 'gpt-5.4') for _ in range(5)]\n"
        "assert all(kept); print(tracemalloc.get_traced_memory()[0] - before)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert int(ran.stdout) < 32_768

"""The price list that comes with Spillway."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date
from decimal import Decimal

from spillway_router.core.money.tariff import Tariff, Usage, price
from spillway_router.prices.book import LISTS, read_list, record
from spillway_router.prices.huggingface import POLICIES
from spillway_router.providers.catalogue import load_catalogue

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
    assert tariff_for("openrouter", "openrouter/auto", TODAY) is None
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


def test_every_cloud_of_the_catalogue_has_prices() -> None:
    clouds = {name for name, entry in load_catalogue().items() if not entry.local and entry.base_url}
    assert clouds == {path.stem for path in LISTS.glob("*.json")}
    for name in clouds:
        assert len(read_list(LISTS / f"{name}.json", "snapshot").providers[name]) >= 9


def test_a_request_that_names_no_host_costs_the_dearest_of_its_hosts() -> None:
    models = read_list(LISTS / "huggingface.json", "snapshot").providers["huggingface"]
    hosts = [name for name in models if name.startswith("openai/gpt-oss-20b:")]
    assert len(hosts) > 3
    each = [tariff for name in hosts if (tariff := tariff_for("huggingface", name, TODAY)) is not None]
    for policy in ("", *(f":{policy}" for policy in POLICIES)):
        tariff = tariff_for("huggingface", f"openai/gpt-oss-20b{policy}", TODAY)
        assert tariff is not None
        assert tariff.input_per_million == max(one.input_per_million for one in each)
        assert tariff.output_per_million == max(one.output_per_million for one in each)
    assert tariff_for("huggingface", "openai/gpt-oss-20b:nobody", TODAY) is None


def test_a_changed_price_keeps_the_days_before() -> None:
    before, after = (tariff_for("together", "Qwen/Qwen3.7-Max", day) for day in (TODAY, date(2026, 11, 29)))
    assert before is not None
    assert after is not None
    assert (before.input_per_million, after.input_per_million) == (Decimal("1.5"), Decimal("2.5"))


def test_dearer_modes_of_a_model_are_known() -> None:
    opus, mini = tariff_for("anthropic", "claude-opus-5", TODAY), tariff_for("openai", "gpt-4o-mini", TODAY)
    later = tariff_for("anthropic", "claude-opus-5", date(2026, 11, 29))
    assert later is not None
    assert all(later.knows(mode) for mode in ("batch", "fast", "us", "fast+us"))
    usage = Usage(1_000_000, 0)
    assert price(Usage(1_000_000, 0, service="fast+us"), later) == price(usage, later) * 22 // 10
    assert opus is not None
    assert mini is not None
    newer = tariff_for("openai", "gpt-4o-mini", date(2026, 11, 29))
    assert newer is not None
    assert newer.knows("priority")


def test_a_model_that_is_withdrawn_soon_names_its_successor() -> None:
    model_record = record("openai", "gpt-4o")
    assert model_record is not None
    assert (model_record.retired_on, model_record.successor) == (date(2027, 1, 14), "gpt-6-luna")


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
    assert int(ran.stdout) < 131_072  # five records with their prices of all days; one file as objects takes megabytes


def test_writes_to_a_prompt_cache_have_their_prices() -> None:
    """A write for an hour costs twice the input at every Claude, and GPT-5.6 and its successors bill writes, too."""
    writes = 0
    for path in LISTS.glob("*.json"):
        for model, row in read_list(path, "snapshot").providers[path.stem].items():
            for rates in (rates for dated in row["prices"] for rates in (dated, *dated.get("steps", ()))):
                if "claude" in model and "cache_write" in rates:
                    assert Decimal(rates["cache_write_long"]) >= 2 * Decimal(rates["input"]), (path.stem, model)
                    writes += 1
                if re.search(r"gpt-(5\.[6-9]|[6-9])|gpt-latest", model):
                    assert Decimal(rates["cache_write"]) >= Decimal("1.25") * Decimal(rates["input"]), (
                        path.stem,
                        model,
                    )
                    writes += 1
    assert writes > 150

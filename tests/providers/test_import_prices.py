"""The converter from LiteLLM's price file: exact, dated, and nothing unpriced gets in."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.providers.base import ProviderError
from spillway_router.providers.import_prices import convert
from spillway_router.providers.prices import PRICES_FILE, record

DAY = date(2026, 11, 20)


def source(**costs: object) -> bytes:
    row = {"litellm_provider": "groq", "mode": "chat", "input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07}
    return orjson.dumps({"groq/m": {**row, **costs}, "deepinfra/x": {"litellm_provider": "deepinfra"}})


def model(content: bytes) -> dict[str, object]:
    found: dict[str, object] = orjson.loads(content)["providers"]["groq"]["m"]
    return found


@given(st.integers(1, 10**9), st.integers(4, 13))
def test_any_decimal_price_survives_exactly(digits: int, places: int) -> None:
    meant = Decimal(digits).scaleb(-places)
    content = convert(source(input_cost_per_token=float(meant)), DAY).content
    prices = model(content)["prices"]
    assert isinstance(prices, list)
    assert "E" not in prices[0]["input"]
    assert Decimal(prices[0]["input"]) == meant * 10**6


def test_what_is_kept_of_a_model() -> None:
    more = {"cache_read_input_token_cost": 3.75e-08, "max_input_tokens": 131072, "max_output_tokens": 65536}
    tiers = {"input_cost_per_token_above_272k_tokens": 3e-07, "output_cost_per_token_above_128k_tokens": 9e-07}
    rest = {"deprecation_date": "2027-01-31", "supports_vision": True, "input_cost_per_token_batches": 1e-08}
    assert model(convert(source(**more, **tiers, **rest), DAY).content) == {
        "prices": [{"from": "2026-11-20", "input": "0.15", "output": "0.6", "cached_input": "0.0375"}],
        "context_tokens": 131072,
        "max_output_tokens": 65536,
        "dearer_above_tokens": 128000,
        "retired_on": "2027-01-31",
        "vision": True,
    }


def test_history_is_kept_and_an_unchanged_price_keeps_its_date() -> None:
    first = convert(source(), DAY).content
    same = convert(source(), date(2026, 12, 1), first).content
    assert model(same)["prices"] == model(first)["prices"]
    dearer = convert(source(input_cost_per_token=2e-07), date(2027, 1, 1), same).content
    assert [(p["from"], p["input"]) for p in model(dearer)["prices"]] == [("2026-11-20", "0.15"), ("2027-01-01", "0.2")]  # type: ignore[attr-defined]
    again = convert(source(input_cost_per_token=3e-07), date(2027, 1, 1), dearer).content
    assert [p["input"] for p in model(again)["prices"]] == ["0.15", "0.3"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("cost", [None, "0.1", -1e-07, True])
def test_a_model_without_a_usable_price_is_left_out_and_named(cost: object) -> None:
    rows = orjson.loads(source()) | {
        "groq/bad": {"litellm_provider": "groq", "input_cost_per_token": cost, "output_cost_per_token": 1e-07},
        "groq/free": {"litellm_provider": "groq", "input_cost_per_token": 0, "output_cost_per_token": 0.0},
    }
    imported = convert(orjson.dumps(rows), DAY)
    assert imported.models == 1
    assert imported.skipped == (("groq/bad", "no price per token"), ("groq/free", "a price of 0"))


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"a": {"litellm_provider": "deepinfra"}}'])
def test_another_file_is_refused(text: bytes) -> None:
    with pytest.raises(ProviderError, match="price"):
        convert(text, DAY)


def test_the_command_writes_a_file_that_can_be_read(tmp_path: Path) -> None:
    given, out = tmp_path / "litellm.json", tmp_path / "prices.json"
    given.write_bytes(source())
    command = [
        sys.executable,
        "-m",
        "spillway_router.providers.import_prices",
        str(given),
        "2026-11-20",
        "--out",
        str(out),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "1 models priced" in ran.stdout
    found = record("groq", "m", out)
    assert found is not None
    assert found.tariff(DAY).input_per_million == Decimal("0.15")


def test_the_shipped_file_names_its_licence_and_day() -> None:
    shipped = orjson.loads(PRICES_FILE.read_bytes())
    assert "LiteLLM" in shipped["licence"]
    assert "MIT" in shipped["licence"]
    assert date.fromisoformat(shipped["snapshot"]) >= DAY

"""Taking price lists in: exact, dated, history kept, and nothing unpriced gets in."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.money.tariff import Extras, Usage, price, upper_bound
from spillway_router.prices.book import SOURCE, PriceBook, PriceList, parse_list, read_list
from spillway_router.prices.imported import Added, add, locked, read_source, write
from spillway_router.prices.litellm import LICENCE, convert_rows
from spillway_router.prices.rows import PriceError, dated_price, load_json

DAY = date(2026, 11, 20)
EXCERPT = (Path(__file__).parent / "data" / "litellm_excerpt.json").read_bytes()
GROQ = {"litellm_provider": "groq", "mode": "chat", "input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07}


def source(**costs: object) -> bytes:
    return orjson.dumps({"groq/m": {**GROQ, **costs}, "deepinfra/x": {"litellm_provider": "deepinfra"}})


def taken(text: bytes, day: date = DAY, before: bytes | None = None) -> Added:
    """`text` imported over the list `before`."""
    own = None if before is None else listed(before)
    return add(read_source(text, day), PriceBook(() if own is None else (own,)), own, day)


def listed(content: bytes) -> PriceList:
    return parse_list(load_json(content), "the list", SOURCE)


def row(content: bytes, provider: str = "groq", model: str = "m") -> dict[str, Any]:
    model_row: dict[str, Any] = orjson.loads(content)["providers"][provider][model]
    return model_row


# LiteLLM's file


@given(st.integers(1, 10**6), st.integers(6, 13))
def test_any_decimal_price_survives_exactly(digits: int, places: int) -> None:
    meant = Decimal(digits).scaleb(-places)
    text = source().replace(b"1.5e-7", str(meant).encode())
    assert str(meant).encode() in text
    (listed_price,) = row(taken(text).content)["prices"]
    assert "E" not in listed_price["input"]
    assert Decimal(listed_price["input"]) == meant * 10**6


def test_no_price_passes_through_a_float() -> None:
    text = source().replace(b"1.5e-7", b"1.50000000000000001e-7")
    assert float("1.50000000000000001e-7") == 1.5e-7
    assert row(taken(text).content)["prices"][0]["input"] == "0.150000000000000001"
    with pytest.raises(PriceError, match="18 decimals"):
        read_source(source().replace(b"1.5e-7", b"1.5000000000000000001e-7"), DAY)


def test_what_is_kept_of_real_rows() -> None:
    content = taken(EXCERPT).content
    assert row(content, "groq", "openai/gpt-oss-20b") == {
        "prices": [{"from": "2026-11-20", "input": "0.075", "output": "0.3", "cached_input": "0.0375"}],
        "context_tokens": 131072,
        "max_output_tokens": 65536,
        "capabilities": {"vision": False, "tools": True, "json_schema": True, "reasoning": True},
    }
    sonnet = row(content, "anthropic", "claude-sonnet-4-5")
    assert sonnet["prices"] == [
        {
            "from": "2026-11-20",
            "input": "3",
            "output": "15",
            "cached_input": "0.3",
            "cache_write": "3.75",
            "cache_write_long": "6",
            "steps": [
                {
                    "service": "batch",
                    "input": "1.5",
                    "output": "7.5",
                    "cached_input": "0.15",
                    "cache_write": "1.875",
                    "cache_write_long": "6",
                }
            ],
        }
    ]
    assert (sonnet["retired_on"], sonnet["capabilities"]["vision"]) == ("2026-11-30", True)


def test_long_prompts_and_services_become_steps() -> None:
    (listed_price,) = row(taken(EXCERPT).content, "anthropic", "claude-haiku-5-5")["prices"]
    assert [
        (s.get("service", ""), s.get("above_tokens", 0), s["input"], s["output"]) for s in listed_price["steps"]
    ] == [
        ("", 100_000, "0.5", "2.5"),
        ("batch", 0, "0.05", "0.25"),
        ("batch", 100_000, "0.25", "1.25"),
    ]
    # What the file leaves out of the last step (a long cache write) costs as in the usual service at that length.
    assert [s["cache_write_long"] for s in listed_price["steps"]] == ["1", "0.2", "1"]
    # The excerpt has prices of `flex` and `priority` for long prompts only: those services are not known then.
    (gpt,) = row(taken(EXCERPT).content, "openai", "gpt-5.6")["prices"]
    assert {s.get("service", "") for s in gpt["steps"]} == {"", "batch"}
    assert listed_price == row(taken(EXCERPT).content, "anthropic", "claude-haiku-5-5")["prices"][0]


def test_modes_of_a_model_become_steps_for_every_combination() -> None:
    model = {
        "litellm_provider": "anthropic",
        "input_cost_per_token": Decimal("0.000005"),
        "output_cost_per_token": Decimal("0.000025"),
        "input_cost_per_token_above_200k_tokens": Decimal("0.00001"),
        "output_cost_per_token_above_200k_tokens": Decimal("0.00005"),
        "provider_specific_entry": {"fast": Decimal("6.0"), "us": Decimal("1.1"), "odd": "?"},
    }
    converted = convert_rows({"claude-x": model}, "2026-11-20")
    [dated] = converted.providers["anthropic"]["claude-x"]["prices"]
    _, tariff = dated_price(dated, "list")
    usage = {
        (service, prompt): price(Usage(prompt, 0, service=service), tariff)
        for service in ("", "fast", "us", "fast+us")
        for prompt in (1000, 300_000)
    }
    assert usage == {
        ("", 1000): 5_000_000,
        ("", 300_000): 3_000_000_000,
        ("fast", 1000): 30_000_000,
        ("fast", 300_000): 18_000_000_000,
        ("us", 1000): 5_500_000,
        ("us", 300_000): 3_300_000_000,
        ("fast+us", 1000): 33_000_000,
        ("fast+us", 300_000): 19_800_000_000,
    }
    assert converted.skipped == (
        ("anthropic/claude-x (odd)", "its factor is no number, so that requests for this mode are refused"),
    )


def test_prices_by_request_and_by_second() -> None:
    speech = {"litellm_provider": "groq", "input_cost_per_second": 3.083e-05, "output_cost_per_second": 0.0}
    asked = {**GROQ, "input_cost_per_request": 0.005}
    content = taken(orjson.dumps({"groq/whisper": speech, "groq/asked": asked})).content
    (listed_price,) = row(content, "groq", "whisper")["prices"]
    assert (listed_price["input"], listed_price["output"], listed_price["per_second"]) == ("0", "0", "0.00003083")
    assert row(content, "groq", "asked")["prices"][0]["per_request"] == "0.005"
    tariff = record_of(content, "whisper").tariff(DAY)
    assert tariff is not None
    assert price(Usage(0, 0), tariff, 60) == 1_849_800  # a minute of audio


def test_prices_of_sound_and_of_generated_pictures() -> None:
    speaks = {
        **GROQ,
        "input_cost_per_audio_token": 4e-05,
        "output_cost_per_audio_token": 8e-05,
        "output_cost_per_image_token": 3e-05,
        "cache_read_input_audio_token_cost": 4e-07,
    }
    raw = orjson.dumps({"groq/m": GROQ, "groq/speaks": speaks})
    tariff = record_of(taken(raw).content, "speaks").tariff(DAY)
    assert tariff is not None
    assert dict(tariff.media) == {"audio_input": 40, "audio_output": 80, "image_output": 30}
    spoken = Usage(100, 100, media=(("audio_input", 100), ("audio_output", 100)))
    assert price(spoken, tariff) == 12_000_000
    assert upper_bound(tariff, 100, 100) == 75_000  # a call that can't have sound in it
    assert upper_bound(tariff, 100, 100, Extras(media=True)) == 12_000_000
    ((name, _),) = read_source(raw, DAY).skipped
    assert name == "groq/speaks (cache_read_input_audio_token_cost)"


def record_of(content: bytes, model: str) -> Any:
    return PriceBook((listed(content),)).record("groq", model)


@pytest.mark.parametrize(
    ("flaw", "why"),
    [
        ({"input_cost_per_token": None}, "no price per token"),
        ({"input_cost_per_token": "0.1"}, "no price per token"),
        ({"input_cost_per_token": -1e-07}, "no price per token"),
        ({"input_cost_per_token": True}, "no price per token"),
        ({"input_cost_per_token": 0, "output_cost_per_token": 0.0}, "a price of 0"),
        ({"input_cost_per_token": 2}, "between 0 and 1000000"),
        ({"input_cost_per_image_token": 1e-05}, "image tokens"),
        ({"tiered_pricing": [{"range": [0, 10]}]}, "ranges"),
        ({"input_cost_per_second": 1e-05, "output_cost_per_second": 2e-05}, "different prices per second"),
    ],
)
def test_a_model_without_a_usable_price_is_left_out_and_named(flaw: dict[str, object], why: str) -> None:
    rows = {**orjson.loads(source()), "groq/bad": {**GROQ, **flaw}}
    imported = read_source(orjson.dumps(rows), DAY)
    assert list(imported.prices.providers["groq"]) == ["m"]
    ((name, reason),) = imported.skipped
    assert name == "groq/bad"
    assert why in reason


def test_real_rows_without_a_price_are_named() -> None:
    missing = "its price of ordinary prompts is missing, so that requests for this mode are refused"
    assert read_source(EXCERPT, DAY).skipped == (
        ("together/togethercomputer/CodeLlama-34b-Instruct", "no price per token"),
        ("openai/gpt-5.4 (flex)", missing),
        ("openai/gpt-5.6 (flex)", missing),
        ("openai/gpt-5.6 (priority)", missing),
    )


def test_costs_that_a_row_does_not_hold_are_named_with_what_happens_to_them() -> None:
    costs = {
        "search_context_cost_per_query": {"search_context_size_high": 0.01},
        "fedramp_uplift_multiplier": 1.1,
        "output_cost_per_smell": 1e-06,
        "supports_tool_choice": True,
    }
    skipped = dict(read_source(source(**costs), DAY).skipped)
    assert "list of bounded fields" in skipped["groq/m (search_context_cost_per_query)"]
    assert "a host of its own" in skipped["groq/m (fedramp_uplift_multiplier)"]
    assert "not known" in skipped["groq/m (output_cost_per_smell)"]
    assert len(skipped) == 3


def test_the_dearer_of_two_long_cache_writes_counts() -> None:
    writes = {"cache_creation_input_token_cost_above_1hr": 3e-07, "cache_creation_input_token_cost_above_12hr": 4e-07}
    for order in (writes, dict(reversed(writes.items()))):
        assert row(taken(source(**order)).content)["prices"][0]["cache_write_long"] == "0.4"


# the lists of models


OPENROUTER = {
    "id": "some/model",
    "context_length": 8192,
    "architecture": {"input_modalities": ["text", "image"]},
    "pricing": {"prompt": "0.0000001", "completion": "0.0000004", "request": "0.001", "image": "0.002", "audio": "0"},
    "supported_parameters": ["tools", "temperature"],
    "expiration_date": "2027-01-31",
}


def test_openrouters_list_of_models_comes_in() -> None:
    unknown = {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}}
    free = {"id": "some/model:free", "pricing": {"prompt": "0", "completion": "0"}}
    imported = read_source(orjson.dumps({"data": [OPENROUTER, unknown, free]}), DAY, "a list")
    assert imported.prices.providers == {
        "openrouter": {
            "some/model": {
                "prices": [{"from": "2026-11-20", "input": "0.1", "output": "0.4", "per_request": "0.001"}],
                "context_tokens": 8192,
                "retired_on": "2027-01-31",
                "capabilities": {
                    "tools": True,
                    "json_schema": False,
                    "reasoning": False,
                    "vision": True,
                    "audio": False,
                },
            }
        }
    }
    skipped = dict(imported.skipped)
    assert "pictures" in skipped["openrouter/some/model (image)"]
    assert "no price per token" in skipped["openrouter/openrouter/auto"]
    assert skipped["openrouter/some/model:free"] == "a price of 0"


def test_a_claude_behind_openrouter_has_the_price_of_a_write_for_an_hour() -> None:
    pricing = {"prompt": "0.000003", "completion": "0.000015", "input_cache_write": "0.00000375"}
    rows = [{"id": name, "pricing": pricing} for name in ("anthropic/claude-sonnet-5", "openai/gpt-5.6-sol")]
    models = read_source(orjson.dumps({"data": rows}), DAY, "a list").prices.providers["openrouter"]
    writes = {name: model["prices"][0].get("cache_write_long") for name, model in models.items()}
    assert writes == {"anthropic/claude-sonnet-5": "6", "openai/gpt-5.6-sol": None}


def hugging_face(*hosts: tuple[str, float, float], status: str = "live") -> dict[str, Any]:
    return {
        "id": "org/m",
        "providers": [
            {"provider": name, "status": status, "context_length": 1000 * i, "pricing": {"input": low, "output": high}}
            | {"supports_tools": i == 1}
            for i, (name, low, high) in enumerate(hosts, 1)
        ],
    }


def test_hugging_faces_list_of_models_comes_in_by_host_and_with_the_dearest() -> None:
    listed_models = {"data": [hugging_face(("groq", 0.1, 0.5), ("novita", 0.2, 0.3))]}
    imported = read_source(orjson.dumps(listed_models), DAY, "a list")
    models = imported.prices.providers["huggingface"]
    assert {name: (m["prices"][0]["input"], m["prices"][0]["output"]) for name, m in models.items()} == {
        "org/m:groq": ("0.1", "0.5"),
        "org/m:novita": ("0.2", "0.3"),
        "org/m": ("0.2", "0.5"),
    }
    assert models["org/m"]["prices"][0]["origin"] == "a list: the dearest of groq, novita"
    assert (models["org/m"]["context_tokens"], models["org/m"]["capabilities"]["tools"]) == (1000, False)
    gone = {"data": [hugging_face(("groq", 0.1, 0.5), status="error")]}
    with pytest.raises(PriceError, match="no price found"):
        read_source(orjson.dumps(gone), DAY)


def test_genai_prices_come_in_with_their_days_and_steps() -> None:
    flat_price = {"input_mtok": 1, "output_mtok": 4}
    tiered = {"base": 1, "tiers": [{"start": 200000, "price": 2}]}
    sources = [
        {
            "id": "openrouter",
            "models": [
                {
                    "id": "some/m",
                    "match": {"or": [{"equals": "some/m"}, {"equals": "some/m-canonical"}, {"contains": "m"}]},
                    "prices": [
                        {"prices": {**flat_price, "input_mtok": 3}},
                        {
                            "constraint": {"start_date": "2026-10-19"},
                            "prices": {"input_mtok": tiered, "output_mtok": 4},
                        },
                    ],
                    "price_variants": [{"when": {"route": "eu"}}],
                },
                {"id": "night/m", "match": {}, "prices": [{"constraint": {"start_time": "00:30"}, "prices": {}}]},
                {"id": "deaf/m", "match": {}, "prices": {"input_mtok": 1, "output_mtok": 1, "input_video_mtok": 9}},
                {"id": "hears/m", "match": {}, "prices": {"input_mtok": 1, "output_mtok": 1, "input_audio_mtok": 9}},
            ],
        },
        {
            "id": "huggingface_groq",
            "models": [{"id": "org/m", "match": {}, "prices": {"input_mtok": 1, "output_mtok": 2}}],
        },
        {"id": "openai", "models": [{"id": "gpt", "match": {}, "prices": {"input_mtok": 1, "output_mtok": 2}}]},
    ]
    imported = read_source(orjson.dumps(sources), DAY)
    rows = imported.prices.providers
    assert {provider: sorted(models) for provider, models in rows.items()} == {
        "openrouter": ["hears/m", "some/m", "some/m-canonical"],
        "huggingface": ["org/m", "org/m:groq"],
    }
    assert rows["openrouter"]["some/m"]["prices"] == [
        {"from": "1970-01-01", "input": "3", "output": "4"},
        {
            "from": "2026-10-19",
            "input": "1",
            "output": "4",
            "steps": [{"above_tokens": 200000, "input": "2", "output": "4"}],
        },
    ]
    skipped = dict(imported.skipped)
    assert "time of day" in skipped["openrouter/night/m"]
    assert rows["openrouter"]["hears/m"]["prices"][0]["audio_input"] == "9"
    assert "input_video_mtok" in skipped["openrouter/deaf/m"]
    assert "refused" in skipped["openrouter/some/m (route eu)"]
    assert "Pydantic" in imported.prices.licence


@pytest.mark.parametrize(
    "data",
    [
        {"data": [OPENROUTER, {"id": "x/y", "pricing": 7}]},
        {"data": [hugging_face(("groq", 0.1, 0.5)), {"id": 7, "providers": 8}]},
    ],
)
def test_an_odd_row_of_a_list_of_models_spoils_no_other(data: dict[str, Any]) -> None:
    assert read_source(orjson.dumps(data), DAY).prices.providers


def test_a_list_of_another_shape_is_named_as_such() -> None:
    with pytest.raises(PriceError, match="not as usual"):
        read_source(orjson.dumps([{"id": "openrouter", "models": [{"id": "a/b"}]}]), DAY)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"a": {"litellm_provider": "deepinfra"}}', b'{"a": NaN}'])
def test_another_file_is_refused(text: bytes) -> None:
    with pytest.raises(PriceError, match=r"price|JSON"):
        read_source(text, DAY)


# our own format


def test_our_own_format_comes_in_with_its_days() -> None:
    text = b"""{"providers": {"fireworks": {"m": {"retired_on": "2027-05-01", "prices": [
        {"from": "2026-06-01", "input": "0.9", "output": 0.90},
        {"from": "2027-01-01", "input": "1.2", "output": "1.2"}]}}}}"""
    added = taken(text)
    model_row = row(added.content, "fireworks")
    assert [(p["from"], p["input"], p["output"]) for p in model_row["prices"]] == [
        ("2026-06-01", "0.9", "0.90"),
        ("2027-01-01", "1.2", "1.2"),
    ]
    assert "owner" in orjson.loads(added.content)["licence"]
    again = taken(EXCERPT, DAY, added.content)
    assert row(again.content, "fireworks") == model_row
    assert orjson.loads(again.content)["licence"] == f"Prices given by this file's owner | {LICENCE}"
    assert taken(EXCERPT, DAY, again.content).content == again.content


def test_a_mistake_in_our_own_format_names_the_model() -> None:
    with pytest.raises(PriceError, match="fireworks/m: unknown key 'imput'"):
        read_source(b'{"providers": {"fireworks": {"m": {"prices": [{"imput": 1}]}}}}', DAY)


# history


def test_history_is_kept_and_an_unchanged_price_keeps_its_date() -> None:
    first = taken(source()).content
    same = taken(source(), date(2026, 12, 1), first).content
    assert row(same)["prices"] == row(first)["prices"]
    assert record_of(same, "m").checked_on == date(2026, 12, 1)
    dearer = taken(source(input_cost_per_token=2e-07), date(2027, 1, 1), same)
    assert [(p["from"], p["input"]) for p in row(dearer.content)["prices"]] == [
        ("2026-11-20", "0.15"),
        ("2027-01-01", "0.2"),
    ]
    assert not dearer.conflicts
    back = taken(source(), date(2027, 2, 1), dearer.content)
    assert [p["input"] for p in row(back.content)["prices"]] == ["0.15", "0.2", "0.15"]


def test_another_price_for_the_same_day_is_a_conflict() -> None:
    first = taken(source()).content
    clash = taken(source(input_cost_per_token=3e-07), DAY, first)
    assert clash.conflicts == ("groq/m from 2026-11-20",)
    assert taken(source(), DAY, first).conflicts == ()


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 5)), min_size=1, max_size=8, unique_by=lambda p: p[0]))
def test_imports_in_the_order_of_their_days_price_every_day_as_told_then(imports: list[tuple[int, int]]) -> None:
    imports = sorted(imports)
    content: bytes | None = None
    for offset, cents in imports:
        day = date.fromordinal(DAY.toordinal() + offset)
        content = taken(source(input_cost_per_token=cents / 10**8), day, content).content
    assert content is not None
    record = record_of(content, "m")
    for offset, cents in imports:
        tariff = record.tariff(date.fromordinal(DAY.toordinal() + offset))
        assert tariff.input_per_million == Decimal(cents) / 100


def test_what_a_list_no_longer_names_stays_with_the_day_it_was_checked() -> None:
    first = taken(EXCERPT).content
    later = taken(source(), date(2026, 12, 24), first).content
    assert record_of(later, "openai/gpt-oss-20b").checked_on == DAY
    assert record_of(later, "m").checked_on == date(2026, 12, 24)


def test_litellm_takes_a_withdrawal_back_by_leaving_it_out() -> None:
    first = taken(source(deprecation_date="2027-01-31")).content
    assert record_of(first, "m").retired_on == date(2027, 1, 31)
    assert record_of(taken(source(), date(2026, 12, 1), first).content, "m").retired_on is None


# the file


def test_a_list_is_replaced_at_once_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    write(path, b"old")
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["prices.json"]
    with pytest.raises(PriceError, match="can't be written"):
        write(tmp_path / "no" / "prices.json", b"x")
    folder = tmp_path / "taken.json"
    folder.mkdir()
    with pytest.raises(PriceError, match="can't be written"):
        write(folder, b"x")
    assert sorted(os.listdir(tmp_path)) == ["prices.json", "taken.json"]


def test_two_imports_at_once_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data" / "prices.json"
    with locked(path), pytest.raises(PriceError, match="another import"), locked(path):
        pass
    other = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free again
    finally:
        os.close(other)


def test_the_command_writes_a_file_that_can_be_read(tmp_path: Path) -> None:
    given = tmp_path / "litellm.json"
    given.write_bytes(source())
    module = "spillway_router.prices.imported"
    command = [sys.executable, "-m", module, str(given), "2026-11-20", "--out", str(tmp_path), "--origin", "a test"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "1 models priced" in ran.stdout
    listed_price = PriceBook((read_list(tmp_path / "groq.json", SOURCE),)).record("groq", "m")
    assert listed_price is not None
    assert listed_price.origin(DAY) == "a test"
    tariff = listed_price.tariff(DAY)
    assert tariff is not None
    assert tariff.input_per_million == Decimal("0.15")

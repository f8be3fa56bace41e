"""Price lists: dated, one over the other, checked key by key, and how long they may be relied on."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from spillway_router.core.money.tariff import Rates, TariffStep, Usage, price
from spillway_router.prices.book import PriceBook, book, parse_list, priced, read_list, record, shipped_lists
from spillway_router.prices.changes import changes
from spillway_router.prices.rows import ModelRecord, PriceError, load_json
from spillway_router.prices.status import age_days, price_status

TODAY = date(2026, 11, 20)
FULL = {
    "from": "2026-11-20",
    "until": "2027-03-31",
    "input": "3",
    "output": "15",
    "cached_input": "0.30",
    "cache_write": "3.75",
    "cache_write_long": "6",
    "reasoning": "12",
    "per_request": "0.001",
    "per_second": "0.0001",
    "steps": [
        {"above_tokens": 200000, "input": "6", "output": "22.5"},
        {"service": "batch", "input": 1.5, "output": 7},
    ],
}


def one(*prices: object, **more: object) -> bytes:
    """A price list with one model."""
    return orjson.dumps({"snapshot": "2026-11-20", "providers": {"groq": {"m": {"prices": list(prices), **more}}}})


def book_of(*texts: bytes) -> PriceBook:
    return PriceBook(tuple(parse_list(load_json(text), f"list {i}", f"list{i}") for i, text in enumerate(texts)))


def known(*texts: bytes) -> ModelRecord:
    record = book_of(*texts).record("groq", "m")
    assert record is not None
    return record


def flat(start: str, amount: str, **more: object) -> dict[str, object]:
    return {"from": start, "input": amount, "output": amount, **more}


# the lists


def test_every_price_of_the_snapshot_is_usable() -> None:
    rows = list(priced(book(), TODAY))
    assert len(rows) > 200
    assert all(tariff is not None and not tariff.free for _, _, _, tariff in rows)
    assert sum(bool(tariff.steps) for _, _, _, tariff in rows if tariff is not None) > 90


def test_every_shipped_list_names_its_licence_its_day_and_who_published_it() -> None:
    for path in shipped_lists():
        shipped = read_list(path, "snapshot")
        assert list(shipped.providers) == [path.stem]
        assert "MIT License, Copyright" in shipped.licence
        assert shipped.origin
        assert shipped.checked_on is not None
        assert shipped.checked_on >= date(2026, 11, 4)


def test_every_shipped_price_says_who_published_it() -> None:
    for provider, model, entry, _ in priced(book(), TODAY):
        assert all(entry.origins.values()), f"{provider}/{model}"


def test_the_lists_of_other_providers_are_not_read() -> None:
    assert [read.name.rpartition("/")[2] for read in book(providers=("groq", "vllm")).lists] == ["groq.json"]


def test_a_row_says_everything_a_provider_can_charge() -> None:
    tariff = known(one(FULL)).tariff(TODAY)
    assert tariff is not None
    assert tariff.rates == Rates(
        input=Decimal(3),
        output=Decimal(15),
        cached_input=Decimal("0.3"),
        cache_write=Decimal("3.75"),
        cache_write_long=Decimal(6),
        reasoning=Decimal(12),
    )
    assert tariff.steps == (
        TariffStep(Rates(Decimal(6), Decimal("22.5")), 200_000),
        TariffStep(Rates(Decimal("1.5"), Decimal(7)), 0, "batch"),
    )
    assert (tariff.per_request, tariff.per_second) == (Decimal("0.001"), Decimal("0.0001"))
    assert (tariff.ref.partition("#")[0], tariff.valid_until) == ("list0@2026-11-20", "2027-03-31")


def test_a_number_in_json_is_read_digit_by_digit() -> None:
    text = one(flat("2026-11-20", "1")).replace(b'"input":"1"', b'"input":0.100000000000000006')
    tariff = known(text).tariff(TODAY)
    assert tariff is not None
    assert tariff.input_per_million == Decimal("0.100000000000000006")  # a float would have read 0.1


def test_the_day_picks_the_price() -> None:
    record = known(one(flat("2026-12-01", "2"), flat("2026-11-20", "1")))
    days = [date(2026, 1, 1), date(2026, 11, 20), date(2026, 11, 30), date(2026, 12, 1), date(2027, 1, 1)]
    tariffs = [record.tariff(day) for day in days]
    assert [int(tariff.input_per_million) for tariff in tariffs if tariff is not None] == [1, 1, 1, 2, 2]


def test_a_price_ends_after_its_last_day() -> None:
    record = known(one(flat("2026-11-20", "1", until="2026-12-31")))
    assert record.tariff(date(2026, 12, 31)) is not None
    assert record.tariff(date(2027, 1, 1)) is None
    assert known(one(flat("2026-11-20", "1", until="2026-12-31"), flat("2027-01-01", "2"))).tariff(date(2027, 1, 1))


def test_the_users_list_goes_over_the_shipped_one() -> None:
    shipped = one(flat("2026-11-20", "1"), flat("2026-12-24", "3"), context_tokens=8192, retired_on="2027-01-31")
    own = one(flat("2026-11-20", "1.5"), flat("2026-12-01", "2"), retired_on=None, checked_on="2026-12-02")
    record = known(shipped, own)
    assert [(start.isoformat(), str(tariff.input_per_million), tariff.source) for start, tariff in record.prices] == [
        ("2026-11-20", "1.5", "list1"),
        ("2026-12-01", "2", "list1"),
        ("2026-12-24", "3", "list0"),
    ]
    assert (record.context_tokens, record.retired_on, record.checked_on) == (8192, None, date(2026, 12, 2))


def test_a_fine_tuned_model_has_the_record_of_its_base() -> None:
    assert record("openai", "ft:gpt-4.1-mini-2025-04-14:acme::abc") == record("openai", "ft:gpt-4.1-mini-2025-04-14")


def test_a_missing_file_of_the_user_is_no_mistake(tmp_path: Path) -> None:
    assert len(book(tmp_path / "prices.json").lists) == len(shipped_lists())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not valid JSON"),
        (b"{}", "no `providers`"),
        (b"[]", "no `providers`"),
        (b'{"providers": {"groq": []}}', r"providers\.groq"),
        (b'{"providers": {}, "unit": "EUR per million tokens"}', "unit is 'EUR per million tokens'.*must be in USD"),
        (b'{"providers": {"groq": {"m": {}, "m": {"vision": true}}}}', "duplicate key 'm'"),
        (b'{"providers": {}, "snapshot": "yesterday"}', "snapshot.*2026-11-20"),
        (one(), "no prices"),
        (one({"input": "1", "output": "1"}), "no `from`"),
        (one(flat("soon", "1")), "`from` is 'soon'"),
        (one({"from": "2026-11-20", "input": "1"}), "`output` is missing; an unknown price is never 0"),
        (one(flat("2026-11-20", "-1")), "between 0"),
        (one(flat("2026-11-20", "cheap")), "`input` is 'cheap'"),
        (one({"from": "2026-11-20", "input": True, "output": "1"}), "`input` is True"),
        (one(flat("2026-11-20", "1", ouput="1")), "unknown key 'ouput'"),
        (one(flat("2026-11-20", "1", steps=[{"above_tokens": -1, "input": "1", "output": "1"}])), "whole number"),
        (one(flat("2026-11-20", "1", steps=[{"above_tokens": 5, "input": "1"}])), "`output` of the step above 5"),
        (one(flat("2026-11-20", "1", until="2026-11-19")), "is before"),
        (one(flat("2026-11-20", "1"), retired="2027-01-01"), "unknown key 'retired'"),
        (one(flat("2026-11-20", "1"), capabilities={"smell": True}), "unknown key 'smell'"),
        (one(flat("2026-11-20", "1"), capabilities={"tools": "yes"}), r"capabilities\.tools"),
        (one(flat("2026-11-20", "1"), successor=7), "`successor` is 7"),
        (one(flat("2026-11-20", "1", origin=7)), "`origin` is 7"),
        (b'{"providers": {"groq": {"m": {"prices": [{"from": "2026-11-20", "input": NaN, "output": 1}]}}}}', "NaN"),
    ],
)
def test_a_damaged_list_is_an_error_never_a_missing_price(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(content)
    with pytest.raises(PriceError, match=says) as raised:
        PriceBook((read_list(path, "own"),)).record("groq", "m")
    assert str(path) in str(raised.value)


# standing


def test_a_price_grows_stale() -> None:
    record = known(one(flat("2026-11-20", "1")))
    assert price_status(record, TODAY + timedelta(90), 90).warnings == ()
    (warning,) = price_status(record, TODAY + timedelta(91), 90).warnings
    assert "91 days ago (2026-11-20)" in warning
    assert "stale_after_days" in warning
    assert "spillway prices update" in warning
    assert price_status(replace(record, checked_on=None), TODAY + timedelta(900), 90).warnings == ()


def test_a_withdrawn_model_is_told_before_and_off_from_its_day() -> None:
    record = known(one(flat("2026-11-20", "1"), retired_on="2026-12-11"))
    before = price_status(record, TODAY, 90)
    assert not before.off
    assert "2026-12-11, in 21 days" in before.warnings[0]
    assert not price_status(record, date(2026, 12, 10), 90).off
    assert "withdrew the model on 2026-12-11" in price_status(record, date(2026, 12, 11), 90).off


def test_a_withdrawal_is_reported_from_sixty_days_before_with_its_successor() -> None:
    record = known(one(flat("2026-11-20", "1"), retired_on="2027-01-20", successor="groq/next"))
    assert price_status(record, date(2026, 11, 20), 90).warnings == ()
    (warning,) = price_status(record, date(2026, 11, 21), 90).warnings
    assert warning == "the model is withdrawn on 2027-01-20, in 60 days; change to groq/next by then"
    assert price_status(record, date(2027, 1, 20), 90).off.endswith("change to groq/next")
    assert "tomorrow; change to groq/next" in price_status(record, date(2027, 1, 19), 400).warnings[0]


def test_capabilities_are_known_or_unknown() -> None:
    said = known(one(flat("2026-11-20", "1"), capabilities={"tools": True, "json_schema": False}))
    assert said.capabilities == {"tools": True, "json_schema": False}
    assert known(one(flat("2026-11-20", "1"), vision=True)).capabilities == {"vision": True}
    assert known(one(flat("2026-11-20", "1"))).capabilities == {"vision": False}
    over = known(one(flat("2026-11-20", "1"), capabilities={"tools": True}), one(capabilities={"tools": False}))
    assert over.capabilities == {"tools": False}


def test_a_suffix_costs_what_the_row_without_it_says() -> None:
    text = one(flat("2026-11-20", "1"), suffixes=["fastest"])
    assert book_of(text).record("groq", "m:fastest") == known(text)
    assert book_of(text).record("groq", "m:slowest") is None
    assert book_of(one(flat("2026-11-20", "1"))).record("groq", "m:fastest") is None


def test_nobody_has_checked_a_price_in_the_future() -> None:
    record = known(one(flat("2026-11-20", "1"), checked_on="2026-12-01"))
    assert age_days(record, date(2026, 11, 29)) is None
    assert age_days(record, date(2026, 12, 3)) == 2


def test_a_deprecated_model_warns_from_that_day() -> None:
    record = known(one(flat("2026-11-20", "1"), deprecated_on="2026-11-21"))
    assert price_status(record, TODAY, 90).warnings == ()
    assert "has deprecated the model" in price_status(record, date(2026, 11, 21), 90).warnings[0]


def test_a_price_that_ended_turns_its_backend_off() -> None:
    record = known(one(flat("2026-11-20", "1", until="2026-11-30")))
    assert not price_status(record, date(2026, 11, 30), 90).off
    assert "ended on 2026-11-30" in price_status(record, date(2026, 12, 1), 90).off


# differences


def test_changes_are_named_with_unit_and_percent() -> None:
    old = book_of(one(FULL))
    dearer = {**FULL, "input": "3.30", "per_request": "0.0005", "cached_input": None}
    steps = [{"above_tokens": 200000, "input": "6", "output": "300"}]
    by_price = {c.price: c for c in changes(old, book_of(one({**dearer, "steps": steps})), TODAY)}
    assert {name: (c.kind, c.old, c.new, c.percent, c.suspicious) for name, c in by_price.items()} == {
        "input": ("changed", "3", "3.3", "+10.0", False),
        "cached input": ("changed", "0.3", None, None, False),
        "per request": ("changed", "0.001", "0.0005", "-50.0", False),
        "output, prompts above 200,000 tokens": ("changed", "22.5", "300", "+1233.3", True),
        "input, batch": ("changed", "1.5", None, None, False),
        "output, batch": ("changed", "7", None, None, False),
    }
    assert by_price["input"].unit == "USD per million tokens"
    assert by_price["per request"].unit == "USD per request"


def test_new_and_missing_models_are_told_for_the_providers_of_the_other_list() -> None:
    def listing(**providers: list[str]) -> PriceBook:
        rows = {p: {m: {"prices": [flat("2026-11-20", "1")]} for m in models} for p, models in providers.items()}
        return book_of(orjson.dumps({"providers": rows}))

    differences = changes(listing(groq=["a", "b"], openai=["x"]), listing(groq=["b", "c"]), TODAY)
    assert [(c.kind, c.provider, c.model, c.price) for c in differences] == [
        ("removed", "groq", "a", "input"),
        ("removed", "groq", "a", "output"),
        ("added", "groq", "c", "input"),
        ("added", "groq", "c", "output"),
    ]
    assert not list(changes(book(), book(), TODAY))


def test_a_free_price_that_becomes_a_paid_one_stands_out() -> None:
    (first, _) = changes(book_of(one(flat("2026-11-20", "0"))), book_of(one(flat("2026-11-20", "1"))), TODAY)
    assert (first.percent, first.suspicious) == (None, True)
    tariff = known(one(flat("2026-11-20", "0.50"))).tariff(TODAY)
    assert tariff is not None
    assert price(Usage(1_000_000, 0), tariff) == 500_000_000

"""The bills that providers hand out, in the shapes that their documentation shows."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

from spillway_router.ledger.bills import BillError, DailyBill, read_bill

NOV_27, NOV_28 = date(2026, 11, 27), date(2026, 11, 28)
START = 1795737600  # 2026-11-27T00:00:00Z


def the_bill(text: str) -> DailyBill:
    bill = read_bill(text)
    assert not bill.attempts
    (daily,) = bill.daily
    return daily


def openai(*values: float, start: int = START, has_more: bool = False, currency: str = "usd") -> str:
    results = [
        {"object": "organization.costs.result", "amount": {"value": value, "currency": currency}, "line_item": None}
        for value in values
    ]
    bucket = {"object": "bucket", "start_time": start, "end_time": start + 86_400, "results": results}
    return json.dumps({"object": "page", "data": [bucket], "has_more": has_more, "next_page": None})


def test_openais_costs_by_day() -> None:
    bill = the_bill(openai(0.06, 0.11, -0.01))
    assert (bill.account, bill.is_backend, dict(bill.days)) == ("openai", False, {NOV_27: Decimal("0.16")})
    assert bill.nano(NOV_27) == 160_000_000
    pages = the_bill(openai(0.06) + "\n" + openai(0.5, start=START + 86_400, has_more=True))
    assert dict(pages.days) == {NOV_27: Decimal("0.06"), NOV_28: Decimal("0.5")}
    assert "next pages" in pages.incomplete
    assert dict(the_bill(openai()).days) == {NOV_27: Decimal(0)}


def test_openais_export_of_costs() -> None:
    header = (
        "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id,"
        "organization_id,organization_name"
    )
    rows = [
        f"{START},{START + 86400},2026-11-27T00:00:00+00:00,2026-11-28T00:00:00+00:00,0.8958740000000000,usd,,,org,P",
        f"{START},{START + 86400},2026-11-27T00:00:00+00:00,2026-11-28T00:00:00+00:00,0.1000000001,usd,,,org,P",
        f"{START + 86400},{START + 172800},2026-11-28T00:00:00+00:00,2026-11-29T00:00:00+00:00,,,,,,",
    ]
    for separator in (",", "\t"):
        text = "\n".join([header, *rows]).replace(",", separator)
        bill = the_bill(text)
        assert dict(bill.days) == {NOV_27: Decimal("0.9958740001"), NOV_28: Decimal(0)}
        assert bill.nano(NOV_27) == 995_874_000


def test_anthropics_cost_report_is_in_cents() -> None:
    result = {"currency": "USD", "amount": "123.78912", "workspace_id": None, "description": None, "cost_type": None}
    bucket = {
        "starting_at": "2026-11-27T00:00:00Z",
        "ending_at": "2026-11-28T00:00:00Z",
        "results": [result, {**result, "amount": "-0.5"}],
    }
    bill = the_bill(json.dumps({"data": [bucket], "has_more": False, "next_page": None}))
    assert (bill.account, dict(bill.days)) == ("anthropic", {NOV_27: Decimal("1.2328912")})


def test_anthropics_export_of_costs() -> None:
    text = (
        "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type,"
        "inference_geo,speed,api_key_id,api_key_status\n"
        "2026-11-27,Claude Haiku 4.5,Default,k,message,≤ 200k,input_no_cache,0.05,0.06,token,not_available,,a,active\n"
        "2026-11-27,Claude Haiku 4.5,Default,k,message,≤ 200k,output,0.02,0.03,token,not_available,,a,active\n"
        "2026-11-28,Claude Haiku 4.5,Default,k,message,≤ 200k,output,0.02,0.03,token,not_available,,a,active\n"
    )
    bill = the_bill(text)
    assert (bill.account, dict(bill.days)) == ("anthropic", {NOV_27: Decimal("0.07"), NOV_28: Decimal("0.02")})


def test_openrouters_activity() -> None:
    row = {"model": "openai/gpt-4.1", "provider_name": "OpenAI", "byok_usage_inference": 0.012, "requests": 5}
    days = [{**row, "date": "2026-11-27", "usage": 0.015}, {**row, "date": "2026-11-27 00:00:00", "usage": 1e-7}]
    bill = the_bill(json.dumps({"data": days}))
    assert (bill.account, dict(bill.days)) == ("openrouter", {NOV_27: Decimal("0.0150001")})


def test_openrouters_export_of_generations() -> None:
    text = (
        "generation_id,created_at,cost_total,cost_web_search,tokens_prompt,model_permaslug\n"
        "gen-1,2026-11-27 23:59:59.713,0.0123,0,10389,openai/gpt-oss-120b\n"
        "gen-2,2026-11-28T00:00:00Z,0.0001,0,10,openai/gpt-oss-120b\n"
        "gen-3,2026-11-28T01:30:00+02:00,0.0002,0,10,openai/gpt-oss-120b\n"
    )
    bill = the_bill(text)
    assert dict(bill.days) == {NOV_27: Decimal("0.0125"), NOV_28: Decimal("0.0001")}


def test_what_a_console_shows_can_be_written_down() -> None:
    bill = read_bill("day,provider,backend,cost_usd\n2026-11-27,groq,,1.25\n2026-11-27,,my-together,0.5\n")
    accounts = [(one.account, one.is_backend, dict(one.days)) for one in bill.daily]
    assert accounts == [
        ("groq", False, {NOV_27: Decimal("1.25")}),
        ("my-together", True, {NOV_27: Decimal("0.5")}),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (openai(1, currency="eur"), "currency is 'eur'"),
        (openai(1, start=START + 3600), "not one UTC day"),
        (json.dumps({"data": [{"start_time": START, "end_time": START + 3600, "results": []}]}), "not one UTC day"),
        (json.dumps({"data": [{"start_time": START, "results": [{"input_tokens": 5}]}]}), "not the usage of tokens"),
        (json.dumps({"data": {"id": "gen-1", "total_cost": 0.0015}}), "export the activity"),
        (json.dumps({"data": [{"id": "x"}]}), "neither cost buckets"),
        (json.dumps({"data": [7]}), "not an object"),
        (json.dumps({"data": []}), "no rows"),
        ("usage_date_utc,cost_usd\nsoon,1\n", "line 2: 'soon' is not a time"),
        ("day,provider,cost_usd\n2026-11-27,groq,much\n", "line 2: 'much' is not an amount"),
        ("day,provider,cost_usd\n2026-11-27,,1\n", "line 2: it names neither"),
        ("day,provider,cost_usd\n2026-11-27,groq,NaN\n", "is not an amount"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, says: str) -> None:
    with pytest.raises(BillError, match=says):
        read_bill(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"request_id": "r", "attempt_no": [1], "cost_usd": "1"}',
        '{"request_id": "r", "attempt_no": Infinity, "cost_usd": "1"}',
        '{"request_id": "r", "attempt_no": -1, "cost_usd": "1"}',
        '{"request_id": "r", "cost_nano": 1e40}',
        '{"request_id": "r", "cost_nano": 10000000000000000000000000000000000000000}',
        '{"request_id": "r", "cost_nano": {}}',
        '{"data": [{"starting_at": 0, "results": [-1]}]}',
        '{"data": [{"start_time": 0, "results": ["x", null]}]}',
        '{"data": [{"starting_at": "9999-12-31T23:59:59-14:00", "results": []}]}',
        '{"data": [{"date": "0001-01-01T00:00:00+14:00", "usage": 1}]}',
        "day,cost_usd,provider\n9999-12-31T23:59:59-14:00,1,openai\n",
    ],
)
def test_a_damaged_bill_is_an_error_of_the_bill_and_no_crash(text: str) -> None:
    with pytest.raises(BillError):
        read_bill(text)


@pytest.mark.parametrize("value", ["true", "1.9", '"1_0"', '"\uff15"', "[1]", '"one"', "1e30", '"0x10"'])
@pytest.mark.parametrize("column", ["attempt_no", "cost_nano"])
def test_what_is_no_whole_number_is_not_rounded_to_one(column: str, value: str) -> None:
    other = '"cost_nano": 5' if column == "attempt_no" else '"attempt_no": 1'
    with pytest.raises(BillError, match="whole number"):
        read_bill(f'{{"request_id": "r", {other}, "{column}": {value}}}')


@pytest.mark.parametrize("value", ["2", "2.0", '"2"', '" 2 "', "2e0"])
def test_whole_numbers_are_read_however_they_are_written(value: str) -> None:
    (attempt,) = read_bill(f'{{"request_id": "r", "attempt_no": {value}, "cost_nano": {value}}}').attempts
    assert (attempt.attempt_no, attempt.cost_nano) == (2, 2)


@pytest.mark.parametrize("value", ["1_0", "\uff11", True])
def test_an_amount_has_no_underscores_and_no_digits_of_other_scripts(value: object) -> None:
    with pytest.raises(BillError, match="not an amount of money"):
        read_bill(json.dumps({"day": "2026-11-27", "provider": "groq", "cost_usd": value}))


def test_a_page_that_is_in_the_file_twice_does_not_double_the_bill() -> None:
    with pytest.raises(BillError, match="2026-11-27 of openai is in the file twice"):
        read_bill(openai(0.06) + "\n" + openai(0.06))

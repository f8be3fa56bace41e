"""`spillway report`, `report what-if` and `rentals` on a real ledger file."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from spillway_router.cli import app
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.testing.processes import eventually, running, write

HOUR_MS = 3_600_000
CONFIG = """
gpu: {{name: a100-80, price_per_hour: "1.39"}}
backends:
  - {{name: local, provider: vllm, local: true, base_url: "http://127.0.0.1:9/v1", model: demo}}
  - {{name: mine, provider: generic, base_url: "http://127.0.0.1:9/v1", api_key: k, model: m,
     price: {{input_per_million: "0.15", output_per_million: "0.60"}}}}
budgets: [{{scope: all, period: month, limit_usd: "50"}}]
ledger: {{url: "sqlite:///{folder}/spillway.db"}}
"""
Run = Callable[..., Result]


@pytest.fixture
def spillway(tmp_path: Path) -> Run:
    path = tmp_path / "spillway.yaml"
    path.write_text(CONFIG.format(folder=tmp_path))

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "-c", str(path)], env={"COLUMNS": "150"})

    return invoke


def good(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def bad(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    return result.output


def yesterday() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)


@pytest.fixture
def recorded_day(tmp_path: Path) -> datetime:
    """Write two hours of a GPU yesterday, half of them used, and a paid call."""
    day = yesterday()
    at = int(day.timestamp() * 1000)
    shape: dict[str, Any] = {"prompt_tokens": 1000, "completion_tokens": 100, "status": "ok", "document": True}
    place = {"backend": "local", "provider": "vllm", "model": "demo", "decision": "local", "key_id": "=1+1"}
    ledger = SqliteLedger.open(tmp_path / "spillway.db")
    ledger.rentals.add(
        RentalRecord(
            id="rent_a",
            gpu="a100-80",
            count=1,
            price_nano_per_hour=1_390_000_000,
            kind="reserved",
            started_ms=at,
            stopped_ms=at + 2 * HOUR_MS,
            source="cli",
        )
    )
    paid = {"backend": "mine", "provider": "generic", "model": "m", "decision": "overflow", "amount_nano": 210_000}
    ledger.append(
        (
            Entry(
                kind="charged", request_id="a", attempt_no=1, ts=at, local=True, gpu_us=3600 * 10**6, **place, **shape
            ),
            Entry(kind="charged", request_id="b", attempt_no=1, ts=at, tariff_ref="t@1", **paid, **shape),
        )
    )
    ledger.close()
    return day


def test_the_report_of_a_day_in_every_form(spillway: Run, recorded_day: datetime, tmp_path: Path) -> None:
    day = f"{recorded_day:%Y-%m-%d}"
    table = good(spillway("report", "--day", "yesterday"))
    for part in (
        "Fixed: rented GPU",
        "Per request: cloud",
        "50.0%  $1.39",
        "$0.00021",
        "Forecast:",
    ):
        assert part in table
    piped = good(spillway("report", "--day", day, "--by", "decision"))
    assert piped.startswith("decision\tanswers\tGPU used\t")
    result = json.loads(good(spillway("report", "--day", day, "--by", "key", "--json")))
    assert (result["day"], result["period"]["days"], result["by"]) == (day, 1, ["key"])
    assert (result["fixed"]["used_nano"], result["fixed"]["idle_nano"]) == (1_390_000_000, 1_390_000_000)
    assert sum(row["total_nano"] for row in result["groups"]) == result["total_nano"] == 2_780_210_000
    rows = list(csv.DictReader(StringIO(good(spillway("report", "--day", day, "--by", "key", "--csv")))))
    assert {row["key"] for row in rows} == {"", "'=1+1"}, "no spreadsheet takes a key for a formula"
    file = tmp_path / "report.html"
    assert str(file) in good(spillway("report", "--day", day, "--html", str(file)))
    text = file.read_text(encoding="utf-8")
    printed = good(spillway("report", "--day", day, "--html", "-"))
    assert printed.startswith("<!doctype html>")
    assert printed.count("<tr") == text.count("<tr") > 8
    balanced(text)


def balanced(text: str) -> None:
    """Checks that every element of the page is closed in order."""
    stack: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta",):
                stack.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert stack.pop() == tag

    Reader().feed(text)
    assert stack == []


def test_months_ranges_and_mistakes(spillway: Run, recorded_day: datetime) -> None:
    month = f"{recorded_day:%Y-%m}"
    result = json.loads(good(spillway("report", "--month", month, "--json")))
    assert result["day"] is None
    assert result["period"]["name"] == month
    assert result["total_nano"] >= 2_780_210_000
    since = json.loads(good(spillway("report", "--from", f"{recorded_day:%Y-%m-%d}", "--by", "day,decision", "--json")))
    assert since["period"]["days"] == 2
    assert "--day" in bad(spillway("report", "--day", "soon"))
    assert "exclude" in bad(spillway("report", "--day", "today", "--month", "this"))
    assert "--by" in bad(spillway("report", "--by", "colour"))
    assert "exclude" in bad(spillway("report", "--json", "--csv"))


# rentals


def test_a_rental_from_start_to_stop(spillway: Run) -> None:
    began = yesterday() - timedelta(days=1)
    rental = json.loads(good(spillway("rentals", "start", "--count", "2", "--at", began.isoformat(), "--json")))
    assert (rental["gpu"], rental["count"], rental["price_per_hour_usd"], rental["kind"]) == (
        "a100-80",
        2,
        "1.390000",
        "reserved",
    )
    result = json.loads(good(spillway("report", "--day", f"{yesterday():%Y-%m-%d}", "--json")))
    assert result["fixed"]["billed_nano"] == 2 * 24 * 1_390_000_000
    assert (result["fixed"]["gpus"], result["fixed"]["price_per_hour_usd"]) == (2, "1.39")
    assert good(spillway("rentals", "list")).startswith("id                     source   kind")
    assert "running" in good(spillway("rentals", "list"))
    noon = (yesterday() + timedelta(hours=12)).isoformat()
    assert rental["id"] in good(spillway("rentals", "stop", rental["id"], "--at", noon))
    (row,) = json.loads(good(spillway("rentals", "list", "--json")))
    assert row["cost_nano"] == 2 * 36 * 1_390_000_000
    again = json.loads(good(spillway("report", "--day", f"{yesterday():%Y-%m-%d}", "--json")))
    assert again["fixed"]["billed_nano"] == 2 * 12 * 1_390_000_000
    assert "no running rental" in bad(spillway("rentals", "stop", rental["id"]))


def test_an_invalid_rental_is_rejected(spillway: Run) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert "future" in bad(spillway("rentals", "start", "--at", tomorrow))
    assert "2026-11-20T14:00Z" in bad(spillway("rentals", "start", "--at", "noon"))
    assert "must be above 0" in bad(spillway("rentals", "start", "--price", "0"))
    assert "not an amount" in bad(spillway("rentals", "start", "--price", "cheap"))
    assert "interruptible" in bad(spillway("rentals", "start", "--kind", "spot"))
    assert "--source" in bad(spillway("rentals", "start", "--source", "elsewhere"))
    assert "--all" in bad(spillway("rentals", "stop"))


def start(spillway: Run, *words: str) -> Any:
    return json.loads(good(spillway("rentals", "start", *words, "--json")))


def billed_yesterday(spillway: Run) -> Any:
    return json.loads(good(spillway("report", "--day", f"{yesterday():%Y-%m-%d}", "--json")))["fixed"]["billed_nano"]


def test_a_rental_that_ended_earlier_is_put_right_after_its_hours_were_booked(spillway: Run) -> None:
    rental = start(spillway, "--at", yesterday().isoformat(), "--price", "0.30", "--kind", "interruptible")
    other = start(spillway, "--at", yesterday().isoformat(), "--gpu", "t4", "--price", "0.50")
    good(spillway("rentals", "stop", other["id"]))  # writes what is due of both rentals
    assert billed_yesterday(spillway) == 24 * 800_000_000
    three = (yesterday() + timedelta(hours=3)).isoformat()
    output = good(spillway("rentals", "stop", rental["id"], "--at", three))
    assert "-> $0.9000" in output
    assert billed_yesterday(spillway) == 900_000_000 + 24 * 500_000_000
    assert "no faults" in good(spillway("ledger", "verify"))


def test_a_stop_before_the_start_is_refused(spillway: Run) -> None:
    rental = start(spillway, "--at", yesterday().isoformat())
    early = (yesterday() - timedelta(hours=1)).isoformat()
    assert "stop it then or later" in bad(spillway("rentals", "stop", rental["id"], "--at", early))


def test_price_start_and_end_of_a_rental_are_corrected(spillway: Run) -> None:
    rental = start(spillway, "--at", yesterday().isoformat(), "--count", "2")
    good(spillway("rentals", "stop", rental["id"]))
    one = (yesterday() + timedelta(hours=1)).isoformat()
    six = (yesterday() + timedelta(hours=6)).isoformat()
    words = ("rentals", "correct", rental["id"], "--from", one, "--until", six, "--price", "2", "--count", "1")
    assert "-> $10.00" in good(spillway(*words, "--dry-run"))
    assert billed_yesterday(spillway) == 2 * 24 * 1_390_000_000
    output = good(spillway(*words))
    assert "takes its place" in output
    assert billed_yesterday(spillway) == 10 * 10**9
    new = output.split("; ")[1].split(" ")[0]
    assert "-> $0.0000" in good(spillway("rentals", "correct", new, "--void"))
    assert billed_yesterday(spillway) == 0
    assert "say what is right" in bad(spillway("rentals", "correct", new))
    assert "no rental" in bad(spillway("rentals", "correct", "rent_x", "--void"))
    assert "before it begins" in bad(spillway("rentals", "correct", new, "--from", six, "--until", one))


def test_the_same_gpu_twice_is_noticed(spillway: Run) -> None:
    rental = start(spillway, "--at", yesterday().isoformat())
    noticed = bad(spillway("rentals", "start"))
    assert rental["id"] in noticed
    assert "--another" in noticed
    assert len(json.loads(good(spillway("rentals", "list", "--json")))) == 1
    start(spillway, "--another")
    start(spillway, "--gpu", "t4")


def test_a_rental_by_the_month_and_its_price(spillway: Run) -> None:
    rental = start(spillway, "--at", yesterday().isoformat(), "--price-per-month", "250")
    assert (rental["price_per_month_usd"], rental["price_per_hour_usd"]) == ("250.000000", "0.342465753")
    assert "$250.00/month" in good(spillway("rentals", "list"))
    assert "not both" in bad(spillway("rentals", "start", "--price", "1", "--price-per-month", "2"))


# what-if


def test_the_planning_table(spillway: Run) -> None:
    words = ("report", "what-if", "--gpu", "a100", "--price", "1.39", "--gpu", "t4=0.35", "--gpu", "l4=0.50")
    more = ("--volume", "10000/day", "--volume", "1k/month", "--volume", "90M/month", "--count", "1")
    result = json.loads(good(spillway(*words, *more, "--json")))
    assert [gpu["name"] for gpu in result["gpus"]] == ["a100-80", "t4", "l4"]
    assert all("optimistic" in gpu["basis"] for gpu in result["gpus"])
    by_volume = {round(v["per_month"]): v["choices"] for v in result["volumes"]}
    assert set(by_volume) == {304167, 1000, 90_000_000}
    for choices in by_volume.values():
        assert [(c["kind"] == "cloud") for c in choices].count(True) == 1, "the configuration's one priced backend"
        cheapest = [c for c in choices if c["cheapest"]]
        assert cheapest[0]["month_nano"] == min(c["month_nano"] for c in choices)
    (auto, one, *_) = by_volume[90_000_000]
    assert (auto["asked"], one["asked"], one["kind"], one["cloud"]) == (None, 1, "gpu+overflow", "mine (m)")
    assert auto["gpus"] > 1
    table = good(spillway(*words, *more))
    for part in ("10,000/day", "/document", "/month", "cheapest", "One GPU is cheaper from", "as many as needed"):
        assert part in table


def test_planning_from_the_configuration_and_with_measured_rates(spillway: Run) -> None:
    result = json.loads(good(spillway("report", "what-if", "--json")))
    assert [(g["name"], g["price_per_hour_usd"]) for g in result["gpus"]] == [("a100-80", "1.39")]
    assert [v["per_month"] for v in result["volumes"]] == [1000, 10_000, 100_000]
    measured = ("--tokens-per-s", "1000", "--prompt-tokens", "900", "--output-tokens", "100", "--load", "1")
    result = json.loads(good(spillway("report", "what-if", *measured, "--json")))
    assert result["gpus"][0]["seconds_per_document"] == 1
    assert result["gpus"][0]["documents_per_month"] == 730 * 3600
    against = ("--against", "groq/openai/gpt-oss-20b", "--against", "openai/gpt-4o-mini")
    result = json.loads(good(spillway("report", "what-if", *against, "--json")))
    assert {c["alternative"] for c in result["crossings"]} == {"groq/openai/gpt-oss-20b", "openai/gpt-4o-mini"}


def test_one_gpu_at_two_prices(spillway: Run) -> None:
    result = json.loads(good(spillway("report", "what-if", "--gpu", "a100=1.39", "--gpu", "a100=0.64", "--json")))
    rented = [c for c in result["volumes"][0]["choices"] if c["kind"] != "cloud"]
    assert [(c["name"], c["month_usd"]) for c in rented] == [
        ("a100-80@1.39", "1014.700000"),
        ("a100-80@0.64", "467.200000"),
    ]


def test_an_impossible_plan_is_rejected(spillway: Run) -> None:
    assert "a100-80" in bad(spillway("report", "what-if", "--gpu", "tpu"))
    assert "need a price" in bad(spillway("report", "what-if", "--gpu", "t4", "--gpu", "l4", "--price", "1"))
    assert "10000/day" in bad(spillway("report", "what-if", "--volume", "many"))
    assert "prices list" in bad(spillway("report", "what-if", "--against", "groq/nothing"))
    assert "load" in bad(spillway("report", "what-if", "--load", "2"))


def test_a_planning_table_with_typed_prices_a_month_and_a_mix(spillway: Run) -> None:
    words = ("--gpu", "a100=250/month", "--volume", "100k/month", "--prompt-tokens", "250", "--output-tokens", "250")
    clouds = ("--against", "gpt-4o=30/30", "--against", "cheap=1/1", "--mix", "20%=cheap", "--mix", "10%=gpt-4o")
    table = json.loads(good(spillway("report", "what-if", *words, *clouds, "--json")))
    (mix,) = [choice for choice in table["volumes"][0]["choices"] if choice["kind"] == "mix"]
    assert mix["month_nano"] == (250 + 10 + 150) * 10**9
    text = good(spillway("report", "what-if", *words, *clouds, "--hours-per-day", "8"))
    assert "$250/month" in text
    assert "names are those of --against" in bad(spillway("report", "what-if", *words, "--mix", "20%=nobody"))
    assert "IN/OUT" in bad(spillway("report", "what-if", *words, "--against", "x=cheap"))
    assert "'much' is not an amount" in bad(spillway("report", "what-if", "--gpu", "a100=much/month"))


# with a running router


def test_a_router_bills_its_own_time_and_continues_after_a_kill(tmp_path: Path) -> None:
    settings = {
        "gpu": {"price_per_hour": "3600"},
        "backends": [{"name": "local", "provider": "vllm", "model": "demo", "base_url": "http://127.0.0.1:9/v1"}],
    }
    path = write(tmp_path, settings)

    def rentals() -> Any:
        listed = CliRunner().invoke(app, ["rentals", "list", "--json", "-c", str(path)])
        return [] if "there is no ledger" in listed.stderr else json.loads(good(listed))

    def open_rental() -> Any:
        rows = rentals()
        if not rows:
            raise LookupError("the router has not begun to bill")
        return rows

    begun = time.time()
    with running("route", path) as process:
        (first,) = eventually(open_rental, LookupError)
        assert (first["source"], first["stopped"]) == ("router", None)
        usage = httpx.get(f"{process.url}/v1/usage?by=day", timeout=10, trust_env=False).json()
        assert usage["fixed"]["billed_nano"] == usage["fixed"]["idle_nano"]
        assert usage["groups"][0]["keys"]["day"] == usage["day"]
        process.process.kill()
        process.process.wait(timeout=30)
    with running("route", path) as process:
        assert httpx.get(f"{process.url}/health", timeout=10, trust_env=False).status_code == 200
        assert process.end() == 0
    (only,) = rentals()
    assert (only["id"], only["stopped"] is None) == (first["id"], False)
    assert 0 < only["cost_nano"] / 1e9 <= time.time() - begun, "a dollar a second, over the crash"

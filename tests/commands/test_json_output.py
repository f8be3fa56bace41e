"""Every command that answers has `--json`, which prints JSON, and docs/cli.md names its keys."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
import typer
from tests.commands.json_keys import ANSWER, LINES, check, commands, documented
from tests.deploy.runpod_server import KEY, runpod_server
from typer.testing import CliRunner, Result

from spillway_router.cli import app
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.ids import first_id
from spillway_router.ledger.records import Write
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.tables.reviews import ReviewRecord
from spillway_router.testing import Answer
from spillway_router.testing.business import BACKENDS, fill
from spillway_router.testing.harness import Router, pair
from spillway_router.testing.streams import chat as stream_of

WITHOUT = {
    "route": "runs until it is stopped",
    "up": "runs until it is stopped",
    "top": "renews a screen; `status --json` has its figures",
    "dashboard": "opens a browser",
    "init": "writes a file, and asks",
    "schema": "prints a JSON schema",
    "ledger export": "writes FOCUS CSV or JSON lines, by --format",
    "reviews labels": "prints JSON lines",
}
REVIEWS = tuple(f"rev_{number:028x}" for number in range(3))


def test_every_command_has_json_or_a_reason() -> None:
    every = dict(commands(typer.main.get_command(app)))
    with_json = {name for name, one in every.items() if any("--json" in part.opts for part in one.params)}
    assert set(every) - with_json == set(WITHOUT)
    assert set(documented()) == with_json
    assert all(documented().values())


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """Write a configuration whose ledger has a week of a business."""
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    first = date.today() - timedelta(days=7)
    fill(ledger, first, 7, Random(7), per_day=12, size=500)
    at = start_of(first)
    ledger.commit([Write((_attempt(at, "ok", experiment=f"price/{arm}/00000000"),)) for arm in ("control", "cheap")])
    ledger.commit([Write((_attempt(at + 5, "unknown"),))])
    for review_id in REVIEWS:
        ledger.reviews.add(_review(review_id, at))
    ledger.close()
    settings = "fleet: {max: 2, command: [scale, '{gpus}']}\ngpu: {price_per_hour: '1'}\n"
    text = f"ledger: {{url: 'sqlite:///{tmp_path / 'ledger.db'}'}}\n{settings}backends:{BACKENDS}\n"
    (tmp_path / "spillway.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text(f"{text}slo: {{ttft_ms: 900}}\n")
    (tmp_path / "engine.log").write_text("engine ready\n")
    return tmp_path


def _attempt(at_ms: int, status: str, experiment: str = "") -> Entry:
    digits = experiment.partition("/")[2][:2].encode().hex()
    return Entry(
        kind="charged",
        request_id=f"{first_id(at_ms)}{digits or 'fade'}{0:013x}",
        attempt_no=1,
        ts=at_ms,
        backend="groq",
        provider="generic",
        model="gpt-oss-20b",
        decision="overflow",
        status=status,
        prompt_tokens=500,
        amount_nano=1000,
        at_most_nano=2000 if status == "unknown" else 0,
        experiment=experiment,
        took_ms=700,
    )


def _review(review_id: str, at_ms: int) -> ReviewRecord:
    fields = {"/AL": {"value": 23.4, "confidence": 0.6, "why": "", "place": None}}
    content = {"text": "AL: 23.40 mm", "schema": {"type": "object"}, "values": {"AL": 23.4}, "fields": fields}
    return ReviewRecord(
        id=review_id,
        request_id=f"{first_id(at_ms)}{0:017x}",
        created_ms=at_ms,
        schema_name="biometry",
        step="local",
        backend="local",
        model="m",
        confidence=0.6,
        why="not sure",
        content=json.dumps({**content, "steps": []}),
    )


def _newer_prices(folder: Path) -> Path:
    prices = {"litellm_provider": "groq", "mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    file = folder / "newer.json"
    file.write_text(json.dumps({"groq/new": {**prices, "max_input_tokens": 1000, "max_output_tokens": 100}}))
    return file


def test_commands_on_files_print_what_is_documented(books: Path) -> None:
    config = ["--config", str(books / "spillway.yaml")]

    def run(name: str, *more: str, codes: tuple[int, ...] = (0,), takes_config: bool = True) -> Any:
        words = [*name.split(), *more, *(config if takes_config else ()), "--json"]
        result = CliRunner().invoke(app, words)
        check(name, result, codes)
        return None if name in LINES else json.loads(result.stdout)

    key_id = run("keys create", "ann")["id"]
    run("keys accept", f"{'ab' * 6}:{'0' * 64}")
    run("keys list")
    run("keys show", key_id)
    run("keys set", key_id, "--rpm", "3")
    run("keys rotate", key_id)
    run("keys user", key_id, "u1", takes_config=False)
    run("keys revoke", key_id)
    rental = run("rentals start", "--price", "2", "--at", "2026-01-01T00:00Z")["id"]
    run("rentals list")
    run("rentals correct", rental, "--count", "2", "--dry-run")
    run("rentals stop", rental, "--at", "2026-01-02T00:00Z")
    run("rentals watch")
    run("report")
    run("report what-if")
    run("report experiments")
    run("report review")
    run("replay")
    run("fleet explain")
    run("fleet plan")
    run("fleet apply", "--dry-run")
    run("explain", _a_request(books))
    run("reviews list")
    run("reviews show", REVIEWS[0])
    run("reviews accept", REVIEWS[0])
    run("reviews dismiss", REVIEWS[1])
    run("reviews correct", REVIEWS[2], "AL=23.5")
    run("ledger unknown")
    run("ledger verify")
    run("ledger acts")
    bill = books / "bill.csv"
    bill.write_text("day,provider,cost_usd\n2026-01-01,generic,0.5\n")
    run("ledger reconcile", str(bill), codes=(0, 1))
    bill.write_text("request_id,attempt_no,cost_usd\n0123,1,0.5\n")
    run("ledger reconcile", str(bill), codes=(1,))
    run("ledger backup", str(books / "copy.db"))
    run("ledger restore", str(books / "copy.db"))
    run("prices list")
    newer = str(_newer_prices(books))
    run("prices diff", newer)
    run("prices import", newer, "--dry-run")
    run("prices update", newer, "--yes")
    run("config show")
    run("config diff", str(books / "other.yaml"), codes=(1,))
    run("check", "--offline", codes=(0, 1))
    run("check", "--fingerprint", "demo")
    litellm = books / "litellm.yaml"
    litellm.write_text("model_list: [{model_name: m, litellm_params: {model: groq/openai/gpt-oss-20b}}]\n")
    run("check", "--from-litellm", str(litellm))
    run("doctor", codes=(0, 1), takes_config=False)
    run("plan", "--gpu", "t4", takes_config=False)
    run("logs", "engine", "--file", str(books / "engine.log"), takes_config=False)


def test_commands_on_provider_keys_print_what_is_documented(books: Path) -> None:
    environment = {"SPILLWAY_SECRET_KEY": base64.b64encode(bytes(32)).decode()}
    config = ["--config", str(books / "spillway.yaml")]
    created = CliRunner().invoke(app, ["keys", "create", "ann", *config, "--json"])
    key_id = json.loads(created.stdout)["id"]
    for name, words in (
        ("keys provider-key set", (key_id, "groq")),
        ("keys provider-key list", (key_id,)),
        ("keys provider-key reseal", ()),
        ("keys provider-key remove", (key_id, "groq")),
    ):
        result = CliRunner().invoke(app, [*name.split(), *words, *config, "--json"], input="gsk-1\n", env=environment)
        check(name, result)


def _a_request(books: Path) -> str:
    ledger = open_ledger(f"sqlite:///{books / 'ledger.db'}")
    try:
        return ledger.entries_before("~", 1)[0].request_id
    finally:
        ledger.close()


async def test_commands_that_ask_a_router_print_what_is_documented(tmp_path: Path) -> None:
    async with pair(ANSWER, folder=tmp_path) as (_, _, router):
        request_id = (await router.chat({"max_tokens": 5})).headers["x-request-id"]

        async def run(name: str, *more: str) -> Any:
            result = await _asking(router, *name.split(), *more, "--json")
            check(name, result)
            return json.loads(result.stdout)

        await run("status")
        await run("requests")
        await run("explain", request_id)
        await run("report")
        key_id = (await run("keys create", "bob", "--budget", "5/day", "--private"))["id"]
        assert [row["name"] for row in await run("keys list") if row["id"] == key_id] == ["bob"]
        assert (await run("keys set", key_id, "--rpm", "7", "--any"))["rpm"] == 7
        shown = await run("keys show", key_id)
        assert (shown["privacy"], shown["budget"]) == ("any", "5.000000/day")
        assert (await run("keys rotate", key_id, "--grace", "1h"))["key"].startswith("sk-spill-")
        assert (await run("keys revoke", key_id))["revoked"]
        refused = await _asking(router, "keys", "show", "nobody")
        assert refused.exit_code == 1
        assert "404 key_not_found" in refused.output
        forced = await _asking(router, "keys", "revoke", key_id, "--force")
        assert "--force works on the ledger only" in forced.output


async def test_an_answer_in_the_terminal_prints_what_is_documented(tmp_path: Path) -> None:
    async with pair(Answer.stream(stream_of("Hi").body), folder=tmp_path) as (_, _, router):
        check("chat", await _asking(router, "chat", "Hello", "--json"))


async def _asking(router: Router, *words: str) -> Result:
    token = router.admin["authorization"].removeprefix("Bearer ")
    return await asyncio.to_thread(CliRunner().invoke, app, [*words, "--url", router.url, "--key", token])


def test_commands_on_pods_print_what_is_documented(tmp_path: Path) -> None:
    with runpod_server() as account:
        env = {"RUNPOD_API_KEY": KEY, "RUNPOD_API_URL": account.url, "SPILLWAY_CONFIG": str(tmp_path / "spillway.yaml")}
        (tmp_path / "spillway.yaml").write_text(f"ledger: {{url: 'sqlite:///{tmp_path / 'ledger.db'}'}}\n")
        order = ["runpod", "--gpu", "a100-80", "--price", "1.39", "--model", "demo", "--image", "r/i:1", "--yes"]
        check("deploy", CliRunner().invoke(app, ["deploy", *order, "--wait", "0", "--json"], env=env))
        check("deploy", CliRunner().invoke(app, ["deploy", *order, "--dry-run", "--json"], env=env))
        for name in ("pod list", "pod status", "pod stop", "pod start", "pod logs"):
            check(name, CliRunner().invoke(app, [*name.split(), "--json"], env=env))
        volume = ["pod", "volume", "v", "--place", "EU-RO-1", "--json"]
        check("pod volume", CliRunner().invoke(app, volume, env=env))
        for more in (("--dry-run",), ()):
            released = ["deploy", "runpod", "--destroy", "--yes", "--json", *more]
            check("deploy", CliRunner().invoke(app, released, env=env))

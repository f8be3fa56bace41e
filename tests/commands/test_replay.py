"""`spillway replay`: the policy that was live gives what the ledger says, another one gives something else, and an
invalid one is refused like a configuration."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from tests.proxy.answers import STRONG
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.core.money.tariff import NANO
from spillway_router.ledger.tables.labels import LabelRecord
from spillway_router.testing import FakeEngine, FaultUpstream
from spillway_router.testing.harness import Router, cloud, routing, serving, settings

pytestmark = pytest.mark.usefixtures("empty_folder")

RUNNER = CliRunner()
SURE, UNSURE = (-0.01, -0.02), (-1.0, -2.0)
POLICY = """
aliases: {auto: {chain: [local, cloud]}}
confidence: {threshold: 0.8, escalate_to: [cloud]}
policy:
  rules:
    - {name: code to the cloud, when: {task: code}, chain: [cloud, local]}
    - {name: hard ones to the cloud, when: {complexity: {at_least: 5}}, chain: [cloud]}
    - {name: free stays here, when: {tier: free}, forbid: cloud}
gpu: {price_per_hour: "1.39"}
"""
HARD = [{"role": "user", "content": text} for text in ("Hello", "And?", "Analyse and compare both, and write a poem.")]
CODE = [{"role": "user", "content": "Write a python function that sorts a list: ```def f(x):```"}]


def spillway(*arguments: str, code: int = 0) -> Any:
    """Run a command that prints JSON; return what it printed, or the errors of one that fails."""
    result = RUNNER.invoke(app, [*arguments])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else result.stderr


def by_name(printed: Any) -> dict[str, Any]:
    return {row["name"]: row for row in printed["policies"]}


def label(request_id: str, *, right: bool) -> LabelRecord:
    """What an audit concluded about a local answer."""
    return LabelRecord(
        request_id=request_id,
        ts=time.time_ns() // 1_000_000,
        task="chat",
        backend="local",
        model="m",
        judge="cloud",
        confidence=0.2,
        right=right,
        scores="{}",
    )


async def ask_for_everything(router: Router, engine: FakeEngine) -> None:
    """Ten local answers, three escalated ones, two by each rule, two that name the cloud, and two private ones."""
    for _ in range(10):
        assert (await router.chat()).headers["x-spillway-decision"] == "local"
    engine.logprobs = UNSURE
    for number in range(3):
        escalated = await router.chat()
        assert escalated.headers["x-spillway-decision"] == "escalated"
        router.ledger.labels.put(label(escalated.headers["x-request-id"], right=number < 2))
    for _ in range(2):
        kept = await router.chat(x_spillway_privacy="local-only")
        assert kept.headers["x-spillway-decision"] == "local"
    for _ in range(2):
        assert (await router.chat({"messages": CODE})).headers["x-spillway-decision"] == "routed"
        assert (await router.chat({"messages": HARD})).headers["x-spillway-reason"] == "complexity"
        assert (await router.chat({"model": "cloud"})).headers["x-spillway-decision"] == "pinned"


@pytest.fixture
def ledger_file(tmp_path: Path) -> Path:
    """A configuration whose ledger was written by real requests."""

    async def serve() -> None:
        engine = FakeEngine(["we", "ak"], SURE)
        async with serving(engine) as url, FaultUpstream(STRONG) as strong:
            local = f"{{name: local, provider: vllm, local: true, model: m, base_url: '{url}/v1'}}"
            async with routing(settings(local, cloud(strong), more=POLICY), tmp_path) as router:
                await ask_for_everything(router, engine)

    asyncio.run(serve())
    return tmp_path / "spillway.yaml"


def test_a_replay_of_the_live_policy_gives_what_the_ledger_says(ledger_file: Path) -> None:
    printed = spillway("replay", "-c", str(ledger_file), "--json")
    rows = by_name(printed)
    recorded, now = rows["recorded"], rows["now"]
    assert recorded["requests"] == now["requests"] == 21
    assert recorded["cloud_nano"] > 0
    assert now["shares"] == recorded["shares"]
    assert now["cloud_nano"] == recorded["cloud_nano"]
    assert now["shares"]["local"] == pytest.approx(12 / 21)
    assert {name: one["requests"] for name, one in now["backends"].items()} == {"local": 12, "cloud": 9}
    assert {name: one["requests"] for name, one in now["rules"].items()} == {
        "code to the cloud": 2,
        "hard ones to the cloud": 2,
    }
    assert [note for note in printed["notes"] if note.startswith("Confidence")] == [
        "Confidence: 15 recorded, 4 drawn from those of the same task, 2 without any, which never escalate."
    ]


def test_quality_is_that_of_the_answers_that_were_judged(ledger_file: Path) -> None:
    printed = spillway("replay", "-c", str(ledger_file), "--json", "--set", "confidence.threshold=0")
    recorded, now, kept = printed["policies"]
    assert [(row["right"], row["judged"]) for row in (recorded, now, kept)] == [(3, 3), (3, 3), (2, 3)]


def test_the_review_says_what_was_dear_and_what_to_try(ledger_file: Path) -> None:
    printed = spillway("report", "review", "-c", str(ledger_file), "--json")
    assert printed["first"].startswith("Since 7d clouds answered 9 of 21 requests for $0.000")
    escalated = next(group for group in printed["groups"] if group["kind"] == "escalated")
    assert (escalated["requests"], escalated["judged"], escalated["as_well"]) == (3, 3, 2)
    assert printed["rules"][0][0] == "code to the cloud"
    assert 1 <= len(printed["trials"]) <= 3
    saved = [trial["saved_nano"] for trial in printed["trials"]]
    assert saved == sorted(saved, reverse=True)
    assert saved[-1] > 0
    first = printed["trials"][0]
    tried = spillway(*shlex.split(first["command"])[1:], "--json")["policies"]
    assert tried[1]["cloud_nano"] - tried[2]["cloud_nano"] == first["saved_nano"]
    shown = RUNNER.invoke(app, ["report", "review", "-c", str(ledger_file)])
    assert shown.exit_code == 0, shown.output
    assert f"    {first['command']}\n" in shown.stdout, "in one line"
    assert shown.stdout.startswith("Since 7d clouds answered 9 of 21 requests")


def test_another_policy_gives_other_figures_and_keeps_private_requests(ledger_file: Path) -> None:
    changes = ("--set", "confidence.threshold=0.1", "--set", "policy.rules.code to the cloud=null")
    printed = spillway("replay", "-c", str(ledger_file), "--json", *changes)
    other = printed["policies"][-1]
    assert other["shares"]["escalated"] == 0
    assert other["shares"]["routed"] == pytest.approx(2 / 21), "the hard ones"
    assert {name: one["requests"] for name, one in other["backends"].items()} == {"local": 17, "cloud": 4}
    part = ledger_file.parent / "part.yaml"
    part.write_text("aliases: {auto: {chain: [cloud]}}\npolicy: {}\n")
    printed = spillway("replay", "-c", str(ledger_file), "--json", "--policy", str(part))
    assert by_name(printed)["part.yaml"]["backends"]["local"]["requests"] == 2, "the private ones"


def test_a_sweep_tries_every_value(ledger_file: Path) -> None:
    swept = ("--sweep", "confidence.threshold=0:1:0.5")
    rows = spillway("replay", "-c", str(ledger_file), "--json", *swept)["policies"]
    assert [row["name"] for row in rows[2:]] == [f"confidence.threshold={value}" for value in (0, 0.5, 1)]
    assert [round(21 * row["shares"]["escalated"]) for row in rows[2:]] == [0, 3, 13]


def test_budgets_bind_in_a_replay(ledger_file: Path) -> None:
    limit = "budgets=[{scope: all, period: month, limit_usd: '0.01'}]"
    rows = spillway("replay", "-c", str(ledger_file), "--json", "--set", limit)["policies"]
    assert 0 < rows[-1]["cloud_nano"] < rows[1]["cloud_nano"]
    assert rows[-1]["cloud_nano"] <= NANO // 100
    assert rows[-1]["most_of_budgets"] <= 1


def test_a_policy_with_errors_is_refused_with_those_of_check(ledger_file: Path) -> None:
    wrong = ledger_file.parent / "wrong.yaml"
    wrong.write_text(ledger_file.read_text().replace("chain: [local, cloud]", "chain: [local, nobody]"))
    checked = RUNNER.invoke(app, ["check", "-c", str(wrong), "--offline"])
    refused = spillway("replay", "-c", str(ledger_file), "--policy", str(wrong), code=1)
    problem = next(line for line in checked.stderr.splitlines() if "nobody" in line)
    assert problem.partition(": ")[2] in refused
    for change, words in (
        ("slo.ttft_ms", "is no change"),
        ("policy.rules.nobody=null", "nothing there is called 'nobody'"),
        ("slo.nothing=1", "unknown setting"),
    ):
        assert words in spillway("replay", "-c", str(ledger_file), "--set", change, code=1)
    assert "is no sweep" in spillway("replay", "-c", str(ledger_file), "--sweep", "slo.ttft_ms=1:2", code=1)
    assert "is no time" in spillway("replay", "-c", str(ledger_file), "--since", "lately", code=1)


def test_the_table_fits_80_columns_and_the_page_is_whole(ledger_file: Path) -> None:
    shown = RUNNER.invoke(app, ["replay", "-c", str(ledger_file), "--sweep", "confidence.threshold=0:1:0.5"])
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "recorded" in shown.stdout
    page = RUNNER.invoke(app, ["replay", "-c", str(ledger_file), "--html", "-"]).stdout
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 2
    assert "<script" not in page


def test_a_trace_needs_no_ledger(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"2026-11-20 10:00:{second:02}.5,200,20" for second in range(30)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    file = tmp_path / "spillway.yaml"
    file.write_text(settings(cloud("http://127.0.0.1:9/v1"), more="gpu: {price_per_hour: '1'}\n"))
    (now,) = spillway("replay", "-c", str(file), "--trace", str(trace), "--json")["policies"]
    assert (now["requests"], now["shares"]["routed"]) == (30, 1.0)
    assert now["cloud_nano"] == 30 * (200 * 1000 + 20 * 2000)
    assert not (tmp_path / "data").exists(), "a replay makes no ledger"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows[::-1]) + "\n")
    assert "line 3: its time is before" in spillway("replay", "-c", str(file), "--trace", str(trace), code=1)
    trace.write_text("at,tokens\n")
    assert "the column TIMESTAMP is missing" in spillway("replay", "-c", str(file), "--trace", str(trace), code=1)

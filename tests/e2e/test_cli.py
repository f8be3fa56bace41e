"""The command line, without an engine: what it checks, prints and writes, partly beside a running router."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import typer
import yaml
from demo.product import CloudProcess
from tests.e2e.conftest import Front
from typer.testing import CliRunner, Result

from spillway_router.cli import app
from spillway_router.config import load
from spillway_router.config.settings import Settings
from spillway_router.core.money.currency import Amounts
from spillway_router.core.money.tariff import usd
from spillway_router.testing.processes import ROOT, SPILLWAY, await_ready, eventually, running, write
from spillway_server.demo_model.documents import Document, exact, prompt

EXAMPLE = ROOT / "deploy" / "spillway.example.yaml"
CONTRACT = """
listen: 127.0.0.1:8080
server: {model: auto, vllm_args: []}
gpu: {price_per_hour: "1.39", count: 1}
backends:
  - {name: local, provider: vllm, local: true, base_url: "http://127.0.0.1:8001/v1", model: demo}
  - {name: groq, provider: groq, model: openai/gpt-oss-20b}
  - {name: mine, provider: generic, base_url: "http://127.0.0.1:9000/v1", api_key: "${MINE_KEY}", model: m,
     price: {input_per_million: "0.15", output_per_million: "0.60"}}
aliases: {auto: {chain: [local, groq, mine]}}
slo: {ttft_ms: 2000, tpot_ms: 100}
confidence: {threshold: 0.8, escalate_to: [mine]}
budgets: [{scope: all, period: day, limit_usd: "50", alert_at: [0.5, 0.8, 1.0]}]
privacy: {default: any, keywords: [password, ssn]}
keys: {required: false}
ledger: {url: "sqlite:///data/spillway.db"}
"""
"""The keys that stay stable."""


def spillway(*words: str | Path, env: dict[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env=env)


def answer(*words: str | Path, env: dict[str, str | None] | None = None) -> Any:
    """The JSON that a command prints; it must succeed."""
    done = spillway(*words, env=env)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def _commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name, command in getattr(group, "commands", {}).items():
        yield from _commands(command, (*words, name))


COMMANDS = list(_commands(typer.main.get_command(app)))


def test_the_promised_commands_are_there() -> None:
    promised = {"up", "serve", "route", "check", "doctor", "plan", "chat", "explain", "report", "schema"}
    groups = {("keys", "create"), ("keys", "list"), ("keys", "revoke"), ("prices", "list")}
    assert {(name,) for name in promised} | groups <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_of_every_command(words: tuple[str, ...]) -> None:
    done = spillway(*words, "--help")
    assert done.exit_code == 0
    assert "Usage:" in done.stdout
    assert re.search(r"[a-z]{3,}.*\.", done.stdout.split("Usage:")[1]), "a sentence that says what it does"


def test_the_installed_command_runs() -> None:
    done = subprocess.run([SPILLWAY, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "chat" in done.stdout


# check


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    return tmp_path / "spillway.yaml"


LEDGERED = "ledger: {url: 'sqlite:///%s/x.db'}\n"
BROKEN = {
    "many at once": (
        "listen: 8080\n"
        "sever: {model: auto}\n"
        "backends:\n"
        "  - {name: local, provider: vllm, model: demo, bse_url: 'http://127.0.0.1:1/v1'}\n"
        "  - {name: local, provider: groq, model: x}\n"
        "  - {name: paid, provider: generic, model: m, base_url: '${SPILLWAY_TEST_UNSET}'}\n"
        "aliases:\n"
        "  auto: {chain: [local, gone]}\n"
        "confidence: {threshold: 1.5, escalate_to: [nobody]}\n"
        "budgets:\n"
        "  - {scope: 'backend:lost', period: week, limit_usd: '-1'}\n"
        "  - {scope: everyone, period: day, limit_usd: '1'}\n",
        [
            (1, "listen", "must be text, and without quotes it is a number"),
            (2, "sever", "unknown setting; did you mean server?"),
            (4, "backends.0.bse_url", "unknown setting; did you mean base_url?"),
            (5, "backends.1.name", "duplicate backend name 'local'; rename one"),
            (6, "backends.2.base_url", "export SPILLWAY_TEST_UNSET"),
            (8, "aliases.auto.chain.1", "no backend has the name 'gone'; use one of local, paid"),
            (9, "confidence.threshold", "must be at most 1: write 0.015 for 1.5%"),
            (9, "confidence.escalate_to.0", "no backend has the name 'nobody'"),
            (11, "budgets.0.period", "use one of hour, day, month"),
            (11, "budgets.0.limit_usd", "is negative"),
            (11, "budgets.0.scope", "no backend has the name 'lost'"),
            (12, "budgets.1.scope", "scope"),
        ],
    ),
    "missing values": (
        "backends:\n  - {provider: vllm}\nkeys: {required: perhaps}\n",
        [
            (2, "backends.0.name", "is missing; add it"),
            (2, "backends.0.model", "is missing"),
            (3, "keys.required", "must be true or false"),
        ],
    ),
    "budgets that run low": (
        "backends:\n"
        "  - {name: local, provider: vllm, model: demo}\n"
        "budgets:\n"
        "  - scope: all\n"
        "    period: day\n"
        "    limit_usd: '1'\n"
        "    degrade:\n"
        "      - {at: 0.8, drop: [gpt]}\n"
        "      - {at: 1.8, drop: []}\n"
        "      - {at: 0.9, drop: gpt}\n"
        "    pacing: sometimes\n"
        "alerts: {webhook_url: hooks.example.com, secret: short}\n",
        [
            (8, "budgets.0.degrade.0.drop.0", "no backend has the name 'gpt'; use one of local"),
            (9, "budgets.0.degrade.1.at", "must be at most 1"),
            (9, "budgets.0.degrade.1.drop", "names no backend"),
            (10, "budgets.0.degrade.2.drop", "write the names as a list, such as [gpt], or the word cloud"),
            (11, "budgets.0.pacing", "must be true or false"),
            (12, "alerts.webhook_url", "write a complete URL, such as https://"),
            (12, "alerts.secret", "at least 8 characters"),
        ],
    ),
    "a rung that saves nothing": (
        "backends:\n"
        "  - {name: local, provider: vllm, model: demo}\n"
        "budgets:\n"
        "  - {scope: all, period: day, limit_usd: '1', degrade: [{at: 0.8, drop: [local]}]}\n",
        [(4, "budgets.0.degrade.0", "local is local and its requests cost nothing; remove it from `drop`")],
    ),
    "not YAML": ("listen: [1\nbackends: 2\n", [(1, "YAML", "add ], or a comma")]),
    "not a mapping": ("- listen\n", [(1, "file", "must be a mapping")]),
    "providers and prices": (
        "backends:\n"
        "  - {name: odd, provider: grok, model: x}\n"
        "\n"
        "  - {name: paid, provider: generic, model: m, base_url: 'http://h/v1', api_key: k}\n"
        "  - {name: far, provider: generic, model: m, base_url: 'ftp://h/v1', api_key: k,\n"
        "     price: {input_per_million: '1', output_per_million: '1'}}\n",
        [
            (2, "backends.odd", "use one of anthropic"),
            (4, "backends.paid", "add price: {input_per_million, output_per_million}"),
            (5, "backends.far", "must begin with http://, https:// or unix:///"),
        ],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_check_finds_all_mistakes_at_once_with_line_and_fix(name: str, checked: Path) -> None:
    text, expected = BROKEN[name]
    ledger = LEDGERED % checked.parent if name in ("providers and prices", "a rung that saves nothing") else ""
    checked.write_text(text + ledger)
    as_json, as_text = spillway("check", "-c", checked, "--json"), spillway("check", "-c", checked)
    assert as_json.exit_code == as_text.exit_code == 1
    report = json.loads(as_json.stdout)
    assert report["ok"] is False
    problems = {(m["line"], m["where"]): m["problem"] for m in report["mistakes"]}
    assert set(problems) == {(line, where) for line, where, _ in expected}
    for line, where, fragment in expected:
        assert fragment in problems[line, where]
        assert f"{checked}:{line}: {where}: " in as_text.output


def test_check_reports_a_wrong_provider_beside_a_wrong_setting_and_no_consequence_of_what_it_left_out(
    checked: Path,
) -> None:
    checked.write_text(
        "backends:\n"
        "  - {name: odd, provider: grok, model: x}\n"
        "  - {name: paid, provider: generic, model: m, base_url: 'http://h/v1', api_key: k, prise: {}}\n"
        "aliases: {auto: {chain: [gone, paid]}}\n"
        "slo: {ttft_ms: soon}\n" + LEDGERED % checked.parent
    )
    for done in (
        spillway("check", "-c", checked, "--json"),
        spillway("check", "-c", checked),
        spillway("report", "-c", checked),
    ):
        assert done.exit_code == 1
    report = json.loads(spillway("check", "-c", checked, "--json").stdout)
    assert [(m["line"], m["where"]) for m in report["mistakes"]] == [
        (2, "backends.odd"),
        (3, "backends.1.prise"),
        (4, "aliases.auto.chain.0"),
        (5, "slo.ttft_ms"),
    ]


def test_a_strict_check_fails_where_a_backend_is_disabled_or_does_not_answer(checked: Path) -> None:
    checked.write_text(
        "backends:\n  - {name: local, provider: vllm, model: demo, base_url: 'http://127.0.0.1:1/v1'}\n"
        + LEDGERED % checked.parent
    )
    assert spillway("check", "-c", checked).exit_code == 0
    assert spillway("check", "-c", checked, "--strict").exit_code == 1
    assert spillway("check", "-c", checked, "--strict", "--offline").exit_code == 0
    checked.write_text(
        "backends:\n  - {name: groq, provider: groq, model: openai/gpt-oss-20b}\n" + LEDGERED % checked.parent
    )
    off = spillway("check", "-c", checked, "--strict", "--offline", env={"GROQ_API_KEY": None})
    assert off.exit_code == 1
    assert "no errors, 1 disabled backend" in off.stdout


def test_check_of_a_good_file(checked: Path, tmp_path: Path) -> None:
    checked.write_text(
        "backends:\n"
        "  - {name: local, provider: vllm, model: demo}\n"
        "  - {name: groq, provider: groq, model: openai/gpt-oss-20b}\n"
        "  - {name: mine, provider: generic, model: m, base_url: 'http://h/v1', api_key: '${SPILLWAY_TEST_UNSET}'}\n"
        + LEDGERED
        % tmp_path
    )
    off = answer("check", "-c", checked, "--offline", "--json", env={"GROQ_API_KEY": None})
    assert (off["ok"], off["mistakes"]) == (True, [])
    assert [(m["line"], m["where"]) for m in off["off"]] == [(3, "backends.groq"), (4, "backends.mine")]
    assert "export GROQ_API_KEY" in off["off"][0]["problem"]
    assert "export SPILLWAY_TEST_UNSET" in off["off"][1]["problem"]
    on = spillway("check", "-c", checked, "--offline", env={"GROQ_API_KEY": "gsk_secret"})
    assert on.exit_code == 0
    assert "ready        groq: cloud, groq, openai/gpt-oss-20b" in on.stdout
    assert "gsk_secret" not in on.output


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    done = spillway("check", "-c", tmp_path / "none.yaml")
    assert done.exit_code == 1
    assert "can't be read" in done.output


def test_no_configuration_is_the_default_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checked = spillway("check", "--offline", env={"SPILLWAY_CONFIG": None})
    assert checked.exit_code == 0
    assert "defaults (no spillway.yaml found)" in checked.stdout
    assert "ready        local: local, vllm, demo" in checked.stdout
    (tmp_path / "spillway.yaml").write_text("listen: nowhere\n")
    assert spillway("check", env={"SPILLWAY_CONFIG": None}).exit_code == 1
    (tmp_path / "other.yaml").write_text("listen: 127.0.0.1:0\n")
    assert spillway("check", env={"SPILLWAY_CONFIG": "other.yaml"}).exit_code == 0


# schema and example


@pytest.mark.parametrize("text", [CONTRACT, EXAMPLE.read_text(encoding="utf-8")], ids=["contract", "example"])
def test_documented_configurations_fit_the_schema_and_the_settings(text: str) -> None:
    schema = answer("schema")
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(text), schema)
    settings = load.parse(text, {"MINE_KEY": "k"})
    assert settings.chains() == {"auto": ("local", "groq", "mine")}
    assert settings.gpu.price_per_hour * settings.gpu.count == type(settings.gpu.price_per_hour)("1.39")


def test_the_schema_refuses_what_the_settings_refuse() -> None:
    schema = answer("schema")
    refused: list[dict[str, Any]] = [
        {"sever": {}},
        {"slo": {"ttft_ms": -1}},
        {"budgets": [{"scope": "all", "period": "week", "limit_usd": "1"}]},
    ]
    for wrong in refused:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_the_example_shows_every_setting() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    definitions = Settings.model_json_schema()["$defs"]
    parts = {"Settings": Settings.model_json_schema(), **definitions}
    for part, schema in parts.items():
        for key in schema["properties"]:
            assert re.search(rf"\b{key}:", text), f"{part}.{key} is not in {EXAMPLE.name}"


def test_defaults_in_the_example_are_the_defaults() -> None:
    shown, default = load.parse(EXAMPLE.read_text(encoding="utf-8"), {"MINE_KEY": "k"}), Settings()
    assert (shown.listen, shown.slo, shown.keys, shown.ledger, shown.limits) == (
        default.listen,
        default.slo,
        default.keys,
        default.ledger,
        default.limits,
    )
    assert shown.confidence.threshold == default.confidence.threshold
    assert shown.backends[0].model_dump() == {**default.backends[0].model_dump(), "local": True}


# prices, doctor, plan


def test_prices_list() -> None:
    rows = answer("prices", "list", "--json")
    assert {"groq", "together", "openai", "cerebras", "anthropic"} <= {row["provider"] for row in rows}
    (row,) = [r for r in rows if (r["provider"], r["model"]) == ("groq", "openai/gpt-oss-120b")]
    assert (row["input"], row["output"], row["cached_input"]) == ("0.15", "0.6", "0.075")
    shown = spillway("prices", "list", "--provider", "groq").stdout
    assert "USD per million tokens" in shown
    assert "openai/gpt-oss-120b" in shown
    assert "together" not in shown
    assert spillway("prices", "list", "--provider", "nobody").exit_code == 1


def test_doctor_and_plan_answer_in_json() -> None:
    done = spillway("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.exit_code == (0 if report["ok"] else 1)
    assert len(report["checks"]) >= 5
    planned = json.dumps(answer("plan", "--gpu", "t4", "--json"))
    assert "--max-num-queued-reqs" in planned
    on_cpu = answer("plan", "--gpu", "cpu", "--model", "demo", "--json")
    words = " ".join(on_cpu["command"])
    assert "--dtype float32" in words, "bfloat16 dies of SIGILL on processors that only claim to have AMX"


# LiteLLM

LITELLM = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY, rpm: 100}
  - model_name: fast
    litellm_params: {model: together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo, api_key: sk-in-the-clear, order: 2}
  - model_name: fast
    litellm_params: {model: groq/openai/gpt-oss-20b, api_key: os.environ/MY_GROQ}
  - model_name: mine
    litellm_params: {model: hosted_vllm/Qwen/Qwen2.5-7B-Instruct-AWQ, api_base: "http://10.0.0.5:8000"}
  - model_name: other
    litellm_params: {model: openai/llama-70b, api_base: "https://llm.example.com/v1", api_key: os.environ/OTHER_KEY,
      input_cost_per_token: 5e-07, output_cost_per_token: 0.0000015}
  - model_name: azure
    litellm_params: {model: azure/gpt-4o, api_base: "https://x.example.com"}
  - model_name: "*"
    litellm_params: {model: "openai/*"}
litellm_settings: {fallbacks: [{mine: [fast]}, {azure: [mine]}], max_budget: 100, budget_duration: 30d, cache: true}
router_settings: {model_group_alias: {gpt-4: gpt-4o}}
general_settings: {master_key: sk-master-in-the-clear}
"""


def test_a_litellm_configuration_becomes_a_spillway_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a ledger in the working directory would be refused
    source, converted = tmp_path / "litellm.yaml", tmp_path / "spillway.yaml"
    source.write_text(LITELLM)
    done = spillway("check", "--from-litellm", source)
    assert done.exit_code == 0, done.output
    assert "in-the-clear" not in done.output
    converted.write_text(done.stdout)
    settings = load.parse(done.stdout, {"MY_GROQ": "g", "OTHER_KEY": "o"})
    backends = {b.name: (b.provider, b.model, b.base_url, b.api_key) for b in settings.backends}
    llama = "meta-llama/Llama-3.3-70B-Instruct-Turbo"
    assert backends == {
        "vllm-Qwen2.5-7B-Instruct-AWQ": ("vllm", "Qwen/Qwen2.5-7B-Instruct-AWQ", "http://10.0.0.5:8000/v1", None),
        "openai-gpt-4o": ("openai", "gpt-4o", None, None),
        "together-Llama-3.3-70B-Instruct-Turbo": ("together", llama, None, None),
        "groq-gpt-oss-20b": ("groq", "openai/gpt-oss-20b", None, "g"),
        "generic-llama-70b": ("generic", "llama-70b", "https://llm.example.com/v1", "o"),
    }
    assert settings.backends[0].provider == "vllm", "engines of one's own first, so that auto asks them first"
    fast = ("groq-gpt-oss-20b", "together-Llama-3.3-70B-Instruct-Turbo")
    chains = settings.chains()
    assert chains["fast"] == fast
    assert chains["mine"] == ("vllm-Qwen2.5-7B-Instruct-AWQ", *fast)
    assert chains["gpt-4"] == chains["gpt-4o"] == ("openai-gpt-4o",)
    price = next(b.price for b in settings.backends if b.provider == "generic")
    assert price is not None
    assert (str(price.input_per_million), str(price.output_per_million)) == ("0.5", "1.5")
    assert settings.keys.required
    assert [(b.scope, str(b.period), str(b.limit_usd)) for b in settings.budgets] == [("all", "month", "100")]
    notes = [line for line in done.stdout.splitlines() if line.startswith("#   - ")]
    for fragment in ("rpm was left out", "export TOGETHER_API_KEY", "'azure'", "wildcards", "fallback azure", "cache"):
        assert any(fragment in note for note in notes), fragment
    assert answer("check", "--from-litellm", source, "--json")["config"]["listen"] == "127.0.0.1:8080"
    checked = spillway("check", "-c", converted, "--offline", env={"MY_GROQ": "g", "OTHER_KEY": "o"})
    assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize("text", ["", "model_list: 3", "a: [", "model_list: [{model_name: x}]"])
def test_a_file_of_another_kind_is_refused_as_litellm_configuration(text: str, tmp_path: Path) -> None:
    source = tmp_path / "litellm.yaml"
    source.write_text(text)
    done = spillway("check", "--from-litellm", source)
    assert done.exit_code == 1
    assert str(source) in done.output


# beside a running router


@pytest.fixture(scope="module")
def cloudy(standin: CloudProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A router that needs keys, in front of the stand-in cloud alone."""
    groq = {"name": "groq", "provider": "groq", "base_url": standin.url, "api_key": "${STANDIN_API_KEY}"}
    settings = {
        "gpu": {"price_per_hour": "1.39"},
        "backends": [{**groq, "model": "openai/gpt-oss-20b"}],
        "keys": {"required": True},
    }
    path = write(tmp_path_factory.mktemp("cloudy"), settings)
    with running("route", path, {"STANDIN_API_KEY": standin.key}) as process:
        await_ready(process.url)
        yield Front(process.url, path, process)


class NotYetError(Exception):
    """The router has not seen the change of keys."""


def ask(front: Front, key: str, document: Document, status: int) -> httpx.Response:
    """One paid request; retried until it has this status."""

    def attempt() -> httpx.Response:
        body = {"model": "auto", "messages": prompt(document.text), "max_tokens": 300}
        headers = {"authorization": f"Bearer {key}"}
        url = f"{front.url}/v1/chat/completions"
        reply = httpx.post(url, json=body, headers=headers, timeout=60, trust_env=False)
        if reply.status_code != status:
            raise NotYetError(reply.text)
        return reply

    return eventually(attempt, NotYetError)


def test_a_keys_life_beside_a_running_router(cloudy: Front, documents: list[Document]) -> None:
    created = answer("keys", "create", "ann", "--tier", "gold", "-c", cloudy.config, "--json")
    assert created["key"].startswith(f"sk-spill-{created['id']}-")
    reply = ask(cloudy, created["key"], documents[0], 200)
    assert exact(reply.json()["choices"][0]["message"]["content"], documents[0].truth)
    listed = answer("keys", "list", "-c", cloudy.config, "--json")
    (row,) = [row for row in listed if row["id"] == created["id"]]
    assert (row["name"], row["role"], row["tier"], row["privacy"], row["revoked"]) == (
        "ann",
        "inference",
        "gold",
        "any",
        None,
    )
    secret = created["key"].rpartition("-")[2]
    assert secret not in json.dumps(listed)
    assert all(secret.encode() not in path.read_bytes() for path in cloudy.config.parent.glob("spillway.db*"))
    assert spillway("keys", "revoke", created["id"], "-c", cloudy.config).exit_code == 0
    refused = ask(cloudy, created["key"], documents[0], 401)
    assert refused.json()["error"]["code"] == "invalid_api_key"
    again = spillway("keys", "revoke", created["id"], "-c", cloudy.config)
    assert again.exit_code == 1
    assert "spillway keys list" in again.output
    shown = spillway("keys", "list", "-c", cloudy.config).stdout
    assert shown.startswith("id            role       privacy")
    assert f"{created['id']}  inference  any" in shown


def test_a_private_key_never_reaches_the_cloud(cloudy: Front, documents: list[Document]) -> None:
    created = answer("keys", "create", "eve", "--private", "-c", cloudy.config, "--json")
    refused = ask(cloudy, created["key"], documents[0], 503)
    assert refused.json()["error"]["code"] == "local_only_unavailable"


def test_a_key_of_an_unknown_role_is_refused(cloudy: Front) -> None:
    done = spillway("keys", "create", "bob", "--role", "king", "-c", cloudy.config)
    assert done.exit_code == 1
    assert "use inference, viewer or admin" in done.output


def test_explain_and_report_after_a_paid_request(
    cloudy: Front, standin: CloudProcess, documents: list[Document]
) -> None:
    created = answer("keys", "create", "ned", "-c", cloudy.config, "--json")
    reply = ask(cloudy, created["key"], documents[1], 200)
    request_id = reply.headers["x-request-id"]
    paid = reply.headers["x-spillway-cost-usd"]
    assert float(paid) > 0
    entries = answer("explain", request_id, "-c", cloudy.config, "--json")
    assert [entry["kind"] for entry in entries] == ["reserved", "charged"]
    assert usd(entries[-1]["amount_nano"]) == paid
    assert entries[-1]["amount_nano"] <= entries[0]["reserved_nano"]
    shown = spillway("explain", request_id, "-c", cloudy.config).stdout
    assert Amounts().money(entries[-1]["amount_nano"]) in shown
    assert "groq" in shown
    unknown = spillway("explain", "req_nobody", "-c", cloudy.config)
    assert unknown.exit_code == 1
    assert "req_nobody" in unknown.output
    env: dict[str, str | None] = {"STANDIN_API_KEY": standin.key}
    report = answer("report", "-c", cloudy.config, "--json", env=env)
    bill = httpx.get(f"{standin.root}/bill", headers={"authorization": f"Bearer {standin.key}"}, trust_env=False).json()
    assert report["cloud"]["cost_nano"] == bill["nano_usd"], "both sides' books agree to the nano-dollar"
    assert report["cloud"]["unsettled"] == 0
    assert report["fixed"]["billed_nano"] == report["fixed"]["used_nano"] + report["fixed"]["idle_nano"]
    assert report["cloud"]["cost_usd"] == usd(bill["nano_usd"])
    table = spillway("report", "-c", cloudy.config, env=env).stdout
    assert f"{bill['requests']} requests, {bill['requests']} answered" in table
    assert spillway("report", "-c", cloudy.config, "--day", "tomorrow", env=env).exit_code == 1


def test_chat_says_what_a_router_refuses_and_where_none_is(cloudy: Front, tmp_path: Path) -> None:
    refused = spillway("chat", "hello", "--url", cloudy.url, "--key", "sk-spill-none")
    assert refused.exit_code == 1
    assert "401 invalid_api_key" in refused.output
    nobody = spillway("chat", "hello", "--url", "http://127.0.0.1:9")
    assert nobody.exit_code == 1
    assert "spillway up" in nobody.output
    assert spillway("chat", "--json").exit_code == 1


def test_the_ledger_is_left_whole(tmp_path: Path) -> None:
    path = write(tmp_path, {"backends": [{"name": "local", "provider": "vllm", "model": "demo"}]})
    with running("route", path) as process:
        assert httpx.get(f"{process.url}/health", timeout=10, trust_env=False).json() == {"status": "ok"}
        assert process.end() == 0
    with closing(sqlite3.connect(tmp_path / "spillway.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)

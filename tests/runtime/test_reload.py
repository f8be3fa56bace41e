"""A reload applies everything that a start derives from a configuration."""

from __future__ import annotations

import base64
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from spillway_router.config.derived import DerivedConfig
from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.tables.acts import Change
from spillway_router.ledger.vault import KEY_BYTES
from spillway_router.runtime.reload_acts import needs_restart
from spillway_router.runtime.router import Runtime
from spillway_router.testing import FaultUpstream, openai_wire
from spillway_router.testing.harness import Router, cloud, local, routing, settings
from spillway_router.testing.upstream import Answer

WHOLE = {"choices": [openai_wire.message_choice({"content": "yes"})], "usage": openai_wire.usage(3, 2)}
FIRST = """
gpu: {price_per_hour: "1.39"}
budgets: [{scope: all, period: day, limit_usd: "5", pacing: true}]
confidence: {escalate_to: [cloud]}
"""
SECOND = """
gpu: {price_per_hour: "2.50", name: h100}
budgets: [{scope: all, period: month, limit_usd: "7", pacing: true}]
confidence: {escalate_to: [cloud], threshold: 0.7, top_logprobs: 4}
alerts: {webhook_url: "http://127.0.0.1:9/hook"}
documents: {max_chars: 1000, most_open: 3}
privacy: {default: local-only}
keys: {required: true, failed_logins_per_minute: 12, secret_key_file: secret.key}
metrics: {token: scrape-0123456789abcdef}
limits: {body_mb: 1}
retention: {minutes: 5}
cache: {enabled: true, ttl_s: 60}
credits: [{scope: each key, period: day, requests: 9}]
cors: {origins: ["https://app.example"]}
dashboard: {origins: ["https://pages.example"]}
policy: {rules: [{name: no code leaves, when: {task: code}, forbid: cloud}]}
experiments: [{name: e, bandit: rating, arms: [{name: b, share: 0.5, chain: [cloud]}]}]
"""


def received(runtime: Runtime) -> dict[str, Any]:
    """Return, for each field of DerivedConfig, what the part of the router that works with it has."""
    active = runtime.services.config()
    return {
        "loaded": runtime.config.loaded,
        "assembly": (active.policy, active.scoring, watched(runtime), set(active.backend_routes)),
        "limits": active.limits,
        "privacy": active.privacy,
        "traits": active.traits,
        "keys_required": active.auth.required,
        "failed_logins_per_minute": active.auth.failures_per_minute,
        "scrape_token": active.auth.scrape_token,
        "budgets": tuple(line for line, _ in runtime.accounts.balances()),
        "credits": runtime.credits._lines,
        "pacing": runtime.pacer._rules,
        "fixed": runtime.gpu_billing._keeper._terms,
        "report": (runtime.config.report, runtime.accounts._entries.coefficients),
        "documents": runtime.config.documents,
        "review_queue": runtime.config.review_queue,
        "retention_minutes": runtime.config.retention_minutes,
        "bandits": runtime.share_mover._bandits,
        "cache": runtime._open_cache._settings if active.cache is runtime._open_cache.cache else active.cache,
        "webhook": runtime.alerts._webhook,
        "vault": runtime.provider_keys._vault,
        "cors_origins": active.cors_origins,
        "page_origins": active.page_origins,
    }


def watched(runtime: Runtime) -> dict[str, str]:
    """Return the addresses of the engines that are watched."""
    return {name: target.base_url for name, (target, _) in runtime.engine_watch._engines.items()}


def derived(config: DerivedConfig) -> dict[str, Any]:
    """Return the fields of the configuration in the form of `received`."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    assembly = config.assembly
    engines = {name: target.base_url for name, target in assembly.targets.items() if target.backend.local}
    values["assembly"] = (assembly.policy, assembly.scoring, engines, set(assembly.targets))
    values["report"] = (config.report, config.report.coefficients)
    return values


def rewrite(router: Router, text: str) -> None:
    """Replace the configuration, with the same ledger."""
    ledger = router.path.read_text().splitlines()[0]
    router.path.write_text(f"{ledger}\n{text}")


async def test_a_reload_applies_every_value_that_the_start_derives(tmp_path: Path) -> None:
    async with (
        FaultUpstream() as one,
        FaultUpstream() as other,
        FaultUpstream() as strong,
        routing(settings(local(one), cloud(strong), more=FIRST), tmp_path) as router,
    ):
        runtime = router.runtime
        first = runtime.config
        assert received(runtime) == derived(first)
        (tmp_path / "secret.key").write_text(base64.b64encode(bytes(KEY_BYTES)).decode())
        (tmp_path / "secret.key").chmod(0o600)
        rewrite(router, settings(local(one), local(other, "second"), cloud(strong), more=SECOND))
        assert await runtime.reload("a test") == []
        second = runtime.config
        assert received(runtime) == derived(second)
    names = [field.name for field in fields(DerivedConfig)]
    unchanged = [name for name in names if getattr(first, name) == getattr(second, name)]
    assert unchanged == [], "the second configuration must differ in every field, or the test proves nothing of it"


async def test_reloads_are_acts_that_say_who_asked_and_what_changed_but_no_value(tmp_path: Path) -> None:
    async with FaultUpstream() as one, routing(settings(local(one)), tmp_path) as router:
        runtime = router.runtime
        before = runtime.config.assembly.policy.version
        key = router.admin["authorization"].split("-")[2]
        rewrite(router, settings(local(one), more="metrics: {token: scrape-0123456789abcdef}\nslo: {ttft_ms: 77}\n"))
        assert (await router.reload()).status_code == 200
        rewrite(router, "backends: 7\n")
        assert (await router.reload()).status_code == 400
        assert len(await runtime.reload("signal SIGHUP")) == 1
        acts = [each.act for each in router.ledger.acts.all()]
    acts = [act for act in acts if act.kind.startswith("config.")]
    assert [(act.kind, act.by) for act in acts] == [
        ("config.reload", f"key {key}"),
        ("config.refuse", f"key {key}"),
        ("config.refuse", "signal SIGHUP"),
    ]
    details = json.loads(acts[0].details)
    assert details["changed"] == ["slo", "metrics"]
    assert (details["policy_before"], acts[0].subject) == (before, runtime.config.assembly.policy.version)
    assert json.loads(acts[1].details) == {"problems": 1}
    assert "scrape-" not in str(acts)
    assert acts[1].subject == acts[0].subject != before


async def test_a_reload_waits_for_no_ledger_that_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def away(_: Change) -> None:
        raise LedgerUnavailableError("the disk is gone")

    async with FaultUpstream() as one, routing(settings(local(one)), tmp_path) as router:
        router.runtime.ledger.acts.record = away  # type: ignore[method-assign]
        assert await router.runtime.reload("a test") == []
    assert "the act config.reload by a test is not in the ledger: the disk is gone" in caplog.text


async def test_a_backend_that_a_reload_adds_has_its_configured_rates(tmp_path: Path) -> None:
    async with FaultUpstream() as one, FaultUpstream() as other, routing(settings(local(one)), tmp_path) as router:
        second = local(other, "second").replace("model: m", "model: m, prefill_tokens_per_s: 1234")
        ledger = router.path.read_text().splitlines()[0]
        router.path.write_text(f"{ledger}\n{settings(local(one), second)}")
        assert await router.runtime.reload("a test") == []
        rates = router.runtime.board.current(router.runtime.services.clock()).backends["second"].rates
    assert rates is not None
    assert rates.prefill_tokens_per_s == 1234


async def test_a_reload_ends_the_connections_that_nobody_will_use_again(tmp_path: Path) -> None:
    """100 reloads with a changed address left 250 open connections behind."""
    answer = Answer.json(WHOLE)
    async with (
        FaultUpstream(answer) as kept,
        FaultUpstream(answer) as moved,
        FaultUpstream(answer) as removed,
        routing(settings(cloud(kept, "kept"), cloud(moved, "moved"), cloud(removed, "removed")), tmp_path) as router,
    ):
        for name in ("kept", "moved", "removed"):
            assert (await router.chat({"model": name})).status_code == 200
        pools = {name: route.pool for name, route in router.runtime.services.config().backend_routes.items()}
        assert {name: len(pool._open) for name, pool in pools.items()} == {"kept": 1, "moved": 1, "removed": 1}
        rewrite(router, settings(cloud(kept, "kept"), cloud(kept, "moved")))
        assert await router.runtime.reload("a test") == []
        assert {name: len(pool._open) for name, pool in pools.items()} == {"kept": 1, "moved": 0, "removed": 0}


async def test_a_configuration_that_is_rejected_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a ledger in the working directory would be refused
    async with FaultUpstream() as engine, routing(settings(local(engine)), tmp_path) as router:
        runtime = router.runtime
        first = runtime.config
        router.path.write_text("backends: [{name: local, provider: nobody, model: m}]\n")
        (problem,) = await runtime.reload("a test")
        assert "provider 'nobody' is not known" in problem
        assert runtime.config is first
        assert received(runtime) == derived(first)
    assert "configuration not reloaded: line 1, backends.local" in caplog.text


async def test_a_reload_says_what_only_a_restart_applies(tmp_path: Path) -> None:
    async with FaultUpstream() as one, routing(settings(local(one)), tmp_path) as router:
        assert "needs_restart" not in (await router.reload()).json()
        rewrite(router, settings(local(one), more="limits: {stop_s: 7}\nslo: {ttft_ms: 77}\n"))
        assert (await router.reload()).json()["needs_restart"] == ["limits.stop_s"]
        started = router.runtime.config.loaded.settings
        assert needs_restart(started, started.model_copy(update={"listen": "127.0.0.1:1"})) == ("listen",)

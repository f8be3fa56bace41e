"""An engine's death and return, GPUs that are lost, and a watch that fails and goes on."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from tests.runtime.receiver import Receiver

from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.runtime.engine_watch import GPU_MEMORY_S
from spillway_router.signals.board import Board
from spillway_router.signals.gpu import GpuReading, GpuTelemetry
from spillway_router.signals.outages import EngineOutage, EngineOutages
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing import openai_wire as wire
from spillway_router.testing.harness import LIMIT_S, MESSAGES, Router, cloud, local, pair, routing, serving, settings

SILENT = Answer(silent=True, end="hang")
WHOLE = Answer.json(wire.Completion("c", "m", 1).whole([wire.message_choice({"content": "yes"})], wire.usage(3, 1)))
HEALTHY, SICK = GpuReading(0, "A100", xid_errors=()), GpuReading(0, "A100", xid_errors=(79,))


def health(router: Router, name: str = "local") -> tuple[str, str]:
    signals = router.runtime.board.current(router.runtime.services.clock()).backends[name]
    return signals.health, signals.health_reason


async def metrics(router: Router) -> dict[str, float]:
    lines = (await router.client.get("/metrics")).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


async def test_an_engine_s_death_and_return_are_logged_posted_and_counted_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    receiver = Receiver()
    async with (
        serving(receiver) as hook,
        FaultUpstream(WHOLE) as engine,
        FaultUpstream(WHOLE) as other,
        routing(settings(local(engine), cloud(other), more=f"alerts: {{webhook_url: '{hook}/a'}}\n")) as router,
    ):
        assert health(router) == ("up", "")
        engine.health, engine.abilities = 500, lambda _: Answer.json({}, 503)
        await router.until(lambda: len(receiver.seen) == 1)
        assert health(router) == ("down", "down, not_ready: HTTP 500")
        assert (await router.chat()).headers["x-spillway-backend"] == "cloud"
        engine.health = 200
        probes = health(router)
        await router.until(lambda: "no token yet" in health(router)[1] and health(router) != probes)
        engine.abilities = lambda _: Answer.json(wire.PROBED)
        await router.until(lambda: len(receiver.seen) == 2)
        assert (await router.chat()).headers["x-spillway-backend"] == "local"
        series = await metrics(router)
    bodies = [json.loads(body) for _, body in receiver.seen]
    assert [(b["type"], b["backend"], b["reason"]) for b in bodies] == [
        ("engine_down", "local", "down, not_ready: HTTP 500"),
        ("engine_up", "local", "down, not_ready: HTTP 500"),
    ]
    assert bodies[1]["down_s"] > 0
    lines = [
        r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and "engine local" in r.getMessage()
    ]
    assert len(lines) == 2
    assert lines[0] == "engine local left the rotation (down, not_ready: HTTP 500); its requests go elsewhere."
    assert lines[1].startswith("engine local is back after ")
    assert series['spillway_engine_outages_total{backend="local"}'] == 1
    assert series['spillway_engine_outage_seconds_total{backend="local"}'] == pytest.approx(
        bodies[1]["down_s"], abs=0.1
    )


def test_outages_by_what_is_seen() -> None:
    seen: list[EngineOutage] = []
    outages = EngineOutages(seen.append)
    outages.see("a", "starting", "refused", 0.0)
    outages.see("a", "up", "", 1.0)
    assert seen == [], "it started"
    outages.see("a", "down", "refused", 5.0)
    outages.see("a", "starting", "HTTP 503", 6.0)
    outages.see("a", "down", "refused", 7.0)
    outages.see("a", "up", "", 9.5)
    outages.see("a", "up", "", 10.0)
    outages.see("b", "starting", "refused", 0.0)
    outages.see("b", "down", "refused", 900.0)
    assert seen == [
        EngineOutage("a", "refused", 1),
        EngineOutage("a", "refused", 1, 4.5),
        EngineOutage("b", "refused", 1),
    ]
    outages.forget("b")
    outages.see("b", "up", "", 901.0)
    assert len(seen) == 3
    assert (outages.counts, outages.seconds) == ({"a": 1, "b": 1}, {"a": 4.5, "b": 0.0})


@pytest.mark.parametrize("reading", [SICK, GpuReading(0, "lost", lost=True), GpuReading(0, "A100", ecc_errors=1)])
async def test_what_waits_at_an_engine_whose_gpu_is_lost_goes_elsewhere(reading: GpuReading) -> None:
    async with pair(SILENT, WHOLE) as (engine, _, router):
        watch = router.runtime.engine_watch
        waiting = asyncio.create_task(router.chat())
        await engine.arrival()
        watch._on_gpus(GpuTelemetry(True, (reading,)), 0.0)
        async with asyncio.timeout(LIMIT_S):
            assert (await waiting).headers["x-spillway-backend"] == "cloud"
        assert watch.outages.counts["local"] == 1


async def test_the_last_verdict_on_a_gpu_stands_for_a_while_when_nvml_falls_silent() -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        on_gpus = router.runtime.engine_watch._on_gpus
        on_gpus(GpuTelemetry(True, (SICK,)), 1000.0)
        on_gpus(GpuTelemetry(False, (), "NVML did not answer"), 1000.0 + GPU_MEMORY_S)
        assert health(router) == ("down", "gpu: xid 79")
        on_gpus(GpuTelemetry(False, (), "NVML did not answer"), 1000.5 + GPU_MEMORY_S)
        assert health(router) == ("up", "")
        on_gpus(GpuTelemetry(True, (SICK,)), 2000.0)
        on_gpus(GpuTelemetry(True, (HEALTHY,)), 2001.0)
        assert health(router) == ("up", "")


@pytest.mark.unexpected_errors
@pytest.mark.parametrize("seeded", ["health", "engine_load", "engine_abilities"])
async def test_a_watch_that_fails_goes_on(seeded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the prober, the scraper or the reader of abilities is counted, and a death is noticed afterwards."""
    failed = asyncio.Event()

    def fail(*_: object) -> None:
        failed.set()
        raise RuntimeError("seeded")

    before = UNEXPECTED.counts["background"]
    with monkeypatch.context() as patch:
        patch.setattr(Board, seeded, fail)
        async with (
            FaultUpstream(WHOLE) as engine,
            routing(settings(local(engine), cloud(engine)), wait=False) as router,
        ):
            async with asyncio.timeout(LIMIT_S):
                await failed.wait()
            await router.until(lambda: UNEXPECTED.counts["background"] > before)
            patch.undo()
            await router.until(lambda: health(router)[0] == "up")
            assert (await router.chat()).headers["x-spillway-backend"] == "local"
            engine.health = 503
            await router.until(lambda: health(router)[0] == "down")
            assert (await metrics(router))['spillway_unexpected_errors_total{place="background"}'] > before


async def test_a_gpu_that_is_busy_for_long_sends_requests_away_until_nvml_falls_silent() -> None:
    busy = GpuTelemetry(True, (GpuReading(0, "A100", utilisation=0.99),))
    more = "overflow: {gpu_utilisation: {above: 0.95, for_s: 4}}\n"
    async with pair(WHOLE, WHOLE, more=more) as (_, _, router):
        on_gpus, now_s = router.runtime.engine_watch._on_gpus, router.runtime.services.clock()

        async def asked() -> tuple[str, str]:
            reply = await router.chat()
            return reply.headers["x-spillway-decision"], reply.headers.get("x-spillway-reason", "")

        on_gpus(busy, now_s - 4)
        assert await asked() == ("local", "")
        on_gpus(busy, now_s)
        assert await asked() == ("overflow", "gpu")
        explained = await router.post({"messages": MESSAGES}, "/v1/route/explain")
        assert '"gpu"' in explained.text
        on_gpus(GpuTelemetry(False, (), "NVML did not answer"), now_s)
        assert await asked() == ("local", "")


async def test_an_engine_without_metrics_lacks_none() -> None:
    async with FaultUpstream(WHOLE) as engine:
        backend = f"backends: [{{name: local, provider: generic, local: true, base_url: '{engine.url}', model: m}}]\n"
        async with routing(backend) as router:
            await router.until(lambda: health(router) == ("up", ""))
            assert (await router.chat()).status_code == 200
            assert 'spillway_scrape_up{backend="local"}' not in await metrics(router)

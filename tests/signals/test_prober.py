"""The prober and the scraper together against real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from tests.signals.servers import Reply, Server, asking, never, reply, serving

from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.signals.engine_client import EngineClient
from spillway_router.signals.engines import VLLM, WITHOUT_METRICS, EngineMetrics
from spillway_router.signals.exposition import EngineSample, ExpositionReader
from spillway_router.signals.liveness import LivenessRules, LivenessVerdict
from spillway_router.signals.prober import ProbedEngine, Prober, ProbeSettings
from spillway_router.signals.scraper import Scraper, ScrapeSettings

QUICK = ProbeSettings(
    interval_s=0.01,
    timeout_s=0.2,
    proof_timeout_s=0.2,
    proof_interval_s=0.02,
    recovery_timeout_s=0.2,
    recovery_interval_s=0.02,
)
TOKEN = '{"choices": [{"text": "a", "finish_reason": "length"}]}'
RULES = LivenessRules(hung_after_s=0.3, suspect_after_s=0.1, stale_after_s=1.0)
PATIENT = replace(QUICK, timeout_s=8.0, proof_timeout_s=8.0, recovery_timeout_s=8.0)
"""With LivenessRules(), for an engine that must stay in a state: a machine that stands still is no silence."""
HEALTH = replace(QUICK, timeout_s=8.0)
"""The same where requests for a token must end soon."""


def page(running: int, generated: int) -> str:
    return (
        f"vllm:num_requests_running {running}\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.1\n"
        f"vllm:generation_tokens_total {generated}\nvllm:prompt_tokens_total 1\nvllm:num_preemptions_total 0\n"
    )


@dataclass
class Verdicts:
    """Collects verdicts; `until` waits for a condition, ten seconds at most."""

    seen: list[tuple[LivenessVerdict, float]] = field(default_factory=list)
    _new: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, verdict: LivenessVerdict, now: float) -> None:
        self.seen.append((verdict, now))
        self._new.set()

    async def until(self, condition: Callable[[LivenessVerdict], bool]) -> tuple[LivenessVerdict, float]:
        at = len(self.seen)
        async with asyncio.timeout(10):
            while True:
                for verdict, now in self.seen[at:]:
                    if condition(verdict):
                        return verdict, now
                at = len(self.seen)
                self._new.clear()
                await self._new.wait()

    async def becomes(self, condition: str) -> tuple[LivenessVerdict, float]:
        return await self.until(lambda verdict: verdict.condition == condition)


@asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[EngineClient]:
    with asking(server.url) as client:
        yield client


@asynccontextmanager
async def probing(
    server: Server,
    metrics: EngineMetrics = VLLM,
    *,
    rules: LivenessRules = RULES,
    settings: ProbeSettings = QUICK,
    awaiting: Callable[[], int] = lambda: 0,
    model: str = "",
) -> AsyncIterator[Verdicts]:
    verdicts = Verdicts()
    with asking(server.url) as client:
        engine = ProbedEngine(metrics, model, awaiting)
        prober = Prober(client, engine, verdicts.take, rules=rules, settings=settings)
        scraper = Scraper(
            client=client,
            metrics=metrics,
            on_sample=prober.on_sample,
            settings=ScrapeSettings(interval_s=0.02),
        )
        tasks = [asyncio.create_task(prober.run()), asyncio.create_task(scraper.run())]
        try:
            yield verdicts
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert not [end for end in ended if isinstance(end, Exception)]


async def test_a_dead_engine_is_out_after_two_probes_that_take_less_than_two_seconds() -> None:
    """The first probe may find a reused connection broken; the next one finds that nothing listens."""
    async with (
        serving(health=reply(), metrics=reply(page(0, 0))) as server,
        probing(server, rules=LivenessRules(), settings=PATIENT) as verdicts,
    ):
        await verdicts.becomes("up")
        server.close()
        probes = len(verdicts.seen)
        verdict, _ = await verdicts.becomes("down")
        assert verdict.reasons[0].startswith("refused")
        assert [v.condition for v, _ in verdicts.seen].index("down") < probes + 2
    assert 2 * ProbeSettings().interval_s < 2.0


@pytest.mark.parametrize("token", [never, reply("busy", 503), reply("oops"), reply('{"choices": []}')])
async def test_an_engine_that_was_out_comes_back_only_with_a_token(token: Reply) -> None:
    """Its health path answers and its counters move, but no token comes."""
    async with serving(health=reply(), metrics=reply(page(0, 0))) as server:
        server.replies["/v1/completions"] = token
        async with probing(server, model="m", rules=LivenessRules(), settings=HEALTH) as verdicts:
            await verdicts.becomes("up")
            server.replies["/health"] = reply(status=500)
            await verdicts.becomes("down")
            server.replies["/health"] = reply()
            server.replies["/metrics"] = reply(page(0, 7))
            await verdicts.until(lambda v: "no token yet" in ", ".join(v.reasons) and "2 of 2" in v.reasons[0])
            await verdicts.until(lambda _: server.requested.count("/v1/completions") >= 1)
            probes = len(verdicts.seen)
            await verdicts.until(lambda _: len(verdicts.seen) > probes + 10)
            assert {verdict.condition for verdict, _ in verdicts.seen[probes:]} == {"down"}
            server.replies["/v1/completions"] = reply(TOKEN)
            await verdicts.becomes("up")


@pytest.mark.parametrize(
    ("path", "answer"),
    [("/v1/chat/completions", TOKEN), ("/v1/embeddings", '{"data": [{"embedding": [1]}]}'), ("", "")],
)
async def test_the_token_is_requested_on_the_route_that_the_engine_has(path: str, answer: str) -> None:
    """An engine that refuses all of them can't be asked, and its health path has to do."""
    async with serving(health=reply(), metrics=reply(page(0, 0))) as server:
        server.replies[path] = reply(answer)
        async with probing(server, model="m", rules=LivenessRules(), settings=PATIENT) as verdicts:
            await verdicts.becomes("up")
            server.replies["/health"] = reply(status=500)
            await verdicts.becomes("down")
            server.replies["/health"] = reply()
            await verdicts.becomes("up")
            assert server.requested.count(path or "/v1/embeddings") == 1


async def test_a_hung_engine_comes_back_by_the_token_that_was_requested_before() -> None:
    """As after SIGCONT: the engine answers what has waited, whatever its counters say."""
    waiting = asyncio.Event()

    async def late(writer: asyncio.StreamWriter) -> None:
        await waiting.wait()
        await reply(TOKEN)(writer)

    async with serving(health=reply(), metrics=reply(page(1, 5))) as server:
        server.replies["/v1/completions"] = late
        settings = replace(QUICK, proof_timeout_s=5.0)
        async with probing(server, model="m", settings=settings) as verdicts:
            await verdicts.becomes("hung")
            waiting.set()
            await verdicts.becomes("up")


@pytest.mark.unexpected_errors
async def test_a_probe_that_fails_is_repeated_and_forgets_the_sample() -> None:
    """A sample that breaks the verdict must not end the health checks: the engine may die meanwhile."""
    async with serving(health=reply(), metrics=reply(page(0, 0))) as server, client_of(server) as client:
        verdicts = Verdicts()
        prober = Prober(client, ProbedEngine(VLLM), verdicts.take, rules=RULES, settings=QUICK)
        task = asyncio.create_task(prober.run())
        await verdicts.becomes("up")
        poison = EngineSample(load=None, progress=None)  # type: ignore[arg-type]
        before = UNEXPECTED.counts["background"]
        prober.on_sample(poison, "", time.monotonic())
        await verdicts.until(lambda _: UNEXPECTED.counts["background"] > before)
        server.close()
        await verdicts.becomes("down")
        task.cancel()
        await asyncio.wait([task])


async def test_a_stalled_engine_is_hung_despite_its_health_path_until_it_steps() -> None:
    async with serving(health=reply(), metrics=reply(page(2, 50))) as server, probing(server) as verdicts:
        await verdicts.becomes("up")
        # A machine that stands still makes it silent first.
        verdict, _ = await verdicts.until(
            lambda v: "stalled: 2 requests unfinished, no step for " in "".join(v.reasons[:1])
        )
        assert verdict.condition == "hung"
        server.replies["/metrics"] = reply(page(2, 51))
        await verdicts.becomes("up")


async def test_a_requested_token_keeps_a_live_engine_up() -> None:
    """Its gauges are stale: they count a request that was cancelled. The token makes the engine step."""
    now = 0.0
    rules = LivenessRules()
    step_s = rules.suspect_after_s / 2
    stale = ExpositionReader(VLLM).read(page(1, 0))
    async with serving(health=reply()) as server, client_of(server) as client:
        server.replies["/v1/completions"] = reply(TOKEN)
        verdicts = Verdicts()
        engine = ProbedEngine(VLLM, "m", lambda: 0)
        prober = Prober(client, engine, verdicts.take, rules=rules, settings=PATIENT, clock=lambda: now)
        asked = 0
        while now < 3 * rules.hung_after_s:
            prober.on_sample(stale, "", now)
            verdict = await prober.probe()
            asked += verdict.wants_proof
            async with asyncio.timeout(10):
                while verdict.wants_proof:  # until the token that was requested has arrived
                    verdict = await prober.probe()
            now += step_s
    assert asked >= 3
    assert {verdict.condition for verdict, _ in verdicts.seen} == {"up"}


async def test_a_hung_engine_gets_one_request_for_a_token_at_a_time() -> None:
    async with serving(health=reply(), metrics=reply(page(0, 9))) as server:
        server.replies["/v1/completions"] = never
        async with probing(server, model="m", awaiting=lambda: 3) as verdicts:
            # A machine that stands still makes it silent first.
            verdict, _ = await verdicts.until(
                lambda v: "stalled: 3 sent and none started, no step for " in "".join(v.reasons[:1])
            )
            assert verdict.condition == "hung"
            await verdicts.until(lambda _: server.requested.count("/v1/completions") >= 2)
            # A probe, a scrape and one request for a token: never two such requests.
            assert server.open_most <= 3


async def test_a_front_end_whose_health_path_never_answers_is_hung() -> None:
    async with serving(health=reply(), metrics=reply(page(0, 0))) as server, probing(server) as verdicts:
        await verdicts.becomes("up")
        server.replies["/health"] = never
        verdict, _ = await verdicts.becomes("hung")
        assert "no answer" in verdict.reasons[0]
        server.replies["/health"] = reply()
        await verdicts.becomes("up")


async def test_a_metrics_page_that_never_answers_is_no_hang() -> None:
    async with (
        serving(health=reply(), metrics=never) as server,
        probing(server, rules=LivenessRules(), settings=PATIENT) as verdicts,
    ):
        await verdicts.until(lambda _: len(verdicts.seen) > 50)
        assert {verdict.condition for verdict, _ in verdicts.seen} == {"up"}


@pytest.mark.parametrize(("status", "condition"), [(200, "up"), (404, "up"), (401, "up"), (503, "starting")])
async def test_the_condition_follows_the_status_of_the_health_path(status: int, condition: str) -> None:
    async with serving(health=reply("x", status), metrics=reply(page(0, 0))) as server, probing(server) as verdicts:
        await verdicts.becomes(condition)


async def test_an_engine_without_metrics_is_probed_at_its_models() -> None:
    async with serving() as server:
        server.replies["/v1/models"] = reply("{}" * 100_000, length=False)
        async with probing(server, WITHOUT_METRICS, awaiting=lambda: 1) as verdicts:
            await verdicts.becomes("up")
            await verdicts.until(lambda _: len(verdicts.seen) > 40)
            # A busy machine may answer late, so waiting for a first token must not count as a stall.
            assert not [v for v, _ in verdicts.seen if any("stalled" in reason for reason in v.reasons)]
            assert set(server.requested) == {"/v1/models"}

"""Discovered engines: they come and go without a restart, and a lookup that fails changes nothing."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proxy.answers import answer

from spillway_router.config.discovery import DiscoveryError, discovered_names, engine_urls, with_engines
from spillway_router.config.load import ConfigError, parse
from spillway_router.runtime.discovery import Discovery
from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import Router, routing

WHOLE = answer("beta")
PRICED = "gpu: {price_per_hour: '1.39'}\n"


def pool(source: str, kind: str = "file") -> str:
    return (
        "backends:\n  - {name: pool, provider: vllm, local: true, model: m, "
        f"discover: {kind}, discover_from: '{source}', discover_every_s: 0.05}}\naliases: {{auto: {{chain: [pool]}}}}\n"
    )


def engines_of(router: Router) -> dict[str, str]:
    """The health of each backend."""
    runtime = router.runtime
    return {name: one.health for name, one in runtime.board.current(runtime.services.clock()).backends.items()}


def name_of(engine: FaultUpstream) -> str:
    return "pool." + engine.url.split("://")[1].split("/")[0].replace(":", "-")


async def test_engines_come_and_go_without_a_restart_and_answers_under_way_end(tmp_path: Path) -> None:
    file = tmp_path / "engines.txt"
    file.write_text("")
    async with (
        FaultUpstream(WHOLE) as first,
        FaultUpstream(WHOLE) as second,
        routing(pool(str(file)), tmp_path, wait=False) as router,
    ):
        assert (await router.chat()).status_code == 503  # nobody was found yet
        file.write_text(f"# the first one\n{first.url}\n")
        await router.until(lambda: engines_of(router) == {name_of(first): "up"})
        assert (await router.chat()).headers["x-spillway-backend"] == name_of(first)
        gate = asyncio.Event()
        first.answer = WHOLE.after(gate)
        under_way = asyncio.create_task(router.chat())
        await router.until(lambda: router.runtime.board.in_flight()[name_of(first)] == 1)
        file.write_text(f"{second.url}\n")
        await router.until(lambda: engines_of(router) == {name_of(second): "up"})
        assert (await router.chat()).headers["x-spillway-backend"] == name_of(second)
        gate.set()
        ended = await under_way
        assert (ended.status_code, ended.headers["x-spillway-backend"]) == (200, name_of(first))


async def test_a_reload_keeps_the_engines_that_were_found(tmp_path: Path) -> None:
    file = tmp_path / "engines.txt"
    async with FaultUpstream(WHOLE) as engine:
        file.write_text(engine.url)
        async with routing(pool(str(file)), tmp_path, wait=False) as router:
            await router.until(lambda: engines_of(router) == {name_of(engine): "up"})
            assert await router.runtime.reload("test") == []
            assert engines_of(router) == {name_of(engine): "up"}


async def test_an_engine_at_a_public_address_is_refused_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "engines.txt"
    async with FaultUpstream(WHOLE) as engine:
        file.write_text(engine.url)
        async with routing(pool(str(file)), tmp_path, wait=False) as router:
            await router.until(lambda: engines_of(router) == {name_of(engine): "up"})
            assert not await router.runtime.use_engines({"pool": (engine.url, "http://8.8.8.8:8000/v1")})
            assert engines_of(router) == {name_of(engine): "up"}


async def test_engines_that_are_found_during_a_reload_do_not_undo_it(tmp_path: Path) -> None:
    file = tmp_path / "engines.txt"
    async with FaultUpstream(WHOLE) as engine, FaultUpstream(WHOLE) as other:
        file.write_text(engine.url)
        async with routing(pool(str(file)) + PRICED, tmp_path, wait=False) as router:
            runtime = router.runtime
            await router.until(lambda: engines_of(router) == {name_of(engine): "up"})
            router.path.write_text(router.path.read_text() + "privacy: {default: local-only}\n")
            with closing(apsw.Connection(str(tmp_path / "ledger.db"))) as held:
                held.set_busy_timeout(10_000)  # the router may be writing
                held.execute("BEGIN IMMEDIATE")  # so that the reload waits for the ledger
                reloading = asyncio.create_task(runtime.reload("test"))
                await router.until(lambda: default_of(router) == "local-only")
                assert not reloading.done()
                finding = asyncio.create_task(runtime.use_engines({"pool": (engine.url, other.url)}))
                await router.until(lambda: name_of(other) in runtime.config.assembly.policy.backends)
                held.execute("ROLLBACK")
            assert await reloading == []
            assert await finding
            assert default_of(router) == "local-only"


def default_of(router: Router) -> str:
    """The privacy of requests that say nothing of it."""
    return router.runtime.config.loaded.settings.privacy.default


async def test_a_name_gives_an_engine_per_address() -> None:
    seen: list[dict[str, tuple[str, ...]]] = []

    async def use(engines: object) -> bool:
        seen.append(dict(engines))  # type: ignore[call-overload]
        return True

    settings = parse(pool("localhost:8000", "dns"), {})
    await Discovery(lambda: settings, use).look()
    assert "http://127.0.0.1:8000/v1" in seen[0]["pool"]


async def test_a_lookup_that_fails_changes_nothing_and_a_refused_result_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "engines.txt"
    settings = parse(pool(str(file)), {})
    calls: list[object] = []
    outcomes = [False, True, True]

    async def use(engines: object) -> bool:
        calls.append(engines)
        return outcomes.pop(0)

    discovery = Discovery(lambda: settings, use)
    file.write_text("10.0.0.1:8000")
    await discovery.look()  # refused
    await discovery.look()
    await discovery.look()  # the same as before: nobody is called
    assert calls == [{"pool": ("http://10.0.0.1:8000/v1",)}] * 2
    file.write_text("no engine at all")
    await discovery.look()
    file.unlink()
    await discovery.look()
    assert len(calls) == 2
    file.write_text("")
    await discovery.look()
    assert calls[2] == {"pool": ()}


def test_every_engine_is_a_backend_in_the_chains_of_the_line() -> None:
    written = parse(pool("engines.txt"), {})
    assert discovered_names(written) == ("pool",)
    settings = with_engines(written, {"pool": ("http://10.0.0.1:8000/v1", "http://[::1]:8000/v1")})
    assert [part.name for part in settings.backends] == ["pool.10.0.0.1-8000", "pool.1-8000"]
    assert settings.chains()["auto"] == ("pool.10.0.0.1-8000", "pool.1-8000")
    assert settings.gpu.machine == "discovered: pool"
    nobody = with_engines(written, {})
    assert [(part.name, part.base_url) for part in nobody.backends] == [("pool", "http://127.0.0.1:9/v1")]


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(1, 65_535)), max_size=20))
def test_a_list_of_engines_is_sorted_and_has_each_once(drawn: list[tuple[int, int]]) -> None:
    lines = [f" 10.0.0.{host}:{port}  # engine" for host, port in drawn]
    assert engine_urls(lines * 2) == tuple(sorted({f"http://10.0.0.{host}:{port}/v1" for host, port in drawn}))


@pytest.mark.parametrize("line", ["two words", "ftp://host/v1", "http://", "host:99999", "http://[::1"])
def test_what_is_no_engine_is_refused(line: str) -> None:
    with pytest.raises(DiscoveryError, match="is no engine"):
        engine_urls([line])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("discover: dns, discover_from: engines", "host:port"),
        ("discover: file", "path of the file"),
        ("discover: file, discover_from: f, base_url: 'http://x/v1'", "not both"),
    ],
)
def test_a_line_that_cannot_be_discovered_is_refused(change: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(f"backends: [{{name: pool, provider: vllm, model: m, {change}}}]\n", {})
    assert problem in "\n".join(map(str, refused.value.problems))


def test_two_engines_of_one_server_have_names_of_their_own() -> None:
    urls = ("http://10.0.0.1:8000/a/v1", "http://10.0.0.1:8000/b/v1")
    parts = with_engines(parse(pool("engines.txt"), {}), {"pool": urls}).backends
    assert [part.name for part in parts] == ["pool.10.0.0.1-8000-a", "pool.10.0.0.1-8000-b"]


def test_a_rule_names_an_alias_instead_of_a_discovered_backend() -> None:
    rule = "policy: {rules: [{name: r, when: {task: code}, chain: [pool]}]}\n"
    with pytest.raises(ConfigError) as refused:
        with_engines(parse(pool("engines.txt") + rule, {}), {})
    assert "may stand in the chains of aliases only" in str(refused.value.problems[0])

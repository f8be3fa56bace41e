"""Engines that Kubernetes, SkyPilot and Ray Serve know: found, followed, and kept while the API is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.proxy.answers import answer
from tests.runtime.cluster_servers import TOKEN, HttpStub, KubernetesApi, endpoint, endpoint_slice

from spillway_router.config.discovery import DiscoveryError
from spillway_router.config.found_engines import kubernetes_engines, ray_engines, sky_engines
from spillway_router.config.load import ConfigError, parse
from spillway_router.config.service_name import ServiceName
from spillway_router.runtime.discovery import Discovery
from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import Router, routing

SHAPES = Path(__file__).with_name("shapes")
RAY = json.loads((SHAPES / "ray_applications.json").read_text(encoding="utf-8"))
SKY = json.loads((SHAPES / "sky_request.json").read_text(encoding="utf-8"))
ENGINES = ServiceName("llm", "engines")


def line(kind: str, place: str, api: str, more: str = "") -> str:
    """A configuration with one discovered backend."""
    backend = f"{{name: pool, provider: vllm, local: true, model: m, discover: {kind}, discover_from: '{place}', "
    backend += f"discover_api: '{api}', discover_every_s: 0.05{more}}}"
    return f"backends:\n  - {backend}\naliases: {{auto: {{chain: [pool]}}}}\n"


class Seen:
    """Takes the engines that were found, and waits for what a test expects."""

    def __init__(self) -> None:
        self.engines: dict[str, tuple[str, ...]] = {}
        self.calls = 0

    async def use(self, engines: Any) -> bool:
        self.engines, self.calls = dict(engines), self.calls + 1
        return True

    async def until(self, *urls: str) -> None:
        async with asyncio.timeout(30):
            while self.engines.get("pool") != urls:
                await asyncio.sleep(0.01)


async def followed(text: str, work: Callable[[Seen], Awaitable[None]]) -> None:
    """Let the discovery of a configuration run while `work` does."""
    seen, settings = Seen(), parse(text, {})
    discovery = Discovery(lambda: settings, seen.use)
    discovery.start()
    try:
        await work(seen)
    finally:
        await discovery.stop()


def token_file(folder: Path, token: str = TOKEN) -> str:
    (folder / "token").write_text(token + "\n")
    return f", discover_token_file: '{folder / 'token'}'"


async def test_a_service_is_listed_once_and_followed_by_its_watch(tmp_path: Path) -> None:
    one, two = endpoint("10.0.0.1", "a", ready=True), endpoint("10.0.0.2", "b", ready=True)
    async with KubernetesApi(endpoint_slice("engines-1", one)) as api:

        async def work(seen: Seen) -> None:
            await seen.until("http://10.0.0.1:8000/v1")
            while not api.watches:
                await asyncio.sleep(0.01)
            api.put(endpoint_slice("engines-1", one, two))
            await seen.until("http://10.0.0.1:8000/v1", "http://10.0.0.2:8000/v1")
            terminating = endpoint("10.0.0.1", "a", ready=False, serving=True, terminating=True)
            api.put(endpoint_slice("engines-1", terminating, two))
            await seen.until("http://10.0.0.2:8000/v1")
            api.put(endpoint_slice("engines-2", endpoint("10.0.0.3", "c", ready=True)))
            api.delete("engines-1")
            await seen.until("http://10.0.0.3:8000/v1")
            lists = [path for _, path in api.asked if "watch" not in path]
            assert len(lists) == 1, "the watch said everything that changed"

        # Looks are rare here: what is seen in time came by the watch.
        text = line("kubernetes", "llm/engines", api.url, token_file(tmp_path)).replace("0.05", "3600")
        await followed(text, work)


@pytest.mark.parametrize("event", [None, {"type": "ERROR", "object": {"kind": "Status", "code": 410}}, {"type": "X"}])
async def test_after_a_watch_that_ends_everything_is_listed_again(tmp_path: Path, event: dict[str, Any] | None) -> None:
    async with KubernetesApi(endpoint_slice("engines-1", endpoint("10.0.0.1", "a"))) as api:

        async def work(seen: Seen) -> None:
            await seen.until("http://10.0.0.1:8000/v1")
            while not api.watches:
                await asyncio.sleep(0.01)
            api.slices = {"engines-1": endpoint_slice("engines-1", endpoint("10.0.0.9", "z"))}  # missed by the watch
            api.tell(event)
            await seen.until("http://10.0.0.9:8000/v1")

        text = line("kubernetes", "llm/engines", api.url, token_file(tmp_path)).replace("0.05", "3600")
        await followed(text, work)


async def test_engines_stay_while_the_api_refuses_and_a_renewed_token_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with KubernetesApi(endpoint_slice("engines-1", endpoint("10.0.0.1", "a"))) as api:

        async def work(seen: Seen) -> None:
            await seen.until("http://10.0.0.1:8000/v1")
            api.status = 403
            api.tell(None)
            while "get, list and watch on endpointslices" not in caplog.text:
                await asyncio.sleep(0.01)
            api.status, api.token = 200, "another-token"
            while "it does not take the token" not in caplog.text:
                await asyncio.sleep(0.01)
            assert seen.engines["pool"] == ("http://10.0.0.1:8000/v1",)
            token_file(tmp_path, "another-token")
            api.slices = {"engines-1": endpoint_slice("engines-1", endpoint("10.0.0.2", "b"))}
            await seen.until("http://10.0.0.2:8000/v1")

        await followed(line("kubernetes", "llm/engines", api.url, token_file(tmp_path)), work)
    assert TOKEN not in caplog.text


async def test_a_pod_serves_once_its_endpoint_is_listed_and_no_more_once_it_terminates(tmp_path: Path) -> None:
    async with FaultUpstream(answer("beta")) as engine, KubernetesApi() as api:
        host, port = engine.url.split("://")[1].split("/")[0].split(":")

        def slice_of(*, terminating: bool) -> dict[str, Any]:
            one = endpoint(host, "a", ready=not terminating, serving=True, terminating=terminating)
            return endpoint_slice("engines-1", one, ports=(("http", int(port)),))

        api.slices = {"engines-1": slice_of(terminating=False)}
        text = line("kubernetes", "llm/engines", api.url, token_file(tmp_path))
        async with routing(text, tmp_path, wait=False) as router:
            await router.until(lambda: healths(router) == ["up"])
            assert (await router.chat()).headers["x-spillway-backend"] == f"pool.{host}-{port}"
            api.put(slice_of(terminating=True))
            await router.until(lambda: "pool" in router.runtime.config.assembly.policy.backends)
            assert (await router.chat()).status_code == 503


def healths(router: Router) -> list[str]:
    runtime = router.runtime
    return [one.health for one in runtime.board.current(runtime.services.clock()).backends.values()]


def test_an_endpoint_without_conditions_is_ready_and_one_that_terminates_is_not() -> None:
    listed = endpoint_slice(
        "s",
        endpoint("10.0.0.1", "a"),
        endpoint("10.0.0.2", "b", ready=False, serving=True),
        endpoint("10.0.0.3", "c", ready=True, terminating=True),
        endpoint("10.0.0.4", "d", ready=True, serving=True, terminating=False),
    )
    assert kubernetes_engines([listed], ENGINES) == ("http://10.0.0.1:8000/v1", "http://10.0.0.4:8000/v1")


def test_a_pod_with_two_addresses_is_one_engine() -> None:
    four = endpoint_slice("four", endpoint("10.0.0.1", "a"))
    six = endpoint_slice("six", endpoint("fd00::1", "a"), endpoint("fd00::2", "b"), family="IPv6")
    assert kubernetes_engines([six, four], ENGINES) == ("http://10.0.0.1:8000/v1", "http://[fd00::2]:8000/v1")


def test_the_port_is_the_one_that_is_named() -> None:
    listed = endpoint_slice("s", endpoint("10.0.0.1", "a"), ports=(("metrics", 9100), ("http", 8000), ("https", 8443)))
    names = [ServiceName("llm", "engines", port) for port in ("", "metrics", "https", "8000")]
    urls = {name.port: kubernetes_engines([listed], name) for name in names}
    assert urls == {
        "": ("http://10.0.0.1:8000/v1",),
        "metrics": ("http://10.0.0.1:9100/v1",),
        "https": ("https://10.0.0.1:8443/v1",),
        "8000": ("http://10.0.0.1:8000/v1",),
    }
    unnamed = endpoint_slice("s", endpoint("10.0.0.1", "a"), ports=(("a", 1), ("b", 2)))
    with pytest.raises(DiscoveryError, match="has the ports a 1, b 2; name one: llm/engines:PORT"):
        kubernetes_engines([unnamed], ENGINES)


async def test_a_service_that_is_not_there_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with KubernetesApi() as api:
        settings = parse(line("kubernetes", "llm/engines", api.url, token_file(tmp_path)), {})
        discovery = Discovery(lambda: settings, Seen().use)
        await discovery.look()
        await discovery.stop()
    assert "there is no EndpointSlice of a Service engines in llm" in caplog.text


async def test_the_ready_replicas_of_a_sky_service_are_engines(tmp_path: Path) -> None:
    """The result is one that SkyPilot 0.14.1 encoded."""

    def status(method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if (method, path) == ("POST", "/serve/status"):
            assert json.loads(body) == {"service_names": ["spillway"]}
            return 200, None, {"X-Skypilot-Request-ID": SKY["request_id"]}
        assert (method, path) == ("GET", f"/api/get?request_id={SKY['request_id']}")
        return 200, SKY, {}

    async with HttpStub(status, "sky_token") as api:

        async def work(seen: Seen) -> None:
            await seen.until("http://10.0.0.7:8080/v1", "https://abc-8080.proxy.runpod.net/v1")

        await followed(line("sky", "spillway", api.url, token_file(tmp_path, "sky_token")), work)


def test_what_sky_does_not_know_is_no_empty_list() -> None:
    services = json.loads(SKY["return_value"])
    with pytest.raises(DiscoveryError, match="has no service other"):
        sky_engines(services, "other")
    with pytest.raises(DiscoveryError, match="can't be read"):
        sky_engines([{"name": "spillway"}], "spillway")


def test_the_answer_of_ray_is_one_that_its_schema_allows() -> None:
    root = Path(__file__).resolve().parents[2]
    schema = json.loads((root / "deploy/ray/schema.json").read_text(encoding="utf-8"))["ServeInstanceDetails"]
    assert [error.message for error in Draft202012Validator(schema).iter_errors(RAY)] == []


def test_the_replicas_of_a_ray_application_are_engines() -> None:
    """Recorded from Ray 2.60.0 with two nodes, whose replicas listen themselves (direct ingress)."""
    assert ray_engines(RAY, "engines") == ("http://127.0.0.2:30001/engines/v1", "http://192.0.2.2:30000/engines/v1")
    with pytest.raises(DiscoveryError, match="has no application other; it has: engines"):
        ray_engines(RAY, "other")
    with pytest.raises(DiscoveryError, match="can't be read"):
        ray_engines([], "engines")


def test_proxies_are_engines_only_where_they_lead_to_replicas() -> None:
    (group,) = RAY["target_groups"]
    proxy = {"ip": "192.0.2.2", "port": 8000, "instance_id": "", "name": "SERVE_PROXY_ACTOR-d42392db"}
    without_replicas = {**RAY, "target_groups": [{**group, "targets": [proxy]}]}
    assert ray_engines(without_replicas, "engines") == ()
    of_all = {**RAY, "target_groups": [{**group, "app_name": "", "route_prefix": "/", "targets": [proxy]}]}
    assert ray_engines(of_all, "engines") == ("http://192.0.2.2:8000/engines/v1",)


async def test_a_replica_that_runs_an_engine_is_replaced_by_it() -> None:
    """As `spillway serve --on ray` makes them; another replica answers by itself, and one that is not up yet waits."""
    engine: dict[str, str] = {}

    def replica(_method: str, path: str, _body: bytes) -> tuple[int, Any, dict[str, str]]:
        assert path == "/engines/spillway/engine"
        return (200, {"url": engine["url"]}, {}) if engine else (404, {"detail": "Not Found"}, {})

    async with HttpStub(replica) as one:
        port = int(one.url.rsplit(":", 1)[1])
        (group,) = RAY["target_groups"]
        targets = [
            {"ip": "127.0.0.1", "port": number, "instance_id": "", "name": f"SERVE_REPLICA::{number}"}
            for number in (port, 9)
        ]
        details = {**RAY, "target_groups": [{**group, "targets": targets}]}
        async with HttpStub(lambda *_: (200, details, {})) as api:
            text = line("ray", "engines", api.url)
            await followed(text, lambda seen: seen.until(f"http://127.0.0.1:{port}/engines/v1"))
            engine["url"] = "http://10.0.0.5:4000/v1"
            await followed(text, lambda seen: seen.until("http://10.0.0.5:4000/v1"))


async def test_a_list_that_takes_long_delays_no_other_one(tmp_path: Path) -> None:
    slow = asyncio.Event()

    class Slow:
        async def engines(self) -> tuple[str, ...]:
            await slow.wait()
            return ("http://10.0.0.2:8000/v1",)

        async def close(self) -> None: ...

    class Fast:
        async def engines(self) -> tuple[str, ...]:
            return ("http://10.0.0.1:8000/v1",)

        async def close(self) -> None: ...

    text = "backends:\n" + "".join(
        f"  - {{name: {name}, provider: vllm, local: true, model: m, discover: file, discover_from: f}}\n"
        for name in ("slow", "fast")
    )
    seen, settings = Seen(), parse(text, {})
    discovery = Discovery(lambda: settings, seen.use, lambda part, _: Slow() if part.name == "slow" else Fast(), 0.01)
    await discovery.look()
    assert seen.engines == {"fast": ("http://10.0.0.1:8000/v1",)}
    slow.set()
    while len(seen.engines) < 2:
        await discovery.look()
    await discovery.stop()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("discover: kubernetes, discover_from: engines", "namespace/service"),
        ("discover: kubernetes, discover_from: LLM/engines", "namespace/service"),
        ("discover: sky", "the name of the SkyPilot service"),
        ("discover: ray", "the name of the Ray Serve application"),
        ("discover: file, discover_from: f, discover_api: 'http://x'", "asks no API"),
        ("discover: ray, discover_from: f, discover_api: 'x:8265'", "discover_api"),
        ("discover: ray, discover_from: f, discover_api: 'http://user:pass@x:8265'", "discover_api"),
    ],
)
def test_a_line_that_no_api_can_answer_is_refused(change: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(f"backends: [{{name: pool, provider: vllm, model: m, {change}}}]\n", {})
    assert problem in "\n".join(map(str, refused.value.problems))

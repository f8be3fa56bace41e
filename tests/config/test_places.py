"""A backend is not local because the file says so."""

from __future__ import annotations

import threading
from datetime import date
from pathlib import Path

import pytest

from spillway_router.config.assemble import Assembly, assemble, local_hosts
from spillway_router.config.load import ConfigError, ConfigRejected, parse
from spillway_router.config.places import named_places
from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import LIMIT_S, local, routing, settings

PRICE = 'price: {input_per_million: "1", output_per_million: "2"}'


def problems(line: str) -> str:
    outcome = assemble(parse(f"backends: [{{name: a, model: m, {line}}}]\n", {"OPENAI_API_KEY": "k"}), {}, date.today())
    return " ".join(str(problem) for problem in outcome.problems) if isinstance(outcome, ConfigRejected) else ""


def warnings(line: str) -> str:
    outcome = assemble(parse(f"backends: [{{name: a, model: m, {line}}}]\n", {}), {}, date.today())
    assert not isinstance(outcome, ConfigRejected), outcome.problems
    return " ".join(str(problem) for problem in outcome.warnings)


@pytest.mark.parametrize(
    "line",
    [
        "provider: openai, local: true, api_key: k",
        "provider: openai, local: true, api_key: k, base_url: 'https://api.openai.com/v1'",
        "provider: generic, local: true, base_url: 'https://api.openai.com/v1'",
        "provider: generic, local: true, base_url: 'https://API.OpenAI.com./v1'",
        "provider: vllm, base_url: 'https://api.groq.com/openai/v1'",
        "provider: vllm, local: true, base_url: 'https://eu.api.together.xyz/v1'",
        "provider: generic, local: true, base_url: 'http://8.8.8.8:8000/v1'",
        "provider: vllm, base_url: 'http://8.8.8.8:8000/v1'",
        "provider: ollama, base_url: 'http://134744072:11434/v1'",
        "provider: vllm, base_url: 'http://[2606:4700::1111]:8000/v1'",
        "provider: openai, local: true, own_host: mine, api_key: k",
    ],
)
def test_a_cloud_or_a_public_address_is_not_local(line: str) -> None:
    assert "is local, but" in problems(line)


@pytest.mark.parametrize(
    "line",
    [
        "provider: vllm, base_url: 'http://127.0.0.1:8001/v1'",
        "provider: vllm, base_url: 'http://10.0.0.5:8001/v1'",
        "provider: vllm, base_url: 'http://100.64.0.9:8001/v1'",
        "provider: vllm, base_url: 'http://[fd00::5]:8001/v1'",
        "provider: vllm, base_url: 'http://vllm-0.vllm:8000/v1'",
        "provider: vllm, base_url: 'http://vllm:8000/v1'",
        "provider: vllm, base_url: 'unix:///run/engine.sock'",
        "provider: generic, local: true, base_url: 'https://gpu.example.com/v1'",
        "provider: vllm, own_host: 'our rented box behind TLS', base_url: 'https://8.8.8.8/v1'",
        "provider: openai, local: true, api_key: k, base_url: 'http://127.0.0.1:9/v1'",
    ],
)
def test_an_own_address_is_local(line: str) -> None:
    assert problems(line) == ""


def test_a_key_in_clear_is_warned_of() -> None:
    public = f"provider: generic, api_key: k, {PRICE}, base_url: "
    assert "without TLS" in warnings(public + "'http://llm.example.com/v1'")
    assert "without TLS" in warnings(public + "'http://8.8.8.8/v1'")
    assert "without TLS" not in warnings(public + "'https://llm.example.com/v1'")
    assert "without TLS" not in warnings(public + "'http://10.0.0.5/v1'")
    assert "without TLS" not in warnings(public + "'http://127.0.0.1:9/v1'")


NAMES = {
    "inside.test": ("10.0.0.5",),
    "public.test": ("8.8.8.8", "2606:4700::1111"),
    "mapped.test": ("::ffff:8.8.8.8",),
    "both.test": ("10.0.0.5", "8.8.8.8"),
    "tailnet.test": ("100.64.0.9", "fd7a:115c:a1e0::1"),
}


def lookup(host: str) -> tuple[str, ...]:
    """Resolve NAMES only."""
    if host not in NAMES:
        raise OSError(f"{host} is not known")
    return NAMES[host]


def hosts(line: str) -> dict[str, str]:
    outcome = assemble(parse(f"backends: [{{name: a, model: m, {line}}}]\n", {}), {}, date.today())
    assert isinstance(outcome, Assembly)
    return local_hosts(outcome.targets)


@pytest.mark.parametrize("name", ["public.test", "mapped.test"])
def test_a_name_that_leads_to_a_public_address_is_not_local(name: str) -> None:
    places = named_places(hosts(f"provider: vllm, base_url: 'http://{name}:8000/v1'"), lookup)
    assert [problem.where for problem in places.problems] == ["backends.a"]
    assert "is local, but" in places.problems[0].problem
    assert "own_host" in places.problems[0].problem


@pytest.mark.parametrize(
    "line",
    [
        "provider: vllm, base_url: 'http://inside.test:8000/v1'",
        "provider: vllm, base_url: 'http://tailnet.test:8000/v1'",
        "provider: vllm, own_host: ours, base_url: 'https://public.test/v1'",
        "provider: vllm, base_url: 'http://127.0.0.1:8000/v1'",
        f"provider: generic, api_key: k, base_url: 'https://public.test/v1', {PRICE}",
    ],
)
def test_a_name_that_stays_inside_is_local_and_others_are_not_asked_for(line: str) -> None:
    places = named_places(hosts(line), lookup)
    assert places.problems == places.warnings == places.unresolved == ()


def test_a_name_that_does_not_resolve_is_warned_of() -> None:
    places = named_places({"a": "absent.test", "b": "both.test"}, lookup)
    assert places.problems == ()
    assert [warning.where for warning in places.unresolved] == ["backends.a"]
    assert [warning.where for warning in places.warnings] == ["backends.b"]


def test_a_lookup_that_hangs_ends_nothing_but_its_own_answer() -> None:
    released = threading.Event()

    def hanging(host: str) -> tuple[str, ...]:
        if host == "hangs.test":
            released.wait(LIMIT_S)
        return lookup(host)

    try:
        places = named_places({"a": "hangs.test", "b": "public.test"}, hanging, within_s=1.0)
        assert [warning.where for warning in places.unresolved] == ["backends.a"]
        assert [problem.where for problem in places.problems] == ["backends.b"]
    finally:
        released.set()


async def test_the_start_a_reload_and_engines_that_were_found_are_refused(tmp_path: Path) -> None:
    async with FaultUpstream() as engine, routing(settings(local(engine)), tmp_path) as router:
        runtime = router.runtime
        runtime.lookup = lookup
        await runtime.judge_places()
        text = router.path.read_text()
        router.path.write_text(text.replace(engine.url, "http://public.test:8000/v1"))
        (problem,) = await runtime.reload("test")
        assert "is local, but public.test leads to 8.8.8.8" in problem
        assert runtime.config.assembly.targets["local"].base_url == engine.url
        router.path.write_text(text.replace(engine.url, "http://inside.test:8000/v1"))
        assert await runtime.reload("test") == []
        later = {**NAMES, "inside.test": NAMES["public.test"]}
        runtime.lookup = later.__getitem__
        with pytest.raises(ConfigError, match=r"is local, but inside\.test leads to"):
            await runtime.judge_places()


async def test_engines_that_were_found_at_a_public_name_are_not_used(tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    engines.write_text("")
    line = f"{{name: found, provider: vllm, model: m, discover: file, discover_from: '{engines}'}}"
    async with routing(settings(line), tmp_path, wait=False) as router:
        router.runtime.lookup = lookup
        assert not await router.runtime.use_engines({"found": ("http://public.test:8000/v1",)})
        assert await router.runtime.use_engines({"found": ("http://inside.test:8000/v1",)})

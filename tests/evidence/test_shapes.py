"""The answers of providers in their shapes: the router changes nothing in them, and the comparison sees what does."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from evidence.streams.judging import JUDGES, Verdict
from evidence.streams.objects import (
    DIFFER,
    MISSING,
    Comparison,
    Documented,
    measurement,
    paths,
    router_settings,
    rules,
    unlike,
)
from evidence.streams.protocols import PATHS
from evidence.streams.shapes import Exchange, answering, load_exchanges

from spillway_router.testing.harness import Router, routing

EXCHANGES = load_exchanges()
PROVIDERS = {"openai", "vllm", "groq", "together", "anthropic", "deepseek", "xai", "mistral", "llamacpp", "ollama"}


def test_every_provider_has_its_shapes_and_every_model_is_another() -> None:
    assert {exchange.provider for exchange in EXCHANGES} == PROVIDERS
    assert len({exchange.model for exchange in EXCHANGES}) == len(EXCHANGES)


def test_there_are_enough_comparisons_for_the_promise() -> None:
    """Each answer is read by at least four libraries, streamed, and whole where it can be."""
    streamed = [judge for exchange in EXCHANGES for judge in JUDGES if judge.protocol == exchange.endpoint]
    assert len(streamed) >= 350


async def answers(client: httpx.AsyncClient, exchange: Exchange, stream: bool) -> list[list[Any]]:
    """Return the JSON of an answer, or name and JSON of each of its events; `[DONE]` stays text."""
    sent = {"model": exchange.model, "stream": stream, **exchange.request}
    reply = await client.post(PATHS[exchange.endpoint], json=sent)
    assert reply.status_code == 200, reply.text
    if not stream:
        return [["", reply.json()]]
    parts = []
    for block in reply.text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n"))
        data = fields["data"]
        parts.append([fields.get("event", ""), data if data == "[DONE]" else json.loads(data)])
    return parts


async def check(router: Router, upstream: httpx.AsyncClient, exchange: Exchange, stream: bool) -> None:
    direct = await answers(upstream, exchange, stream)
    routed = await answers(router.client, exchange, stream)
    documented = Documented(rules())
    differences = unlike(paths(Verdict("", "", None, direct)), paths(Verdict("", "", None, routed)))
    left = {path: sides for path, sides in differences.items() if not documented.states(path, sides)}
    assert left == {}, (exchange.model, stream)


async def test_the_router_changes_nothing_in_any_shape() -> None:
    async with (
        answering(EXCHANGES) as root,
        httpx.AsyncClient(base_url=root) as upstream,
        routing(router_settings(EXCHANGES, root)) as router,
    ):
        for exchange in EXCHANGES:
            if exchange.refused:
                continue
            await check(router, upstream, exchange, stream=True)
            if exchange.whole is not None:
                await check(router, upstream, exchange, stream=False)


async def test_what_the_router_refuses_on_purpose_is_refused() -> None:
    async with answering(EXCHANGES) as root, routing(router_settings(EXCHANGES, root)) as router:
        for exchange in EXCHANGES:
            if exchange.refused:
                reply = await router.post({"model": exchange.model, **exchange.request}, PATHS[exchange.endpoint])
                assert reply.status_code == 400


@pytest.mark.parametrize(
    ("path", "sides", "documented"),
    [
        ("built.3.usage", (MISSING, None), True),
        ("built.3.usage", (MISSING, {}), False),
        ("built.3.usage.cost", (MISSING, 0.1), True),
        ("built.3.usage.cost", (0.2, 0.1), False),
        ("built.3.usage.prompt_tokens", (MISSING, 3), False),
        ("built.response.headers.x-spillway-backend", (MISSING, "a"), True),
        ("built.3.choices.0.delta.content", ("a", "b"), False),
    ],
)
def test_only_what_is_documented_is_no_difference(path: str, sides: tuple[Any, Any], documented: bool) -> None:
    assert Documented(rules()).states(path, sides) is documented


def test_a_changed_object_is_counted_and_an_unreadable_one_is_no_sample() -> None:
    same = Comparison("same", {}, {"built.usage.cost": (MISSING, 1)})
    changed = Comparison("changed", {"built.0.id": ("a", MISSING)}, {})
    unreadable = Comparison("unreadable", {}, {}, "TypeError")
    result = measurement([same, changed, unreadable], {})
    assert (result.value, result.n) == (1, 2)
    assert result.details["different"] == {"changed": {"built.0.id": ["'a'", "missing"]}}
    assert DIFFER.startswith("wire.")

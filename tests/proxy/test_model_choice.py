"""The openai SDK chooses models as clients of OpenRouter do: `models` and `provider` in extra_body, suffixes, wildcard
models. Privacy, budgets and keys bind all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import MESSAGES, Router, cloud, local, routing, settings

DEAR = '{input_per_million: "10", output_per_million: "20"}'
BIG, SMALL = "openrouter/openai/gpt-oss-120b", "openrouter/openai/gpt-oss-20b"


def answer() -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": "So."}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return Answer.json({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})


@dataclass(frozen=True)
class World:
    """A local engine, a cheap and a dear cloud, and OpenRouter with all its models, behind one router."""

    router: Router
    engine: FaultUpstream
    cheap: FaultUpstream
    dear: FaultUpstream
    many: FaultUpstream

    async def asked(self, model: str = "auto", key: str = "none", hints: Any = None, **extra: Any) -> tuple[str, ...]:
        """Return backend, model and decision of an answer that the SDK got, or the status and the code of its error."""
        async with openai.AsyncOpenAI(base_url=f"{self.router.url}/v1", api_key=key, max_retries=0) as client:
            messages: Any = MESSAGES
            try:
                reply = await client.chat.completions.with_raw_response.create(
                    model=model, messages=messages, max_tokens=50, extra_body=extra, extra_headers=hints or {}
                )
            except openai.APIStatusError as error:
                return str(error.status_code), str(error.code)
        assert reply.parse().choices[0].message.content == "So."
        return tuple(reply.headers[f"x-spillway-{name}"] for name in ("backend", "model", "decision"))

    async def explained(self, **body: Any) -> Any:
        reply = await self.router.post({"messages": MESSAGES, **body}, "/v1/route/explain")
        assert reply.status_code == 200, reply.text
        return reply.json()


@asynccontextmanager
async def world(tmp_path: Path, more: str = "") -> AsyncIterator[World]:
    async with (
        FaultUpstream(answer()) as engine,
        FaultUpstream(answer()) as cheap,
        FaultUpstream(answer()) as dear,
        FaultUpstream(answer()) as many,
    ):
        text = settings(
            local(engine),
            cloud(cheap, "cheap"),
            cloud(dear, "dear", DEAR),
            f'{{name: openrouter, provider: openrouter, model: "*", api_key: k, base_url: "{many.url}"}}',
            more="aliases: {auto: {chain: [local, cheap, dear]}, clouds: {chain: [dear, cheap]}}\n" + more,
        )
        async with routing(text, tmp_path) as router:
            yield World(router=router, engine=engine, cheap=cheap, dear=dear, many=many)


async def test_a_fallback_list_in_the_body(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        assert await it.asked("dear", models=["dear", "cheap"]) == ("dear", "dear-m", "routed")
        it.dear.answer = Answer.json({"error": {"message": "boom"}}, 500)
        assert await it.asked("dear", models=["dear", "cheap"]) == ("cheap", "cheap-m", "fallback")
        assert await it.asked("gpt-9", models=["cheap"]) == ("cheap", "cheap-m", "pinned")
        assert await it.asked("gpt-9", models=["gpt-8"]) == ("404", "model_not_found")
        assert [one.json["model"] for one in it.cheap.seen] == ["cheap-m"] * 2
        assert "models" not in it.cheap.seen[0].json


async def test_a_list_without_a_model_begins_with_its_first_name(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        reply = await it.router.post({"messages": MESSAGES, "models": ["cheap", "dear"]}, "/v1/chat/completions")
        assert reply.headers["x-spillway-backend"] == "cheap"


@pytest.mark.parametrize("model", ["clouds:cheapest", "clouds:floor"])
async def test_suffixes(tmp_path: Path, model: str) -> None:
    async with world(tmp_path) as it:
        assert await it.asked("clouds") == ("dear", "dear-m", "routed")
        assert await it.asked(model) == ("cheap", "cheap-m", "routed")
        assert await it.asked("gpt-9", models=[model]) == ("cheap", "cheap-m", "routed")


async def test_provider_preferences(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        dear, cheap = ("dear", "dear-m", "routed"), ("cheap", "cheap-m", "routed")
        assert await it.asked(provider={"order": ["dear"]}) == dear
        assert await it.asked(provider={"only": ["cheap"]}) == cheap
        assert await it.asked("clouds", provider={"ignore": ["dear"]}) == cheap
        assert await it.asked("clouds", provider={"sort": "price"}) == cheap
        assert await it.asked("clouds", provider={"sort": {"by": "price", "partition": "none"}}) == cheap
        assert await it.asked("clouds", provider={"max_price": {"prompt": 2, "completion": 3}}) == cheap
        assert await it.asked("clouds", provider={"max_price": {"prompt": 0.1}}) == ("400", "invalid_request")
        assert await it.asked("clouds", provider={"zdr": True}) == ("400", "invalid_request")
        assert await it.asked(provider={"zdr": True}) == ("local", "m", "local")
        assert await it.asked("clouds", provider={"quantizations": ["fp8"]}) == ("400", "invalid_request")
        assert await it.asked("clouds", provider={"data_collection": "deny"}) == dear
        it.dear.answer = Answer.json({"error": {"message": "boom"}}, 500)
        assert await it.asked(provider={"order": ["dear"], "allow_fallbacks": False}) == ("502", "upstream_error")
        both = {"order": ["dear", "cheap"], "allow_fallbacks": False}
        assert await it.asked(provider=both) == ("cheap", "cheap-m", "fallback")


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        ({"ignor": ["dear"]}, "'provider.ignor' is not known"),
        ({"zdr": "yes"}, "'provider.zdr' must be true or false"),
        ({"sort": {"by": "price", "partition": "all"}}, "must be model or none"),
        ({"max_price": {"request": -1}}, "provider.max_price.request"),
    ],
)
async def test_a_mistake_in_provider_is_told(tmp_path: Path, provider: Any, says: str) -> None:
    """A restriction that is misspelt must not be lost."""
    async with world(tmp_path) as it:
        reply = await it.router.chat({"provider": provider})
        assert reply.status_code == 400
        assert says in reply.json()["error"]["message"]
        assert not it.engine.seen


async def test_a_backend_whose_provider_promised_zero_retention_keeps_the_request(tmp_path: Path) -> None:
    async with FaultUpstream(answer()) as far:
        line = cloud(far).removesuffix("}") + ", zero_data_retention: true}"
        async with routing(settings(line), tmp_path) as router:
            reply = await router.chat({"provider": {"zdr": True}})
            assert reply.headers["x-spillway-backend"] == "cloud"
            assert "provider" not in far.seen[0].json


async def test_models_of_a_wildcard_and_the_providers_behind_it(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        assert await it.asked(BIG) == ("openrouter", "openai/gpt-oss-120b", "pinned")
        behind = {"order": ["cerebras", "groq"], "only": ["groq", "cerebras"], "allow_fallbacks": False}
        assert await it.asked(BIG, provider=behind) == ("openrouter", "openai/gpt-oss-120b", "pinned")
        sent = it.many.seen[-1].json
        assert {name: sent["provider"][name] for name in behind} == behind
        assert set(sent["provider"]["max_price"]) == {"prompt", "completion", "request"}
        assert await it.asked(f"{BIG}:nitro") == ("openrouter", "openai/gpt-oss-120b", "pinned")
        assert it.many.seen[-1].json["provider"]["sort"] == "throughput"
        assert await it.asked(f"{BIG}:floor", provider={"sort": "latency"})
        assert it.many.seen[-1].json["provider"]["sort"] == "latency"
        it.many.script.append(Answer.json({"error": {"message": "slow down"}}, 429))
        assert (await it.asked(BIG, models=[BIG, "cheap"]))[0] == "cheap"
        assert "models" not in it.many.seen[-1].json


async def test_our_own_names_are_not_sent_to_a_provider_that_has_others(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        wanted = {"only": ["openrouter", "dear"], "order": ["openrouter", "azure"]}
        assert (await it.asked("dear", models=[SMALL], provider=wanted))[0] == "openrouter"
        sent = it.many.seen[-1].json["provider"]
        assert "only" not in sent
        assert sent["order"] == ["azure"]


async def test_privacy_binds_every_choice(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        hints = {"x-spillway-privacy": "local-only"}
        assert (await it.asked("dear", hints=hints, models=[BIG, "cheap", "local"]))[0] == "local"
        assert await it.asked(BIG, hints=hints, models=[SMALL, "dear"]) == ("503", "local_only_unavailable")
        assert await it.asked(hints=hints, provider={"only": ["dear"]}) == ("503", "local_only_unavailable")
        assert await it.asked("clouds:floor", hints=hints) == ("local", "m", "local")
        for upstream in (it.dear, it.cheap, it.many):
            assert not upstream.seen


async def test_budgets_bind_every_choice(tmp_path: Path) -> None:
    more = 'budgets: [{scope: "backend:dear", period: day, limit_usd: "0"}]\n'
    async with world(tmp_path, more) as it:
        assert await it.asked("dear", models=["cheap"]) == ("cheap", "cheap-m", "routed")
        assert await it.asked("clouds", provider={"only": ["dear"]}) == ("402", "budget_exceeded")
        assert not it.dear.seen


async def test_the_rules_of_a_key_bind_every_choice(tmp_path: Path) -> None:
    async with world(tmp_path, "keys: {required: true}\n") as it:
        store = KeyStore(it.router.ledger.keys)

        def key(number: int, **rules: Any) -> str:
            return store.create(KeySpec(f"key {number}", **rules), bytes([number] * 6), bytes([number] * 32), 0).token

        narrow = key(1, backends=("local", "cheap"), may_route=True)
        named, bound = key(2, models=("auto",), may_route=True), key(3, may_route=False)
        assert (await it.asked("dear", narrow, models=["cheap"]))[0] == "cheap"
        assert await it.asked("dear", narrow) == ("403", "permission_denied")
        assert await it.asked(BIG, narrow) == ("403", "permission_denied")
        assert await it.asked("auto", named, models=["dear"]) == ("403", "permission_denied")
        assert (await it.asked("auto", named, provider={"order": ["dear"]}))[0] == "dear"
        assert await it.asked("auto", bound, provider={"order": ["dear"]}) == ("403", "permission_denied")
        assert await it.asked("auto", bound, provider={"quantizations": ["fp8"]}) == ("403", "permission_denied")
        assert (await it.asked("auto:nitro", bound))[0] == "local"


async def test_explain_shows_what_was_understood(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        explanation = await it.explained(
            model="gpt-9", models=["clouds:floor"], provider={"ignore": ["openai"], "max_price": {"prompt": 3}}
        )
        assert explanation["facts"]["preferences"] == {
            "models": ["clouds:floor"],
            "ignore": ["openai"],
            "max_input_per_million": 3.0,
        }
        assert [one["backend"] for one in explanation["candidates"]] == ["cheap"]
        assert {one["backend"]: one["reason"] for one in explanation["removed"]} == {
            "dear": "preference",
            "gpt-9": "model",
        }
        assert "preferences" not in (await it.explained())["facts"]

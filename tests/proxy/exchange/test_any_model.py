"""One model of a provider with many, asked for by its name: its own price, the provider's health and budget."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from spillway_router.ledger.entries import Entry
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import MESSAGES, Router, local, routing, settings


def answer(model: str = "m") -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": "So."}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    return Answer.json({"id": "c", "model": model, "choices": [choice], "usage": usage})


def many(upstream: FaultUpstream, name: str = "groq", provider: str = "groq") -> str:
    return f'{{name: {name}, provider: {provider}, model: "*", api_key: k, base_url: "{upstream.url}"}}'


async def asked(router: Router, model: str, **more: Any) -> Any:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 100, **more}
    return await router.post(body, "/v1/chat/completions")


def charge_of(router: Router, request_id: str) -> Entry:
    (charged,) = [e for e in router.ledger.entries_of(request_id) if e.kind == "charged"]
    return charged


async def test_each_model_is_charged_at_its_own_price(tmp_path: Path) -> None:
    async with FaultUpstream(answer()) as far, routing(settings(many(far)), tmp_path) as router:
        for model, per_million in (("openai/gpt-oss-20b", ("0.075", "0.3")), ("openai/gpt-oss-120b", ("0.15", "0.6"))):
            reply = await asked(router, f"groq/{model}")
            assert reply.status_code == 200, reply.text
            assert far.seen[-1].json["model"] == model
            headers = reply.headers
            assert (headers["x-spillway-backend"], headers["x-spillway-model"]) == ("groq", model)
            assert headers["x-spillway-decision"] == "pinned"
            charged = charge_of(router, headers["x-request-id"])
            price = 1000 * Decimal(per_million[0]) + 100 * Decimal(per_million[1])
            assert (charged.backend, charged.model, charged.amount_nano) == ("groq", model, int(price * 1000))


async def test_a_model_without_a_price_is_barred_and_nothing_is_sent(tmp_path: Path) -> None:
    async with FaultUpstream(answer()) as far, routing(settings(many(far)), tmp_path) as router:
        for model, says in (
            ("groq/no/such", "no known price for 'no/such'"),
            ("groq", "name one, as groq/MODEL"),
            ("groq/llama-guard-3-8b", "withdrew the model"),
        ):
            reply = await asked(router, model)
            assert reply.status_code == 404
            error = reply.json()["error"]
            assert (error["code"], error["param"]) == ("model_not_found", "model")
            assert says in error["message"]
        assert not far.seen


async def test_the_budget_of_the_backend_covers_all_of_its_models(tmp_path: Path) -> None:
    budgets = "budgets: [{scope: 'backend:groq', period: day, limit_usd: '0.00026'}]\n"
    async with FaultUpstream(answer()) as far, routing(settings(many(far), more=budgets), tmp_path) as router:
        assert (await asked(router, "groq/openai/gpt-oss-120b")).status_code == 200
        refused = await asked(router, "groq/openai/gpt-oss-120b")
        assert refused.status_code == 402
        assert (await asked(router, "groq/openai/gpt-oss-20b")).status_code == 200  # what is left is enough for it


async def test_what_a_model_cannot_do_is_refused_by_its_row(tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    seeing = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture]}]
    async with FaultUpstream(answer()) as far, routing(settings(many(far)), tmp_path) as router:
        blind = await asked(router, "groq/openai/gpt-oss-20b", messages=seeing)
        assert blind.status_code == 400
        assert "does not support vision" in blind.json()["error"]["message"]
        assert (await asked(router, "groq/qwen/qwen3.8-27b", messages=seeing)).status_code == 200


async def test_a_model_that_the_provider_lacks_takes_no_other_away(tmp_path: Path) -> None:
    gone = Answer.json({"error": {"message": "no such model", "code": "model_not_found"}}, 404)
    async with FaultUpstream(answer()) as far, routing(settings(many(far)), tmp_path) as router:
        far.script.append(gone)
        assert (await asked(router, "groq/openai/gpt-oss-20b")).status_code >= 400
        assert (await asked(router, "groq/openai/gpt-oss-120b")).status_code == 200


async def test_a_chain_may_name_one_model_of_many(tmp_path: Path) -> None:
    chain = "aliases: {auto: {chain: [groq/openai/gpt-oss-20b, local]}}\n"
    async with (
        FaultUpstream(answer()) as far,
        FaultUpstream(answer()) as near,
        routing(settings(many(far), local(near), more=chain), tmp_path) as router,
    ):
        reply = await asked(router, "auto")
        assert reply.headers["x-spillway-backend"] == "groq"
        assert far.seen[-1].json["model"] == "openai/gpt-oss-20b"
        explained = (
            await router.post({"model": "groq/openai/gpt-oss-120b", "messages": MESSAGES}, "/v1/route/explain")
        ).json()
        (candidate,) = explained["candidates"]
        assert (candidate["backend"], candidate["model"]) == ("groq", "openai/gpt-oss-120b")
        record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
        assert record["attempts"][0]["model"] == "openai/gpt-oss-20b"


async def test_our_own_suffix_and_the_providers_are_told_apart(tmp_path: Path) -> None:
    async with (
        FaultUpstream(answer()) as far,
        routing(settings(many(far), many(far, "huggingface", "huggingface")), tmp_path) as router,
    ):
        reply = await asked(router, "groq/openai/gpt-oss-20b:fastest")
        assert (reply.status_code, far.seen[-1].json["model"]) == (200, "openai/gpt-oss-20b")
        reply = await asked(router, "huggingface/openai/gpt-oss-20b:fastest")
        assert (reply.status_code, far.seen[-1].json["model"]) == (200, "openai/gpt-oss-20b:fastest")
        charged = charge_of(router, reply.headers["x-request-id"])
        assert charged.amount_nano == 1000 * 100 + 100 * 500  # the dearest host: 0.1 and 0.5 USD per million


async def test_the_list_of_models_names_those_that_can_be_asked_for(tmp_path: Path) -> None:
    async with FaultUpstream(answer()) as far, routing(settings(many(far)), tmp_path) as router:
        names = [model["id"] for model in (await router.client.get("/v1/models")).json()["data"]]
        assert "groq/openai/gpt-oss-20b" in names
        assert not {"groq", "groq/*", "groq/llama-guard-3-8b"} & set(names)
        assert len(names) == len(set(names))
        one = await router.client.get("/v1/models/groq/openai/gpt-oss-20b")
        assert (one.status_code, one.json()["id"]) == (200, "groq/openai/gpt-oss-20b")

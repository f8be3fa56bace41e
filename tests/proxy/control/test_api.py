"""The control API: models, records, dry runs, reload, roles."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from pathlib import Path

from tests.proxy.control.helpers import WHOLE, bearer, get

from spillway_router.ledger.records import Role
from spillway_router.testing import Answer, FaultUpstream, ManualClock
from spillway_router.testing.harness import cloud, error_of, local, pair, routing, settings
from spillway_router.testing.streams import chat


async def test_models_are_aliases_and_pinned_names() -> None:
    async with pair(more="aliases: {auto: {chain: [local, cloud]}, cheap: {chain: [local]}}\n") as (_, _, router):
        listed = (await get(router, "/v1/models")).json()
        assert listed["object"] == "list"
        assert [m["id"] for m in listed["data"]] == ["auto", "cheap", "local/m", "cloud/cloud-m"]
        for model in listed["data"]:
            assert (await get(router, f"/v1/models/{model['id']}")).json() == model
        missing = await get(router, "/v1/models/gpt-99")
        assert (missing.status_code, error_of(missing)["code"]) == (404, "model_not_found")


async def test_models_tell_what_they_can_do_and_cost_in_the_fields_of_openrouter() -> None:
    withdrawn = (
        '{name: old, provider: openai, model: gpt-4o, api_key: k, base_url: "http://127.0.0.1:1/v1", context_tokens: 9}'
    )
    async with (
        FaultUpstream(WHOLE) as engine,
        FaultUpstream(WHOLE) as other,
        routing(
            settings(local(engine), cloud(other), withdrawn, more="aliases: {auto: {chain: [local, cloud, old]}}\n")
        ) as router,
    ):
        listed = {model["id"]: model for model in (await get(router, "/v1/models")).json()["data"]}
    alias, own, old = listed["auto"], listed["local/m"], listed["old/gpt-4o"]
    assert own["pricing"] == {"prompt": "0", "completion": "0", "input_cache_read": "0", "request": "0"}
    assert listed["cloud/cloud-m"]["pricing"]["completion"] == "0.000002"
    assert old["pricing"] == {
        "prompt": "0.0000025", "completion": "0.00001", "input_cache_read": "0.00000125", "request": "0",
    }  # fmt: skip
    assert alias["pricing"] == old["pricing"]  # the dearest of its chain
    assert (old["context_length"], old["top_provider"]["context_length"]) == (9, 9)
    assert old["architecture"]["input_modalities"] == ["text", "image"]
    assert {"tools", "response_format", "logprobs"} <= set(old["supported_parameters"])
    assert old["expiration_date"] == "2027-01-14"
    assert alias["expiration_date"] is None  # the others stay
    assert old["spillway"]["backends"] == [
        {
            "name": "old", "provider": "openai", "model": "gpt-4o", "local": False,
            "retires_on": "2027-01-14", "successor": "gpt-6-luna",
        }
    ]  # fmt: skip
    assert [backend["name"] for backend in alias["spillway"]["backends"]] == ["local", "cloud", "old"]
    assert (alias["spillway"]["kind"], own["spillway"]["kind"]) == ("alias", "backend")


FAMILIES = ("llama", "mistral", "mixtral", "qwen", "phi-", "gemma", "deepseek", "gpt-oss", "gpt-4o", "claude", "gemini")
"""Families of models that the documents of users name."""


async def test_a_provider_of_many_models_lists_each_with_its_price_and_context() -> None:
    providers = ("openrouter", "huggingface", "together", "fireworks", "groq", "openai", "anthropic", "cerebras")
    many = [f'{{name: {name}, provider: {name}, model: "*", api_key: k}}' for name in providers]
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine), *many)) as router:
        listed = (await get(router, "/v1/models")).json()["data"]
    priced = [model for model in listed if "/" in model["id"] and model["pricing"]["prompt"] not in ("", "-1")]
    for family in FAMILIES:
        assert [model for model in priced if family in model["id"].lower()], family
    named = [model for model in priced if any(family in model["id"].lower() for family in FAMILIES)]
    assert len(named) >= 40
    with_context = [model for model in named if model["context_length"]]
    assert len(with_context) >= 40
    assert any(model["expiration_date"] for model in named)


async def test_clients_of_anthropic_get_models_and_errors_in_its_shape() -> None:
    headers = {"anthropic-version": "2026-10-21"}
    async with pair(more="aliases: {auto: {chain: [local, cloud]}}\n") as (_, _, router):
        listed = (await get(router, "/v1/models", headers)).json()
        assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("auto", "cloud/cloud-m", False)
        for model in listed["data"]:
            assert (model["type"], model["display_name"], model["lifecycle"]) == ("model", model["id"], "active")
            assert datetime.fromisoformat(model["created_at"]).tzinfo is not None
            assert (await get(router, f"/v1/models/{model['id']}", headers)).json() == model
        missing = await get(router, "/v1/models/claude-99", headers)
        body = missing.json()
        assert (missing.status_code, body["type"], body["error"]["type"]) == (404, "error", "not_found_error")
        wrong = await router.client.delete("/v1/models/auto", headers=headers)
        assert (wrong.status_code, wrong.json()["type"]) == (405, "error")


async def test_a_request_can_be_looked_up(tmp_path: Path) -> None:
    busy = Answer.json({"error": {"code": 503, "message": "full"}}, 503)
    async with pair(busy, WHOLE, folder=tmp_path) as (_, _, router):
        reply = await router.chat({"max_tokens": 5})
        request_id = reply.headers["x-request-id"]
        record = (await get(router, f"/v1/requests/{request_id}")).json()
        assert record["id"] == request_id
        assert (record["status"], record["backend"], record["decision"]) == (200, "cloud", "overflow")
        assert record["cost_usd"] == reply.headers["x-spillway-cost-usd"] == "0.000005"
        assert [(a["no"], a["backend"], a["outcome"], a["status"]) for a in record["attempts"]] == [
            (1, "local", "overloaded", 503),
            (2, "cloud", "ok", 200),
        ]
        assert record["attempts"][1]["usage"]["prompt_tokens"] == 3
        assert record["facts"]["max_tokens"] == 5
        assert record["route"]["policy"] == reply.headers["x-spillway-policy"]
        assert "Which eye" not in str(record)  # the record holds no text of the request

    async with pair(folder=tmp_path) as (_, _, router):  # a restart loses the record, but not the ledger
        stored = (await get(router, f"/v1/requests/{request_id}")).json()
        assert {e["kind"] for e in stored["entries"]} == {"charged", "reserved"}
        missing = await get(router, "/v1/requests/req_none")
        assert (missing.status_code, error_of(missing)["code"]) == (404, "request_not_found")


async def test_a_dry_run_sends_nothing() -> None:
    async with pair(WHOLE, WHOLE) as (engine, other, router):
        body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "max_tokens": 10}
        plan = (await router.post(body, "/v1/route/explain")).json()
        assert (plan["decision"], plan["refusal"]) == ("local", None)
        assert [c["backend"] for c in plan["candidates"]] == ["local", "cloud"]
        assert float(plan["candidates"][1]["cost_bound_usd"]) > 0
        assert plan["candidates"][0]["cost_bound_usd"] == "0.000000"

        private = await router.post(body, "/v1/route/explain", x_spillway_privacy="local-only")
        assert [(r["backend"], r["reason"]) for r in private.json()["removed"]] == [("cloud", "privacy")]
        unknown = await router.post({**body, "model": "gpt-99"}, "/v1/route/explain")
        assert unknown.json()["refusal"]["code"] == "model_not_found"
        bad = await router.post({"messages": []}, "/v1/route/explain")
        assert (bad.status_code, error_of(bad)["param"]) == (400, "messages")
        assert not engine.seen
        assert not other.seen
        assert list(router.ledger.entries_between(0, 2**62)) == []


async def test_a_reload_takes_effect_and_a_bad_file_does_not(tmp_path: Path) -> None:
    async with (
        FaultUpstream(WHOLE) as one,
        FaultUpstream(WHOLE) as two,
        routing(settings(cloud(one, "a")), tmp_path) as router,
    ):
        before = (await router.chat()).headers["x-spillway-policy"]
        text = router.path.read_text()

        router.path.write_text(text + "slo: {ttft_ms: -1}\nwhat: 1\n")
        bad = await router.reload()
        assert (bad.status_code, error_of(bad)["code"]) == (400, "invalid_config")
        for part in ("slo.ttft_ms", "what", "line", "stays"):
            assert part in error_of(bad)["message"]
        assert (await router.chat()).headers["x-spillway-policy"] == before

        router.path.write_text("- not a mapping\n")
        assert (await router.reload()).status_code == 400
        router.path.unlink()
        assert (await router.reload()).status_code == 400
        assert (await router.chat()).headers["x-spillway-backend"] == "a"

        router.path.write_text(text.replace(cloud(one, "a"), cloud(two, "b")))
        good = await router.reload()
        assert (good.status_code, good.json()["reloaded"]) == (200, True)
        reply = await router.chat()
        assert reply.headers["x-spillway-backend"] == "b"
        assert reply.headers["x-spillway-policy"] == good.json()["policy"] != before
        assert len(two.seen) == 1


async def test_a_reload_does_not_disturb_a_stream_in_progress(tmp_path: Path) -> None:
    stream = chat("alpha")
    async with FaultUpstream() as one, routing(settings(cloud(one, "a")), tmp_path) as router:
        cut = stream.end_of(stream.content)
        one.answer = Answer.stream(stream.body[:cut], end="hang")
        body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": True}
        async with router.client.stream("POST", "/v1/chat/completions", json=body) as reply:
            arrived = await one.arrival()
            async with aclosing(reply.aiter_bytes()) as pieces:
                assert b"alpha" in await anext(pieces)
                assert (await router.reload()).status_code == 200
                assert not arrived.closed.is_set()
                assert router.runtime.board.in_flight() == {"a": 1}


async def test_keys_are_required_where_the_configuration_says_so(tmp_path: Path) -> None:
    clock = ManualClock()
    more = "keys: {required: true}\n"
    async with pair(WHOLE, more=more, folder=tmp_path, clock=clock) as (engine, _, router):
        good = bearer(router, "inference")
        for headers in (
            {},
            {"authorization": "Bearer nonsense"},
            {"authorization": good["authorization"] + "x"},
            {"authorization": good["authorization"].replace("Bearer", "Basic")},
            {"authorization": "Bearer " + "x" * 10_000},
            {"authorization": "Bearer \xff".encode("latin-1").decode("latin-1")},
        ):
            encoded = {k: v.encode("latin-1") for k, v in headers.items()}
            for method, path in (
                ("POST", "/v1/chat/completions"),
                ("GET", "/v1/models"),
                ("POST", "/admin/reload"),
            ):
                kind = {"content-type": b"application/json"}
                reply = await router.client.request(method, path, headers={**encoded, **kind}, content=b"{}")
                assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key")
        assert not engine.seen
        for path in ("/health", "/ready", "/ping"):
            assert (await get(router, path)).status_code == 200
        assert (await router.chat(**good)).status_code == 200
        own = good["authorization"].removeprefix("Bearer ")
        assert (await router.chat(x_api_key=own)).status_code == 200
        # A load balancer's key in the other header is ignored.
        assert (await router.chat(x_api_key=own, authorization="Bearer rpa_of_somebody")).status_code == 200

        (record,) = router.ledger.keys.all()
        router.ledger.keys.revoke(record.id, 1)
        clock.advance(1.5)  # the snapshot of the keys is at most a second old
        assert (await router.chat(**good)).status_code == 401


ALLOWED = {
    ("POST", "/v1/chat/completions"): {"inference", "admin"},
    ("POST", "/v1/route/explain"): {"inference", "viewer", "admin"},
    ("GET", "/v1/models"): {"inference", "viewer", "admin"},
    ("GET", "/v1/usage"): {"viewer", "admin"},
    ("POST", "/admin/reload"): {"admin"},
}


async def test_roles_permit_what_they_should_and_nothing_else(tmp_path: Path) -> None:
    body = b'{"model":"auto","messages":[{"role":"user","content":"x"}]}'
    async with pair(WHOLE, more="keys: {required: true}\n", folder=tmp_path) as (_, _, router):
        roles: tuple[Role, ...] = ("inference", "viewer", "admin")
        headers = {role: bearer(router, role) | {"content-type": "application/json"} for role in roles}
        for (method, path), allowed in ALLOWED.items():
            for role in roles:
                content = body if method == "POST" else None
                reply = await router.client.request(method, path, headers=headers[role], content=content)
                if role in allowed:
                    assert reply.status_code == 200, (path, role, reply.text)
                else:
                    assert (reply.status_code, error_of(reply)["code"]) == (403, "permission_denied"), (path, role)


async def test_a_key_sees_only_its_own_requests_and_routes_only_if_it_may(tmp_path: Path) -> None:
    async with pair(WHOLE, WHOLE, more="keys: {required: true}\n", folder=tmp_path) as (_, other, router):
        ann, bob = bearer(router, "inference", "ann"), bearer(router, "inference", "bob", may_route=True)
        eve = bearer(router, "viewer", "eve")
        path = "/v1/requests/" + (await router.chat(**ann)).headers["x-request-id"]
        assert (await get(router, path, ann)).status_code == 200
        assert (await get(router, path, bob)).status_code == 404
        assert (await get(router, path, eve)).status_code == 200

        refused = await router.chat(**ann, x_spillway_route="cloud")
        assert (refused.status_code, error_of(refused)["param"]) == (400, "x-spillway-route")
        assert not other.seen
        assert (await router.chat(**bob, x_spillway_route="cloud")).headers["x-spillway-backend"] == "cloud"
    async with pair(more="keys: {required: true}\n", folder=tmp_path) as (
        _,
        _,
        router,
    ):  # from the ledger, the same
        assert (await get(router, path, bob)).status_code == 404
        assert (await get(router, path, ann)).status_code == 200


async def test_usage_and_metrics_report_requests(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine)), tmp_path) as router:
        await router.chat()
        report = (await get(router, "/v1/usage")).json()
        assert report["requests"] == 1
        bad = await get(router, "/v1/usage?day=someday")
        assert (bad.status_code, error_of(bad)["param"]) == (400, "day")
        page = await get(router, "/metrics")
        assert page.headers["content-type"].startswith("text/plain")
        assert "spillway_ledger_up 1.0" in page.text


async def test_a_dry_run_takes_null_for_a_field_that_is_left_out() -> None:
    async with FaultUpstream() as upstream, routing(settings(cloud(upstream))) as router:
        nulls = {"messages": None, "model": None, "provider": None, "models": None, "stream": None}
        reply = await router.post({"prompt": "hi", **nulls}, "/v1/route/explain")
        assert reply.status_code == 200, reply.text
        assert reply.json()["facts"]["endpoint"] == "completions"


async def test_a_reload_needs_the_type_that_no_page_of_another_site_may_send() -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        for kind in ("text/plain", "multipart/form-data", "application/x-www-form-urlencoded"):
            for path in ("/admin/reload", "/v1/route/explain"):
                reply = await router.client.post(path, headers={**router.admin, "content-type": kind})
                assert (reply.status_code, error_of(reply)["param"]) == (415, "content-type"), (path, kind)
        # Nobody administers without a key, which no page sends by itself, and `curl -X POST` names no type.
        assert (await router.client.post("/admin/reload", headers=router.admin)).status_code == 200
        assert (await router.client.post("/admin/reload")).status_code in (401, 403)


async def test_a_nul_in_a_path_or_a_query_is_a_400() -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        for path in ("/v1/reviews?after=1.%00", "/v1/reviews?schema=a%00", "/v1/reviews/%00", "/v1/requests/a%00b"):
            assert (await router.client.get(path, headers=router.admin)).status_code == 400, path
        for after in ("99999999999999999999999.x", "1", ".x", "-1.x", "1e3.x", "1.0", "\u0663.x", "nan.x", "1 .x"):
            reply = await router.client.get("/v1/reviews", params={"after": after}, headers=router.admin)
            assert reply.status_code == (200 if after == "1.0" else 400), after

"""`POST /v1/documents/extract` over real sockets: which step answers, what leaves, what it costs, what is stored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.documents.harness import COST, FREE, PATH, ask, documents, rows, setup, steps
from tests.documents.papers import CLEAN, STRANGE, answer, truth, wrong
from tests.proxy.control.helpers import bearer

from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.ledger.verify import verify
from spillway_router.testing import Answer
from spillway_router.testing.harness import LIMIT_S, error_of


async def test_a_sure_local_model_answers_alone(tmp_path: Path) -> None:
    async with setup(answer(truth(CLEAN), 0.97), folder=tmp_path) as (engine, other, router):
        extraction = await ask(router, CLEAN.text)
        assert (extraction["status"], extraction["step"], extraction["values"]) == ("answered", "local", CLEAN.truth)
        assert extraction["confidence"] == pytest.approx(0.97, abs=1e-3)
        assert extraction["fields"]["/AL"]["confidence"] == pytest.approx(0.97, abs=1e-3)
        assert extraction["fields"]["/K1"]["confidence"] > 0.99
        start, end = extraction["fields"]["/AL"]["span"]
        assert float(CLEAN.text[start:end]) == CLEAN.truth["AL"]
        assert (extraction["read_by"], extraction["cost_usd"]) == (
            {"step": "local", "backend": "local", "model": "m"},
            FREE,
        )
        assert steps(extraction) == [("local", "accepted")]
        assert not other.seen
        sent = engine.seen[0].json
        assert sent["messages"][0]["content"] == "Biometry report to JSON:\n" + CLEAN.text
        assert (sent["logprobs"], sent["temperature"], sent["max_tokens"]) == (True, 0, 512)
        assert sent["response_format"]["json_schema"]["schema"]["required"][0] == "id"
        assert rows(router, extraction) == [(1, "local", "ok", True, "biometry")]
        assert documents(router) == 1


async def test_below_the_threshold_a_parser_answers_and_nothing_leaves(tmp_path: Path) -> None:
    async with setup(answer(wrong(CLEAN), 0.89), folder=tmp_path) as (_, other, router):
        extraction = await ask(router, CLEAN.text)
        assert (extraction["step"], extraction["values"], extraction["cost_usd"]) == ("parser", CLEAN.truth, FREE)
        assert extraction["read_by"] == {"step": "parser", "backend": "parsers", "model": "iolmaster_en"}
        assert steps(extraction) == [("local", "unsure"), ("parser", "accepted")]
        assert "0.500 < 0.9" in extraction["steps"][0]["why"]
        assert f"/AL: its caption names {CLEAN.truth['AL']}" in extraction["steps"][0]["why"]
        assert not other.seen
        assert rows(router, extraction) == [
            (1, "local", "discarded", True, "biometry"),
            (2, "parsers", "ok", True, "biometry"),
        ]
        assert documents(router) == 1
        record = (await router.client.get(f"/v1/requests/{extraction['id']}")).json()
        assert [a["backend"] for a in record["attempts"]] == ["local", "parsers"]
        assert (record["backend"], record["status"], record["cost_usd"]) == ("parsers", 200, FREE)


async def test_a_document_without_a_parser_goes_to_the_external_model_once_paid_once(tmp_path: Path) -> None:
    async with setup(answer(truth(STRANGE), 0.6), answer(truth(STRANGE)), folder=tmp_path) as (_, other, router):
        extraction = await ask(router, STRANGE.text)
        assert (extraction["step"], extraction["values"], extraction["cost_usd"]) == ("external", STRANGE.truth, COST)
        assert steps(extraction) == [("local", "unsure"), ("parser", "unsure"), ("external", "accepted")]
        assert extraction["steps"][2]["cost_usd"] == COST
        # Both models and the captions read the same, so the value is surer than with each alone.
        assert extraction["fields"]["/AL"]["confidence"] == pytest.approx(1 - 0.1 * 0.4 * 0.4, abs=1e-3)
        sent = other.seen[0].json
        assert "temperature" not in sent
        assert STRANGE.text in sent["messages"][0]["content"]
        assert '"required"' in sent["messages"][0]["content"]
        assert rows(router, extraction) == [
            (1, "local", "discarded", True, "biometry"),
            (2, "cloud", "ok", True, "biometry"),
        ]
        assert documents(router) == 1
        report = (await router.client.get("/v1/usage")).json()
        assert '"documents": 1' in str(report).replace("'", '"')
        record = (await router.client.get(f"/v1/requests/{extraction['id']}")).json()
        assert (record["decision"], record["cost_usd"]) == ("escalated", COST)


async def test_when_no_step_is_sure_a_person_is_asked(tmp_path: Path) -> None:
    async with setup(answer(truth(STRANGE), 0.6), answer(wrong(STRANGE)), folder=tmp_path) as (_, _, router):
        extraction = await ask(router, STRANGE.text)
        assert (extraction["status"], extraction["step"], extraction["cost_usd"]) == ("review", "review", COST)
        assert extraction["values"] == STRANGE.truth  # of the surest draft
        assert extraction["read_by"]["step"] == "local"
        assert extraction["review_id"].startswith("rev_")
        assert "/AL: not found in the document" in extraction["steps"][2]["why"]
        assert [(row[1], row[2]) for row in rows(router, extraction)] == [
            ("local", "discarded"),
            ("cloud", "discarded"),
            ("review", "ok"),
        ]
        assert documents(router) == 1
        kept = router.ledger.reviews.get(extraction["review_id"])
        assert kept is not None
        assert (kept.request_id, kept.private, kept.step, kept.model) == (extraction["id"], False, "local", "m")
        assert verify(router.ledger, "").holds
        again = await ask(router, STRANGE.text, {"review": False})
        assert (again["status"], again["review_id"]) == ("unsure", None)
        assert router.ledger.reviews.count("open") == 1


async def test_disabled_or_full_reviews_store_nothing() -> None:
    off = "documents: {reviews: false}\n"
    async with setup(answer("no json", 0.99), answer("{}"), off) as (_, _, router):
        extraction = await ask(router, STRANGE.text)
        assert (extraction["status"], extraction["review_id"]) == ("unsure", None)
        assert "documents.reviews" in extraction["review_why"]
        assert router.ledger.reviews.count("open") == 0
    full = "documents: {most_open: 1}\n"
    async with setup(answer("no json", 0.99), answer("{}"), full) as (_, _, router):
        assert (await ask(router, STRANGE.text))["status"] == "review"
        assert "documents.most_open" in (await ask(router, STRANGE.text))["review_why"]
        assert router.ledger.reviews.count("open") == 1


MARKS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "header": ({}, {"x_spillway_privacy": "local-only"}, ""),
    "metadata": ({"metadata": {"privacy": "private"}}, {}, ""),
    "keyword": ({}, {}, "privacy: {keywords: [colleague]}\n"),
    "default": ({}, {}, "privacy: {default: local-only}\n"),
}


@pytest.mark.parametrize("mark", MARKS)
async def test_a_private_document_never_leaves_and_its_reply_says_so(mark: str) -> None:
    fields, headers, more = MARKS[mark]
    async with setup(answer(truth(STRANGE), 0.6), answer(truth(STRANGE)), more) as (_, other, router):
        extraction = await ask(router, STRANGE.text, fields, **headers)
        assert (extraction["status"], extraction["private"], extraction["privacy_reasons"]) == ("review", True, [mark])
        assert steps(extraction) == [("local", "unsure"), ("parser", "unsure"), ("external", "skipped")]
        assert extraction["steps"][2]["why"] == f"private: must not leave (marked by {mark})"
        assert not other.seen
        kept = router.ledger.reviews.get(extraction["review_id"])
        assert kept is not None
        assert kept.private


@pytest.mark.parametrize("as_messages", [True, False])
async def test_a_keyword_in_the_schema_makes_a_document_private(as_messages: bool) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string", "description": "our colleague"}}}
    given: dict[str, Any] = {"messages": [{"role": "user", "content": "Ann"}]} if as_messages else {"text": "Ann"}
    more = "privacy: {keywords: [colleague]}\n"
    async with setup(answer("{}", 0.6), answer("{}"), more) as (_, other, router):
        reply = await router.client.post("/v1/documents/extract", json={**given, "schema": schema})
        assert (reply.json()["private"], reply.json()["privacy_reasons"]) == (True, ["keyword"])
        assert not other.seen


async def test_a_session_that_was_private_once_keeps_its_documents_here() -> None:
    async with setup(answer(truth(STRANGE), 0.6), answer(truth(STRANGE))) as (_, other, router):
        await ask(router, STRANGE.text, x_session_id="s1", x_spillway_privacy="local-only")
        extraction = await ask(router, STRANGE.text, x_session_id="s1")
        assert (extraction["private"], extraction["privacy_reasons"]) == (True, ["session"])
        assert not other.seen
        chat = await router.chat(x_session_id="s1")
        assert chat.headers["x-spillway-backend"] == "local"
        assert (await ask(router, STRANGE.text, x_session_id="s2"))["step"] == "external"


async def test_a_private_key_keeps_its_documents_here() -> None:
    async with setup(answer(truth(STRANGE), 0.6), answer(truth(STRANGE))) as (_, other, router):
        key = KeyStore(router.ledger.keys).create(KeySpec("ann", privacy="local-only"), b"ann123", bytes(32), 0)
        await router.until(lambda: router.runtime.services.config().auth.verify(key.token, 1e9) is not None)
        extraction = await ask(router, STRANGE.text, authorization=f"Bearer {key.token}")
        assert (extraction["private"], extraction["privacy_reasons"]) == (True, ["key"])
        assert not other.seen


async def test_a_spent_budget_ends_at_the_review_and_says_why() -> None:
    cap = 'budgets: [{scope: all, period: day, limit_usd: "0.0000001"}]\n'
    async with setup(answer(truth(STRANGE), 0.6), answer(truth(STRANGE)), cap) as (_, other, router):
        extraction = await ask(router, STRANGE.text)
        assert (extraction["status"], extraction["cost_usd"]) == ("review", FREE)
        assert extraction["steps"][2]["outcome"] == "skipped"
        assert "budget" in extraction["steps"][2]["why"]
        assert not other.seen
        capped = await ask(router, STRANGE.text, x_spillway_max_cost_usd="0.00000001")
        assert "x-spillway-max-cost-usd" in capped["steps"][2]["why"]


async def test_when_the_engine_is_down_parsers_still_answer() -> None:
    async with setup(Answer.json({"error": {"message": "no"}}, 500), answer(wrong(STRANGE))) as (_, other, router):
        extraction = await ask(router, CLEAN.text)
        assert steps(extraction) == [("local", "failed"), ("parser", "accepted")]
        assert not other.seen
        router.forget_failures()
        extraction = await ask(router, STRANGE.text, {"parser": "none"})
        assert steps(extraction) == [("local", "failed"), ("parser", "skipped"), ("external", "unsure")]
        assert documents(router) == 2


async def test_an_external_model_that_fails_leaves_the_draft_to_a_person() -> None:
    failing = Answer.json({"error": {"message": "no"}}, 500)
    async with setup(answer(truth(STRANGE), 0.6), failing) as (_, other, router):
        extraction = await ask(router, STRANGE.text)
        assert (extraction["status"], extraction["values"]) == ("review", STRANGE.truth)
        assert extraction["steps"][2]["outcome"] == "failed"
        assert other.seen


async def test_min_confidence_replaces_all_thresholds() -> None:
    async with setup(answer(truth(CLEAN), 0.6), answer(truth(CLEAN))) as (_, other, router):
        extraction = await ask(router, CLEAN.text, {"min_confidence": 0.5})
        assert (extraction["step"], extraction["steps"][0]["threshold"]) == ("local", 0.5)
        extraction = await ask(router, CLEAN.text, x_spillway_min_confidence="0.5")
        assert (extraction["step"], extraction["steps"][0]["threshold"]) == ("local", 0.5)
        extraction = await ask(router, CLEAN.text, {"min_confidence": 1})
        assert extraction["status"] == "review"
        assert [step["threshold"] for step in extraction["steps"]] == [1, 1, 1]
        assert len(other.seen) == 1


async def test_thresholds_chain_and_own_schemas_come_from_the_configuration() -> None:
    weight = "{type: object, properties: {kg: {type: number}}, required: [kg], additionalProperties: false}"
    more = (
        "documents:\n  thresholds: {local: 0.5}\n  external: [cloud]\n  default_schema: weight\n  max_chars: 100\n"
        f"  schemas: {{weight: {{schema: {weight}, prompt: 'Weigh: '}}}}\n"
    )
    async with setup(answer('{"kg": 71.5}', 0.6), more=more) as (engine, _, router):
        extraction = await ask(router, "Weight 71,50 kg")
        assert (extraction["step"], extraction["values"], extraction["schema"]) == ("local", {"kg": 71.5}, "weight")
        assert extraction["fields"]["/kg"]["span"] == [7, 12]
        assert engine.seen[0].json["messages"][0]["content"] == "Weigh: Weight 71,50 kg"
        reply = await router.post({"text": "x" * 101}, PATH)
        assert (reply.status_code, error_of(reply)["code"]) == (413, "request_too_large")
        inline = {"type": "object", "properties": {"kg": {"type": "number"}}, "title": "scale"}
        extraction = await ask(router, "Weight 71,50 kg", {"schema": inline})
        assert (extraction["schema"], extraction["values"]) == ("scale", {"kg": 71.5})
        assert '"title":"scale"' in engine.seen[1].json["messages"][0]["content"]


async def test_messages_go_to_the_model_unchanged_and_parsers_read_their_text() -> None:
    async with setup(answer("nothing", 0.99)) as (engine, _, router):
        messages = [
            {"role": "system", "content": "You read reports."},
            {"role": "user", "content": [{"type": "text", "text": CLEAN.text}]},
        ]
        reply = await router.post({"messages": messages}, PATH)
        assert reply.status_code == 200, reply.text
        assert reply.json()["step"] == "parser"
        assert engine.seen[0].json["messages"] == messages


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "text"),
    "both": ({"text": "a", "messages": [{"role": "user", "content": "a"}]}, "text"),
    "empty": ({"text": "  "}, "text"),
    "no user": ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
    "bad messages": ({"messages": "a"}, "messages"),
    "schema name": ({"text": "a", "schema": "nonsense"}, "schema"),
    "schema kind": ({"text": "a", "schema": 5}, "schema"),
    "schema shape": ({"text": "a", "schema": {"type": "array"}}, "schema"),
    "parser": ({"text": "a", "parser": "nonsense"}, "parser"),
    "other parser": (
        {"text": "a", "parser": "argos_en", "schema": {"type": "object", "properties": {"a": {}}}},
        "parser",
    ),
    "confidence": ({"text": "a", "min_confidence": 2}, "min_confidence"),
    "model": ({"text": "a", "model": 5}, "model"),
    "review": ({"text": "a", "review": "yes"}, "review"),
    "unknown": ({"text": "a", "colour": 1}, "colour"),
}


async def test_an_invalid_request_is_rejected_with_the_field_at_fault() -> None:
    async with setup(answer("{}")) as (engine, _, router):
        for name, (body, param) in WRONG.items():
            reply = await router.post(body, PATH)
            assert reply.status_code == 400, name
            assert error_of(reply)["param"] == param, name
        plain = await router.client.post(PATH, content=b'{"text": "a"}', headers={"content-type": "text/plain"})
        assert plain.status_code == 415
        twice = await router.post(b'{"text": "a", "text": "b"}', PATH)
        assert twice.status_code == 400
        hint = await router.post({"text": "a"}, PATH, x_spillway_min_confidence="2")
        assert hint.status_code == 400
        own = await router.post({"text": "a"}, PATH, x_spillway_provider="groq", x_spillway_provider_key="k")
        assert (own.status_code, "provider key of your own" in error_of(own)["message"]) == (400, True)
        assert not engine.seen


async def test_only_inference_and_admin_keys_may_extract() -> None:
    async with setup(answer(truth(CLEAN), 0.97)) as (_, _, router):
        store = KeyStore(router.ledger.keys)
        kinds = ("inference", "viewer", "admin")
        keys_of_roles = {
            role: store.create(KeySpec(role, role), role[:6].encode().ljust(6), bytes(32), 0) for role in kinds
        }  # type: ignore[arg-type]
        auth = router.runtime.services.config().auth
        await router.until(lambda: all(auth.verify(key.token, 1e9) is not None for key in keys_of_roles.values()))
        may = {}
        for role, key in keys_of_roles.items():
            named = {"authorization": f"Bearer {key.token}"}
            extracted = (await router.post({"text": CLEAN.text}, PATH, **named)).status_code
            listed = (await router.client.get("/v1/reviews", headers=named)).status_code
            decided = (await router.post({"action": "accept"}, "/v1/reviews/rev_x", **named)).status_code
            may[role] = (extracted, listed, decided)
        assert may == {"inference": (200, 403, 403), "viewer": (403, 200, 403), "admin": (200, 200, 404)}


async def test_a_client_that_leaves_ends_the_work() -> None:
    gate = asyncio.Event()
    async with setup(answer(truth(CLEAN), 0.97).after(gate)) as (engine, _, router):
        async with httpx.AsyncClient(base_url=router.url, timeout=LIMIT_S) as leaving:
            asking = asyncio.create_task(leaving.post(PATH, json={"text": CLEAN.text}))
            arrived = await engine.arrival()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(LIMIT_S):
            await arrived.closed.wait()
        await router.until(lambda: bool(router.runtime.services.records.recent(1)))
        record = router.runtime.services.records.recent(1)[0]
        assert (record.status, record.attempts[0].outcome.kind) == (499, "cancelled")


async def test_no_more_documents_are_in_progress_than_configured() -> None:
    gate = asyncio.Event()
    more = "documents: {most_at_once: 1}\n"
    async with setup(answer(truth(CLEAN), 0.97).after(gate), more=more) as (engine, _, router):
        first = asyncio.create_task(ask(router, CLEAN.text))
        await engine.arrival()
        refused = await router.post({"text": CLEAN.text}, PATH)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        gate.set()
        assert (await first)["step"] == "local"


async def test_null_stands_for_a_field_that_is_left_out(tmp_path: Path) -> None:
    nulls = dict.fromkeys(("model", "schema", "parser", "min_confidence", "metadata", "review", "messages"))
    async with setup(answer(truth(CLEAN), 0.97), folder=tmp_path) as (_, __, router):
        extraction = await ask(router, CLEAN.text, nulls)
        assert (extraction["status"], extraction["values"]) == ("answered", CLEAN.truth)


async def test_a_key_can_not_take_all_places_of_documents() -> None:
    gate = asyncio.Event()
    more = "documents: {most_at_once: 4}\nkeys: {required: true}\n"
    async with setup(answer(truth(CLEAN), 0.97).after(gate), more=more) as (engine, _, router):
        one, other, third = (bearer(router, "inference", name) for name in ("one", "other", "third"))
        waiting = []
        for key in (one, one, other):
            waiting.append(asyncio.create_task(router.post({"text": CLEAN.text}, PATH, **key)))
            await engine.arrival()
        refused = await router.post({"text": CLEAN.text}, PATH, **one)
        assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limited")
        waiting.append(asyncio.create_task(router.post({"text": CLEAN.text}, PATH, **third)))
        await engine.arrival()
        full = await router.post({"text": CLEAN.text}, PATH, **other)
        assert (full.status_code, error_of(full)["code"]) == (503, "overloaded")
        gate.set()
        assert [(await reply).status_code for reply in waiting] == [200] * 4
        assert (await router.post({"text": CLEAN.text}, PATH, **one)).status_code == 200

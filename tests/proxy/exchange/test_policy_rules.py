"""The rules of the policy on requests over real sockets: who answers, what the answer and `explain` say of it."""

from __future__ import annotations

import pytest
from tests.proxy.helpers import whole

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, error_of, local, routing, settings

WHOLE = Answer.json(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "beta"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
)
RULES = """policy:
  rules:
    - {name: code to the coder, when: {task: code}, prefer: [coder]}
    - {name: hard for who pays, when: {complexity: {at_least: 4}}, chain: [dear, local]}
    - {name: nothing german leaves, when: {language: de}, forbid: cloud}
    - {name: keep summaries, when: {task: summary}, prefer: [local], forbid: [coder], escalate: never}
aliases: {auto: {chain: [local, coder, dear]}, cloudy: {chain: [dear]}}
"""
HARD = "Compare these two plans and come up with a better one."
GERMAN = "Wie ist das für den Kunden, und was kann er nicht?"


def asks(text: str, model: str = "auto") -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


async def answered(router: Router, text: str, model: str = "auto", **headers: str) -> tuple[str, str, str]:
    """The backend, the decision and the reasons of an answer."""
    reply = await router.chat(asks(text, model), **headers)
    assert reply.status_code == 200, reply.text
    said = reply.headers
    return said["x-spillway-backend"], said["x-spillway-decision"], said.get("x-spillway-reason", "")


async def test_rules_choose_by_what_a_request_asks_for() -> None:
    async with (
        FaultUpstream(WHOLE) as own,
        FaultUpstream(WHOLE) as coder,
        FaultUpstream(WHOLE) as dear,
        routing(settings(local(own), local(coder, "coder"), cloud(dear, "dear"), more=RULES)) as router,
    ):
        assert await answered(router, "How are you today?") == ("local", "local", "")
        assert await answered(router, HARD) == ("dear", "routed", "complexity")
        assert await answered(router, HARD, model="local") == ("local", "pinned", "pinned")
        assert (await answered(router, "Write a python function.", "auto"))[:2] == ("coder", "local")


async def test_what_a_rule_forbids_is_refused_by_name_and_explained() -> None:
    async with (
        FaultUpstream(WHOLE) as own,
        FaultUpstream(WHOLE) as dear,
        routing(settings(local(own), local(own, "coder"), cloud(dear, "dear"), more=RULES)) as router,
    ):
        reply = await router.chat(asks(GERMAN, "dear"))
        assert (reply.status_code, error_of(reply)["code"]) == (403, "permission_denied")
        assert "the rule 'nothing german leaves' forbids it" in error_of(reply)["message"]
        explained = (await router.post(asks(GERMAN), "/v1/route/explain")).json()
        assert explained["rules"] == ["nothing german leaves"]
        assert explained["facts"]["language"] == "de"
        assert {one["backend"]: one["reason"] for one in explained["removed"]} == {"dear": "rule"}
        explained = (await router.post(asks(HARD), "/v1/route/explain")).json()
        assert explained["facts"]["complexity"] == 4
        assert explained["facts"]["factors"] == ["analysis", "creativity"]
        assert explained["candidates"][0]["backend"] == "dear"
        assert not dear.seen


async def test_a_session_keeps_its_complexity_unless_it_rises() -> None:
    async with (
        FaultUpstream(WHOLE) as own,
        FaultUpstream(WHOLE) as dear,
        routing(settings(local(own), local(own, "coder"), cloud(dear, "dear"), more=RULES)) as router,
    ):
        assert (await answered(router, "Go on.", x_session_id="s"))[0] == "local"
        assert (await answered(router, HARD, x_session_id="s"))[0] == "dear"
        assert (await answered(router, "Go on.", x_session_id="s"))[0] == "dear"
        assert (await answered(router, "Go on.", x_session_id="other"))[0] == "local"


async def test_a_private_request_for_a_cloud_alias_stays_local() -> None:
    async with (
        FaultUpstream(WHOLE) as own,
        FaultUpstream(WHOLE) as dear,
        routing(settings(local(own), local(own, "coder"), cloud(dear, "dear"), more=RULES)) as router,
    ):
        chosen = await answered(router, "Hello", model="cloudy", x_spillway_privacy="local-only")
        assert chosen == ("local", "local", "privacy")
        assert not dear.seen


async def test_the_task_stands_in_the_ledger() -> None:
    async with (
        FaultUpstream(WHOLE) as own,
        FaultUpstream(WHOLE) as dear,
        routing(settings(local(own), local(own, "coder"), cloud(dear, "dear"), more=RULES)) as router,
    ):
        reply = await router.chat(asks("Summarise this, please."))
        assert [row.task for row in router.rows(reply)] == ["summary"]
        record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
        assert record["route"]["rules"] == ["keep summaries"]


STEPS = """confidence: {threshold: 0.8, escalate_to: [coder]}
policy:
  rules:
    - {name: hopeless, when: {confidence_below: 0.3}, escalate: {to: [dear]}}
aliases: {auto: {chain: [local]}}
"""


@pytest.mark.parametrize(("logprob", "backend"), [(-0.01, "local"), (-1.0, "coder"), (-2.0, "dear")])
async def test_the_confidence_chooses_the_step(logprob: float, backend: str) -> None:
    async with (
        FaultUpstream(whole("alpha", logprob)) as own,
        FaultUpstream(WHOLE) as coder,
        FaultUpstream(WHOLE) as dear,
        routing(settings(local(own), cloud(coder, "coder"), cloud(dear, "dear"), more=STEPS)) as router,
    ):
        reply = await router.chat()
        assert reply.headers["x-spillway-backend"] == backend
        assert reply.headers["x-spillway-decision"] == ("local" if backend == "local" else "escalated")


ARMS = """experiments:
  - {name: x, by: request, arms: [{name: b, share: 1, chain: [coder]}]}
policy:
  rules:
    - {name: not in b, when: {experiment: x/b}, forbid: [coder]}
aliases: {auto: {chain: [local]}}
"""


async def test_a_rule_may_bind_an_arm() -> None:
    async with (
        FaultUpstream(WHOLE) as own,
        FaultUpstream(WHOLE) as coder,
        routing(settings(local(own), cloud(coder, "coder"), more=ARMS)) as router,
    ):
        reply = await router.chat()
        assert (reply.status_code, error_of(reply)["code"]) == (403, "permission_denied")
        assert not coder.seen

"""Where a backend sends no log-probabilities, a referee judges its answer: another model, or the same one. Its call is
paid, booked and bound by everything that binds the request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.proxy.helpers import whole

from spillway_router.config.load import ConfigError, parse
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import MESSAGES, Router, local, routing, settings

STEPS = "confidence: {threshold: 0.8, escalate_to: [{backend: medium, threshold: 0.7}, large], referee: {REFEREE}}\n"
UNSURE, SURE = -1.0, -0.01


def priced(upstream: FaultUpstream, name: str, usd: str) -> str:
    """Return a line of `backends:` for a cloud without log-probabilities."""
    return (
        f"{{name: {name}, provider: groq, model: {name}-m, api_key: k, base_url: '{upstream.url}',"
        f" price: {{input_per_million: '{usd}', output_per_million: '{usd}'}}}}"
    )


def says(text: str, tokens: int = 2, prompt: int = 40, finish: str = "stop") -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    return Answer.json({"choices": [choice], "usage": usage})


@dataclass(frozen=True)
class Cascade:
    """An engine, two clouds one and two steps up, and a third one that only judges."""

    small: FaultUpstream
    medium: FaultUpstream
    large: FaultUpstream
    judge: FaultUpstream
    router: Router

    async def asked(self, **headers: str) -> tuple[str, list[tuple[str, float | None]]]:
        """Return the text that the client got, and each attempt with its confidence."""
        reply = await self.router.post({"model": "auto", "messages": MESSAGES}, **headers)
        assert reply.status_code == 200, reply.text
        record = (await self.router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
        attempts = [(one["backend"], one["confidence"]) for one in record["attempts"]]
        return reply.json()["choices"][0]["message"]["content"], attempts


@asynccontextmanager
async def cascade(
    folder: Path,
    *,
    verdict: Answer,
    referee: str = "backend: judge",
    small: Answer | None = None,
    more: str = "",
) -> AsyncIterator[Cascade]:
    async with (
        FaultUpstream(small or whole("small", UNSURE)) as engine,
        FaultUpstream(says("medium")) as medium,
        FaultUpstream(says("large")) as large,
        FaultUpstream(verdict) as judge,
    ):
        lines = local(engine), priced(medium, "medium", "1"), priced(large, "large", "10"), priced(judge, "judge", "2")
        steps = STEPS.replace("REFEREE", referee)
        text = settings(*lines, more=f"{steps}aliases: {{auto: {{chain: [local]}}}}\n{more}")
        async with routing(text, folder) as router:
            yield Cascade(small=engine, medium=medium, large=large, judge=judge, router=router)


@pytest.mark.parametrize(
    ("verdict", "answered", "score"),
    [("90", "medium", 0.9), (" 70% ", "medium", 0.7), ("69", "large", 0.69), ("0", "large", 0.0)],
)
async def test_another_model_judges_the_answer_of_a_step(
    verdict: str, answered: str, score: float, tmp_path: Path
) -> None:
    async with cascade(tmp_path, verdict=says(verdict)) as it:
        text, attempts = await it.asked()
        assert text == answered
        judged = [("medium", score), ("judge", score)]
        assert attempts[1:3] == judged
        assert len(it.large.seen) == (answered == "large")
        (question,) = [one.json for one in it.judge.seen]
        roles = [message["role"] for message in question["messages"]]
        assert roles == ["user", "assistant", "user"]
        assert question["messages"][1]["content"] == "medium"
        assert question["model"] == "judge-m"
        assert question["max_tokens"] == 16


async def test_its_cost_is_held_charged_and_shown(tmp_path: Path) -> None:
    async with cascade(tmp_path, verdict=says("12", tokens=2, prompt=50)) as it:
        reply = await it.router.chat()
        entries = it.router.ledger.entries_of(reply.headers["x-request-id"])
        (row,) = [e for e in entries if e.kind == "charged" and e.backend == "judge"]
        assert (row.decision, row.reasons, row.status) == ("referee", "referee", "discarded")
        assert row.amount_nano == 52 * 2000
        assert {e.backend for e in entries if e.kind == "reserved"} == {"medium", "judge", "large"}
        usage = (await it.router.client.get("/v1/usage", headers=it.router.admin)).json()
        steps = {step["backend"]: step for step in usage["steps"]}
        assert {name: step["referee"] for name, step in steps.items()} == {
            "medium": False,
            "large": False,
            "judge": True,
        }
        assert (steps["judge"]["asked"], steps["judge"]["cost_usd"]) == (1, "0.000104")
        assert (steps["medium"]["asked"], steps["medium"]["answered"]) == (1, 0)
        assert (steps["large"]["asked"], steps["large"]["answered"]) == (1, 1)


@pytest.mark.parametrize(
    "reply", [says("I think it is fine."), says("101"), Answer.json({"error": {}}, 500), says("9", finish="length")]
)
async def test_without_a_number_the_answer_stands(reply: Answer, tmp_path: Path) -> None:
    async with cascade(tmp_path, verdict=reply) as it:
        text, attempts = await it.asked()
        assert text == "medium"
        assert attempts[-1] == ("judge", None)
        assert not it.large.seen


async def test_a_referee_that_is_silent_costs_its_time_and_no_answer(tmp_path: Path) -> None:
    async with cascade(tmp_path, verdict=Answer(silent=True), referee="backend: judge, timeout_ms: 50") as it:
        text, attempts = await it.asked()
        assert text == "medium"
        assert [name for name, _ in attempts] == ["local", "medium", "judge"]


async def test_a_backend_may_judge_itself(tmp_path: Path) -> None:
    async with cascade(tmp_path, verdict=says("never asked"), referee="backend: self") as it:
        it.medium.script.extend((says("medium"), says("10")))
        text, attempts = await it.asked()
        assert text == "large"
        assert attempts[1:3] == [("medium", 0.1), ("medium", 0.1)]
        assert not it.judge.seen


@pytest.mark.parametrize(("verdict", "answered"), [("95", "small"), ("10", "medium")])
async def test_a_local_answer_without_a_signal_is_judged_too(verdict: str, answered: str, tmp_path: Path) -> None:
    async with cascade(tmp_path, verdict=says(verdict), small=whole("small", 0.0)) as it:
        it.judge.script.append(says(verdict))
        it.judge.answer = says("99")
        text, attempts = await it.asked()
        assert text == answered
        assert attempts[0] == ("local", int(verdict) / 100)


async def test_nobody_is_asked_about_an_answer_that_is_final(tmp_path: Path) -> None:
    async with cascade(tmp_path, verdict=says("1")) as it:
        it.small.answer = whole("small", SURE)
        assert (await it.asked())[0] == "small"
        it.small.answer = whole("small", UNSURE)
        reply = await it.router.chat({"model": "medium"})
        assert reply.json()["choices"][0]["message"]["content"] == "medium"
        reply = await it.router.chat({"provider": {"allow_fallbacks": False}})
        assert reply.json()["choices"][0]["message"]["content"] == "small"
        assert not it.judge.seen


async def test_a_private_request_is_judged_by_nobody(tmp_path: Path) -> None:
    async with cascade(tmp_path, verdict=says("1"), small=whole("small", 0.0)) as it:
        text, _ = await it.asked(x_spillway_privacy="local-only")
        assert text == "small"
        for upstream in (it.medium, it.large, it.judge):
            assert not upstream.seen


async def test_a_budget_without_room_keeps_the_answer(tmp_path: Path) -> None:
    more = 'budgets: [{scope: "backend:judge", period: day, limit_usd: "0.00000001"}]\n'
    async with cascade(tmp_path, verdict=says("1"), more=more) as it:
        assert (await it.asked())[0] == "medium"
        assert not it.judge.seen


async def test_a_rule_that_forbids_the_referee_binds(tmp_path: Path) -> None:
    more = "policy: {rules: [{name: r, when: {}, forbid: [judge]}]}\n"
    async with cascade(tmp_path, verdict=says("1"), more=more) as it:
        assert (await it.asked())[0] == "medium"
        assert not it.judge.seen


def test_an_unknown_referee_is_a_mistake_with_its_line() -> None:
    text = (
        "backends: [{name: local, provider: vllm, local: true, model: m}]\nconfidence: {referee: {backend: nobody}}\n"
    )
    with pytest.raises(ConfigError, match="nobody") as error:
        parse(text, {})
    (problem,) = error.value.problems
    assert problem.line == 2


def body_of(upstream: FaultUpstream) -> Any:
    return upstream.seen[-1].json


async def test_the_question_brings_no_fields_that_a_cloud_refuses(tmp_path: Path) -> None:
    async with cascade(tmp_path, verdict=says("90")) as it:
        tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        fields = {"tools": tools, "chat_template_kwargs": {"a": 1}, "temperature": 1.3, "top_k": 3}
        reply = await it.router.chat(fields)
        assert reply.status_code == 200
        question = body_of(it.judge)
        assert question["tool_choice"] == "none"
        assert question["temperature"] == 0
        assert not question.keys() & {"chat_template_kwargs", "top_k"}

"""Escalation in several steps: each answer is judged by its own threshold, and what was paid for stays in the books."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.proxy.helpers import CALIBRATION, streamed, whole

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, error_of, local, routing, settings

SURE, UNSURE = -0.01, -1.0
"""Log-probabilities of the one token of an answer: 99% and 37%."""
STEPS = "confidence: {threshold: 0.8, escalate_to: [{backend: medium, threshold: 0.7}, large]MORE}\n"


def priced(upstream: FaultUpstream, name: str, usd: str) -> str:
    """Return a line of `backends:` for an OpenAI-compatible cloud with log-probabilities."""
    return (
        f"{{name: {name}, provider: openai, model: {name}-m, api_key: k, base_url: '{upstream.url}',"
        f" price: {{input_per_million: '{usd}', output_per_million: '{usd}'}}}}"
    )


@asynccontextmanager
async def cascade(
    *answers: Answer, more: str = "", steps: str = STEPS, folder: Path | None = None
) -> AsyncIterator[tuple[FaultUpstream, FaultUpstream, Router]]:
    """Run an engine, and two clouds one and two steps up; `answers` are theirs, in this order."""
    small_answer, medium_answer, large_answer = answers
    async with (
        FaultUpstream(small_answer) as small,
        FaultUpstream(medium_answer) as medium,
        FaultUpstream(large_answer) as large,
    ):
        lines = local(small), priced(medium, "medium", "1"), priced(large, "large", "10")
        text = settings(*lines, more=steps.replace("MORE", "") + "aliases: {auto: {chain: [local]}}\n" + more)
        async with routing(text, folder) as router:
            yield medium, large, router


def answer(kind: str, text: str, logprob: float) -> Answer:
    return streamed(text, logprob) if kind == "stream" else whole(text, logprob)


KINDS = pytest.mark.parametrize("kind", ["whole", "stream"])


@KINDS
@pytest.mark.parametrize(
    ("logprobs", "answered", "asked"),
    [
        ((SURE, SURE), "small", ["local"]),
        ((UNSURE, SURE), "medium", ["local", "medium"]),
        ((UNSURE, UNSURE), "large", ["local", "medium", "large"]),
        ((UNSURE, 0.0), "medium", ["local", "medium"]),  # only zeros are no signal, and such an answer is kept
    ],
)
async def test_each_step_is_asked_if_the_one_before_was_not_sure(
    kind: str, logprobs: tuple[float, float], answered: str, asked: list[str]
) -> None:
    small, medium = logprobs
    answers = answer(kind, "small", small), answer(kind, "medium", medium), answer(kind, "large", UNSURE)
    async with cascade(*answers) as (_, large, router):
        reply = await router.chat({"stream": kind == "stream"})
        others = {"small", "medium", "large"} - {answered}
        assert answered in reply.text
        assert not any(f'"{other}"' in reply.text for other in others)  # never parts of two answers
        assert answered == "large" or '"logprob"' not in reply.text  # the fake sends them unasked
        shown = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
        assert [attempt["backend"] for attempt in shown["attempts"]] == asked
        assert [attempt["discarded"] for attempt in shown["attempts"]] == [True] * (len(asked) - 1) + [False]
        assert "logprobs" not in (large.seen[0].json if large.seen else {})


async def test_a_discarded_step_stays_in_the_books_with_its_charge(tmp_path: Path) -> None:
    answers = whole("small", UNSURE), whole("medium", UNSURE), whole("large", SURE)
    async with cascade(*answers, folder=tmp_path) as (_, _, router):
        reply = await router.chat()
        rows = sorted(router.rows(reply), key=lambda row: row.attempt_no)
        assert [(row.backend, row.status, row.amount_nano) for row in rows] == [
            ("local", "discarded", 0),
            ("medium", "discarded", 4 * 1000),
            ("large", "ok", 4 * 10_000),
        ]
        assert reply.headers["x-spillway-cost-usd"] == "0.000044"
        assert float(reply.headers["x-spillway-confidence"]) == pytest.approx(0.3679, abs=1e-3)
        report = (await router.client.get("/v1/usage", headers=router.admin)).json()
        assert [(step["backend"], step["asked"], step["answered"], step["discarded"]) for step in report["steps"]] == [
            ("large", 1, 1, 0),
            ("medium", 1, 0, 1),
        ]
        assert sum(step["cost_nano"] for step in report["steps"]) == 44_000


@KINDS
async def test_when_the_last_step_fails_the_better_draft_stands(kind: str) -> None:
    broken = Answer.json({"error": {"message": "no"}}, 500)
    answers = answer(kind, "small", UNSURE), answer(kind, "medium", UNSURE), broken
    async with cascade(*answers) as (_, large, router):
        reply = await router.chat({"stream": kind == "stream"})
        assert "medium" in reply.text
        assert "small" not in reply.text
        assert len(large.seen) == 1
        assert reply.headers["x-spillway-reason"] == "confidence"
        assert reply.headers["x-spillway-decision"] == "escalated"


async def test_a_failed_step_goes_on_to_the_next() -> None:
    broken = Answer.json({"error": {"message": "no"}}, 500)
    async with cascade(whole("small", UNSURE), broken, whole("large", UNSURE)) as (_, _, router):
        assert "large" in (await router.chat()).text


async def test_a_budget_for_one_step_only_ends_the_cascade_there() -> None:
    answers = whole("small", UNSURE), whole("medium", UNSURE), whole("large", SURE)
    budgets = "budgets: [{scope: backend:large, period: day, limit_usd: '0'}]\n"
    async with cascade(*answers, more=budgets) as (_, large, router):
        reply = await router.chat()
        assert "medium" in reply.text
        assert reply.headers["x-spillway-reason"] == "confidence,budget"
        assert not large.seen


async def test_a_step_that_would_be_late_is_not_paid_for() -> None:
    """All steps share the promised time of the first one."""
    answers = streamed("small", UNSURE), streamed("medium", UNSURE), streamed("large", SURE)
    async with cascade(*answers, more="slo: {ttft_ms: 400}\n") as (_, large, router):  # clouds are expected after 500
        reply = await router.chat({"stream": True})
        assert "medium" in reply.text
        assert "late" in reply.text + reply.headers.get("x-spillway-reason", "")
        assert not large.seen


async def test_private_answers_stay_however_unsure() -> None:
    async with cascade(whole("small", UNSURE), whole("medium", SURE), whole("large", SURE)) as (medium, large, router):
        assert "small" in (await router.chat(x_spillway_privacy="local-only")).text
        assert not medium.seen + large.seen


async def test_a_better_answer_is_judged_like_any_step() -> None:
    answers = whole("small", SURE), whole("medium", UNSURE), whole("large", SURE)
    async with cascade(*answers) as (_, _, router):
        first = await router.chat()
        better = await router.chat(x_spillway_better_than=first.headers["x-request-id"])
        assert ("small" in first.text, "large" in better.text) == (True, True)


async def test_a_calibration_for_the_model_of_a_step_sets_its_threshold(tmp_path: Path) -> None:
    """Its curve maps log-probabilities of -1 and -0.6 to 0.5 and 0.7; 0.6 is certified."""
    file = tmp_path / "medium.json"
    file.write_text(json.dumps({**CALIBRATION, "key": {**CALIBRATION["key"], "model": "medium-m"}}))
    steps = f"confidence: {{threshold: 0.8, escalate_to: [medium, large], step_calibrations: {{medium: '{file}'}}}}\n"
    for logprob, answered in ((-0.6, "medium"), (-1.0, "large")):
        answers = whole("small", UNSURE), whole("medium", logprob), whole("large", SURE)
        async with cascade(*answers, steps=steps) as (_, _, router):
            assert answered in (await router.chat()).text


async def test_explain_names_the_steps_and_a_cloud_asked_first_is_not_judged() -> None:
    async with cascade(whole("small", UNSURE), whole("medium", UNSURE), whole("large", SURE)) as (
        medium,
        large,
        router,
    ):
        body = {"messages": [{"role": "user", "content": "a"}]}
        explained = (await router.post(body, "/v1/route/explain")).json()
        assert explained["escalation"] == {
            "threshold": 0.8,
            "steps": [{"backend": "medium", "threshold": 0.7}, {"backend": "large", "threshold": None}],
        }
        assert "medium" in (await router.chat({"model": "medium"})).text
        assert "logprobs" not in medium.seen[0].json
        assert not large.seen
        assert error_of(await router.chat({"model": "nobody"}))["code"] == "model_not_found"

"""Audits of chat over real sockets: what is asked, paid, compared and learned, and what is never audited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.proxy.answers import STRONG, answer, said

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import MESSAGES, cloud, local, pair, routing, settings


def scored(text: str, logprob: float) -> Answer:
    score = {"content": [{"token": text, "logprob": logprob, "top_logprobs": []}]}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": score, "finish_reason": "stop"}
    return Answer.json({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


AUDITED = "confidence: {threshold: 0.5, escalate_to: [cloud], audit_share: 1.0}\n"


async def test_audits_are_paid_compared_and_discarded(tmp_path: Path) -> None:
    async with pair(scored("forty two", -0.1), answer("Forty two."), more=AUDITED, folder=tmp_path) as (
        _,
        strong,
        router,
    ):
        audits = router.runtime.services.audits
        reply = await router.chat()
        assert said(reply) == "forty two"
        await audits.settled()
        assert "logprobs" not in strong.seen[0].json
        await router.until(lambda: len(router.rows(reply)) == 2)
        mine, audit = sorted(router.rows(reply), key=lambda row: row.attempt_no)
        assert (mine.status, mine.decision) == ("ok", "local")
        assert (audit.backend, audit.decision, audit.status) == ("cloud", "audit", "discarded")
        assert audit.amount_nano == 3 * 1000 + 2 * 2000
        assert (audits.state.drift.audits, audits.state.drift.wrong) == (1, 0)

        strong.answer = answer("no idea")
        await router.chat({"stream": False})
        await audits.settled()
        assert (audits.state.drift.audits, audits.state.drift.wrong) == (2, 1)
        labels = list(router.ledger.labels.all())
        assert [(row.task, row.backend, row.model, row.judge, row.right) for row in labels] == [
            ("chat", "local", "m", "cloud", True),
            ("chat", "local", "m", "cloud", False),
        ]
        assert json.loads(labels[0].scores)["min"] == pytest.approx(-0.1)
        assert "forty" not in str(labels)
        assert audits.threshold("chat", router.runtime.services.config(), 0.5) > 0.5
        await router.until(lambda: router.ledger.open_reservations(0, 2**62) == ())


async def test_what_may_not_leave_is_not_audited() -> None:
    async with pair(scored("a", -0.1), STRONG, more=AUDITED) as (_, strong, router):
        await router.chat(x_spillway_privacy="local-only")
        await router.chat({"model": "local/m"})
        await router.chat({"provider": {"allow_fallbacks": False}})
        await router.chat(x_spillway_route="local")
        await router.runtime.services.audits.settled()
        assert not strong.seen


async def test_a_spent_budget_stops_audits(tmp_path: Path) -> None:
    more = AUDITED + "budgets: [{scope: all, period: day, limit_usd: '0.000001'}]\n"
    async with pair(scored("a", -0.1), STRONG, more=more, folder=tmp_path) as (_, strong, router):
        await router.chat()
        await router.runtime.services.audits.settled()
        assert not strong.seen
        assert router.runtime.services.audits.state.without_verdict == 1


async def test_streams_are_audited_too_and_wrong_ones_raise_the_threshold() -> None:
    """Every answer is wrong: soon no local answer is used, and the certificate is revoked once."""
    score = {"content": [{"token": "bad", "logprob": -0.05, "top_logprobs": []}]}
    delta = {"index": 0, "delta": {"content": "bad"}, "logprobs": score, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    body = b"".join(b"data: " + json.dumps({"choices": [c]}).encode() + b"\n\n" for c in (delta, end))
    says = Answer.stream(body + b"data: [DONE]\n\n")
    async with pair(says, answer("something else altogether"), more=AUDITED) as (_, _, router):
        audits = router.runtime.services.audits
        for _ in range(6):
            await router.chat({"stream": True, "messages": MESSAGES})
            await audits.settled()
        assert audits.state.drift.wrong == audits.state.drift.audits > 0
        assert audits.state.drift.revoked
        assert audits.threshold("chat", router.runtime.services.config(), 0.5) > 1


async def test_audits_recognise_the_same_answer_in_other_words() -> None:
    async with (
        FaultUpstream(scored('{"a": 1, "b": "x"}', -0.1)) as engine,
        FaultUpstream(answer('```json\n{"b": "x ", "a": 1.0}\n```')) as other,
        routing(settings(local(engine), cloud(other), more=AUDITED)) as router,
    ):
        await router.chat()
        audits = router.runtime.services.audits
        await audits.settled()
        assert (audits.state.drift.audits, audits.state.drift.wrong) == (1, 0)

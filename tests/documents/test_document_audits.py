"""Audits of documents over real sockets: what is asked, paid, compared by field, learned, and never audited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.documents.harness import COST, ask, rows, setup, steps
from tests.documents.papers import CLEAN, STRANGE, answer, truth, wrong

from spillway_router.calibration.labelled import read
from spillway_router.documents.labels import all_labels as exported
from spillway_router.proxy.audits.audits import Audits
from spillway_router.proxy.audits.thresholds import ThresholdState
from spillway_router.testing.harness import Router

AUDITED = "confidence: {escalate_to: [cloud], audit_share: 1.0}\n"


def watching(router: Router) -> Audits:
    return router.runtime.services.audits


def gate(router: Router) -> ThresholdState:
    """Return the state of the documents' threshold."""
    (state,) = (g for g in watching(router).threshold_states(router.runtime.services.config()) if g.kind == "document")
    return state


def labels(router: Router) -> list[Any]:
    return list(router.ledger.labels.all())


async def test_an_audit_of_a_used_reading_is_paid_and_labelled_per_field(tmp_path: Path) -> None:
    async with setup(answer(truth(STRANGE), 0.97), answer(truth(STRANGE)), AUDITED, tmp_path) as (_, other, router):
        extraction = await ask(router, STRANGE.text)
        assert (extraction["step"], extraction["cost_usd"]) == ("local", "0.000000")
        await watching(router).settled()
        (sent,) = other.seen
        assert STRANGE.text in sent.json["messages"][0]["content"]
        assert sent.json["model"] == "cloud-m"
        await router.until(lambda: len(rows(router, extraction)) == 2)
        assert rows(router, extraction) == [
            (1, "local", "ok", True, "biometry"),
            (2, "cloud", "discarded", True, "biometry"),
        ]
        paid = [e for e in router.ledger.entries_of(extraction["id"]) if e.kind == "charged" and e.amount_nano]
        assert [(e.decision, e.amount_nano) for e in paid] == [("audit", int(float(COST) * 10**9))]
        counts = watching(router).counts
        assert (counts.calls, counts.results) == ({"document": 1}, {("document", "agreed"): 1})
        (label,) = labels(router)
        assert (label.request_id, label.task, label.backend, label.model, label.judge, label.right) == (
            extraction["id"], "biometry", "local", "m", "cloud", True,
        )  # fmt: skip
        assert json.loads(label.fields) == dict.fromkeys((f"/{key}" for key in STRANGE.truth), True)
        assert json.loads(label.scores)["value_min"] < 0
        assert str(STRANGE.truth["id"]) not in str(label)


async def test_a_wrong_field_is_distinguished_and_raises_only_the_documents_threshold(tmp_path: Path) -> None:
    more = AUDITED + "documents: {thresholds: {local: 0.4}}\n"
    async with setup(answer(wrong(STRANGE), 0.97), answer(truth(STRANGE)), more, tmp_path) as (engine, _, router):
        config = router.runtime.services.config()
        chat = watching(router).threshold("chat", config, 0.8)
        extraction = await ask(router, STRANGE.text, {"parser": "none"})
        assert extraction["step"] == "local"
        await watching(router).settled()
        assert watching(router).counts.results == {("document", "disagreed"): 1}
        (label,) = labels(router)
        assert not label.right
        assert [field for field, good in json.loads(label.fields).items() if not good] == ["/AL"]
        assert gate(router).threshold > gate(router).configured == 0.4
        assert watching(router).threshold("chat", config, 0.8) == chat
        step = (await ask(router, STRANGE.text))["steps"][0]
        assert step["threshold"] == pytest.approx(gate(router).threshold, abs=0.2)
        assert step["threshold"] > 0.4
        assert engine.seen


async def test_labels_of_audits_are_exported_for_calibration(tmp_path: Path) -> None:
    async with setup(answer(truth(STRANGE), 0.97), answer(truth(STRANGE)), AUDITED, tmp_path) as (_, _, router):
        extraction = await ask(router, STRANGE.text)
        await watching(router).settled()
        (row,) = exported(router.ledger)
        assert list(exported(router.ledger, task="biometry")) == [row]
        assert list(exported(router.ledger, task="chat")) == []
        assert (row["source"], row["right"], row["group"], row["task"]) == ("audit", True, extraction["id"], "biometry")
        (label,) = read([json.dumps(row)])
        assert (label.right, label.group) == (True, extraction["id"])
        assert label.scores["value_min"] == pytest.approx(row["scores"]["value_min"])


async def test_what_may_not_leave_is_never_audited() -> None:
    async with setup(answer(truth(STRANGE), 0.97), answer(truth(STRANGE)), AUDITED) as (_, other, router):
        await ask(router, STRANGE.text, x_spillway_privacy="local-only")
        await ask(router, STRANGE.text, {"metadata": {"privacy": "private"}})
        await ask(router, STRANGE.text, x_session_id="s", x_spillway_privacy="local-only")
        await ask(router, STRANGE.text, x_session_id="s")
        await ask(router, STRANGE.text, x_spillway_route="local")
        await ask(router, STRANGE.text, {"model": "local/m"})
        await ask(router, STRANGE.text, {"min_confidence": 0.1})
        await ask(router, STRANGE.text, x_spillway_min_confidence="0.1")
        await watching(router).settled()
        assert not other.seen
        assert watching(router).counts.results == {}
        await ask(router, STRANGE.text)
        await watching(router).settled()
        assert len(other.seen) == 1


async def test_a_share_of_zero_audits_nothing_and_a_parsers_answer_is_not_audited() -> None:
    none = "confidence: {escalate_to: [cloud]}\n"
    async with setup(answer(truth(STRANGE), 0.97), answer(truth(STRANGE)), none) as (_, other, router):
        await ask(router, STRANGE.text)
        await watching(router).settled()
        assert not other.seen
    async with setup(answer(truth(CLEAN), 0.6), answer(truth(CLEAN)), AUDITED) as (_, other, router):
        assert steps(await ask(router, CLEAN.text))[-1] == ("parser", "accepted")
        await watching(router).settled()
        assert not other.seen


async def test_a_spent_budget_refuses_the_audit_and_a_broken_judge_gives_no_verdict(tmp_path: Path) -> None:
    more = AUDITED + "budgets: [{scope: all, period: day, limit_usd: '0.000001'}]\n"
    async with setup(answer(truth(STRANGE), 0.97), answer(truth(STRANGE)), more, tmp_path) as (_, other, router):
        assert (await ask(router, STRANGE.text))["step"] == "local"
        await watching(router).settled()
        assert not other.seen
        assert watching(router).counts.results == {("document", "budget"): 1}
    for says, result in ((answer("no json"), "unclear"), (answer(wrong(STRANGE)), "unclear"), (None, "failed")):
        async with setup(answer(truth(STRANGE), 0.97), says, AUDITED) as (_, _, router):
            await ask(router, STRANGE.text)
            await watching(router).settled()
            assert watching(router).counts.results == {("document", result): 1}
            assert labels(router) == []
            assert gate(router).drift.audits == 0


async def test_wrong_audits_raise_the_threshold_and_probes_lower_it_again(tmp_path: Path) -> None:
    """Every local reading is wrong: soon the local model answers no document. Then it is right again, and what the
    external model reads alike opens the gate, without a paid audit."""
    more = AUDITED + "documents: {thresholds: {local: 0.45}}\n"
    async with setup(answer(wrong(STRANGE), 0.97), answer(truth(STRANGE)), more, tmp_path) as (engine, _, router):
        for _ in range(30):
            await ask(router, STRANGE.text)
            await watching(router).settled()
        assert gate(router).threshold > 0.5  # the most that a reading with a number outside the document may have
        assert (await ask(router, STRANGE.text))["step"] == "external"
        closed, asked = gate(router).threshold, dict(watching(router).counts.calls)
        engine.answer = answer(truth(STRANGE), closed - 0.001)
        for _ in range(40):
            await ask(router, STRANGE.text, {"parser": "none"})
            await watching(router).settled()
            if gate(router).threshold < closed:
                break
        assert gate(router).threshold < closed
        assert watching(router).counts.probes["document", "agreed"] > 0
        assert watching(router).counts.calls == asked

"""What `/metrics` reports of documents, audits, thresholds and reviews, after real requests."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.documents.harness import ask, setup
from tests.documents.papers import CLEAN, STRANGE, answer, truth, wrong

from spillway_router.testing import Answer
from spillway_router.testing.harness import Router
from spillway_server.demo_model.documents import canonical_json

AUDITED = "confidence: {escalate_to: [cloud], audit_share: 1.0, threshold: 0.7}\n"


async def samples(router: Router) -> dict[str, float]:
    """Map `name{label=value,…}` to its value."""
    text = (await router.client.get("/metrics")).text
    return {
        s.name + ("{" + ",".join(f"{k}={v}" for k, v in sorted(s.labels.items())) + "}" if s.labels else ""): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


async def test_documents_are_counted_by_the_step_that_answered(tmp_path: Path) -> None:
    async with setup(answer(truth(CLEAN), 0.97), answer(truth(STRANGE)), folder=tmp_path) as (
        engine,
        other,
        router,
    ):
        await ask(router, CLEAN.text)
        engine.answer = answer(wrong(CLEAN), 0.6)
        await ask(router, CLEAN.text)
        engine.answer = answer(truth(STRANGE), 0.6)
        await ask(router, STRANGE.text)
        other.answer = answer(wrong(STRANGE))
        waiting = [await ask(router, STRANGE.text) for _ in range(2)]
        await router.chat()
        await router.runtime.reviews.count()
        metrics = await samples(router)
        counted = {step: metrics[f"spillway_documents_total{{step={step}}}"] for step in STEPS}
        assert counted == {"local": 1, "parser": 1, "external": 1, "review": 2}
        assert metrics["spillway_reviews_open"] == 2
        assert 0 <= metrics["spillway_reviews_oldest_seconds"] < 120
        for one in waiting:
            await router.post({"action": "dismiss"}, f"/v1/reviews/{one['review_id']}", **router.admin)
        await router.runtime.reviews.count()
        metrics = await samples(router)
        assert (metrics["spillway_reviews_open"], metrics["spillway_reviews_oldest_seconds"]) == (0, 0)


STEPS = ("local", "parser", "external", "review")


async def test_audits_and_thresholds_are_reported_per_kind(tmp_path: Path) -> None:
    async with setup(answer(truth(STRANGE), 0.97), answer(truth(STRANGE)), AUDITED, tmp_path) as (_, other, router):
        audits = router.runtime.services.audits
        before = await samples(router)
        assert before["spillway_audits_asked_total{kind=document}"] == 0
        assert not any(name.startswith("spillway_confidence_threshold") for name in before)
        swapped = canonical_json({**STRANGE.truth, "AL": STRANGE.truth["K1"]})
        says = (answer(truth(STRANGE)), answer(swapped), Answer.json({}, 500))
        for said in says:
            other.answer = said
            await ask(router, STRANGE.text)
            await audits.settled()
        await router.chat()
        await audits.settled()
        metrics = await samples(router)
        assert metrics["spillway_audits_asked_total{kind=document}"] >= 2
        ended = {k: v for k, v in metrics.items() if k.startswith("spillway_audits_total{kind=document")}
        assert sum(ended.values()) == 3
        assert ended["spillway_audits_total{kind=document,result=agreed}"] == 1
        assert ended["spillway_audits_total{kind=document,result=disagreed}"] == 1
        assert ended["spillway_audits_total{kind=document,result=failed}"] == 1
        assert metrics["spillway_confidence_threshold_configured{kind=chat}"] == pytest.approx(0.7)
        assert metrics["spillway_confidence_threshold_configured{kind=document}"] == pytest.approx(0.9)
        assert 0.9 < metrics["spillway_confidence_threshold{kind=document}"] < 1
        assert metrics["spillway_certificate_revoked{kind=document}"] == 0


async def test_an_audit_refused_by_a_budget_and_a_revoked_threshold_are_reported(tmp_path: Path) -> None:
    more = AUDITED + "budgets: [{scope: all, period: day, limit_usd: '0.000001'}]\n"
    async with setup(answer(truth(STRANGE), 0.97), answer(truth(STRANGE)), more, tmp_path) as (_, _, router):
        await ask(router, STRANGE.text)
        await router.runtime.services.audits.settled()
        metrics = await samples(router)
        assert metrics["spillway_audits_total{kind=document,result=budget}"] == 1
        assert metrics["spillway_audits_asked_total{kind=document}"] == 0
    low = AUDITED + "documents: {thresholds: {local: 0.3}}\n"
    async with setup(answer(wrong(STRANGE), 0.97), answer(truth(STRANGE)), low) as (_, _, router):
        audits = router.runtime.services.audits
        for _ in range(6):
            await ask(router, STRANGE.text)
            await audits.settled()
        metrics = await samples(router)
        assert metrics["spillway_certificate_revoked{kind=document}"] == 1
        assert metrics["spillway_confidence_threshold{kind=document}"] > 1
        assert metrics["spillway_audits_total{kind=document,result=disagreed}"] >= 3

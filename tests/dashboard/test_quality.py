"""The pages Quality and Experiments: what is promised, whether it holds, and what arms of an experiment did."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from evidence.dashboard.scene import business

from spillway_router.core.confidence.calibration import Calibration
from spillway_router.core.confidence.drift import Drift
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.core.routing.policy import ConfidenceRule
from spillway_router.dashboard.quality import Confidence, bins_of, quality_page
from spillway_router.ledger.reports.build import build_report
from spillway_router.ledger.reports.days import one_day
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.ledger.tables.labels import LabelRecord
from spillway_router.proxy.audits.audits import AuditCounts
from spillway_router.proxy.audits.thresholds import ThresholdState
from spillway_router.testing import MemoryLedger

DEMO = Path(__file__).parents[2] / "server" / "spillway_server" / "demo_model" / "calibration.json"
HTML = {"accept": "text/html"}


def empty() -> Report:
    terms = ReportTerms(GpuRental(Decimal(1)), WorkCoefficients(), {})
    return build_report(MemoryLedger(), one_day(date(2026, 11, 2)), terms, 1_800_000_000_000)


def calibrated(threshold: float | None = None) -> Confidence:
    """The demonstration model's calibration, with its certified threshold or another one."""
    calibration = Calibration.from_json(DEMO.read_bytes())
    assert calibration.threshold is not None
    rule = ConfidenceRule(calibration.threshold if threshold is None else threshold, ("big",))
    counts = AuditCounts({}, {}, {})
    return Confidence(rule=rule, calibration=calibration, thresholds=(), counts=counts, audit_share=0.05)


def label(confidence: float | None, *, right: bool) -> LabelRecord:
    return LabelRecord(
        request_id="r",
        ts=0,
        task="chat",
        backend="local",
        model="m",
        judge="big",
        confidence=confidence,
        right=right,
        scores="{}",
    )


def test_a_certificate_is_promised_in_words() -> None:
    page = quality_page(empty(), (), calibrated())
    assert page.sentence == "At most 5% of the answers that are kept are wrong, with a probability of 90%."
    assert page.tone == "good"
    assert "Of 2,145 labelled answers 663 were at or above the threshold of 92.4%, and 21 of these" in page.promise[2]


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (calibrated(0.8), "Nothing is promised: the threshold is set to 80.0%, below the certified 92.4%."),
        (replace(calibrated(), calibration=None), "no calibration is in use"),
        (replace(calibrated(), rule=ConfidenceRule()), "Nothing is escalated"),
        (
            replace(calibrated(), thresholds=(ThresholdState("chat", 0.9, 2.0, Drift(1.0, revoked=True)),)),
            "Audits contradict the threshold",
        ),
    ],
)
def test_what_is_not_promised_is_said(now: Confidence, sentence: str) -> None:
    page = quality_page(empty(), (), now)
    assert sentence in page.sentence
    assert page.tone != "good"


def test_labels_are_counted_by_their_confidence() -> None:
    labels = [label(0.95, right=True), label(0.97, right=False), label(1.0, right=True), label(0.1, right=False)]
    bins = bins_of([*labels, label(None, right=True)])
    assert [one.answers for one in bins] == [0, 1, 0, 0, 0, 0, 0, 0, 0, 3]
    assert bins[9].right == pytest.approx(2 / 3)
    assert bins[9].mean == pytest.approx(0.9733, abs=1e-4)
    page = quality_page(empty(), labels, calibrated())
    assert page.bin_rows[1] == ("90% to 100%", "3", "97.3%", "66.7%")
    assert page.chart["x"] == ["10% to 20%", "90% to 100%"]


def test_a_threshold_above_everything_keeps_nothing() -> None:
    drift = Drift(1.0, audits=40, wrong=10)
    now = replace(calibrated(), thresholds=(ThresholdState("chat", 0.9, 2.0, drift),))
    assert quality_page(empty(), (), now).audit_rows == (("chat", "90.0%", "keeps nothing", "40", "10 (25.0%)"),)


async def test_the_pages_and_their_json_say_what_the_ledger_says(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=20) as scene:
        client = scene.router.client
        days = f"from={scene.first}&to={scene.last}"
        quality = (await client.get(f"/quality.json?{days}")).json()
        assert quality["labelled"] == 120
        assert quality["escalation_rows"] or "No answer was escalated" in quality["escalation"][0]
        assert quality["ratings"] == [["local/m", "4", "3.8", "75%", "0"]]
        page = (await client.get(f"/quality?{days}", headers=HTML)).text
        assert quality["sentence"] in page
        assert ">60% to 70%<" in page
        arms = (await client.get("/experiments.json")).json()
        assert arms["sentence"] == "One experiment had requests, and the arm cheaper differs."
        (price,) = arms["experiments"]
        assert [row[0:3] for row in price["rows"]] == [["control", "80", "80"], ["cheaper", "80", "80"]]
        assert price["verdicts"][0].startswith("cheaper costs ")
        assert price["verdicts"][0] in (await client.get("/experiments", headers=HTML)).text

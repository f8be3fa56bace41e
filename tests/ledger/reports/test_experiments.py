"""What the report says of shadows: how often they agree, and what one that only decides would have done."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from spillway_router.core.comparison.differences import RatioSums
from spillway_router.core.money.tariff import Tariff
from spillway_router.ledger.reports.experiments import ExperimentSetup, experiment_reports
from spillway_router.ledger.tables.experiments import ArmSums, DryChoice

PRICED = Tariff(Decimal(1), Decimal(2))
NOW_MS = 7 * 86_400_000


def arm(name: str, units: int, cost_nano: float, agreed: float | None = None, dry: int = 0) -> ArmSums:
    """An arm whose units have one request each, all of the same cost; `agreed` is the share of answers that agree."""

    def same(value: float) -> RatioSums:
        amount, squares = units * value, units * value * value
        return RatioSums(
            units=units,
            amount=amount,
            count=units,
            amount_squares=squares,
            count_squares=units,
            products=amount,
        )

    agreement = RatioSums()
    if agreed is not None:
        yes = units * agreed
        agreement = replace(same(1.0), amount=yes, amount_squares=yes, products=yes)
    return ArmSums(
        arm=f"e/{name}",
        requests=units,
        answered=units,
        first_ms=0,
        last_ms=NOW_MS,
        cost=same(cost_nano),
        took=RatioSums(),
        escalated=RatioSums(),
        rating=RatioSums(),
        agreement=agreement,
        dry=dry,
    )


def test_a_shadow_that_asks_says_how_often_it_agrees_with_an_interval() -> None:
    setup = ExperimentSetup({"e": ["s"]}, {})
    (report,) = experiment_reports([arm("control", 900, 100.0), arm("s", 900, 50.0, 0.8)], (), setup, NOW_MS)
    shadow = report.arms[1]
    assert shadow.agreed == pytest.approx(0.8)
    assert shadow.agreement is not None
    assert 0.7 < shadow.agreement.low < 0.8 < shadow.agreement.high < 0.9
    assert shadow.verdict.startswith(
        "s costs 50% less (50% to 50%) and says the same as the clients' answers in 80% (7"
    )


def test_a_shadow_that_decides_says_whom_it_would_have_asked_and_for_how_much() -> None:
    choices = [
        DryChoice("e/d", "cloud", 3, prompt_tokens=1_000, cached_tokens=0, completion_tokens=500, cost_nano=9_000_000),
        DryChoice("e/d", "local", 1, prompt_tokens=100, cached_tokens=0, completion_tokens=10, cost_nano=1_000_000),
    ]
    setup = ExperimentSetup({"e": ["d"]}, {"cloud": PRICED, "local": None})
    (report,) = experiment_reports([arm("control", 4, 1.0), arm("d", 4, 0.0, dry=4)], choices, setup, NOW_MS)
    dry = report.arms[1].dry
    assert dry is not None
    assert (dry.shares, dry.expected_nano, dry.answered_nano) == ({"cloud": 0.75, "local": 0.25}, 500_000, 2_500_000)
    assert report.arms[1].cost_per_request_nano is None
    assert report.arms[1].verdict == (
        "d would have sent 75% to cloud, 25% to local, for $0.00050 of cloud charges a request at today's prices"
        " instead of $0.0025; n = 4 requests. Nothing was asked, so time and quality are not known."
    )
    unknown = ExperimentSetup({"e": ["d"]}, {"local": None})
    (report,) = experiment_reports([arm("control", 4, 1.0), arm("d", 4, 0.0, dry=4)], choices, unknown, NOW_MS)
    assert report.arms[1].verdict.startswith("d would have sent 75% to cloud, 25% to local; n = 4 requests.")

"""The evidence of held streams in short runs with seeded faults: the published verdict turns to `falls short`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from evidence.measures_confident_streams import OFF, OVERHEAD, added_ttft, overhead
from evidence.measures_mixed import MIXED, mixed_streams, through_the_router
from evidence.promises import load_promises
from evidence.results import Circumstances, judge
from loadtests.bench.processes import Command
from loadtests.bench.scenarios import BURST8
from loadtests.bench.systems import SYSTEMS, StartSite

from spillway_router.testing.harness import Router

TAKEN = Circumstances("make evidence ONLY=confidence.mixed", "2026-01-01T00:00:00Z", {}, {})
SHORT = replace(BURST8, count=24, events=32)


def _quiet(_line: str) -> None:
    """Print nothing."""


async def stitching(router: Router, fields: dict[str, Any]) -> bytes:
    """A router that completes an answer that broke off with the answer of another model."""
    first = await through_the_router(router, {**fields, "model": "local/m"})
    return (
        first if first.endswith(b"[DONE]\n\n") else first + await through_the_router(router, {"model": "cloud/cloud-m"})
    )


def test_no_stream_is_mixed() -> None:
    promise = replace(load_promises()[MIXED], min_n=200)
    measurement = mixed_streams(_quiet, 200)[MIXED]
    assert judge(promise, measurement, TAKEN).holds, measurement.details
    whose = {kind.split(",")[0] for kind in measurement.details["replies"]}
    assert {"weak", "strong"} <= whose
    assert any("interrupted" in kind for kind in measurement.details["replies"])


def test_a_router_that_stitches_falls_short() -> None:
    promise = replace(load_promises()[MIXED], min_n=100)
    measurement = mixed_streams(_quiet, 100, stitching)[MIXED]
    assert measurement.value is not None
    assert measurement.value > 0
    assert not judge(promise, measurement, TAKEN).holds


@dataclass(frozen=True, slots=True)
class Slow:
    """The bench's minimal relay for the cheap side, so that ours on the other side looks expensive."""

    name: str
    what: str = "seeded fault"

    def prepare(self) -> str:
        return "-"

    def command(self, site: StartSite) -> Command:
        return SYSTEMS["bare"].command(site)


def test_scoring_that_costs_too_much_falls_short() -> None:
    """Confidence is on, and the other side is a relay that does nothing at all."""
    promise = load_promises()[OVERHEAD]
    measurement = overhead(_quiet, (Slow("bare"), SYSTEMS["spillway-confident"]), (SHORT,), rounds=1, trials=1)[
        OVERHEAD
    ]
    assert measurement.n > 0, measurement.details
    assert not judge(promise, measurement, TAKEN).holds, measurement.value


def test_both_sides_of_the_overhead_are_measured() -> None:
    measurement = overhead(_quiet, (SYSTEMS[OFF], SYSTEMS["spillway-confident"]), (SHORT,), rounds=1, trials=1)[
        OVERHEAD
    ]
    assert measurement.n > 0, measurement.details
    assert measurement.value is not None


def test_holding_more_tokens_costs_more_time_to_the_first() -> None:
    measurement = added_ttft((1, 16), trials=3)
    assert measurement["16"]["added_ms"] > measurement["1"]["added_ms"]

"""The demo's verdict can be negative: a good run passes every claim, and each seeded fault breaks the claim made for
it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from demo.accounts import RunTotals
from demo.claims import DemoRun, DemoSlo, judge, percentile
from demo.client import DocumentResult
from demo.machine import CpuReading, others_share
from demo.workload import DocumentJob, Phase
from loadtests.fake_cloud.corpus import digest


def result(number: int, phase: Phase, decision: str, *, private: bool = False, right: bool = True) -> DocumentResult:
    job = DocumentJob(
        number=number,
        phase=phase,
        at_s=0.0,
        text=f"report {number}",
        truth={},
        noise="clean",
        private=private,
        stream=False,
    )
    return DocumentResult(
        job=job,
        status=200,
        fault="",
        decision=decision,
        reasons=(),
        backend="some",
        confidence=None,
        served_s=0.4,
        done_s=0.4,
        tokens=60,
        overhead_s=0.001,
        refusals=0,
        right=right,
        request_id=f"req-{number}",
    )


def good() -> DemoRun:
    kinds = ["local"] * 50 + ["overflow"] * 30 + ["escalated"] * 20
    burst = [result(100 + at, "burst", kind) for at, kind in enumerate(kinds)]
    results = [
        *(result(at, "warming", "fallback") for at in range(5)),
        *(result(20 + at, "calm", "local") for at in range(20)),
        *burst,
        *(result(300 + at, "burst", "local", private=True) for at in range(6)),
        *(replace(result(180 + at, "check", "pinned"), right=at % 3 == 0) for at in range(20)),
    ]
    seen = {digest(r.job.text) for r in results if r.decision in ("fallback", "overflow", "escalated")}
    books = RunTotals(
        ledger_nano=5000,
        ledger_requests=55,
        unsettled=0,
        unsure=0,
        estimated_nano=0,
        at_most_nano=0,
        fixed_nano=900,
        used_nano=600,
        idle_nano=300,
        bill_nano=5000,
        bill_requests=55,
        seen=frozenset(seen),
    )
    return DemoRun(
        results=tuple(results), accounts=books, slo=DemoSlo(2.0, 0.1), total_s=120.0, exit_status=0, left_over=()
    )


def broken(run: DemoRun) -> set[str]:
    return {claim.name for claim in judge(run) if not claim.holds}


def change(
    run: DemoRun, where: Callable[[DocumentResult], bool], to: Callable[[DocumentResult], DocumentResult], most: int = 1
) -> DemoRun:
    left, changed = most, []
    for item in run.results:
        hit = left > 0 and where(item)
        changed.append(to(item) if hit else item)
        left -= hit
    assert left < most
    return replace(run, results=tuple(changed))


def books(run: DemoRun, **fields: int) -> DemoRun:
    values = {name: getattr(run.accounts, name) for name in RunTotals.__dataclass_fields__}
    return replace(run, accounts=RunTotals(**{**values, **fields}))


def test_good_run_holds_everywhere() -> None:
    assert broken(good()) == set()


def test_a_busy_machine_excuses_lateness_and_nothing_else() -> None:
    late = change(good(), _burst("overflow"), lambda r: replace(r, served_s=8.01))
    quiet, busy = replace(late, others_share=0.1), replace(late, others_share=0.6)
    assert [claim.name for claim in judge(quiet) if claim.broken] == ["in time"]
    assert [claim.name for claim in judge(busy) if claim.broken] == []
    assert [claim.name for claim in judge(busy) if claim.excused] == ["in time"]
    unanswered = change(busy, _burst("local"), lambda r: replace(r, fault="503"))
    assert [claim.name for claim in judge(unanswered) if claim.broken] == ["answered"]


def test_the_share_of_others_leaves_out_the_demo_itself() -> None:
    before = CpuReading(monotonic_s=10, all_s=100, own_s=40)
    assert others_share(before, CpuReading(monotonic_s=20, all_s=116, own_s=52), 2) == pytest.approx(0.2)
    assert others_share(before, CpuReading(monotonic_s=20, all_s=110, own_s=52), 2) == 0.0
    assert others_share(before, before, 2) == 0.0


def test_another_program_is_counted_and_a_child_is_not() -> None:
    """The counters are this machine's own: what a child of this process burns is no program of others."""
    before = CpuReading.now()
    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True, timeout=60)
    after = CpuReading.now()
    assert after.own_s - before.own_s > 0.1
    assert after.all_s - before.all_s > 0.1


def _burst(kind: str) -> Callable[[DocumentResult], bool]:
    return lambda r: r.job.phase == "burst" and r.decision == kind and not r.job.private


FAULTS: dict[str, tuple[str, Callable[[DemoRun], DemoRun]]] = {
    "one late": ("in time", lambda run: change(run, _burst("overflow"), lambda r: replace(r, served_s=8.01))),
    "one stream late": (
        "in time",
        lambda run: change(
            run, _burst("overflow"), lambda r: replace(r, job=replace(r.job, stream=True), served_s=2.01)
        ),
    ),
    "one unanswered": ("answered", lambda run: change(run, _burst("local"), lambda r: replace(r, fault="503"))),
    "early refused": (
        "router first",
        lambda run: change(run, lambda r: r.job.phase == "warming", lambda r: replace(r, fault="503 no_backend")),
    ),
    "calm overflows": (
        "local first",
        lambda run: change(run, lambda r: r.job.phase == "calm", lambda r: replace(r, decision="overflow"), 3),
    ),
    "nothing overflows": (
        "spills over",
        lambda run: change(run, _burst("overflow"), lambda r: replace(r, decision="local"), 1000),
    ),
    "nothing escalates": (
        "spills over",
        lambda run: change(run, _burst("escalated"), lambda r: replace(r, decision="local"), 1000),
    ),
    "private unserved": (
        "private is served",
        lambda run: change(run, lambda r: r.job.private, lambda r: replace(r, fault="503 overloaded")),
    ),
    "private marked overflow": (
        "private stays",
        lambda run: change(run, lambda r: r.job.private, lambda r: replace(r, decision="overflow")),
    ),
    "private seen by the cloud": (
        "private stays",
        lambda run: replace(run, accounts=replace(run.accounts, seen=run.accounts.seen | {digest("report 300")})),
    ),
    "private seen in disguise": (
        "private stays",
        lambda run: replace(
            run, accounts=replace(run.accounts, seen=run.accounts.seen | {digest("report 300, edited")})
        ),
    ),
    "cloud answer damaged": (
        "relayed whole",
        lambda run: change(run, _burst("overflow"), lambda r: replace(r, right=False)),
    ),
    "kept answers wrong": (
        "kept answers are good",
        lambda run: change(run, lambda r: r.decision == "local", lambda r: replace(r, right=False), 10),
    ),
    "escalation at random": (
        "escalation aims well",
        lambda run: change(run, lambda r: r.job.phase == "check", lambda r: replace(r, right=True), 1000),
    ),
    "one nano-dollar off": ("to the nano-dollar", lambda run: books(run, ledger_nano=4999)),
    "a call missing": ("to the nano-dollar", lambda run: books(run, ledger_requests=54)),
    "a call not settled": ("to the nano-dollar", lambda run: books(run, unsettled=1)),
    "more than the bound of a broken call": (
        "to the nano-dollar",
        lambda run: books(run, ledger_nano=5100, unsure=1, estimated_nano=300, at_most_nano=199),
    ),
    "used and idle don't add up": ("both costs", lambda run: books(run, idle_nano=299)),
    "no fixed cost": ("both costs", lambda run: books(run, fixed_nano=0, used_nano=0, idle_nano=0)),
    "ends badly": ("stops in order", lambda run: replace(run, exit_status=-9)),
    "leaves an engine behind": ("stops in order", lambda run: replace(run, left_over=("VLLM::EngineCore",))),
    "too slow": ("quick", lambda run: replace(run, total_s=301.0)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_breaks_its_claim(fault: str) -> None:
    claim, seed = FAULTS[fault]
    assert claim in broken(seed(good()))


def test_run_without_results_holds_nothing_that_needs_them() -> None:
    empty = replace(good(), results=())
    assert {"router first", "local first", "spills over", "private stays", "relayed whole"} <= broken(empty)


def test_percentile_is_nearest_rank() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.99) == 4.0
    assert percentile([], 0.5) == 0.0


def test_a_call_that_was_broken_off_agrees_within_its_bound() -> None:
    """The bill of 5,000 nano-dollars has 200 for a call whose cost the ledger estimates as 300, at most 900."""
    assert broken(books(good(), ledger_nano=5100, unsure=1, estimated_nano=300, at_most_nano=900)) == set()

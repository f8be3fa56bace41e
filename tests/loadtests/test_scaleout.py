"""Two engines, two routers, one ledger: nothing is lost when one engine is drained, and a kill shows as a loss.

These runs are short and use the fake engine; evidence/measures_scaleout.py does the same with real vLLM and reads its
prefix caches. The judging of conversations is tested on made-up turns.
"""

from __future__ import annotations

import pytest
from evidence.measures_scaleout import LOST, lost_requests
from loadtests.scaleout import affinity, sites
from loadtests.scaleout.affinity import AffinityShare, Moved, Turn
from loadtests.scaleout.trial import TrialShape

from spillway_router.testing.postgres_server import ServerMissingError, find_binaries

QUICK, SLOW = sites.fake("--scale", "0.5"), sites.fake("--scale", "2")
"""Answers of about a second; and of about four, so that an engine that is killed has streams under way."""


@pytest.fixture
def _postgres() -> None:
    try:
        find_binaries()
    except ServerMissingError as error:
        pytest.skip(str(error))


def said(backends: str, session: int = 1, phases: str = "") -> list[Turn]:
    """Return the turns of one conversation: L or R answered, a lowercase letter broke off; phases b, d, a."""
    names = {"b": "before", "d": "during", "a": "after", " ": ""}
    return [
        Turn(
            session=session,
            number=number,
            router=0,
            phase=names[phase],
            backend={"L": "left", "R": "right"}[who.upper()],
            fault="" if who.isupper() else "x",
        )
        for number, (who, phase) in enumerate(zip(backends, phases or " " * len(backends), strict=True))
    ]


def test_conversations_that_stay_are_told_from_those_that_dont() -> None:
    kept = affinity.held([*said("LLLL", 1), *said("RRRR", 2)][::-1], 0.6)
    assert (kept.followed, kept.kept, kept.kept_share, kept.lost) == (6, 6, 1.0, 0)
    assert kept.engines == ("left", "right")
    spread = affinity.held([*said("LRLL", 1), *said("RRrR", 2)], 0.4)
    assert (spread.followed, spread.kept, spread.lost) == (6, 4, 1)
    assert affinity.faults(kept, spread, prefix_cache=True) == []
    assert "2 of 6 turns left" in affinity.faults(spread, spread, prefix_cache=False)[0]


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (
            AffinityShare(turns=8, lost=0, followed=6, kept=5, engines=("left", "right"), cached_share=0.6),
            "1 of 6 turns left a healthy engine",
        ),
        (AffinityShare(turns=8, lost=0, followed=6, kept=6, engines=("left",), cached_share=0.6), "on left only"),
        (
            AffinityShare(turns=8, lost=0, followed=6, kept=6, engines=("left", "right"), cached_share=0.4),
            "40.0% of prompt tokens came from prefix caches, no more than the 50",
        ),
    ],
)
def test_what_shows_no_affinity_is_told(kept: AffinityShare, message: str) -> None:
    problems = affinity.faults(
        kept,
        AffinityShare(turns=8, lost=0, followed=6, kept=3, engines=("left", "right"), cached_share=0.5),
        prefix_cache=True,
    )
    assert len(problems) == 1
    assert message in problems[0]


def test_conversations_move_on_when_their_engine_ends_and_only_those() -> None:
    turns = [*said("LLLRR", 1, "bbdda"), *said("RRRRR", 2, "bbdda"), *said("LLLLR", 3, "bbdda")]
    assert affinity.moved(turns, "left") == Moved(there=2, moved=2, elsewhere=1, strayed=0, lost=0)
    assert affinity.drain_faults(affinity.moved(turns, "left")) == []
    wrong = [*said("LLlLL", 1, "bbdda"), *said("RRRLR", 2, "bbdda")]
    moved = affinity.moved(wrong, "left")
    assert moved == Moved(there=1, moved=0, elsewhere=1, strayed=1, lost=1)
    problems = affinity.drain_faults(moved)
    assert problems == [
        "1 conversations of the engine that ended found no other",
        "1 conversations left the engine that went on",
    ]
    assert affinity.drain_faults(affinity.moved(said("RRRRR", 2, "bbdda"), "left")) == [
        "no conversation was on the engine that ended"
    ]


@pytest.mark.usefixtures("_postgres")
def test_a_drained_engine_loses_nothing_and_both_routers_share_requests_and_budget() -> None:
    measurement = lost_requests(
        lambda _line: None, QUICK, TrialShape(requests=90, at_once=12, sessions=8, prefix_cache=False)
    )[LOST]
    assert measurement.value == 0, measurement.details
    assert measurement.n >= 90
    served = measurement.details["served"]
    assert set(served["before"]) == {"left", "right"}
    assert set(served["after"]) == {"right"}
    assert set(measurement.details["by_router"]) == {"0", "1"}
    assert measurement.details["budget_held"]
    assert measurement.details["held"]["with_session_id"]["kept_share"] == 1.0
    assert measurement.details["moved"]["moved"] == measurement.details["moved"]["there"] > 0


@pytest.mark.usefixtures("_postgres")
def test_a_killed_engine_loses_streams() -> None:
    """Seeded fault: SIGKILL instead of SIGTERM."""
    measurement = lost_requests(
        lambda _line: None,
        SLOW,
        TrialShape(requests=60, at_once=24, end="kill", sessions=4, turns=2, prefix_cache=False),
    )[LOST]
    assert measurement.value is not None, measurement.details
    assert measurement.value > 0
    assert "broken off: upstream_interrupted" in measurement.details["faults"]


@pytest.mark.usefixtures("_postgres")
def test_conversations_without_an_id_show_no_affinity() -> None:
    """Seeded fault: no `x-session-id` where it should be sent."""
    shape = TrialShape(requests=12, at_once=12, sessions=12, turns=4, prefix_cache=False, session_ids=False)
    measurement = lost_requests(lambda _line: None, QUICK, shape)[LOST]
    assert measurement.value is None
    assert "turns left a healthy engine that had their prefix" in measurement.details["reason"]

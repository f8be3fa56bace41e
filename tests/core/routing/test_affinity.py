"""Every router finds the same home for a session, and an engine that goes takes only its own sessions along."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from tests.core.scenes import BUSY, IDLE, POLICY, facts, signals

from spillway_router.core.routing.affinity import preferred_engine
from spillway_router.core.routing.policy import decide, unconstrained_locals

ENGINES = ("a", "b", "c")
OWNERS = [("key", f"session {i}") for i in range(3000)]


def test_sessions_spread_evenly() -> None:
    counts = Counter(preferred_engine(owner, ENGINES) for owner in OWNERS)
    assert set(counts) == set(ENGINES)
    assert max(counts.values()) < 1.1 * min(counts.values()) * 1.1


def test_only_the_sessions_of_an_engine_that_goes_move() -> None:
    moved = [(preferred_engine(o, ENGINES), preferred_engine(o, ("a", "b"))) for o in OWNERS]
    assert all(before == after for before, after in moved if before != "c")
    assert {after for before, after in moved if before == "c"} == {"a", "b"}


@given(st.permutations(ENGINES), st.tuples(st.text(), st.text()))
def test_the_order_of_the_configuration_does_not_matter(engines: list[str], owner: tuple[str, str]) -> None:
    assert preferred_engine(owner, engines) == preferred_engine(owner, ENGINES)


def test_no_engine_is_no_home() -> None:
    assert preferred_engine(("key", "session"), ()) == ""


def test_an_engine_that_would_break_the_promise_is_no_home() -> None:
    free = decide(facts(model="both"), signals(local=IDLE, spare=IDLE), POLICY)
    assert sorted(unconstrained_locals(free)) == ["local", "spare"]
    busy = decide(facts(model="both"), signals(local=BUSY, spare=IDLE), POLICY)
    assert unconstrained_locals(busy) == ["spare"]

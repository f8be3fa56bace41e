"""Many engines: a decision looks closely at few of them, and comes out as if it had looked at all."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.scenes import BUSY, CLOUD, FULL, GROQ, IDLE, LOCAL, NOW, facts

from spillway_router.core.routing.backlog import BacklogView, EngineRates
from spillway_router.core.routing.model import Backend, BackendSignals, Decision, Hints, Signals
from spillway_router.core.routing.policy import Policy, decide
from spillway_router.core.routing.shortlist import LISTED

DOWN = replace(IDLE, health="down", health_reason="silent")


def engines(count: int) -> list[Backend]:
    return [replace(LOCAL, name=f"engine{number}") for number in range(count)]


def policy(count: int) -> Policy:
    all_backends = [*engines(count), GROQ]
    return Policy("v1", {one.name: one for one in all_backends}, {"auto": tuple(one.name for one in all_backends)})


def world(states: list[BackendSignals]) -> Signals:
    return Signals(NOW, {f"engine{number}": one for number, one in enumerate(states)} | {"groq": CLOUD})


def both(states: list[BackendSignals]) -> tuple[Decision, Decision]:
    """Return the decision on a request, and that on one of a session, for which all engines are looked at."""
    seen, rule = world(states), policy(len(states))
    return decide(facts(), seen, rule), decide(facts(hints=Hints(session_id="s")), seen, rule)


LOADS = st.builds(
    lambda running, unread, kv, rate: replace(
        IDLE,
        backlog=BacklogView(
            in_flight=running, prefill_tokens=unread if running else 0, decoding=running, kv_tokens=kv * running
        ),
        rates=EngineRates(prefill_tokens_per_s=rate),
    ),
    st.integers(0, 300),
    st.integers(0, 60_000),
    st.integers(0, 900),
    st.sampled_from([6_000.0, 12_000.0]),
)
STATES = st.lists(st.one_of(LOADS, st.sampled_from([IDLE, BUSY, FULL, DOWN])), min_size=1, max_size=24)


@settings(max_examples=300, deadline=None)
@given(states=STATES)
def test_it_decides_as_if_it_had_looked_at_all(states: list[BackendSignals]) -> None:
    few, all_of_them = both(states)
    assert (few.kind, few.reasons, few.refusal) == (all_of_them.kind, all_of_them.reasons, all_of_them.refusal)
    assert {one.backend.name for one in few.candidates} <= {one.backend.name for one in all_of_them.candidates}
    if few.candidates:
        assert few.candidates[0] == all_of_them.candidates[0]


def test_of_many_engines_the_least_busy_ones_are_candidates_before_the_cloud() -> None:
    def running(count: int) -> BackendSignals:
        return replace(IDLE, backlog=BacklogView(in_flight=count, prefill_tokens=100 * count, decoding=count))

    decision, _ = both([running(64 - number) if number != 5 else DOWN for number in range(64)])
    assert [one.backend.name for one in decision.candidates] == ["engine63", "engine62", "engine61", "engine60", "groq"]
    assert len(decision.candidates) == LISTED + 1


def test_engines_that_are_down_do_not_hide_the_least_busy_ones_that_are_up() -> None:
    def running(count: int) -> BackendSignals:
        return replace(IDLE, backlog=BacklogView(in_flight=count, prefill_tokens=100 * count, decoding=count))

    decision, _ = both([*([DOWN] * 30), *(running(count) for count in (7, 5, 3, 5, 9, 1))])
    assert [one.backend.name for one in decision.candidates] == ["engine35", "engine32", "engine31", "engine33", "groq"]


def test_where_none_of_the_few_keeps_the_promise_all_are_looked_at() -> None:
    few, all_of_them = both([BUSY] * 20)
    assert few == all_of_them
    assert few.kind == "overflow"
    assert len(few.candidates) == 21

"""The engine's state machine: each arrow of its drawing, and what holds for every sequence of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_server.engine.lifecycle import (
    Action,
    Event,
    Exited,
    InFlight,
    Lifecycle,
    ProbeOk,
    Rules,
    Stalled,
    State,
    StopRequested,
    Tick,
    begin,
    step,
)

RULES = Rules(
    start_timeout_s=100,
    backoff_base_s=1,
    max_backoff_s=8,
    max_failures=4,
    healthy_after_s=60,
    drain_timeout_s=30,
    grace_s=20,
)


def play(*moves: tuple[float, Event], chance: float = 0.0) -> tuple[Lifecycle, list[Action]]:
    life, actions = begin(0.0, RULES)
    done = list(actions)
    for now, event in moves:
        life, actions = step(life, event, now, RULES, chance)
        done += actions
    return life, done


def test_start_to_ready() -> None:
    life, actions = play((30, ProbeOk()))
    assert (life.state, life.deadline_s) == (State.READY, None)
    assert actions == [Action.LAUNCH, Action.ANNOUNCE]


def test_drain_in_order() -> None:
    life, actions = play((30, ProbeOk()), (40, StopRequested()), (41, InFlight(3)), (42, InFlight(0)), (43, Exited()))
    assert life.state is State.STOPPED
    assert actions == [Action.LAUNCH, Action.ANNOUNCE, Action.WITHDRAW, Action.TERMINATE]


def test_drain_bound_then_grace_then_kill() -> None:
    moves = ((30.0, ProbeOk()), (40.0, StopRequested()), (69.9, Tick()), (70.0, Tick()), (89.9, Tick()), (90.0, Tick()))
    life, actions = play(*moves)
    assert life.state is State.TERMINATING
    assert actions[2:] == [Action.WITHDRAW, Action.TERMINATE, Action.KILL]


@pytest.mark.parametrize(("chance", "wait"), [(0.0, 0.5), (0.5, 0.75)])
def test_backoff_has_jitter(chance: float, wait: float) -> None:
    life, _ = play((5, Exited()), chance=chance)
    assert life.state is State.BACKOFF
    assert life.deadline_s == 5 + wait


def test_backoff_doubles_and_gives_up() -> None:
    life, _ = begin(0.0, RULES)
    waits, actions = [], ()
    now = 0.0
    while not life.is_final:
        life, actions = step(life, Exited(), now, RULES, 1.0)
        if life.deadline_s is not None:
            waits.append(life.deadline_s - now)
            now = life.deadline_s
            life, _ = step(life, Tick(), now, RULES, 1.0)
    assert waits == [1, 2, 4]
    assert life.state is State.FAILED
    assert actions == (Action.GIVE_UP,)


def test_a_healthy_hour_forgets_failures() -> None:
    life, _ = play((1, Exited()), (2, Tick()), (3, Exited()), (9, Tick()), (10, ProbeOk()), (3600, Exited()))
    assert (life.state, life.failures) == (State.BACKOFF, 1)


def test_a_short_life_counts_as_failure() -> None:
    life, actions = play((1, Exited()), (2, Tick()), (3, ProbeOk()), (4, Exited()))
    assert life.failures == 2
    assert actions[-1] is Action.WITHDRAW


def test_too_slow_start_is_ended_and_tried_again() -> None:
    life, actions = play((100, Tick()), (101, Exited()))
    assert (life.state, life.failures) == (State.BACKOFF, 1)
    assert actions[-1] is Action.TERMINATE


def test_stalled_engine_is_withdrawn_and_replaced() -> None:
    life, actions = play((1, ProbeOk()), (500, Stalled()), (501, Exited()), (502, Tick()))
    assert life.state is State.STARTING
    assert actions[2:] == [Action.WITHDRAW, Action.TERMINATE, Action.LAUNCH]


def test_stop_during_a_restart_ends_it() -> None:
    life, _ = play((1, ProbeOk()), (500, Stalled()), (501, StopRequested()), (502, Exited()))
    assert life.state is State.STOPPED


@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED])
def test_final_is_final(state: State) -> None:
    life = Lifecycle(state)
    for event in (StopRequested(), Exited(), ProbeOk(), Stalled(), InFlight(0), Tick()):
        assert step(life, event, 1e9, RULES, 0.5) == (life, ())


EVENTS = st.one_of(
    st.sampled_from([ProbeOk(), Exited(), Stalled(), StopRequested(), Tick()]),
    st.integers(0, 3).map(InFlight),
)


@given(st.lists(st.tuples(st.floats(0, 200), EVENTS), max_size=60), st.floats(0, 1, exclude_max=True))
def test_any_sequence_keeps_the_promises(moves: list[tuple[float, Event]], chance: float) -> None:
    life, actions = begin(0.0, RULES)
    alive, announced, stop_asked, now = True, False, False, 0.0
    for gap, event in moves:
        now += gap
        if isinstance(event, Exited):
            if not alive:
                continue
            alive = False
        stop_asked = stop_asked or isinstance(event, StopRequested)
        life, actions = step(life, event, now, RULES, chance)
        for action in actions:
            if action is Action.LAUNCH:
                assert not alive, "never two engines"
                assert not stop_asked, "never a launch after the stop"
                alive = True
            if action is Action.ANNOUNCE:
                announced = True
            if action is Action.WITHDRAW:
                assert announced, "only what was announced is withdrawn"
                announced = False
            if action in (Action.TERMINATE, Action.KILL):
                assert alive
                assert not announced, "readiness goes before the process does"
        assert announced == (life.state is State.READY)
        if life.is_final:
            assert not alive
    # However it stands, ticks and an exit bring a stop to its end.
    life, _ = step(life, StopRequested(), now, RULES, chance)
    for _ in range(4):
        if life.deadline_s is not None:
            now = life.deadline_s
            life, actions = step(life, Tick(), now, RULES, chance)
            if Action.KILL in actions:
                life, _ = step(life, Exited(), now, RULES, chance)
    assert life.is_final


def test_a_permanent_cause_ends_a_start_at_once() -> None:
    life, actions = play((5, Exited(permanent=True)))
    assert life.state is State.FAILED
    assert actions == [Action.LAUNCH, Action.GIVE_UP]
    # An engine that was ready once is started again, whatever its log says.
    life, actions = play((5, ProbeOk()), (90, Exited(permanent=True)))
    assert life.state is State.BACKOFF

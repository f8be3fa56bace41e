"""When an engine counts as starting, up, hung or down."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.signals.exposition import EngineSample, ReplicaProgress
from spillway_router.signals.liveness import (
    Answer,
    LivenessRules,
    LivenessState,
    LivenessVerdict,
    Observation,
    observe,
)

RULES = LivenessRules()


def sample(*replicas: tuple[float, float]) -> EngineSample:
    """Return a sample; each replica is given as (unfinished requests, steps made)."""
    progress = tuple(ReplicaProgress(str(i), unfinished, (steps,)) for i, (unfinished, steps) in enumerate(replicas))
    return EngineSample(load=None, progress=progress)


@dataclass
class Watch:
    """Probes once a second."""

    state: LivenessState = field(default_factory=lambda: LivenessState(since=0.0))
    monotonic_s: float = 0.0

    def probe(
        self, answer: Answer = "ok", seen: EngineSample | None = None, *, awaiting: int = 0, age: float = 0.0
    ) -> LivenessVerdict:
        self.monotonic_s += 1
        at = self.monotonic_s - age
        self.state, verdict = observe(
            self.state,
            Observation(
                monotonic_s=self.monotonic_s, answer=answer, detail="", sample=seen, sampled_at=at, awaiting=awaiting
            ),
            RULES,
        )
        return verdict


def fresh(unfinished: float) -> EngineSample:
    """Return the sample of an engine that has hardly counted a token since it started."""
    return EngineSample(load=None, progress=(ReplicaProgress("0", unfinished, (unfinished, 0.0), fresh=True),))


def up() -> Watch:
    watch = Watch()
    assert watch.probe("ok", sample((0, 0))).condition == "up"
    return watch


def test_starting_until_the_first_answer() -> None:
    watch = Watch()
    answers: tuple[Answer, ...] = ("refused", "refused", "silent", "not_ready")
    assert [watch.probe(answer).condition for answer in answers] == ["starting"] * 4
    verdict = watch.probe("ok")
    assert (verdict.condition, verdict.reasons) == ("up", ())


def test_an_engine_that_never_comes_up_is_down_after_the_grace() -> None:
    watch = Watch(monotonic_s=RULES.start_grace_s - 2)
    assert watch.probe("refused").condition == "starting"
    assert watch.probe("refused").condition == "down"


def test_one_refusal_takes_it_out_and_two_good_probes_bring_it_back() -> None:
    watch = up()
    assert watch.probe("refused").reasons == ("refused",)
    assert watch.state.condition == "down"
    assert [watch.probe("ok").condition for _ in range(2)] == ["down", "up"]


def test_a_dead_engine_behind_a_live_front_end_is_down() -> None:
    watch = up()
    assert [watch.probe("not_ready").condition for _ in range(3)] == ["down"] * 3


def test_a_new_process_on_the_port_is_starting() -> None:
    watch = up()
    watch.probe("refused")
    assert [watch.probe("not_ready").condition for _ in range(3)] == ["starting"] * 3
    assert watch.probe("ok").condition == "up"


def test_a_stalled_engine_is_hung_within_ten_seconds() -> None:
    watch = up()
    assert watch.probe("ok", sample((3, 100))).condition == "up"
    began = watch.monotonic_s
    verdicts = [watch.probe("ok", sample((3, 100))) for _ in range(10)]
    hung_at = next(began + i + 1 for i, verdict in enumerate(verdicts) if verdict.condition == "hung")
    assert hung_at - began == RULES.hung_after_s
    assert verdicts[6].reasons == ("stalled: 3 requests unfinished, no step for 7.0 s",)
    assert [verdict.wants_proof for verdict in verdicts] == [False, False] + [True] * 8


def test_a_slow_engine_that_steps_is_not_hung() -> None:
    watch = up()
    conditions = {watch.probe("ok", sample((1, second // 6))).condition for second in range(60)}
    assert conditions == {"up"}


def test_an_idle_engine_is_not_hung_and_its_clock_starts_with_its_work() -> None:
    watch = up()
    assert {watch.probe("ok", sample((0, 5))).condition for _ in range(60)} == {"up"}
    # A request has arrived, and no other mark of the engine moves.
    assert {watch.probe("ok", sample((1, 5))).condition for _ in range(7)} == {"up"}
    assert watch.probe("ok", sample((1, 5))).condition == "hung"


def test_an_idle_engine_that_does_not_start_our_requests_is_hung() -> None:
    """Its gauges still say that it is idle, because they move only when it steps."""
    watch = up()
    assert {watch.probe("ok", sample((0, 5)), awaiting=2).condition for _ in range(7)} == {"up"}
    verdict = watch.probe("ok", sample((0, 5)), awaiting=2)
    assert verdict.condition == "hung"
    assert verdict.reasons == ("stalled: 2 sent and none started, no step for 7.0 s",)
    # Its requests were sent elsewhere, which does not make it healthy; a step does.
    assert {watch.probe("ok", sample((0, 5))).condition for _ in range(20)} == {"hung"}
    assert watch.probe("ok", sample((0, 6))).condition == "up"


def test_waiting_for_a_first_token_is_no_hang_while_others_get_tokens() -> None:
    watch = up()
    assert {watch.probe("ok", sample((4, n)), awaiting=1).condition for n in range(60)} == {"up"}


def test_one_stuck_replica_among_live_ones_is_reported() -> None:
    watch = up()
    verdicts = [watch.probe("ok", sample((2, n), (2, 7))) for n in range(9)]
    assert verdicts[-1].condition == "hung"
    assert verdicts[-1].reasons == ("stalled: 2 requests unfinished at replica 1, no step for 8.0 s",)


def test_without_counters_a_long_wait_proves_nothing() -> None:
    watch = up()
    assert {watch.probe("ok", None, awaiting=5).condition for _ in range(60)} == {"up"}


def test_an_old_sample_is_ignored() -> None:
    watch = up()
    assert {watch.probe("ok", sample((3, 100)), age=6.0).condition for _ in range(30)} == {"up"}


def test_a_silent_front_end_is_hung_until_it_answers() -> None:
    watch = up()
    conditions = [watch.probe("silent").condition for _ in range(8)]
    assert conditions == ["up"] * 6 + ["hung"] * 2
    assert [watch.probe("ok").condition for _ in range(2)] == ["hung", "up"]


def test_a_restart_ends_a_hang() -> None:
    watch = up()
    for _ in range(9):
        watch.probe("ok", sample((3, 100)))
    assert watch.state.condition == "hung"
    assert watch.probe("refused").condition == "down"
    assert [watch.probe("ok", sample((0, 0))).condition for _ in range(2)] == ["down", "up"]


probes = st.tuples(
    st.sampled_from(["ok", "ok", "ok", "not_ready", "refused", "silent"]),
    st.none() | st.tuples(st.integers(0, 2), st.integers(0, 3)),
    st.integers(0, 2),
)


@given(st.lists(probes, max_size=60))
def test_invariants(steps: list[tuple[Answer, tuple[float, float] | None, int]]) -> None:
    watch = Watch()
    before: LivenessVerdict | None = None
    for answer, replica, awaiting in steps:
        verdict = watch.probe(answer, None if replica is None else sample(replica), awaiting=awaiting)
        assert (verdict.reasons == ()) == (verdict.condition == "up" and answer != "silent")
        assert not (verdict.condition == "up" and answer in ("refused", "not_ready"))
        assert verdict.since <= watch.monotonic_s
        if before is not None and before.condition == verdict.condition:
            assert verdict.since == before.since
        before = verdict
    for _ in range(RULES.recover_after + 1):  # after any history, an engine that answers and steps comes back
        verdict = watch.probe("ok", sample((1, watch.monotonic_s)))
    assert verdict.condition == "up"


@pytest.mark.parametrize("awaiting", [0, 1])
def test_an_engine_that_just_started_may_compile_and_not_for_ever(awaiting: int) -> None:
    watch = Watch()
    watch.probe("refused")
    watch.probe("ok", fresh(0))
    waited = [watch.probe("ok", fresh(1), awaiting=awaiting).condition for _ in range(int(RULES.warm_up_s))]
    assert set(waited) == {"up"}
    assert watch.probe("ok", fresh(1), awaiting=awaiting).condition == "hung"


def test_an_engine_that_was_there_before_the_router_is_not_spared() -> None:
    watch = Watch()
    watch.probe("ok", fresh(0))
    waited = [watch.probe("ok", fresh(1)).condition for _ in range(int(RULES.hung_after_s) + 1)]
    assert waited[-1] == "hung"


def test_an_engine_that_has_worked_since_its_start_is_not_spared() -> None:
    watch = Watch()
    watch.probe("refused")
    watch.probe("ok", fresh(1))
    watch.probe("ok", sample((1, 1)))
    conditions = [watch.probe("ok", sample((1, 1))).condition for _ in range(int(RULES.hung_after_s) + 1)]
    assert conditions[-1] == "hung"


def asked(watch: Watch, answer: Answer = "ok", seen: EngineSample | None = None, *, token_at: float) -> LivenessVerdict:
    """Probe an engine of which a token can be requested; the last one arrived at `token_at`."""
    watch.monotonic_s += 1
    observation = Observation(
        monotonic_s=watch.monotonic_s,
        answer=answer,
        sample=seen,
        sampled_at=watch.monotonic_s,
        askable=True,
        token_at=token_at,
    )
    watch.state, verdict = observe(watch.state, observation, RULES)
    return verdict


def test_an_engine_that_died_or_hung_is_out_until_a_token_came_since() -> None:
    for bad in ("refused", "not_ready"):
        watch = up()
        asked(watch, bad, token_at=1.0)
        conditions = {asked(watch, seen=sample((0, second)), token_at=1.0).condition for second in range(30)}
        assert conditions <= {"down", "starting"}, "it answers and steps, and no token came"
        assert asked(watch, seen=sample((0, 0)), token_at=watch.monotonic_s).condition == "up"


def test_an_engine_that_was_seen_to_start_is_up_with_its_first_token() -> None:
    watch = Watch()
    asked(watch, "refused", token_at=-1.0)
    verdicts = [asked(watch, token_at=-1.0) for _ in range(3)]
    assert [verdict.condition for verdict in verdicts] == ["starting"] * 3
    assert verdicts[-1].wants_proof
    assert verdicts[-1].reasons == ("it answers and has generated no token yet",)
    assert asked(watch, token_at=watch.monotonic_s).condition == "up"


def test_an_engine_that_never_generates_a_token_is_down_after_the_grace() -> None:
    watch = Watch()
    asked(watch, "refused", token_at=-1.0)
    watch.monotonic_s += RULES.start_grace_s
    assert asked(watch, token_at=-1.0).condition == "down"


def test_counters_that_stand_still_are_wrong_while_tokens_come() -> None:
    """Its page is frozen with one request running, and each token that is requested arrives."""
    watch = up()
    conditions = {asked(watch, seen=sample((1, 5)), token_at=watch.monotonic_s // 4 * 4).condition for _ in range(60)}
    assert conditions == {"up"}


def test_a_token_of_one_replica_does_not_excuse_another() -> None:
    watch = up()
    verdicts = [asked(watch, seen=sample((1, n), (1, 5)), token_at=watch.monotonic_s) for n in range(10)]
    assert verdicts[-1].condition == "hung"

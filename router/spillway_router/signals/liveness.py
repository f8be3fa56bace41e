"""Is a local engine alive? A state machine over the answers of its health path and the movement of its counters.

Theory. A health path speaks for the front end only. vLLM's answers 200 while the engine behind it hangs, and a port may
be bound before there is an engine. Whether an engine is alive shows in its work: while it has requests, its counters
and gauges (the marks) move with every step. An engine therefore counts as *hung* if it has unfinished requests, or the
router has requests there that wait for their first token, and no mark has moved for `hung_after_s`; and also if its
front end accepts connections and answers none.

    starting --ok--> up --refused, 5xx--> down --ok x recover_after--> up
                     up --no step, no answer--> hung --a token--> up

- A refused connection is certain at once: nothing listens there. One failed probe takes the engine out.
- A stall is certain only after a while, because a long prompt may take seconds. From `suspect_after_s` on, the prober
  requests one token (`wants_proof`): a live engine must step for it, and its marks move. That distinguishes stale
  gauges, or a miscount of the router, from a stuck engine.
- The first requests of an engine compile kernels and a grammar, so an engine whose start was observed has `warm_up_s`
  instead of `hung_after_s` for a step as long as it has hardly counted a token.
- An engine that was out comes back only with a token that was requested and arrived since: a health path answers
  before the engine behind it generates, and an idle engine that hangs looks healthy. Otherwise it would accept one
  request per round and lose it. Where no token can be requested, a hung engine comes back by a step.
- A token also shows that counters which stand still are wrong, unless there are several replicas: it came from one.
- Hysteresis applies to the recovery only: it takes `recover_after` good probes in a row.

This module is pure: it does no I/O and reads no clock. All times are seconds of one monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from spillway_router.signals.exposition import EngineSample

Condition = Literal["starting", "up", "hung", "down"]
Answer = Literal[
    "ok",  # the health path answered
    "not_ready",  # it answered 5xx: loading its model, or its engine is dead
    "refused",  # nothing listens
    "silent",  # no answer in time, whether or not the connection was made
]


@dataclass(frozen=True, slots=True)
class LivenessRules:
    """Times in seconds. With a probe every second the defaults find a dead engine in 2 s and a hung one in 10 s.

    An engine with single steps longer than `hung_after_s` (a large model on a CPU) needs a larger value.
    """

    hung_after_s: float = 7.0
    suspect_after_s: float = 3.0
    warm_up_s: float = 120.0
    """Instead of `hung_after_s`, for an engine that has just started."""
    stale_after_s: float = 5.0
    """A sample older than this is ignored."""
    start_grace_s: float = 900.0
    """How long an engine that was never up may take to start before it counts as down."""
    recover_after: int = 2


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of one probe of an engine, with the last sample of its metrics."""

    monotonic_s: float
    answer: Answer
    detail: str = ""
    """Details for people: an HTTP status, the name of an error."""
    sample: EngineSample | None = None
    sampled_at: float = 0.0
    awaiting: int = 0
    """Requests that the router has sent to the engine and that have no first token yet."""
    askable: bool = False
    """Whether a token can be requested as proof of life."""
    token_at: float = -math.inf
    """When the last token that was requested arrived."""


@dataclass(frozen=True, slots=True)
class _Replica:
    marks: tuple[float, ...]
    moved_at: float
    unfinished: float = 0.0
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class LivenessState:
    """What is remembered between two probes. Start with `LivenessState(since=monotonic_s)`."""

    since: float
    condition: Condition = "starting"
    reasons: tuple[str, ...] = ()
    good_probes: int = 0
    last_ok_at: float | None = None
    last_answer: Answer | None = None
    seen_absent: bool = False
    """Whether a probe found no engine, so that one which is up now has started since."""
    replicas: Mapping[str, _Replica] = field(default_factory=lambda: MappingProxyType({}))
    awaiting_since: float | None = None
    stalled: bool = False
    """Whether the engine hangs because it makes no steps: then an answer alone does not bring it back."""
    doubted_at: float = -math.inf
    """When the engine last gave a reason to leave it out. Only a later token brings it back."""
    token_at: float = -math.inf
    """When the last token that is accounted for arrived."""


@dataclass(frozen=True, slots=True)
class LivenessVerdict:
    """The judgement on an engine. Only an engine that is "up" may get requests."""

    condition: Condition
    reasons: tuple[str, ...]
    since: float
    """When this condition began."""
    wants_proof: bool = False
    """Whether to request one token now: a live engine must step for it."""


@dataclass(frozen=True, slots=True)
class _Stall:
    seconds: float
    reason: str
    fresh: bool = False
    """Whether the engine has hardly counted a token yet."""


def observe(
    state: LivenessState, observation: Observation, rules: LivenessRules
) -> tuple[LivenessState, LivenessVerdict]:
    """Return the next state and the verdict after one probe."""
    state, moved = _follow(state, observation, rules)
    if observation.answer == "ok":
        state = replace(state, last_ok_at=observation.monotonic_s, good_probes=state.good_probes + 1)
    else:
        state = replace(state, good_probes=0)
    stall = _stall(state, observation)
    if observation.answer != "ok":
        state = replace(state, doubted_at=observation.monotonic_s)
    condition, reasons, stalled = _judge(state, observation, stall, moved, rules)
    changed = condition != state.condition
    state = replace(
        state,
        condition=condition,
        reasons=reasons,
        stalled=stalled,
        doubted_at=observation.monotonic_s if changed and condition == "hung" else state.doubted_at,
        since=observation.monotonic_s if changed else state.since,
        good_probes=0 if changed else state.good_probes,
        last_answer=observation.answer,
        seen_absent=state.seen_absent or observation.answer in ("refused", "not_ready"),
    )
    doubtful = condition != "up" or stall.seconds >= rules.suspect_after_s
    wants_proof = observation.answer == "ok" and doubtful
    return state, LivenessVerdict(condition, reasons, state.since, wants_proof)


def _follow(state: LivenessState, observation: Observation, rules: LivenessRules) -> tuple[LivenessState, bool]:
    """Return the state with the replicas' marks noted, and whether any replica has moved since the last probe."""
    awaiting_since = state.awaiting_since
    if observation.awaiting <= 0:
        awaiting_since = None
    elif awaiting_since is None:
        awaiting_since = observation.monotonic_s
    fresh = observation.sample is not None and observation.monotonic_s - observation.sampled_at <= rules.stale_after_s
    replicas: dict[str, _Replica] = {}
    moved = False
    if observation.sample is not None and fresh:
        for progress in observation.sample.progress:
            before = state.replicas.get(progress.replica)
            same = before is not None and before.marks == progress.marks
            moved = moved or (before is not None and not same)
            # A replica without work is not stalled: its clock starts with its work.
            idle = before is None or not before.unfinished
            at = before.moved_at if before is not None and same and not idle else observation.sampled_at
            replicas[progress.replica] = _Replica(progress.marks, at, progress.unfinished, progress.fresh)
    elif state.stalled or state.condition == "hung":
        replicas = dict(state.replicas)
    if observation.token_at > state.token_at and len(replicas) <= 1:
        moved = True
        replicas = {name: replace(replica, moved_at=observation.token_at) for name, replica in replicas.items()}
    if moved and awaiting_since is not None:
        awaiting_since = observation.monotonic_s
    state = replace(
        state,
        replicas=MappingProxyType(replicas),
        awaiting_since=awaiting_since,
        token_at=max(state.token_at, observation.token_at),
    )
    return state, moved


def _stall(state: LivenessState, observation: Observation) -> _Stall:
    """Return the longest time that a replica with work went without a step; 0 if it steps, idles or is unknown."""
    worst = _Stall(0.0, "")
    for name, replica in state.replicas.items():
        seconds = observation.monotonic_s - replica.moved_at
        if replica.unfinished > 0 and seconds > worst.seconds:
            where = f" at replica {name}" if len(state.replicas) > 1 else ""
            requests = f"{replica.unfinished:.0f} request{'s' if replica.unfinished != 1 else ''}"
            reason = f"stalled: {requests} unfinished{where}, no step for {seconds:.1f} s"
            worst = _Stall(seconds, reason, replica.fresh)
    # Without counters a long wait proves nothing, because the engine may be reading a long prompt.
    if state.replicas and state.awaiting_since is not None:
        seconds = observation.monotonic_s - state.awaiting_since
        if seconds > worst.seconds:
            reason = f"stalled: {observation.awaiting} sent and none started, no step for {seconds:.1f} s"
            worst = _Stall(seconds, reason, all(replica.fresh for replica in state.replicas.values()))
    return worst


def _judge(
    state: LivenessState, observation: Observation, stall: _Stall, moved: bool, rules: LivenessRules
) -> tuple[Condition, tuple[str, ...], bool]:
    """Return the condition, its reasons, and whether it is a stall."""
    if observation.answer in ("refused", "not_ready"):
        return *_absent(state, observation, rules), False
    if observation.answer == "silent":
        return *_silent(state, observation, rules), state.stalled
    if stall.seconds >= (rules.warm_up_s if stall.fresh and state.seen_absent else rules.hung_after_s):
        return "hung", (stall.reason,), True
    proved = observation.token_at > state.doubted_at if observation.askable else not state.stalled or moved
    if state.condition == "up" or (state.condition == "starting" and (proved or not state.seen_absent)):
        return "up", (), False
    if state.stalled and not proved:
        return "hung", state.reasons, True
    if state.condition == "starting":
        late = observation.monotonic_s - state.since >= rules.start_grace_s
        return ("down" if late else "starting"), ("it answers and has generated no token yet",), False
    if proved and state.good_probes >= rules.recover_after:
        return "up", (), False
    recovering = f"recovering: {min(state.good_probes, rules.recover_after)} of {rules.recover_after} good probes"
    return state.condition, (recovering if proved else f"{recovering}, no token yet",), state.stalled and not proved


def _absent(state: LivenessState, observation: Observation, rules: LivenessRules) -> tuple[Condition, tuple[str, ...]]:
    reason = f"{observation.answer}: {observation.detail}" if observation.detail else observation.answer
    if state.condition == "starting" and observation.monotonic_s - state.since < rules.start_grace_s:
        return "starting", (reason,)
    # Something listens again where nothing did: it is a new process that loads its model.
    if state.condition == "down" and state.last_answer == "refused" and observation.answer == "not_ready":
        return "starting", (reason,)
    return "down", (reason,)


def _silent(state: LivenessState, observation: Observation, rules: LivenessRules) -> tuple[Condition, tuple[str, ...]]:
    detail = f" ({observation.detail})" if observation.detail else ""
    if state.condition == "starting":
        late = observation.monotonic_s - state.since >= rules.start_grace_s
        return ("down" if late else "starting"), (f"silent: no answer yet{detail}",)
    quiet_s = observation.monotonic_s - (state.last_ok_at if state.last_ok_at is not None else state.since)
    if state.condition == "up" and quiet_s < rules.hung_after_s:
        return "up", (f"silent: no answer for {quiet_s:.1f} s{detail}",)
    return ("down" if state.condition == "down" else "hung"), (f"silent: no answer for {quiet_s:.1f} s{detail}",)

"""Is a local engine alive? A state machine over what its health path says and what its counters do.

Theory. A health path speaks for the front end. vLLM's answers 200 while the engine behind it hangs, and a port may be
bound before there is an engine. Whether an engine lives shows in its work: while it has requests, its counters and
gauges move with every step. So an engine is *hung* when it has unfinished requests, or we have requests there that wait
for their first token, and no mark moved for `hung_after_s`; also when its front end takes connections and answers none.

    starting --ok--> up --refused, 5xx--> down --ok x recover_after--> up
                     up --no step, no answer--> hung --a step, or answers again--> up

- Refused is certain at once: nothing listens there. One failed look takes the engine out.
- A stall is certain only after a while: a long prompt may take seconds. From `suspect_after_s` on the prober asks for
  one token (`wants_proof`): an engine that lives must step for it, and its marks move. That tells stale gauges, or a
  miscount of ours, from a stuck engine.
- A hung engine that fell quiet is not well again: only a step or a restart shows that. Otherwise it would take in one
  request per round and lose it.
- Hysteresis guards the way back only: `recover_after` good looks in a row.

Pure: no I/O and no clock; `now` is seconds of any one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from types import MappingProxyType
from typing import Literal

from spillway_router.core.frozen import dataclass
from spillway_router.signals.exposition import EngineSample

Condition = Literal["starting", "up", "hung", "down"]
Answer = Literal[
    "ok",  # the health path answered
    "not_ready",  # it answered 5xx: loading its model, or its engine is dead
    "refused",  # nothing listens
    "silent",  # connected, or not even that, and no answer in time
]


@dataclass(frozen=True, slots=True)
class LivenessRules:
    """Times in seconds. With looks every second the defaults find a dead engine in 2 s and a hung one in 10 s.

    An engine whose single steps last longer than `hung_after_s` (a large model on a CPU) needs a larger value.
    """

    hung_after_s: float = 7.0
    suspect_after_s: float = 3.0
    stale_after_s: float = 5.0
    """A sample older than this says nothing."""
    start_grace_s: float = 900.0
    """How long an engine that was never up may take to start before it counts as down."""
    recover_after: int = 2


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at an engine."""

    now: float
    answer: Answer
    detail: str = ""
    """What was seen, for people: an HTTP status, an error's name."""
    sample: EngineSample | None = None
    sampled_at: float = 0.0
    awaiting: int = 0
    """Requests the router sent there that have no first token yet."""


@dataclass(frozen=True, slots=True)
class _Replica:
    marks: tuple[float, ...]
    moved_at: float
    unfinished: float = 0.0


@dataclass(frozen=True, slots=True)
class LivenessState:
    """What is remembered between two looks. Start with `LivenessState(since=now)`."""

    since: float
    condition: Condition = "starting"
    reasons: tuple[str, ...] = ()
    good_looks: int = 0
    last_ok_at: float | None = None
    last_answer: Answer | None = None
    replicas: Mapping[str, _Replica] = field(default_factory=lambda: MappingProxyType({}))
    awaiting_since: float | None = None
    stalled: bool = False
    """Hung for want of steps, not of answers: more than an answer is needed to come back."""


@dataclass(frozen=True, slots=True)
class LivenessVerdict:
    """What to believe of an engine now. Only "up" may get requests."""

    condition: Condition
    reasons: tuple[str, ...]
    since: float
    """When this condition began."""
    wants_proof: bool = False
    """Ask the engine for one token now: a live one must step for it."""


@dataclass(frozen=True, slots=True)
class _Stall:
    seconds: float
    reason: str


def observe(state: LivenessState, seen: Observation, rules: LivenessRules) -> tuple[LivenessState, LivenessVerdict]:
    """The next state and the verdict after one look."""
    state, moved = _follow(state, seen, rules)
    if seen.answer == "ok":
        state = replace(state, last_ok_at=seen.now, good_looks=state.good_looks + 1)
    else:
        state = replace(state, good_looks=0)
    stall = _stall(state, seen)
    condition, reasons, stalled = _judge(state, seen, stall, moved, rules)
    changed = condition != state.condition
    state = replace(
        state,
        condition=condition,
        reasons=reasons,
        stalled=stalled,
        since=seen.now if changed else state.since,
        good_looks=0 if changed else state.good_looks,
        last_answer=seen.answer,
    )
    wants_proof = seen.answer == "ok" and (stalled or stall.seconds >= rules.suspect_after_s)
    return state, LivenessVerdict(condition, reasons, state.since, wants_proof)


def _follow(state: LivenessState, seen: Observation, rules: LivenessRules) -> tuple[LivenessState, bool]:
    """Notes which replicas moved. True if any did since the look before."""
    awaiting_since = state.awaiting_since
    if seen.awaiting <= 0:
        awaiting_since = None
    elif awaiting_since is None:
        awaiting_since = seen.now
    fresh = seen.sample is not None and seen.now - seen.sampled_at <= rules.stale_after_s
    known: dict[str, _Replica] = {}
    moved = False
    if seen.sample is not None and fresh:
        for progress in seen.sample.progress:
            before = state.replicas.get(progress.replica)
            same = before is not None and before.marks == progress.marks
            moved = moved or (before is not None and not same)
            # A replica that had nothing to do was not stalled: its clock starts with its work.
            idle = before is None or not before.unfinished
            at = before.moved_at if before is not None and same and not idle else seen.sampled_at
            known[progress.replica] = _Replica(progress.marks, at, progress.unfinished)
    elif state.stalled or state.condition == "hung":
        known = dict(state.replicas)
    if moved and awaiting_since is not None:
        awaiting_since = seen.now
    return replace(state, replicas=MappingProxyType(known), awaiting_since=awaiting_since), moved


def _stall(state: LivenessState, seen: Observation) -> _Stall:
    """The longest time an engine with work went without a step; 0 where it works, idles or tells nothing."""
    worst = _Stall(0.0, "")
    for name, replica in state.replicas.items():
        seconds = seen.now - replica.moved_at
        if replica.unfinished > 0 and seconds > worst.seconds:
            where = f" at replica {name}" if len(state.replicas) > 1 else ""
            requests = f"{replica.unfinished:.0f} request{'s' if replica.unfinished != 1 else ''}"
            worst = _Stall(seconds, f"stalled: {requests} unfinished{where}, no step for {seconds:.1f} s")
    # Without counters a long wait proves nothing: it may be a long prompt.
    if state.replicas and state.awaiting_since is not None:
        seconds = seen.now - state.awaiting_since
        if seconds > worst.seconds:
            reason = f"stalled: {seen.awaiting} sent and none began, no step for {seconds:.1f} s"
            worst = _Stall(seconds, reason)
    return worst


def _judge(
    state: LivenessState, seen: Observation, stall: _Stall, moved: bool, rules: LivenessRules
) -> tuple[Condition, tuple[str, ...], bool]:
    """Condition, reasons, and whether it is a stall."""
    if seen.answer in ("refused", "not_ready"):
        return *_absent(state, seen, rules), False
    if seen.answer == "silent":
        return *_silent(state, seen, rules), state.stalled
    if stall.seconds >= rules.hung_after_s:
        return "hung", (stall.reason,), True
    if state.stalled and not moved and state.condition == "hung":
        return "hung", state.reasons, True
    if state.condition in ("up", "starting") or state.good_looks >= rules.recover_after:
        return "up", (), False
    return state.condition, (f"recovering: {state.good_looks} of {rules.recover_after} good looks",), False


def _absent(state: LivenessState, seen: Observation, rules: LivenessRules) -> tuple[Condition, tuple[str, ...]]:
    reason = f"{seen.answer}: {seen.detail}" if seen.detail else seen.answer
    if state.condition == "starting" and seen.now - state.since < rules.start_grace_s:
        return "starting", (reason,)
    # Something listens again where nothing did: a new process, loading its model.
    if state.condition == "down" and state.last_answer == "refused" and seen.answer == "not_ready":
        return "starting", (reason,)
    return "down", (reason,)


def _silent(state: LivenessState, seen: Observation, rules: LivenessRules) -> tuple[Condition, tuple[str, ...]]:
    detail = f" ({seen.detail})" if seen.detail else ""
    if state.condition == "starting":
        late = seen.now - state.since >= rules.start_grace_s
        return ("down" if late else "starting"), (f"silent: no answer yet{detail}",)
    quiet_s = seen.now - (state.last_ok_at if state.last_ok_at is not None else state.since)
    if state.condition == "up" and quiet_s < rules.hung_after_s:
        return "up", (f"silent: no answer for {quiet_s:.1f} s{detail}",)
    return ("down" if state.condition == "down" else "hung"), (f"silent: no answer for {quiet_s:.1f} s{detail}",)

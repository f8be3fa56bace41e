"""The life of one engine as a state machine without I/O: (lifecycle, event, now) -> lifecycle and actions.

    STARTING --ProbeOk--> READY --Exited/Stalled--> BACKOFF --Tick--> STARTING
    STARTING --Exited/too slow--> BACKOFF (or FAILED after too many failures in a row)
    STARTING/BACKOFF --Stop--> TERMINATING/STOPPED
    READY --Stop--> DRAINING --nothing in flight, or the bound--> TERMINATING --Exited--> STOPPED
    TERMINATING --grace over--> Kill, then --Exited--> STOPPED

Draining has an order: readiness is withdrawn first, then running requests are waited for, then the process is asked
to end (SIGTERM), then made to (SIGKILL). A restart waits base x 2^(failures-1), at most a bound, between half and all
of it by chance. Failures in a row are forgotten once the engine has been ready for a while. The caller holds clock,
chance and process; `deadline` says when it must send the next Tick.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class State(StrEnum):
    """Where the engine is in its life; STOPPED and FAILED are final."""

    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    DRAINING = "draining"
    TERMINATING = "terminating"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Rules:
    """Times in seconds, and how many failures in a row are one too many."""

    start_timeout: float = 1800.0
    backoff_base: float = 1.0
    backoff_most: float = 60.0
    failures_most: int = 5
    healthy_after: float = 60.0
    drain_bound: float = 30.0
    grace: float = 20.0


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """State, failures in a row, since when (seconds of the caller's clock), when the next Tick is due (None: never),
    whether the running process must be followed by a restart rather than the end."""

    state: State
    failures: int = 0
    since: float = 0.0
    deadline: float | None = None
    restart: bool = False

    @property
    def is_final(self) -> bool:
        """Whether nothing happens any more."""
        return self.state in (State.STOPPED, State.FAILED)


@dataclass(frozen=True, slots=True)
class ProbeOk:
    """The engine generated a token."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The process has ended."""


@dataclass(frozen=True, slots=True)
class Stalled:
    """Requests run, but no token has come for too long."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The user or the system asks for an orderly end."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """How many requests the engine still holds, by its own metrics."""

    count: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = ProbeOk | Exited | Stalled | StopAsked | InFlight | Tick


class Action(StrEnum):
    """What the caller must do, in the order given."""

    LAUNCH = "launch"
    ANNOUNCE = "announce"
    WITHDRAW = "withdraw"
    TERMINATE = "terminate"
    KILL = "kill"
    GIVE_UP = "give_up"


Step = tuple[Lifecycle, tuple[Action, ...]]


def begin(now: float, rules: Rules) -> Step:
    """The first step: launch."""
    return Lifecycle(State.STARTING, 0, now, now + rules.start_timeout), (Action.LAUNCH,)


def step(life: Lifecycle, event: Event, now: float, rules: Rules, chance: float) -> Step:
    """One event; `chance` in [0, 1) spreads restarts. An event that means nothing in a state changes nothing."""
    if life.is_final:
        return life, ()
    match event:
        case StopAsked():
            return _stop(life, now, rules)
        case Exited():
            return _exited(life, now, rules, chance)
        case ProbeOk() if life.state is State.STARTING:
            return replace(life, state=State.READY, since=now, deadline=None), (Action.ANNOUNCE,)
        case Stalled() if life.state is State.READY:
            return _end(life, now, rules, restart=True), (Action.WITHDRAW, Action.TERMINATE)
        case InFlight(count) if life.state is State.DRAINING and count == 0:
            return _end(life, now, rules), (Action.TERMINATE,)
        case Tick() if life.deadline is not None and now >= life.deadline:
            return _due(life, now, rules)
    return life, ()


def _stop(life: Lifecycle, now: float, rules: Rules) -> Step:
    match life.state:
        case State.READY:
            drained = replace(life, state=State.DRAINING, since=now, deadline=now + rules.drain_bound, restart=False)
            return drained, (Action.WITHDRAW,)
        case State.STARTING:
            return _end(life, now, rules), (Action.TERMINATE,)
        case State.BACKOFF:
            return replace(life, state=State.STOPPED, since=now, deadline=None), ()
        case State.TERMINATING:
            return replace(life, restart=False), ()
    return life, ()


def _exited(life: Lifecycle, now: float, rules: Rules, chance: float) -> Step:
    withdraw = (Action.WITHDRAW,) if life.state is State.READY else ()
    if life.state is State.DRAINING or (life.state is State.TERMINATING and not life.restart):
        return replace(life, state=State.STOPPED, since=now, deadline=None), withdraw
    if life.state is State.BACKOFF:
        return life, ()
    steady = life.state is State.READY and now - life.since >= rules.healthy_after
    failures = 1 if steady else life.failures + 1
    if failures >= rules.failures_most:
        return Lifecycle(State.FAILED, failures, now), (*withdraw, Action.GIVE_UP)
    wait = min(rules.backoff_base * 2 ** (failures - 1), rules.backoff_most) * (0.5 + 0.5 * chance)
    return Lifecycle(State.BACKOFF, failures, now, now + wait), withdraw


def _due(life: Lifecycle, now: float, rules: Rules) -> Step:
    match life.state:
        case State.BACKOFF:
            return Lifecycle(State.STARTING, life.failures, now, now + rules.start_timeout), (Action.LAUNCH,)
        case State.STARTING:
            return _end(life, now, rules, restart=True), (Action.TERMINATE,)
        case State.DRAINING:
            return _end(life, now, rules), (Action.TERMINATE,)
        case State.TERMINATING:
            # Once more every grace period, should the first one have found nothing to kill.
            return replace(life, deadline=now + rules.grace), (Action.KILL,)
    return life, ()


def _end(life: Lifecycle, now: float, rules: Rules, restart: bool = False) -> Lifecycle:
    return replace(life, state=State.TERMINATING, since=now, deadline=now + rules.grace, restart=restart)

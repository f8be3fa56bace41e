"""The life of one engine as a state machine without I/O: (lifecycle, event, time) -> lifecycle and actions.

    STARTING --ProbeOk--> READY --Exited/Stalled--> BACKOFF --Tick--> STARTING
    STARTING --Exited/too slow--> BACKOFF (or FAILED after too many failures in a row)
    STARTING --Exited for a permanent cause--> FAILED
    STARTING/BACKOFF --Stop--> TERMINATING/STOPPED
    READY --Stop--> DRAINING --nothing in flight, or timeout--> TERMINATING --Exited--> STOPPED
    TERMINATING --grace period over--> Kill, then --Exited--> STOPPED

Draining follows an order: withdraw readiness, wait for running requests, ask the process to end (SIGTERM), kill it
(SIGKILL). A restart waits base x 2^(failures-1), up to a maximum, of which chance takes between half and all. Failures
in a row are forgotten once the engine has been ready for a while. The caller owns clock, randomness and process;
`deadline_s` says when it must send the next Tick.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class State(StrEnum):
    """The states of an engine; STOPPED and FAILED are final."""

    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    DRAINING = "draining"
    TERMINATING = "terminating"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Rules:
    """The times of the state machine in seconds, and the number of failures in a row at which it gives up."""

    start_timeout_s: float = 1800.0
    backoff_base_s: float = 1.0
    max_backoff_s: float = 60.0
    max_failures: int = 5
    healthy_after_s: float = 60.0
    drain_timeout_s: float = 30.0
    grace_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The state, the failures in a row, when the state began, and when the next Tick is due (None: never).

    Times are in seconds of the caller's clock. `restart` says that the engine is launched again once its process has
    ended.
    """

    state: State
    failures: int = 0
    since_s: float = 0.0
    deadline_s: float | None = None
    restart: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the state is final."""
        return self.state in (State.STOPPED, State.FAILED)


@dataclass(frozen=True, slots=True)
class ProbeOk:
    """The engine generated a token."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The process has ended; `permanent` says that its cause would end it again, however often it is started."""

    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Stalled:
    """Requests are running, but no token has been generated for too long."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The user or the system requests an orderly shutdown."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """How many requests the engine still has, according to its own metrics."""

    count: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = ProbeOk | Exited | Stalled | StopRequested | InFlight | Tick


class Action(StrEnum):
    """What the caller must do; actions are carried out in the order given."""

    LAUNCH = "launch"
    ANNOUNCE = "announce"
    WITHDRAW = "withdraw"
    TERMINATE = "terminate"
    KILL = "kill"
    GIVE_UP = "give_up"


Step = tuple[Lifecycle, tuple[Action, ...]]


def begin(now_s: float, rules: Rules) -> Step:
    """Return the first step, which launches the engine."""
    return Lifecycle(state=State.STARTING, failures=0, since_s=now_s, deadline_s=now_s + rules.start_timeout_s), (
        Action.LAUNCH,
    )


def step(life: Lifecycle, event: Event, now_s: float, rules: Rules, chance: float) -> Step:
    """Apply one event; `chance` in [0, 1) spreads restarts. An event without a meaning in the state changes nothing."""
    if life.is_final:
        return life, ()
    match event:
        case StopRequested():
            return _stop(life, now_s, rules)
        case Exited(permanent) if permanent and life.state is State.STARTING:
            return Lifecycle(State.FAILED, life.failures + 1, now_s), (Action.GIVE_UP,)
        case Exited():
            return _exited(life, now_s, rules, chance)
        case ProbeOk() if life.state is State.STARTING:
            return replace(life, state=State.READY, since_s=now_s, deadline_s=None), (Action.ANNOUNCE,)
        case Stalled() if life.state is State.READY:
            return _end(life, now_s, rules, restart=True), (Action.WITHDRAW, Action.TERMINATE)
        case InFlight(count) if life.state is State.DRAINING and count == 0:
            return _end(life, now_s, rules), (Action.TERMINATE,)
        case Tick() if life.deadline_s is not None and now_s >= life.deadline_s:
            return _due(life, now_s, rules)
    return life, ()


def _stop(life: Lifecycle, now_s: float, rules: Rules) -> Step:
    match life.state:
        case State.READY:
            drained = replace(
                life, state=State.DRAINING, since_s=now_s, deadline_s=now_s + rules.drain_timeout_s, restart=False
            )
            return drained, (Action.WITHDRAW,)
        case State.STARTING:
            return _end(life, now_s, rules), (Action.TERMINATE,)
        case State.BACKOFF:
            return replace(life, state=State.STOPPED, since_s=now_s, deadline_s=None), ()
        case State.TERMINATING:
            return replace(life, restart=False), ()
    return life, ()


def _exited(life: Lifecycle, now_s: float, rules: Rules, chance: float) -> Step:
    withdraw = (Action.WITHDRAW,) if life.state is State.READY else ()
    if life.state is State.DRAINING or (life.state is State.TERMINATING and not life.restart):
        return replace(life, state=State.STOPPED, since_s=now_s, deadline_s=None), withdraw
    if life.state is State.BACKOFF:
        return life, ()
    steady = life.state is State.READY and now_s - life.since_s >= rules.healthy_after_s
    failures = 1 if steady else life.failures + 1
    if failures >= rules.max_failures:
        return Lifecycle(State.FAILED, failures, now_s), (*withdraw, Action.GIVE_UP)
    wait = min(rules.backoff_base_s * 2 ** (failures - 1), rules.max_backoff_s) * (0.5 + 0.5 * chance)
    return Lifecycle(state=State.BACKOFF, failures=failures, since_s=now_s, deadline_s=now_s + wait), withdraw


def _due(life: Lifecycle, now_s: float, rules: Rules) -> Step:
    match life.state:
        case State.BACKOFF:
            return Lifecycle(
                state=State.STARTING, failures=life.failures, since_s=now_s, deadline_s=now_s + rules.start_timeout_s
            ), (Action.LAUNCH,)
        case State.STARTING:
            return _end(life, now_s, rules, restart=True), (Action.TERMINATE,)
        case State.DRAINING:
            return _end(life, now_s, rules), (Action.TERMINATE,)
        case State.TERMINATING:
            # Repeated every grace period, in case the first attempt found nothing to kill.
            return replace(life, deadline_s=now_s + rules.grace_s), (Action.KILL,)
    return life, ()


def _end(life: Lifecycle, now_s: float, rules: Rules, restart: bool = False) -> Lifecycle:
    return replace(life, state=State.TERMINATING, since_s=now_s, deadline_s=now_s + rules.grace_s, restart=restart)

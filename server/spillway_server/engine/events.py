"""The events that the supervisor reports: frozen values, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from spillway_server.obstacle import Obstacle


@dataclass(frozen=True, slots=True)
class EngineStarting:
    """A process was launched. `attempt` counts from 1 since the engine was last healthy; `argv` is its command line."""

    attempt: int
    argv: tuple[str, ...]
    log_path: str


@dataclass(frozen=True, slots=True)
class EngineProgress:
    """The start-up reached a new phase, according to vLLM's log."""

    phase: str
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class EngineReady:
    """A token was generated. `base_url` ends in /v1 and is served over the socket `uds` where that is set."""

    base_url: str
    served_model: str
    elapsed_s: float
    uds: str | None = None


@dataclass(frozen=True, slots=True)
class EngineUnready:
    """Readiness is withdrawn: no new requests should be sent."""

    why: str


@dataclass(frozen=True, slots=True)
class EngineDraining:
    """An orderly shutdown has started; `in_flight` requests are still running (None: unknown)."""

    in_flight: int | None


@dataclass(frozen=True, slots=True)
class EngineExited:
    """The process ended by itself: its exit status (128 + n for signal n), what that means, and the last log lines."""

    status: int
    diagnosis: Obstacle
    log_tail: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineRestarting:
    """The next launch follows after `wait_s`, since there were `failures` in a row."""

    wait_s: float
    failures: int


@dataclass(frozen=True, slots=True)
class EngineStopped:
    """The engine was stopped as requested."""


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """Spillway has given up: why, what to change, and the last log lines."""

    diagnosis: Obstacle
    log_tail: tuple[str, ...]


EngineEvent = (
    EngineStarting
    | EngineProgress
    | EngineReady
    | EngineUnready
    | EngineDraining
    | EngineExited
    | EngineRestarting
    | EngineStopped
    | EngineFailed
)

"""What the supervisor tells while it works: frozen events, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from spillway_server.refusal import Refusal


@dataclass(frozen=True, slots=True)
class EngineStarting:
    """A process was launched: which try since the last healthy time (1 is the first), its words, its log file."""

    attempt: int
    argv: tuple[str, ...]
    log_path: str


@dataclass(frozen=True, slots=True)
class EngineProgress:
    """The start-up came further, as told by vLLM's log."""

    phase: str
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class EngineReady:
    """A token was generated; `base_url` ends in /v1 (over `uds` where that is set)."""

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
    """An orderly end has begun; so many requests are still running (None: unknown)."""

    in_flight: int | None


@dataclass(frozen=True, slots=True)
class EngineExited:
    """The process ended by itself: exit status (128 + n for signal n), what that means, the last log lines."""

    status: int
    diagnosis: Refusal
    log_tail: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineRestarting:
    """The next launch comes after this wait; so many failures in a row."""

    wait_s: float
    failures: int


@dataclass(frozen=True, slots=True)
class EngineStopped:
    """The end that was asked for."""


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """Spillway has given up: why, what to change, the last log lines."""

    diagnosis: Refusal
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

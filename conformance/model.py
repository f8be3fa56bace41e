"""The words of this package: a case and its verdict, a suite, and what one run of a suite returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Verdict = Literal["passed", "failed", "skipped"]
Say = Callable[[str], None]
DIRECT, ROUTED = "direct", "routed"
"""The two ways in which a suite runs: against the upstream itself, and against the router in front of it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test of a suite. `message` says why it failed or was skipped."""

    name: str
    verdict: Verdict
    message: str = ""


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """What the suite said. `direct` is empty for a suite that judges what only the router has.

    `versions` names the suite's version, its source, and that of the client that it tests with.
    """

    routed: tuple[Case, ...]
    direct: tuple[Case, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


class NotRunError(Exception):
    """The suite can't run on this machine; the message says in one sentence why."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite. `upstream` says in words what stands behind the router; `run` gets a scratch folder of its own.

    `run` raises NotRunError when this machine lacks what the suite needs.
    """

    name: str
    about: str
    upstream: str
    run: Callable[[Path, Say], SuiteRun]

"""The severe findings of the security review, each with the tests that show that it is closed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

_TABLE = Path(__file__).with_name("findings.yaml")
_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: its name, what was wrong, and the ids of the tests that fail on the commit before its fix."""

    name: str
    about: str
    tests: tuple[str, ...]


def findings() -> tuple[Finding, ...]:
    """Return the findings of the table."""
    rows = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    return tuple(Finding(row["name"], row["about"], tuple(row["tests"])) for row in rows)


def open_findings(say: Callable[[str], None]) -> list[str]:
    """Return the names of the findings without a test, or with one that fails."""
    return [finding.name for finding in findings() if not _is_closed(finding, say)]


def _is_closed(finding: Finding, say: Callable[[str], None]) -> bool:
    if not finding.tests:
        say(f"  {finding.name}: no test")
        return False
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *finding.tests]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        say(f"  {finding.name}: {done.stdout.strip().splitlines()[-1:]}")
    return done.returncode == 0

"""What users meet: mistakes in configurations that `spillway check` tells well."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from evidence.mistakes.cases import Case, cases, faults_of
from evidence.results import Measurement

MISTAKES = "use.mistakes_well_told"
_TIMEOUT_S = 60
_PASSED_ON = ("PATH", "HOME", "PYTHONPATH", "LANG")


def mistakes_well_told(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Run `spillway check --offline` on each configuration, and count the answers without a fault."""
    faults = {case.name: _faults(case) for case in cases()}
    badly = {name: wrong for name, wrong in faults.items() if wrong}
    say(f"  {len(faults) - len(badly)} of {len(faults)} told well")
    return {MISTAKES: Measurement(len(faults) - len(badly), len(faults), {"badly_told": badly})}


def _faults(case: Case) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "spillway.yaml").write_bytes(case.content)
        done = subprocess.run(
            [str(Path(sys.executable).with_name("spillway")), "check", "--offline"],
            cwd=folder,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    return faults_of(case, done.stdout + done.stderr, done.returncode)

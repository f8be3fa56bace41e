"""The example configurations that work: each is accepted, and does what its comment says, in front of real vLLM."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from evidence.results import Measurement, not_measured

PRESETS_GREEN = "policy.presets_green"
_ROOT = Path(__file__).parents[1]
_EXAMPLES = _ROOT / "deploy" / "examples"
_TESTS = "tests/e2e/test_examples.py"
_TIMEOUT_S = 900


def presets_green(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Run the tests of all examples. One works if its own test and that of its check pass and neither is skipped."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tests.xml")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={file}", _TESTS]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        say(f"  {done.stdout.strip().splitlines()[-1:]}")
        if not file.exists():
            return {PRESETS_GREEN: not_measured(done.stderr.strip()[-300:])}
        passed = _passed(file)
    names = sorted(path.stem for path in _EXAMPLES.glob("*.yaml"))
    green = [
        name for name in names if {f"test_{name}", f"test_an_example_is_accepted_without_a_warning[{name}]"} <= passed
    ]
    details = {"green": green, "not_green": sorted(set(names) - set(green)), "engine": "vLLM on the CPU, demo model"}
    return {PRESETS_GREEN: Measurement(len(green), len(names), details)}


def _passed(file: Path) -> set[str]:
    cases = ElementTree.parse(file).getroot().iter("testcase")
    return {case.get("name", "") for case in cases if len(case) == 0}

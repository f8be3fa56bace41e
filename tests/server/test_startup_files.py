"""Files that run code at every start of Python, as `spillway doctor` reports them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from spillway_server import doctor
from spillway_server.engine.launcher import InstalledEngine
from spillway_server.planning.hardware import detect
from spillway_server.startup_files import packages_of, running_at_start


@pytest.mark.parametrize(
    ("name", "text", "runs"),
    [
        ("a.pth", "/somewhere\n# import os\n", False),
        ("a.pth", "import os; os.system('true')\n", True),
        ("a.pth", "/somewhere\nimport\tos\n", True),
        ("sitecustomize.py", "", True),
        ("usercustomize.py", "", True),
        ("customize.py", "import os\n", False),
    ],
)
def test_what_runs_code_is_found(tmp_path: Path, name: str, text: str, runs: bool) -> None:
    (tmp_path / name).write_text(text)
    assert running_at_start([tmp_path]) == ((tmp_path / name,) if runs else ())


def test_this_environment_has_nothing_unknown() -> None:
    assert packages_of(Path(sys.executable))
    assert running_at_start(packages_of(Path(sys.executable))) == ()


def test_the_doctor_names_a_file_in_the_engines_environment(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    engine = InstalledEngine(python=tmp_path / "bin" / "python", distribution="vllm", version="0.32.0", torch="2.13.0")
    checks = {check.name: check for check in doctor.examine(detect(), engine, tmp_path)}
    assert checks["startup files"].verdict is doctor.CheckStatus.OK
    (packages / "litellm_init.pth").write_text("import os\n")
    checks = {check.name: check for check in doctor.examine(detect(), engine, tmp_path)}
    assert checks["startup files"].verdict is doctor.CheckStatus.WARN
    assert "litellm_init.pth" in checks["startup files"].seen

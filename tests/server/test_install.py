"""What the installer refuses before the first program of an environment has run."""

from __future__ import annotations

import fcntl
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[2] / "requirements" / "install.py"


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    """requirements/install.py, which is a program and no package."""
    spec = importlib.util.spec_from_file_location("install", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["install"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("/somewhere/on/the/path\n", False),
        ("# import os\n", False),
        ("import os; os.system('true')\n", True),
        ("/somewhere\nimport\tos\n", True),
    ],
)
def test_a_pth_file_that_runs_code_is_refused(installer: ModuleType, tmp_path: Path, text: str, refused: bool) -> None:
    packages = tmp_path / "lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    (packages / "innocent.pth").write_text(text)
    if not refused:
        installer.check_startup_files(tmp_path)
        return
    with pytest.raises(installer.InstallError, match=r"innocent\.pth would run code"):
        installer.check_startup_files(tmp_path)


@pytest.mark.parametrize("name", ["sitecustomize.py", "usercustomize.py"])
def test_a_module_that_python_imports_by_itself_is_refused(installer: ModuleType, tmp_path: Path, name: str) -> None:
    packages = tmp_path / "lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    (packages / name).write_text("")
    with pytest.raises(installer.InstallError, match="would run code"):
        installer.check_startup_files(tmp_path)


def test_the_environments_here_run_no_code_at_start(installer: ModuleType) -> None:
    environments = sorted(FILE.parent.parent.glob(".venv*"))
    assert environments
    for directory in environments:
        installer.check_startup_files(directory)


def test_two_environments_are_installed_side_by_side_and_one_only_once(installer: ModuleType, tmp_path: Path) -> None:
    environment, other = (
        replace(installer.ENVIRONMENTS[kind], directory=tmp_path / kind) for kind in ("dev", "engine-cpu")
    )
    with installer.alone(environment):
        assert not taken(installer.lock_file(other))
        assert taken(installer.lock_file(environment))
    assert not taken(installer.lock_file(environment))


def taken(lock: Path) -> bool:
    """Whether another one holds this lock."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False

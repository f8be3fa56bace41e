"""What can't be compiled runs from its sources, and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spillway_compiler.build import CannotCompileError, c_compiler
from spillway_router.compiled import FOLDER, PACKAGE

ROUTER = PACKAGE.parent


@pytest.fixture
def router(tmp_path: Path) -> Path:
    """A copy of the router without anything compiled."""
    for name in (PACKAGE.name, "compiler"):
        shutil.copytree(ROUTER / name, tmp_path / name, ignore=shutil.ignore_patterns(f"{FOLDER}*", "__pycache__"))
    return tmp_path


def build(router: Path, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(router), "PATH": path}
    words = [sys.executable, "-m", "spillway_compiler.build"]
    return subprocess.run(words, env=env, cwd=router, capture_output=True, text=True, timeout=300, check=False)


def test_no_c_compiler_is_told(router: Path) -> None:
    done = build(router, path="/nowhere")
    assert done.returncode == 0
    assert "runs from its sources" in done.stderr
    assert "no C compiler (Debian, Ubuntu: apt install gcc)" in done.stderr
    assert not list((router / PACKAGE.name).glob(f"{FOLDER}*"))


def test_a_wrong_type_is_told_and_leaves_nothing(router: Path) -> None:
    try:
        c_compiler()
    except CannotCompileError as error:
        pytest.skip(str(error))
    with (router / PACKAGE.name / "core" / "values.py").open("a") as source:
        source.write('\nWRONG: int = "a text"\n')
    done = build(router)
    assert done.returncode == 0
    assert "mypyc refuses the modules" in done.stderr
    assert 'Incompatible types in assignment (expression has type "str", variable has type "int")' in done.stderr
    assert not list((router / PACKAGE.name).glob(f"{FOLDER}*"))

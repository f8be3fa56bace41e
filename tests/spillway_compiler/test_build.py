"""A build that is impossible says why, and the router runs from its sources."""

from __future__ import annotations

import os
import re
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
    for name in (PACKAGE.name, "spillway_compiler"):
        shutil.copytree(ROUTER / name, tmp_path / name, ignore=shutil.ignore_patterns(f"{FOLDER}*", "__pycache__"))
    return tmp_path


def build(router: Path, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(router), "PATH": path}
    words = [sys.executable, "-m", "spillway_compiler.build"]
    return subprocess.run(words, env=env, cwd=router, capture_output=True, text=True, timeout=300, check=False)


def test_a_missing_c_compiler_is_reported(router: Path) -> None:
    process = build(router, path="/nowhere")
    assert process.returncode == 0
    assert "runs from its sources" in process.stderr
    assert "no C compiler (Debian, Ubuntu: apt install gcc)" in process.stderr
    assert not list((router / PACKAGE.name).glob(f"{FOLDER}*"))


def test_a_type_error_is_reported_and_leaves_nothing(router: Path) -> None:
    try:
        c_compiler()
    except CannotCompileError as error:
        pytest.skip(str(error))
    with (router / PACKAGE.name / "core" / "confidence" / "scores.py").open("a") as source:
        source.write('\nWRONG: int = "a text"\n')
    script = (
        router / "spillway_compiler" / "build.py"
    )  # one module has the error that all of them would take a minute for
    one = re.sub(r"(?s)\nMODULES = \(.*?\n\)\n", '\nMODULES = ("core.confidence.scores",)\n', script.read_text())
    script.write_text(one)
    process = build(router)
    assert process.returncode == 0
    assert "mypyc rejects the modules" in process.stderr
    assert 'Incompatible types in assignment (expression has type "str", variable has type "int")' in process.stderr
    assert not list((router / PACKAGE.name).glob(f"{FOLDER}*"))

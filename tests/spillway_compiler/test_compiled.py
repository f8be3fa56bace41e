"""Compiled modules are taken while they are what the sources say, and what runs is the same either way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spillway_compiler.build import MODULES, CannotCompileError, c_compiler
from spillway_router import compiled
from spillway_router.compiled import FOLDER, MANIFEST, PACKAGE, SUFFIX, Compiled, digest, find

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with one compiled module, as far as finding it goes."""
    source = tmp_path / "core" / "policy.py"
    source.parent.mkdir()
    source.write_text("x = 1\n")
    (tmp_path / FOLDER).mkdir()
    said = {"suffix": SUFFIX, "sources": {"core.policy": digest(source)}, "files": {"p.core.policy": "p.so"}}
    (tmp_path / FOLDER / MANIFEST).write_text(json.dumps(said))
    return tmp_path


def test_unchanged_sources_run_compiled(package: Path) -> None:
    found = find(package)
    assert isinstance(found, Compiled)
    spec = found.find_spec("p.core.policy", None)
    assert spec is not None
    assert spec.origin == str(package / FOLDER / "p.so")
    assert found.find_spec("p.core.other", None) is None


def test_otherwise_the_reason_is_told(package: Path) -> None:
    source = package / "core" / "policy.py"
    source.write_text("x = 2\n")
    assert "core/routing/policy.py was changed" in str(find(package))
    source.unlink()
    assert "core/routing/policy.py was changed" in str(find(package))
    (package / FOLDER / MANIFEST).write_text(json.dumps({"suffix": ".cpython-39.so", "sources": {}, "files": {}}))
    assert "for another Python (.cpython-39.so)" in str(find(package))
    (package / FOLDER / MANIFEST).write_text("{")
    assert "_compiled/manifest.json is not readable" in str(find(package))
    shutil.rmtree(package / FOLDER)
    assert str(find(package)).startswith("not compiled; `make install`")


def test_these_tests_run_what_is_shipped() -> None:
    try:
        c_compiler()
    except CannotCompileError as error:
        pytest.skip(f"the hot path runs interpreted here: {error}")
    assert compiled.state() == "compiled", "`make install` compiles; edited since?"
    loaded = {name: module.__file__ or "" for name, module in sys.modules.items() if name.startswith(PACKAGE.name)}
    ours = {f"{PACKAGE.name}.{module}" for module in MODULES} & loaded.keys()
    assert all(loaded[name].endswith(SUFFIX) for name in ours)


def test_the_sources_do_the_same(tmp_path: Path) -> None:
    """Decisions, answers, streams and bills again, interpreted."""
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns(FOLDER, "__pycache__"))
    tests = ("core/test_policy.py", "core/test_tariff.py", "proxy/test_sdk.py", "proxy/test_escalation.py")
    again = ["-m", "pytest", "-o", "pythonpath=.", "-p", "no:cacheprovider", *(f"tests/{name}" for name in tests)]
    state = ["-c", "from spillway_router import compiled; print(compiled.state())"]
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT / 'router'}"}
    said = [
        subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        for words in (state, again)
    ]
    assert said[0].stdout.startswith("interpreted (not compiled;")
    assert said[1].returncode == 0, said[1].stdout[-3000:]

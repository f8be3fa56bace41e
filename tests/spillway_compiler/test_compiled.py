"""Compiled modules are used while they match their sources, and both behave the same."""

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
from spillway_router.compiled import FOLDER, MANIFEST, PACKAGE, SUFFIX, CompiledModules, NotCompiled, digest, find

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a package that seems to have one compiled module."""
    source = tmp_path / "core" / "policy.py"
    source.parent.mkdir()
    source.write_text("x = 1\n")
    (tmp_path / FOLDER).mkdir()
    manifest = {"suffix": SUFFIX, "sources": {"core.policy": digest(source)}, "files": {"p.core.policy": "p.so"}}
    (tmp_path / FOLDER / MANIFEST).write_text(json.dumps(manifest))
    return tmp_path


def test_unchanged_sources_run_compiled(package: Path) -> None:
    modules = find(package)
    assert isinstance(modules, CompiledModules)
    spec = modules.find_spec("p.core.policy", None)
    assert spec is not None
    assert spec.origin == str(package / FOLDER / "p.so")
    assert modules.find_spec("p.core.other", None) is None


def reason(package: Path) -> str:
    """Return why the package's sources run."""
    modules = find(package)
    assert isinstance(modules, NotCompiled)
    return modules.reason


def test_otherwise_the_reason_is_reported(package: Path) -> None:
    source = package / "core" / "policy.py"
    source.write_text("x = 2\n")
    assert "core/policy.py has changed" in reason(package)
    source.unlink()
    assert "core/policy.py has changed" in reason(package)
    (package / FOLDER / MANIFEST).write_text(json.dumps({"suffix": ".cpython-39.so", "sources": {}, "files": {}}))
    assert "for another Python (.cpython-39.so)" in reason(package)
    (package / FOLDER / MANIFEST).write_text("{")
    assert "_compiled/manifest.json is not readable" in reason(package)
    shutil.rmtree(package / FOLDER)
    assert reason(package).startswith("not compiled; run `make install`")


def test_a_twin_in_c_counts_as_a_source(package: Path) -> None:
    twin = package / "core" / "policy.c"
    twin.write_text("int x = 1;\n")
    file = package / FOLDER / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"natives": {"core.policy": digest(twin)}}))
    assert isinstance(find(package), CompiledModules)
    twin.write_text("int x = 2;\n")
    assert "core/policy.c has changed" in reason(package)


def test_an_idle_router_does_not_load_what_it_does_not_need() -> None:
    if compiled.state() != "compiled":
        pytest.skip("the reference of glance.c needs RE2")
    words = [sys.executable, "-c", "import sys, spillway_router.runtime.serve; print(*sys.modules)"]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert "re2" not in shown.stdout.split()


def test_these_tests_run_what_is_shipped() -> None:
    try:
        c_compiler()
    except CannotCompileError as error:
        pytest.skip(f"the hot path runs interpreted here: {error}")
    assert compiled.state() == "compiled", "run `make install`: were the sources edited since?"
    loaded = {name: module.__file__ or "" for name, module in sys.modules.items() if name.startswith(PACKAGE.name)}
    ours = {f"{PACKAGE.name}.{module}" for module in MODULES} & loaded.keys()
    assert all(loaded[name].endswith(SUFFIX) for name in ours)


def test_the_sources_do_the_same(tmp_path: Path) -> None:
    """Decisions, answers, streams and bills are the same when interpreted."""
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns(FOLDER, "__pycache__"))
    tests = (
        "core/routing/test_policy.py",
        "core/money/test_tariff.py",
        "proxy/test_sdk.py",
        "proxy/exchange/test_escalation.py",
    )
    rerun = ["-m", "pytest", "-o", "pythonpath=.", "-p", "no:cacheprovider", *(f"tests/{name}" for name in tests)]
    state = ["-c", "from spillway_router import compiled; print(compiled.state())"]
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT / 'router'}"}
    runs = [
        subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        for words in (state, rerun)
    ]
    assert runs[0].stdout.startswith("interpreted (not compiled;")
    assert runs[1].returncode == 0, runs[1].stdout[-3000:]

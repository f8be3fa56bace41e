"""The images: linted, the same where they should be, without secrets, and their steps done in a clean root."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from evidence.deploy_commands import ROOT
from tests.deploy.clean_root import instructions

FILES = (ROOT / "Dockerfile.gpu", ROOT / "deploy" / "Dockerfile.cpu")
ENGINE = ROOT / ".venv-vllm"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    lint = [str(Path(sys.executable).parent / "hadolint"), "--no-color", str(file)]
    done = subprocess.run(lint, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_hadolint_would_find_a_mistake(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text(
        FILES[0].read_text(encoding="utf-8").replace("USER 10001:10001", "USER root").replace("v${", "lat${")
    )
    bad.write_text(bad.read_text() + "RUN cd /tmp && sudo apt-get install curl\n")
    lint = [str(Path(sys.executable).parent / "hadolint"), "--no-color", str(bad)]
    done = subprocess.run(lint, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert {"DL3002", "DL3004"} <= set(done.stdout.split())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_hardening(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    steps = instructions(text)
    last = dict(steps)
    assert last["USER"] == "10001:10001"
    assert json.loads(last["ENTRYPOINT"])[:2] == ["tini", "--"]
    assert json.loads(last["VOLUME"]) == ["/data", "/models", "/cache"]
    assert "HEALTHCHECK" in last
    assert "ADD" not in last
    installs = [rest for word, rest in steps if word == "RUN" and "pip" in rest and "install" in rest]
    for rest in installs:
        assert "--require-hashes" in rest or "/opt/build " in f"{rest} "
        assert "--no-deps" in rest
    for word, rest in steps:
        if word in ("ENV", "ARG"):
            assert not any(mark in rest.upper() for mark in ("API_KEY", "TOKEN", "PASSWORD", "SECRET"))


def test_the_router_is_installed_alike_in_both() -> None:
    def router(file: Path) -> list[tuple[str, str]]:
        steps = instructions(file.read_text(encoding="utf-8"))
        first = next(i for i, (word, rest) in enumerate(steps) if word == "COPY" and "image.lock" in rest)
        return [s for s in steps[first : first + 8] if s[0] in ("COPY", "RUN")]

    assert router(FILES[0]) == router(FILES[1])


def test_the_builder_gets_only_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    allowed = {line[1:] for line in lines if line.startswith("!")}
    for file in FILES:
        for word, rest in instructions(file.read_text(encoding="utf-8")):
            for source in rest.split()[:-1] if word == "COPY" and not rest.startswith("--from=") else ():
                assert (ROOT / source).exists()
                assert source in allowed or (source.endswith(".lock") and "requirements/*.lock" in allowed), source


@pytest.mark.engine
@pytest.mark.timeout(900)
def test_steps_and_start_in_a_clean_root() -> None:
    """Everything but apt-get, the base image and the engine's download; says in its report what stood in."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a clean root needs the superuser's namespaces: run it as root on Linux")
    if not (ENGINE / "bin" / "python").exists():
        pytest.skip("the engine's environment .venv-vllm is missing: run `make install`")
    words = [sys.executable, str(ROOT / "tests/deploy/clean_root.py"), str(FILES[1]), str(ENGINE)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=850, check=False)
    if done.returncode and "Operation not permitted" in done.stderr:
        pytest.skip("this machine lets nobody make namespaces or mounts")
    if done.returncode and re.search("NewConnectionError|ConnectTimeout|Name or service not known", done.stderr):
        pytest.skip("the package index can't be reached from here: the router's packages can't be installed anew")
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout)
    skipped = [row["step"].split()[1] for row in report["steps"] if row["skipped"]]
    assert skipped == ["apt-get", "apt-get", "--from=builder", "--from=builder", "apt-get", "python3"], (
        "only apt-get, stages and the engine are stood in for"
    )
    seen = report["started"]
    assert (seen["id"], seen["root_writable"]) == ("10001", False)
    assert seen["health_status"] == 0
    assert seen["status_while_starting"] == 503
    assert seen["with_key"][:2] == [200, "local"]
    assert seen["without_key"] == 401
    assert seen["exit_status"] == 0, seen["said"]
    assert "hot path: interpreted" not in seen["said"]

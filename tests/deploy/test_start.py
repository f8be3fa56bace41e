"""The image's start script: configuration from variables, the first key, a word about volumes that are not ours."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest
from evidence.deploy_commands import ROOT

START = ROOT / "deploy" / "container" / "start"
YAML = 'listen: 0.0.0.0:8080\nserver: {model: "demo"}\n'


def start(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it with a stand-in for `spillway` that prints its words, the configuration, and what it still sees."""
    folder.joinpath("bin").mkdir()
    program = folder / "bin" / "spillway"
    program.write_text(
        '#!/bin/sh\necho "words: $*"\ncat "$SPILLWAY_CONFIG"\necho "left: ${SPILLWAY_YAML_BASE64:-nothing}"\n'
    )
    program.chmod(0o755)
    env = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "SPILLWAY_RUN": str(folder), **variables}
    env.setdefault("SPILLWAY_WRITES", str(folder / "new"))
    words = ["sh", str(START), "spillway", "up"]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("encoded", [False, True])
def test_configuration_from_a_variable(tmp_path: Path, encoded: bool) -> None:
    value = {"SPILLWAY_YAML_BASE64": base64.b64encode(YAML.encode()).decode()} if encoded else {"SPILLWAY_YAML": YAML}
    done = start(tmp_path, **value)
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace("\n\n", "\n") == f"words: up\n{YAML}left: nothing\n"
    assert (tmp_path / "spillway.yaml").stat().st_mode & 0o077 == 0
    assert (tmp_path / "new").is_dir()


def test_a_mounted_file_and_a_first_key(tmp_path: Path) -> None:
    mounted = tmp_path / "mounted.yaml"
    mounted.write_text(YAML)
    done = start(tmp_path, SPILLWAY_CONFIG=str(mounted), SPILLWAY_ACCEPT_KEY="aa:bb")
    assert [line for line in done.stdout.splitlines() if line.startswith("words")] == [
        "words: keys accept aa:bb",
        "words: up",
    ]


def test_a_volume_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = start(tmp_path, SPILLWAY_YAML=YAML, SPILLWAY_WRITES=str(tmp_path / "file" / "data"))
    assert done.returncode == 1
    assert "can't write to" in done.stderr
    assert done.stdout == ""

"""The image's start script: the first key, a word about volumes that are not ours; variables stay for every command."""

from __future__ import annotations

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
    program.write_text('#!/bin/sh\necho "words: $*"\necho "text: $SPILLWAY_YAML$SPILLWAY_YAML_BASE64"\n')
    program.chmod(0o755)
    env = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **variables}
    env.setdefault("SPILLWAY_WRITES", str(folder / "new"))
    words = ["sh", str(START), "spillway", "up"]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("variable", ["SPILLWAY_YAML", "SPILLWAY_YAML_BASE64"])
def test_the_configuration_stays_in_its_variable_for_every_command(tmp_path: Path, variable: str) -> None:
    done = start(tmp_path, **{variable: "listen"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "words: up\ntext: listen\n"
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

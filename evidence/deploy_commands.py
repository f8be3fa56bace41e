"""Runs `spillway` as a process with an environment of its own, for the measurement and the tests of deployments."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SPILLWAY = str(Path(sys.executable).parent / "spillway")
MODEL = "Qwen/Qwen2.5-7B-Instruct-AWQ"
TARGETS: dict[str, tuple[str, ...]] = {
    "runpod": ("--gpu", "a100-80", "--price", "1.39", "--secret", "GROQ_API_KEY", "--volume", "vol1"),
    "vast": ("--gpu", "a100-80", "--price", "0.80", "--interruptible"),
    "aws": ("--gpu", "t4", "--price", "0.526", "--secret", "GROQ_API_KEY"),
    "kubernetes": ("--gpu", "l4", "--price", "0.80", "--secret", "GROQ_API_KEY"),
}
"""The options of the usual order for every target, without --model and --dry-run."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str


def spillway(folder: Path, *words: str, env: Mapping[str, str] | None = None, limit_s: float = 60) -> CommandResult:
    """Run `spillway` in `folder` with a bare environment; `env` adds to it."""
    bare = {"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "200", **(env or {})}
    done = subprocess.run(
        [SPILLWAY, *words], cwd=folder, env=bare, capture_output=True, text=True, timeout=limit_s, check=False
    )
    return CommandResult(done.returncode, done.stdout, done.stderr)


def dry_run(folder: Path, target: str, *more: str, env: Mapping[str, str] | None = None) -> CommandResult:
    """Dry-run the usual order for a target."""
    return spillway(folder, "deploy", target, "--model", MODEL, "--dry-run", *TARGETS[target], *more, env=env)

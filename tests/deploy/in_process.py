"""`spillway` inside the test's process, for tests of what a command says: starting Python takes most of such a test.

The measurement of the dry runs (evidence/measures_deploy.py) starts it as users do.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from evidence.deploy_commands import MODEL, TARGETS, CommandResult
from typer.testing import CliRunner

from spillway_router.cli import app


def spillway(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> CommandResult:
    """Run `spillway` in `folder` with a bare environment; `env` adds to it. An exception of its own is raised."""
    bare = {"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "200", **(env or {})}
    with contextlib.chdir(folder), mock.patch.dict(os.environ, bare, clear=True):
        done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return CommandResult(done.exit_code, done.stdout, done.stderr)


def dry_run(folder: Path, target: str, *more: str, env: Mapping[str, str] | None = None) -> CommandResult:
    """Dry-run the usual order for a target."""
    return spillway(folder, "deploy", target, "--model", MODEL, "--dry-run", *TARGETS[target], *more, env=env)

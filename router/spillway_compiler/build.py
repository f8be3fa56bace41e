"""Compile the modules that every request passes, with mypyc, into the folder from which they are imported.

    PYTHONPATH=router python -m spillway_compiler.build

Without a C compiler or Python's headers the router runs from its sources: the build reports that and exits with 0. A
build that is up to date is left alone.

The build copies the package and writes out the dataclasses of those modules (explicit.py). mypyc translates the modules
to C, and the C compiler makes one library of them all, so that they call each other directly, and a small one per
module name. spillway_router/compiled.py finds them at import time.
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
from spillway_router.compiled import FOLDER, MANIFEST, NATIVE, PACKAGE, SUFFIX, digest, source_of

MODULES = (
    "aio.outbox",
    "core.confidence.calibration",
    "core.confidence.json_values",
    "core.confidence.judge",
    "core.confidence.scores",
    "core.money.attribution",
    "core.money.budget",
    "core.money.estimates",
    "core.money.tariff",
    "core.routing.backlog",
    "core.routing.breaker",
    "core.routing.estimators",
    "core.routing.experiments",
    "core.routing.filters",
    "core.routing.model",
    "core.routing.policy",
    "core.routing.rules",
    "core.routing.shortlist",
    "dashboard.traffic",
    "http_client.connection",
    "http_client.pool",
    "http_client.types",
    "ledger.accounts",
    "ledger.entries",
    "ledger.holds",
    "ledger.ids",
    "ledger.posting",
    "ledger.store.sqlite.entries",
    "ledger.tables.keys",
    "ledger.writer",
    "metrics.registry",
    "metrics.requests",
    "privacy.detectors",
    "privacy.keywords",
    "privacy.pieces",
    "providers.interface",
    "providers.logprobs",
    "providers.openai_compatible",
    "providers.output_counts",
    "providers.sse",
    "providers.streams",
    "providers.usage",
    "providers.usage_names",
    "providers.vllm",
    "proxy.client.capturing_client",
    "proxy.client.client",
    "proxy.client.error_shapes",
    "proxy.client.http_client_connection",
    "proxy.client.replies",
    "proxy.entry.frontend",
    "proxy.entry.known_head",
    "proxy.exchange.active_config",
    "proxy.exchange.allowance",
    "proxy.exchange.attempt",
    "proxy.exchange.byok",
    "proxy.exchange.caller_signals",
    "proxy.exchange.escalation",
    "proxy.exchange.exchange",
    "proxy.exchange.held_stream",
    "proxy.exchange.outcomes",
    "proxy.exchange.passed_headers",
    "proxy.exchange.presentation",
    "proxy.exchange.record",
    "proxy.exchange.relay",
    "proxy.exchange.ruling",
    "proxy.exchange.services",
    "proxy.exchange.shadowed",
    "proxy.exchange.state",
    "proxy.exchange.streamed_answer",
    "proxy.exchange.taking_back",
    "proxy.exchange.upstream_body",
    "proxy.exchange.whole_answer",
    "proxy.memory.failing_bodies",
    "proxy.memory.memory",
    "proxy.memory.records",
    "proxy.memory.refused_additions",
    "proxy.memory.retained",
    "proxy.memory.sessions",
    "proxy.request.auth",
    "proxy.request.body",
    "proxy.request.errors",
    "proxy.request.facts",
    "proxy.request.hint_names",
    "proxy.request.verdicts",
    "proxy.scoring.scoring",
    "runtime.request_log",
    "runtime.steady_clock",
    "runtime.trait_keeper",
    "signals.board",
)
"""The modules in which a short request spends its time, by profile, and the modules that derive from their classes."""
NATIVES = ("privacy.glance",)
"""The modules with a twin in C beside them, which takes their place."""
CONFIG = "[mypy]\nplugins = pydantic.mypy\nignore_missing_imports = True\n"
"""mypyc's own configuration. `make check` applies the strict rules; here the types only have to be right."""
FLAGS = ("-O2", "-fPIC", "-fwrapv", "-fno-semantic-interposition", "-DNDEBUG", "-w")
COLD = Path(__file__).with_name("cold.h")
LINK_FLAGS = ("-shared", "-Wl,-Bsymbolic")
"""The modules of one library call each other directly, not through its table of symbols."""
LIMIT_S = 600.0
"""Longest time one run of the C compiler may take; a few seconds are usual."""


class CannotCompileError(Exception):
    """The modules can't be compiled on this machine; the message says why and what to do about it."""


def manifest() -> dict[str, Any]:
    """Return the manifest that a build of the package in its present state would have, without the list of files."""
    return {
        "suffix": SUFFIX,
        "mypyc": importlib.metadata.version("mypy"),
        "compiler": [digest(Path(__file__).with_name(name)) for name in ("build.py", "explicit.py", COLD.name)],
        "sources": {module: digest(source_of(module)) for module in (*MODULES, *NATIVES)},
        "natives": {module: digest(source_of(module, suffix=NATIVE)) for module in NATIVES},
    }


def is_up_to_date(wanted: dict[str, Any]) -> bool:
    """Return whether the existing build has this manifest."""
    with contextlib.suppress(FileNotFoundError):
        existing = json.loads((PACKAGE / FOLDER / MANIFEST).read_bytes())
        return all(existing.get(name) == value for name, value in wanted.items())
    return False


def c_compiler() -> str:
    """Return the path of the C compiler.

    Raises `CannotCompileError` if it or Python's headers are missing.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        raise CannotCompileError("there is no C compiler (Debian, Ubuntu: apt install gcc)")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        version = ".".join(map(str, sys.version_info[:2]))
        raise CannotCompileError(f"Python's headers are missing (Debian, Ubuntu: apt install python{version}-dev)")
    return compiler


def write_sources(into: Path) -> list[str]:
    """Copy the package and write out the dataclasses of MODULES; return the paths of those modules below `into`."""
    copy = into / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns(f"{FOLDER}*", "__pycache__"))
    for module in MODULES:
        path = source_of(module, copy)
        path.write_text(written_out(path.read_text(encoding="utf-8")), encoding="utf-8")
    (into / "mypy.ini").write_text(CONFIG, encoding="utf-8")
    return [str(source_of(module, copy).relative_to(into)) for module in MODULES]


def make_c(into: Path, paths: list[str]) -> list[Any]:
    """Let mypyc write C for the modules below `into`; return setuptools' extensions (name, sources, include_dirs).

    Raises `CannotCompileError` with mypyc's output.
    """
    from mypyc.build import mypycify  # the import takes half a second, which an up-to-date build need not spend

    output, previous = io.StringIO(), Path.cwd()
    os.chdir(into)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            return list(mypycify(["--config-file", "mypy.ini", *paths], multi_file=True, group_name=PACKAGE.name))
    except SystemExit as error:
        raise CannotCompileError(f"mypyc rejects the modules:\n{output.getvalue()}") from error
    finally:
        os.chdir(previous)


def run(command: list[str], cwd: Path) -> None:
    """Run the C compiler.

    Raises `CannotCompileError` with the last 4,000 characters of its output.
    """
    try:
        process = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise CannotCompileError(f"the C compiler took more than {LIMIT_S:.0f} s") from error
    if process.returncode:
        raise CannotCompileError(f"the C compiler failed:\n{process.stderr[-4000:]}")


def make_libraries(compiler: str, cwd: Path, extensions: list[Any], into: Path) -> dict[str, str]:
    """Compile and link in parallel; return full module name -> file below `into`."""
    folders = {folder for extension in extensions for folder in extension.include_dirs}
    include = [f"-I{folder}" for folder in (sysconfig.get_path("include"), *folders)]
    sources = sorted({source for extension in extensions for source in extension.sources})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        flags = [*FLAGS, "-include", str(COLD)]
        commands = ([compiler, *flags, *include, "-c", source, "-o", f"{source}.o"] for source in sources)
        list(pool.map(lambda command: run(command, cwd), commands))
        files = {extension.name: extension.name + SUFFIX for extension in extensions}
        links = (
            [
                compiler,
                *LINK_FLAGS,
                *(f"{source}.o" for source in extension.sources),
                "-o",
                str(into / files[extension.name]),
            ]
            for extension in extensions
        )
        list(pool.map(lambda command: run(command, cwd), links))
    return files


def make_natives(compiler: str, into: Path) -> dict[str, str]:
    """Compile the twins in C; return full module name -> file below `into`."""
    files = {}
    for module in NATIVES:
        name = f"{PACKAGE.name}.{module}"
        files[name] = name + SUFFIX
        include = f"-I{sysconfig.get_path('include')}"
        source = str(source_of(module, suffix=NATIVE))
        run([compiler, *FLAGS, include, *LINK_FLAGS, source, "-o", str(into / files[name])], into)
    return files


def build(wanted: dict[str, Any]) -> None:
    """Compile, then move the complete result to its place.

    Raises `CannotCompileError`; then the earlier build stays as it was.
    """
    compiler = c_compiler()
    target, result = PACKAGE / FOLDER, Path(tempfile.mkdtemp(prefix=f"{FOLDER}-", dir=PACKAGE))
    try:
        with tempfile.TemporaryDirectory(prefix="spillway-compile-") as name:
            files = make_libraries(compiler, Path(name), make_c(Path(name), write_sources(Path(name))), result)
            files |= make_natives(compiler, result)
        (result / MANIFEST).write_text(json.dumps(wanted | {"files": files}, indent=1), encoding="utf-8")
        result.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)  # a router that starts at this moment runs from the sources
        result.rename(target)
    finally:
        shutil.rmtree(result, ignore_errors=True)


def main() -> int:
    """Build unless the build is up to date; return 0 even where that is impossible, as the router runs all the same."""
    with (PACKAGE / "compiled.py").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second build waits for the first one
        expected = manifest()
        if is_up_to_date(expected):
            return 0
        print(f"Compiling the router's hot path: {len(MODULES)} modules; usually 20 to 60 s", flush=True)
        started = time.monotonic()
        try:
            build(expected)
        except CannotCompileError as error:
            print(
                f"The router runs from its sources, which takes about 1.6 times the CPU time: {error}", file=sys.stderr
            )
            return 0
        print(f"  compiled ({time.monotonic() - started:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

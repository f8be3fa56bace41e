"""Installs the other proxies from hash locks, each into its own folder under .cache/bench, and changes nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.bench.processes import CACHE

LOCKS = Path(__file__).with_name("locks")
INSTALL_LIMIT_S = 900


class Unavailable(Exception):  # noqa: N818 - an expected finding, with its reason, rather than an error
    """A system is not available on this machine; the message is the reason that the user sees."""


def environment(name: str) -> Path:
    """Return the Python of the environment `name`; install it from locks/NAME.lock first if it is missing or outdated.

    Raises:
        Unavailable: pip could not install it.
    """
    folder, lock = CACHE / name, LOCKS / f"{name}.lock"
    python, mark = folder / "bin" / "python", folder / "installed.lock"
    if python.exists() and mark.exists() and mark.read_bytes() == lock.read_bytes():
        return python
    if sys.platform != "linux":
        raise Unavailable("its lock is for Linux x86_64")
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], "venv")
    # Wheels only: no code of a package runs at install time.
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    _run([*install, "--only-binary", ":all:", "--require-hashes", "-r", str(lock)], "pip")
    shutil.copyfile(lock, mark)
    return python


def installed_version(python: Path, package: str) -> str:
    """Return the version of `package` in the environment of `python`.

    Raises:
        Unavailable: the package is not installed there.
    """
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    shown = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60, check=False)
    if shown.returncode != 0:
        raise Unavailable(f"{package} is not in {python.parent.parent}")
    return shown.stdout.strip()


def debian_program(package: str, inside: str) -> str:
    """Return a program from the PATH, or unpack it (without installing it) from Debian's package `package`.

    Raises:
        Unavailable: it is not on the PATH, and there is no apt-get or the package could not be fetched.
    """
    installed = shutil.which(Path(inside).name)
    if installed is not None:
        return installed
    folder = CACHE / package
    program = folder / "root" / inside
    if program.exists():
        return str(program)
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Unavailable(f"no {Path(inside).name} on the PATH, and this is no Debian to fetch it from")
    folder.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", "-q", package], "apt-get", folder)
    file = max(folder.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)
    _run(["dpkg-deb", "-x", str(file), str(folder / "root")], "dpkg-deb")
    return str(program)


def _run(argv: Sequence[str], what: str, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, cwd=folder, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{what}: {error}") from error
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if "WARNING" not in line]
        raise Unavailable(f"{what} failed: {' '.join(lines[-2:])[-300:]}")

"""The packages of Node that suites need, installed from conformance/node into .cache/conformance/node.

The lock has the hash of each package. No install script runs: Bun's program is part of its package.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from conformance.model import NotRunError
from conformance.sources import CACHE

LOCKED = Path(__file__).with_name("node")
FOLDER = CACHE / "node"
PACKAGES = FOLDER / "node_modules"
_FILES = ("package.json", "package-lock.json")
_LIMIT_S = 600


def install(folder: Path = FOLDER) -> Path:
    """Bring the packages up to date with their lock and return the folder that holds them.

    Raises:
        NotRunError: the machine has no npm, or a package can't be installed.
    """
    installed = folder / "installed.json"
    lock = (LOCKED / "package-lock.json").read_bytes()
    if not installed.exists() or installed.read_bytes() != lock:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            shutil.copyfile(LOCKED / name, folder / name)
        _npm_ci(folder)
        installed.write_bytes(lock)
    return folder / "node_modules"


def _npm_ci(folder: Path) -> None:
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_LIMIT_S)
    except FileNotFoundError as error:
        raise NotRunError("the suite needs npm, which comes with Node, and there is none on the PATH") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise NotRunError(f"npm can't install the packages of conformance/node: {last}") from error
    except subprocess.TimeoutExpired as error:
        raise NotRunError(f"npm has not installed the packages of conformance/node after {_LIMIT_S} s") from error


def locked_version(package: str) -> str:
    """Return the version of a package that the lock names."""
    packages = json.loads((LOCKED / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    version: str = packages[f"node_modules/{package}"]["version"]
    return version


def bun(packages: Path) -> Path:
    """Return Bun's program among the installed packages.

    Raises:
        NotRunError: Bun has no program for this kind of machine.
    """
    programs = sorted(packages.glob("@oven/bun-*/bin/bun"))
    if not programs:
        raise NotRunError("Bun has no program for this kind of machine")
    return programs[0]

"""The sources of the suites that are no installed packages: source distributions and tagged repositories.

They are fetched when a suite runs, into .cache/conformance, and never committed. A machine that cannot reach them gets
them from a folder that `SPILLWAY_CONFORMANCE_SOURCES` names; it holds one checkout or bare clone for each source, under
the source's name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conformance.model import NotRunError

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-conformance" / "bin" / "python"
CACHE = ROOT / ".cache" / "conformance"
IN_ENVIRONMENT = Path(__file__).with_name("in_environment")
"""What runs in the suites' environment: plugins, stand-ins and tests of our own."""
VARIABLE = "SPILLWAY_CONFORMANCE_SOURCES"
_FETCH_LIMIT_S = 600


@dataclass(frozen=True, slots=True)
class Distribution:
    """A source distribution of the package index, at the version that the environment has, or at `version`.

    `folder` is the part of it that is unpacked; empty means all.
    """

    name: str
    version: str = ""
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit, named by its address."""

    name: str
    url: str
    commit: str


def prepare(source: Distribution | Repository, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the source, which is fetched unless it was before or the variable's folder has it.

    Raises:
        NotRunError: the source can't be had on this machine.
    """
    given = environ.get(VARIABLE)
    local = Path(given) / source.name if given else None
    if local is not None and local.exists():
        return local if _is_checkout(local) else _extracted_clone(local, source)
    return _distribution(source) if isinstance(source, Distribution) else _repository(source)


def _is_checkout(folder: Path) -> bool:
    return not (folder / "HEAD").exists()


def _extracted_clone(bare: Path, source: Distribution | Repository) -> Path:
    """Write the work tree of a bare clone into the cache."""
    revision = source.commit if isinstance(source, Repository) else "HEAD"
    target = CACHE / f"{source.name}-{revision[:12]}"
    if not target.exists():
        with _unfinished(target) as staging:
            archive = staging.with_suffix(".tar")
            _fetch(["git", "-C", str(bare), "archive", "--output", str(archive), revision], source.name)
            _unpack(archive, staging)
            archive.unlink()
    return target


def _distribution(source: Distribution) -> Path:
    version = source.version or installed_version(source.name)
    target = CACHE / f"{source.name}-{version}"
    if not target.exists():
        with _unfinished(target) as staging:
            download = staging.with_suffix(".download")
            pip = [str(PYTHON), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            _fetch([*pip, "--dest", str(download), f"{source.name}=={version}"], source.name)
            _unpack(next(download.glob("*.tar.gz")), staging, source.folder)
            shutil.rmtree(download)
    return target


def _repository(source: Repository) -> Path:
    target = CACHE / f"{source.name}-{source.commit[:12]}"
    if not target.exists():
        with _unfinished(target) as staging:
            git = ["git", "-C", str(staging)]
            _fetch(["git", "init", "--quiet", str(staging)], source.name)
            _fetch([*git, "fetch", "--quiet", "--depth", "1", source.url, source.commit], source.name)
            _fetch([*git, "checkout", "--quiet", "FETCH_HEAD"], source.name)
    return target


class _unfinished:  # noqa: N801 - used like a function
    """A folder that takes its final name only when it is complete."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.staging = target.with_name(f"{target.name}.unfinished")

    def __enter__(self) -> Path:
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(parents=True)
        return self.staging

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.staging.rename(self.target)


def _unpack(archive: Path, target: Path, folder: str = "") -> None:
    """Unpack an archive without its outermost folder, or only what lies below `folder`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = member.name if archive.suffix == ".tar" else member.name.partition("/")[2]
            if member.isfile() and path.startswith(folder):
                member.name = path.removeprefix(folder).lstrip("/")
                tar.extract(member, target, filter="data")


def _fetch(command: list[str], name: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_FETCH_LIMIT_S)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise _not_here(name, last) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_here(name, str(error)) from error


def _not_here(name: str, why: str) -> NotRunError:
    return NotRunError(f"the source of {name} can't be fetched here ({why}); {VARIABLE} can name a local copy")


def installed_version(package: str) -> str:
    """Return the version of a package in the suites' environment.

    Raises:
        NotRunError: the environment is missing or lacks the package.
    """
    return version_in(PYTHON, package)


def version_in(python: Path, package: str) -> str:
    """Return the version of a package in the environment of this Python. Raises as `installed_version` does."""
    return in_environment(f"import importlib.metadata; print(importlib.metadata.version({package!r}))", python)


def in_environment(code: str, python: Path = PYTHON) -> str:
    """Run a line of Python in an environment, by default that of the suites, and return what it printed.

    Raises:
        NotRunError: the environment is missing or lacks a package.
    """
    try:
        shown = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotRunError(f"{python.parents[1].name} is missing or old ({error}): run `make conformance`") from error
    return shown.stdout.strip()

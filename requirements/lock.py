"""Write a hash-locked requirements file from an input file, with pip's own resolver.

Usage:  python requirements/lock.py requirements/dev.in [--python 3.11 --python 3.12]

It uses pip instead of a lock tool, since pip reads the machine's find-links, where the CPU build of torch often comes
from, and other resolvers don't. The first `--python` (default: the running one) decides the versions; every further one
is resolved with those versions as constraints and only adds its own wheels' hashes, so that one file serves several
Pythons. A package that only some Pythons need gets a marker.

Lines in the input file beyond pip's own syntax (both are comments to pip):

    # lock: project [EXTRA]   add the dependencies of pyproject.toml, with those of the extra if one is named
    # lock: exclude NAME      leave the package out of the lock: `--no-deps` then never installs it
    # lock: no-deps           lock only what the file names
    # lock: same-packages     further Pythons add hashes for the same packages, and no packages of their own

The lock holds names, versions and sha256 hashes, but no index and no URL. Platform: Linux x86_64, glibc >= 2.28 (wheels
only).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# pip compares these tags literally: a wheel tagged manylinux_2_25 is found only if 25 is among them.
PLATFORMS = [
    *(f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)),
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
]
PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


@dataclass(frozen=True, slots=True)
class Pin:
    """One resolved wheel: normalised name, version, sha256 in hex."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Directives:
    """The directives of the input file's `# lock:` comments."""

    requirements: tuple[str, ...]
    exclude: frozenset[str]
    no_deps: bool
    same_packages: bool


def normalised(name: str) -> str:
    """Return the name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def directives(text: str) -> Directives:
    """Read the `# lock:` comments of an input file.

    Raises `KeyError` when the file names an extra that pyproject.toml doesn't have.
    """
    requirements: list[str] = []
    for match in re.finditer(r"^# lock: project[ ]?(\S*)$", text, re.M):
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        requirements += project["dependencies"] + (project["optional-dependencies"][match[1]] if match[1] else [])
    exclude = {normalised(m[1]) for m in re.finditer(r"^# lock: exclude (\S+)$", text, re.M)}
    flags = set(re.findall(r"^# lock: (no-deps|same-packages)$", text, re.M))
    return Directives(tuple(requirements), frozenset(exclude), "no-deps" in flags, "same-packages" in flags)


def resolve(arguments: list[str], python: str) -> list[Pin]:
    """Return what pip would install for this Python; nothing is installed.

    Raises `subprocess.CalledProcessError` when pip cannot resolve; its message is already on stderr.
    """
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--only-binary=:all:", "--report", str(report)]
        if python != running:
            command += ["--python-version", python, "--implementation", "cp", "--target", str(Path(scratch, "t"))]
            command += [part for platform in PLATFORMS for part in ("--platform", platform)]
        subprocess.run([*command, *arguments], check=True)
        document: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return sorted((_pin(item) for item in document["install"]), key=lambda pin: pin.name)


def _pin(item: dict[str, Any]) -> Pin:
    metadata, archive = item["metadata"], item["download_info"]["archive_info"]
    digest = archive.get("hashes", {}).get("sha256") or archive["hash"].removeprefix("sha256=")
    return Pin(normalised(metadata["name"]), metadata["version"], digest)


def request(source: Path, chosen: Directives) -> list[str]:
    """Return pip's arguments for everything that the input file requires."""
    return ["-r", str(source), *chosen.requirements, *(["--no-deps"] if chosen.no_deps else [])]


def extra_pins(pins: list[Pin], python: str, source: Path, chosen: Directives) -> list[Pin]:
    """Return the wheels that another Python needs for the same versions, plus what only that Python needs."""
    with tempfile.TemporaryDirectory() as scratch:
        listing = Path(scratch, "same.txt")
        listing.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins), encoding="utf-8")
        if chosen.same_packages:
            return resolve(["--no-deps", "-r", str(listing)], python)
        return resolve(["-c", str(listing), *request(source, chosen)], python)


def marker(pythons: set[str], all_pythons: list[str]) -> str:
    """Return the environment marker that limits a package to some of the Pythons, or nothing."""
    if pythons >= set(all_pythons):
        return ""
    return " ; " + " or ".join(f'python_version == "{python}"' for python in sorted(pythons))


def render(pins_of: dict[str, list[Pin]], source: Path, chosen: Directives) -> str:
    """Return the lock's text: one block per package, hashes sorted."""
    pythons = list(pins_of)
    lines = [
        f"# Written by requirements/lock.py from {source.name}; edit that file and run `make lock`.",
        f"# Linux x86_64, CPython {', '.join(pythons)}.",
    ]
    by_name: dict[str, set[str]] = {}
    hashes: dict[tuple[str, str], set[str]] = {}
    for python, pins in pins_of.items():
        for pin in pins:
            if pin.name in chosen.exclude:
                continue
            by_name.setdefault(pin.name, set()).add(python)
            hashes.setdefault((pin.name, pin.version), set()).add(pin.sha256)
    for (name, version), digests in sorted(hashes.items()):
        limit = marker(by_name[name], pythons)
        tail = " \\\n".join(f"    --hash=sha256:{digest}" for digest in sorted(digests))
        lines.append(f"{name}=={version}{limit} \\\n{tail}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Resolve, then write the lock beside its input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="input file, e.g. requirements/dev.in")
    parser.add_argument("--python", action="append", default=[], help="Python to lock for, e.g. 3.12; repeat")
    options = parser.parse_args()
    source: Path = options.source
    pythons: list[str] = options.python or [f"{sys.version_info.major}.{sys.version_info.minor}"]
    chosen = directives(source.read_text(encoding="utf-8"))
    first = pythons[0]
    print(f"{source.name}: resolving for CPython {first} (downloads metadata only; usually 10 to 60 s)", flush=True)
    pins_of = {first: resolve(request(source, chosen), first)}
    for python in pythons[1:]:
        print(f"{source.name}: adding the wheels of CPython {python}", flush=True)
        versions = [pin for pin in pins_of[first] if pin.name not in chosen.exclude]
        pins_of[python] = extra_pins(versions, python, source, chosen)
    target = source.with_suffix(".lock")
    target.write_text(render(pins_of, source, chosen), encoding="utf-8")
    print(f"{target}: {sum(1 for line in target.read_text().splitlines() if '==' in line)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())

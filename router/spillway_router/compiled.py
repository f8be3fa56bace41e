"""Import the compiled modules of the hot path instead of their sources, as long as both say the same.

`make install` compiles the modules that every request passes (mypyc; router/spillway_compiler) into a folder beside
this file. A compiled module is used only while every source is, byte for byte, what was compiled. After an edit all of
them run from their sources until the next build: slower, but never stale and never mixed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parent
FOLDER = "_compiled"
MANIFEST = "manifest.json"
NATIVE = ".c"
SUFFIX = EXTENSION_SUFFIXES[0]
"""File suffix that names the Python version and the platform, so that a build for another Python is never used."""
REMEDY = "run `make install` to compile it, which saves about 40% of the CPU time per request"


class CompiledModules(MetaPathFinder):
    """Import hook for the compiled modules, given as full module name -> file."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the import spec of a compiled module, None for any other module."""
        file = self._files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, str(file)))


@dataclass(frozen=True, slots=True)
class NotCompiled:
    """Why the modules run from their sources, and what to do about it."""

    reason: str


def digest(source: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    return hashlib.sha256(source.read_bytes()).hexdigest()


def source_of(module: str, package: Path = PACKAGE, suffix: str = ".py") -> Path:
    """Return the source file of a module of the package: `core.routing.policy` -> core/routing/policy.py. That of its
    twin in C has the suffix `NATIVE`."""
    return package.joinpath(*module.split(".")).with_suffix(suffix)


def find(package: Path = PACKAGE) -> CompiledModules | NotCompiled:
    """Return the compiled modules of a package, or the reason why its sources run."""
    folder = package / FOLDER
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return NotCompiled(f"not compiled; {REMEDY}")
    except ValueError:
        return NotCompiled(f"{FOLDER}/{MANIFEST} is not readable; {REMEDY}")
    if manifest["suffix"] != SUFFIX:
        return NotCompiled(f"compiled for another Python ({manifest['suffix']}); {REMEDY}")
    sources = [(source_of(module, package), expected) for module, expected in manifest["sources"].items()]
    natives = manifest.get("natives", {}).items()
    sources += [(source_of(module, package, NATIVE), expected) for module, expected in natives]
    for source, compiled_digest in sources:
        if not source.exists() or digest(source) != compiled_digest:
            return NotCompiled(f"{source.relative_to(package)} has changed since it was compiled; {REMEDY}")
    return CompiledModules({name: folder / file for name, file in manifest["files"].items()})


def use() -> None:
    """Import this package's compiled modules from now on, unless they are missing or stale."""
    modules = find()
    if isinstance(modules, CompiledModules):
        sys.meta_path.insert(0, modules)


def state() -> str:
    """Return how the hot path runs, for people: "compiled", or "interpreted" with the reason."""
    if any(isinstance(finder, CompiledModules) for finder in sys.meta_path):
        return "compiled"
    modules = find()
    reason = modules.reason if isinstance(modules, NotCompiled) else "compiled after this process started"
    return f"interpreted ({reason})"

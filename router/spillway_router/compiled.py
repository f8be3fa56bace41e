"""Which of the router's modules run compiled.

`make install` compiles the modules that every request passes (mypyc; router/spillway_compiler) into a folder beside
this file. They are taken from there as long as the source of each is, byte for byte, what was compiled. After an edit
all of them run from their sources again, until they are compiled anew: slower, but never stale and never mixed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parent
FOLDER = "_compiled"
MANIFEST = "manifest.json"
SUFFIX = EXTENSION_SUFFIXES[0]
"""Names the Python and the platform: another Python's build is not found."""
HOW = "`make install` compiles it, which saves about 40% of a request's CPU time"


class Compiled(MetaPathFinder):
    """Finds the compiled modules: full names -> files."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib asks; None for a module that is not compiled."""
        file = self._files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, str(file)))


def digest(source: Path) -> str:
    """What a source is known by: SHA-256 in hex."""
    return hashlib.sha256(source.read_bytes()).hexdigest()


def source_of(module: str, package: Path = PACKAGE) -> Path:
    """Where the source of a module of the package is: `core.policy` -> core/routing/policy.py."""
    return package.joinpath(*module.split(".")).with_suffix(".py")


def find(package: Path = PACKAGE) -> Compiled | str:
    """The compiled modules of a package, or why its sources run."""
    folder = package / FOLDER
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return f"not compiled; {HOW}"
    except ValueError:
        return f"{FOLDER}/{MANIFEST} is not readable; {HOW}"
    if manifest["suffix"] != SUFFIX:
        return f"compiled for another Python ({manifest['suffix']}); {HOW}"
    for module, known in manifest["sources"].items():
        source = source_of(module, package)
        if not source.exists() or digest(source) != known:
            return f"{source.relative_to(package)} was changed since it was compiled; {HOW}"
    return Compiled({name: folder / file for name, file in manifest["files"].items()})


def use() -> None:
    """Take this package's compiled modules from now on, if they are what the sources say."""
    found = find()
    if isinstance(found, Compiled):
        sys.meta_path.insert(0, found)


def state() -> str:
    """How the hot path runs, for people: "compiled", or "interpreted" with the reason."""
    if any(isinstance(finder, Compiled) for finder in sys.meta_path):
        return "compiled"
    found = find()
    return f"interpreted ({found if isinstance(found, str) else 'compiled after this process began'})"

"""The files of a model with their sizes and digests. The manifest is uploaded last: with it the files are whole."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from spillway_server.obstacle import Obstacle

NAME = "spillway-files.json"
MOST_FILES, MOST_MANIFEST_BYTES = 2000, 4 * 1024 * 1024
_FORMAT = 1
_BLOCK = 8 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file: its path below the folder with slashes, its size in bytes, and its SHA-256 in hexadecimal digits."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All files of a model, by name."""

    files: tuple[FileEntry, ...]

    @property
    def text(self) -> str:
        """The manifest as JSON."""
        rows = [{"name": entry.name, "bytes": entry.size, "sha256": entry.sha256} for entry in self.files]
        return json.dumps({"format": _FORMAT, "files": rows}, indent=1) + "\n"

    @property
    def digest(self) -> str:
        """The SHA-256 of the manifest: it names these very files."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    @property
    def single(self) -> str:
        """The name of the only file, "" if the model is a folder of several."""
        return self.files[0].name if len(self.files) == 1 else ""


def manifest_of(source: Path, report: Callable[[str], None] = lambda _line: None) -> Manifest | Obstacle:
    """Return the manifest of a folder, or of a single file such as a GGUF. It reads every byte."""
    paths = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    folder = source.parent if source.is_file() else source
    paths = [path for path in paths if path.name != NAME and not _hidden(path.relative_to(folder))]
    if not paths:
        return Obstacle(f"{source} is no model: it holds no files.", "Name a converted folder or a GGUF file.")
    if len(paths) > MOST_FILES:
        return Obstacle(
            f"{source} holds {len(paths)} files.", f"A model has at most {MOST_FILES}; name its own folder."
        )
    if source.is_dir() and not any((source / name).is_file() for name in ("config.json", "adapter_config.json")):
        return Obstacle(f"{source} is no model: it has neither config.json nor adapter_config.json.",
                        "Name the folder that `spillway convert` wrote, a LoRA adapter, or a GGUF file.")  # fmt: skip
    entries: list[FileEntry] = []
    for path in paths:
        report(f"reading {path.name}")
        entries.append(FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, digest_of(path)))
    return Manifest(tuple(entries))


def manifest_from(text: str) -> Manifest | Obstacle:
    """Read a manifest that came from a store. Nothing in it is trusted: no file may lie outside of the folder."""
    try:
        content: Any = json.loads(text)
        entries = tuple(FileEntry(str(f["name"]), int(f["bytes"]), str(f["sha256"])) for f in content["files"])
    except (ValueError, KeyError, TypeError):
        return _broken("it is no manifest of Spillway's")
    if content.get("format") != _FORMAT:
        return Obstacle(f"{NAME} has the format {content.get('format')!r}.", f"Update Spillway; it reads {_FORMAT}.")
    wrong = next((entry.name for entry in entries if not _is_safe(entry)), None)
    if wrong is not None or not 0 < len(entries) <= MOST_FILES or len({e.name for e in entries}) < len(entries):
        return _broken(f"{wrong!r} is no file below a folder" if wrong is not None else "it names no or too many files")
    return Manifest(entries)


def digest_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _broken(why: str) -> Obstacle:
    return Obstacle(f"{NAME} can't be used: {why}.", "Push the model again: spillway push FOLDER PLACE.")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_safe(entry: FileEntry) -> bool:
    path = PurePosixPath(entry.name)
    plain = bool(entry.name) and not path.is_absolute() and str(path) == entry.name and "\\" not in entry.name
    parts = all(part not in ("..", ".", "") and not part.startswith(".") for part in path.parts)
    return plain and parts and entry.name != NAME and entry.size >= 0 and _SHA256.fullmatch(entry.sha256) is not None

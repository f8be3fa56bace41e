"""Push a model into an object store, and fetch it again: resumable both ways, and checked by digest on arrival."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from spillway_server.obstacle import Obstacle
from spillway_server.stores.manifest import (
    MOST_MANIFEST_BYTES,
    NAME,
    FileEntry,
    Manifest,
    digest_of,
    manifest_from,
    manifest_of,
)
from spillway_server.stores.object_store import ObjectStore, Place, StoreError

Say = Callable[[str], None]
_DESCRIBING = ("config.json", "model.safetensors.index.json", "adapter_config.json")
_DONE = ".complete"


def push(source: Path, store: ObjectStore, place: Place, say: Say) -> Manifest | Obstacle:
    """Upload a folder or a GGUF file. Files that are there already, with the same digest, are not sent again.

    The old manifest is taken away first and the new one written last, so that no machine fetches half a model.
    """
    manifest = manifest_of(source, say)
    if isinstance(manifest, Obstacle):
        return manifest
    folder = source.parent if source.is_file() else source
    try:
        store.delete_other(place.key(NAME), manifest.text.encode())
        for entry in manifest.files:
            key = place.key(entry.name)
            if store.has(key, entry):
                say(f"{entry.name}: there already")
                continue
            store.put(key, folder / entry.name, entry, say)
        store.put_bytes(place.key(NAME), manifest.text.encode(), {})
    except StoreError as error:
        return Obstacle(f"{source} is not whole in the store: {error}.", "Run the same command again to go on.")
    except OSError as error:
        return Obstacle(f"{source} can't be read: {error.strerror or error}.", "Check the files and push again.")
    return manifest


def manifest_at(store: ObjectStore, place: Place) -> Manifest | Obstacle:
    """Return what is at a place."""
    try:
        content = store.get_bytes(place.key(NAME), MOST_MANIFEST_BYTES)
    except StoreError as error:
        return Obstacle(f"{place} can't be read: {error}.", "Check the place and the credentials.")
    if content is None:
        return Obstacle(f"{place} holds no whole model: it has no {NAME}.", f"Push it: spillway push FOLDER {place}.")
    return manifest_from(content.decode(errors="replace"))


def fetch(store: ObjectStore, place: Place, folder: Path, say: Say, names: tuple[str, ...] = ()) -> Path | Obstacle:
    """Download the model at a place below `folder`; return its own folder, or its only file.

    `names` selects files, () takes all. A file with a wrong digest is fetched once more, then refused.
    """
    manifest = manifest_at(store, place)
    if isinstance(manifest, Obstacle):
        return manifest
    home = folder / f"{place.name}-{manifest.digest[:12]}"
    wanted = [entry for entry in manifest.files if not names or entry.name in names]
    result = home / manifest.single if manifest.single and not names else home
    if not names and (home / _DONE).exists():
        return result
    try:
        home.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(home).free
        needed = sum(entry.size for entry in wanted if not (home / entry.name).exists())
        if room < needed:
            reason = f"{place} has {needed:,} bytes, and {home} has room for {room:,}."
            return Obstacle(reason, "Make room, or take a larger disk.")
        for entry in wanted:
            problem = _fetch_file(store, place, entry, home / entry.name, say)
            if problem is not None:
                return problem
        if not names:
            (home / _DONE).touch()
    except StoreError as error:
        return Obstacle(f"{place} could not be fetched: {error}.", "Start again to go on where it stopped.")
    except OSError as error:
        return Obstacle(f"{home} can't be written: {error.strerror or error}.", "Check the disk and its rights.")
    return result


def describing_files(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of the files by which a model is planned without its weights."""
    return tuple(entry.name for entry in manifest.files if entry.name in _DESCRIBING)


def _fetch_file(store: ObjectStore, place: Place, entry: FileEntry, target: Path, say: Say) -> Obstacle | None:
    if target.exists() and target.stat().st_size == entry.size and digest_of(target) == entry.sha256:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    for _ in range(2):
        store.get(place.key(entry.name), partial, say)
        if partial.stat().st_size == entry.size and digest_of(partial) == entry.sha256:
            partial.replace(target)
            return None
        partial.unlink()
        say(f"{entry.name}: the digest is wrong, fetching it again")
    return Obstacle(
        f"{entry.name} from {place} is not what was pushed: its SHA-256 is wrong, twice.",
        "Push the model again; its files may have been changed in the store.",
    )

"""Models that are named by their place in an object store: described for a plan, or fetched to be served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spillway_server.obstacle import Obstacle
from spillway_server.planning.hardware import Hardware
from spillway_server.planning.models import ModelSpec, Sources, from_directory, resolve
from spillway_server.stores.object_store import open_store, place_of
from spillway_server.stores.transfer import describing_files, fetch, manifest_at

Say = Callable[[str], None]


def served_name(name: str) -> str:
    """Return what clients call a model in an object store: the last word of its place. Any other name gives ""."""
    place = place_of(name)
    return "" if place is None else place.name


def fetched(name: str, folder: Path, say: Say) -> str | Obstacle:
    """Return the path of a model in an object store, downloaded below `folder`; any other name as it is."""
    place = place_of(name)
    if place is None:
        return name
    store = open_store(place)
    if isinstance(store, Obstacle):
        return store
    path = fetch(store, place, folder, say)
    return path if isinstance(path, Obstacle) else str(path.absolute())


def described(name: str, folder: Path, hardware: Hardware, sources: Sources) -> ModelSpec | Obstacle:
    """Return the model that a name means. Of one in an object store only its configuration is fetched, below
    `folder`."""
    place = place_of(name)
    if place is None:
        return resolve(name, hardware, sources)
    store = open_store(place)
    if isinstance(store, Obstacle):
        return store
    manifest = manifest_at(store, place)
    if isinstance(manifest, Obstacle):
        return manifest
    names = describing_files(manifest)
    if "config.json" not in names:
        return Obstacle(
            f"{place} is no checkpoint with a config.json, so that its size can't be planned from here.",
            "Convert it before it is pushed (spillway convert), or go on without arithmetic: --force.",
        )
    home = fetch(store, place, folder, lambda _line: None, names)
    if isinstance(home, Obstacle):
        return home
    weights = [entry.size for entry in manifest.files if entry.name.endswith(".safetensors")]
    return from_directory(home, place.name, needs_weights=False, elsewhere=tuple(weights))

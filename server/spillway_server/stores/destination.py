"""Where a model is brought to: an object store, or a private repository of a hub."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spillway_server import environment
from spillway_server.obstacle import Obstacle
from spillway_server.stores.manifest import manifest_of
from spillway_server.stores.object_store import Place, open_store, place_of
from spillway_server.stores.transfer import push

HUB = "hub:"
_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_VENVS = (".venv-convert", ".venv-vllm")
"""Environments that have huggingface_hub, whose program uploads in parts and goes on after an interruption."""
_HUB_LIMIT_S = 24 * 3600.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Brought:
    """A model that is somewhere else now: the name by which `--model` finds it, its files, bytes and digest."""

    model: str
    files: int
    size: int
    digest: str


def destination_flaw(place: str) -> Obstacle | None:
    """Return why a model can't be brought to a place, None if the place has a known form."""
    if place_of(place) is not None or (_REPOSITORY.fullmatch(place.removeprefix(HUB)) and place.startswith(HUB)):
        return None
    return Obstacle(f"{place!r} is no place for a model.", "Write s3://BUCKET/PREFIX or hub:OWNER/NAME.")


def model_at(place: str) -> str:
    """Return the name by which `--model` finds what is brought to a place."""
    return place.removeprefix(HUB)


def bring(source: Path, place: str, say: Say, endpoint: str = "") -> Brought | Obstacle:
    """Upload a folder or a file, or what is missing of it."""
    flaw = destination_flaw(place)
    if flaw is not None:
        return flaw
    if not source.exists():
        return Obstacle(f"there is no {source}.", "Name a converted folder, an adapter's folder, or a GGUF file.")
    stored = place_of(place)
    return _to_hub(source, place.removeprefix(HUB), say) if stored is None else _to_store(source, stored, say, endpoint)


def _to_store(source: Path, place: Place, say: Say, endpoint: str) -> Brought | Obstacle:
    store = open_store(place, endpoint)
    manifest = store if isinstance(store, Obstacle) else push(source, store, place, say)
    if isinstance(manifest, Obstacle):
        return manifest
    return Brought(str(place), len(manifest.files), manifest.size, manifest.digest)


def _to_hub(source: Path, repository: str, say: Say) -> Brought | Obstacle:
    if source.is_file():
        return Obstacle(f"{source.name} is a single file.", "Convert it first, and push the folder: spillway convert.")
    if not environment.hub_token():
        return Obstacle(
            f"hub:{repository} needs a token that may write.", "Set HF_TOKEN, or log in with `hf auth login`."
        )
    program = next((path for path in map(_program, _VENVS) if path.exists()), None)
    if program is None:
        return Obstacle("uploading to a hub needs huggingface_hub.", "Install it: make install-convert.")
    manifest = manifest_of(source, say)
    if isinstance(manifest, Obstacle):
        return manifest
    command = [str(program), "upload-large-folder", repository, str(source), "--repo-type", "model", "--private"]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_HUB_LIMIT_S,
            env=environment.engine_environment((("HF_TOKEN", environment.hub_token()),)),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Obstacle(f"hub:{repository} took longer than a day.", "Run the same command again to go on.")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Obstacle(f"hub:{repository} refused the upload: {last}", "Run the same command again to go on.")
    return Brought(repository, len(manifest.files), manifest.size, manifest.digest)


def _program(venv: str) -> Path:
    return environment.project_root() / venv / "bin" / "hf"

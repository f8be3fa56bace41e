"""What `spillway deploy` brings along: a model from this machine, and its adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from spillway_router.deploy.order import DeployError

if TYPE_CHECKING:
    from spillway_server.planning.models import ModelSpec, Sources
    from spillway_server.planning.rented import RentedMachine


@dataclass(frozen=True, slots=True)
class Uploads:
    """`files` are (path here, place there). `model` is the name by which the machine finds the model, "" if it is not
    brought along; `loras` where it finds each adapter."""

    files: tuple[tuple[Path, str], ...] = ()
    model: str = ""
    loras: Mapping[str, str] = field(default_factory=dict)


def uploads_of(model: str, to: str, loras: tuple[str, ...]) -> Uploads:
    """Return what has to be brought where. Raises `DeployError`."""
    from spillway_server.stores.destination import destination_flaw, model_at

    files: list[tuple[Path, str]] = []
    if to:
        flaw = destination_flaw(to)
        if flaw is not None:
            raise DeployError(f"--to {flaw.reason} {flaw.fix}")
        path = Path(model).expanduser()
        if not path.exists():
            raise DeployError(f"--to brings along what is on this machine, and --model {model} is not; omit --to")
        files.append((path, to))
    places: dict[str, str] = {}
    for word in loras:
        name, equals, place = word.partition("=")
        if not equals or not name or not place:
            raise DeployError(f"--lora {word!r}: write NAME=DIRECTORY or NAME=s3://BUCKET/PREFIX")
        if place.startswith("s3://"):
            places[name] = place
            continue
        if not to.startswith("s3://"):
            raise DeployError(f"--lora {name}: say where to bring {place}: --to s3://BUCKET/PREFIX")
        if not (Path(place).expanduser() / "adapter_config.json").is_file():
            raise DeployError(f"--lora {name}: {place} is no adapter, it has no adapter_config.json")
        places[name] = f"{to.rstrip('/')}-loras/{name}"
        files.append((Path(place).expanduser(), places[name]))
    return Uploads(tuple(files), model_at(to) if to else "", places)


def upload_notes(uploads: Uploads) -> tuple[str, ...]:
    """Return what a dry run says of the uploads."""
    return tuple(
        f"First, {path} is brought to {place} (spillway push {path} {place})." for path, place in uploads.files
    )


def bring_all(uploads: Uploads, say: Callable[[str], None]) -> None:
    """Upload everything, or what is missing of it. Raises `DeployError`: then nothing was rented."""
    from spillway_server.obstacle import Obstacle
    from spillway_server.stores.destination import bring

    for path, place in uploads.files:
        brought = bring(path, place, say)
        if isinstance(brought, Obstacle):
            raise DeployError(f"{brought.reason} {brought.fix} Nothing was rented.")


def model_to_plan(rented: RentedMachine, model: str, uploads: Uploads, sources: Sources) -> ModelSpec | str:
    """Return the model that the rented machine's plan is made for. Raises `DeployError`.

    One that is brought along is read here; of one in an object store, the configuration is fetched.
    """
    from spillway_server import environment
    from spillway_server.obstacle import Obstacle
    from spillway_server.planning.models import resolve
    from spillway_server.planning.rented import rented_hardware
    from spillway_server.stores.located import described

    if not uploads.model and not model.startswith("s3://"):
        return model
    hardware = rented_hardware(rented.gpu, rented.gpus)
    if isinstance(hardware, Obstacle):
        raise DeployError(f"{hardware.reason} {hardware.fix}")
    spec = (
        resolve(str(Path(model).expanduser()), hardware, sources)
        if uploads.model
        else described(model, environment.stored_models(), hardware, sources)
    )
    if isinstance(spec, Obstacle):
        raise DeployError(f"{spec.reason} {spec.fix}")
    return spec

"""`spillway deploy TARGET`: rent a GPU and start Spillway on it, or give it back; a dry run prints all of it first."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load
from spillway_router.deploy import TARGETS
from spillway_router.deploy.container import pin_notes
from spillway_router.deploy.order import DeployError, DeploymentOrder, DeploymentPlan
from spillway_router.deploy.present import plan_json, plan_text, price_lines

if TYPE_CHECKING:
    from spillway_router.config.load import Loaded

IMAGE_VARIABLE = "SPILLWAY_IMAGE"
NO_IMAGE = "spillway-gpu:0.1.0"
_Model = Annotated[str, typer.Option(help="A hub name (owner/name), `demo`, or `auto` to choose by GPU.")]
_Price = Annotated[str, typer.Option(help="USD per hour of one GPU; gpu.price_per_hour of the configuration.")]
_Image = Annotated[str, typer.Option(help=f"The image that you pushed; {IMAGE_VARIABLE} of the environment.")]
_Place = Annotated[str, typer.Option("--place", help="Data centre, region or namespace, in the target's own words.")]
_Secret = Annotated[list[str] | None, typer.Option("--secret", help="Name of a secret that the target keeps; repeat.")]
_Cloud = Annotated[list[str] | None, typer.Option("--cloud", help="Overflow to PROVIDER=MODEL; repeat.")]
_Set = Annotated[list[str] | None, typer.Option("--set", help="The target's own settings, NAME=VALUE; repeat.")]


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """What the command line said about the machine; texts as given."""

    gpu: str
    model: str
    gpus: int
    price: str
    image: str
    name: str
    interruptible: bool
    disk: int
    place: str
    volume: str
    secrets: tuple[str, ...]
    clouds: tuple[str, ...]
    options: tuple[str, ...]
    send: Path | None


def deploy(
    target: Annotated[str, typer.Argument(help=f"{', '.join(TARGETS)}.")],
    handle: Annotated[
        str, typer.Argument(help="Id of what runs there; with --destroy, the only one if left out.")
    ] = "",
    gpu: Annotated[str, typer.Option(help="t4, a10g, l4, a100-40, a100-80 or h100.")] = "",
    model: _Model = "auto",
    gpus: Annotated[int, typer.Option(min=1, max=16, help="GPUs to split the model over.")] = 1,
    price: _Price = "",
    image: _Image = "",
    name: Annotated[str, typer.Option(help="What to call it there.")] = "spillway",
    interruptible: Annotated[
        bool, typer.Option("--interruptible", help="Spot or bid; the price is the most to pay.")
    ] = False,
    disk: Annotated[int, typer.Option(min=20, max=4000, help="Disk in GB, for image and models.")] = 80,
    place: _Place = "",
    volume: Annotated[str, typer.Option(help="An existing network volume (RunPod).")] = "",
    secret: _Secret = None,
    cloud: _Cloud = None,
    setting: _Set = None,
    send: Annotated[
        Path | None, typer.Option(help="A spillway.yaml to run there, instead of one made for this order.")
    ] = None,
    no_key: Annotated[bool, typer.Option("--no-key", help="Make no first API key.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print everything, do nothing.")] = False,
    destroy: Annotated[bool, typer.Option("--destroy", help="Give it back.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rent a GPU and start Spillway on it; --dry-run prints price, configuration and every step first."""
    if target not in TARGETS:
        fail(f"{target!r} is no target; use one of {', '.join(TARGETS)}")
    loaded = load(path)
    try:
        if destroy:
            _destroy(target, handle, loaded, dry_run, yes, as_json)
            return
        if handle:
            fail(f"what is {handle!r}? an id belongs to --destroy")
        wish = DeployOptions(
            gpu, model, gpus, price, image, name, interruptible, disk, place, volume,
            tuple(secret or ()), tuple(cloud or ()), tuple(setting or ()), send,
        )  # fmt: skip
        order = order_of(wish, loaded, dry_run)
        if dry_run:
            _show(_plan(target, order), order, True, as_json)
        else:
            _create(target, order, loaded, no_key, yes)
    except DeployError as error:
        fail(f"{target}: {error}")


def order_of(wish: DeployOptions, loaded: Loaded, dry_run: bool) -> DeploymentOrder:
    """The order, checked: a known GPU, a price, a model that fits. Raises DeployError."""
    part = loaded.settings.gpu
    gpu = wish.gpu or part.name or ""
    if not gpu:
        raise DeployError("say which GPU: --gpu a100-80, or gpu.name of the configuration")
    if wish.send is not None and not wish.send.is_file():
        raise DeployError(f"--send {wish.send}: there is no such file")
    image = wish.image or loaded.environment.get(IMAGE_VARIABLE, "")
    if not image and not dry_run:
        raise DeployError(
            "name the image: build it (docker build -f Dockerfile.gpu), push it where the target can pull it from, "
            f"then --image, or {IMAGE_VARIABLE}"
        )
    _fits(gpu, wish.model, wish.gpus)
    return DeploymentOrder(
        gpu=gpu,
        model=wish.model,
        price_per_hour=_price(wish.price, part.price_per_hour),
        image=image or NO_IMAGE,
        name=wish.name,
        count=wish.gpus,
        interruptible=wish.interruptible,
        disk_gb=wish.disk,
        place=wish.place,
        volume=wish.volume,
        secrets=wish.secrets,
        clouds=tuple(_pairs("--cloud", wish.clouds).items()),
        yaml=wish.send.read_text(encoding="utf-8") if wish.send else "",
        options=_pairs("--set", wish.options),
    )


def _price(text: str, configured: Decimal) -> Decimal:
    try:
        amount = Decimal(text) if text else configured
    except InvalidOperation:
        raise DeployError(f"--price {text!r} is not an amount; write USD per hour like 1.39") from None
    if not amount.is_finite() or not 0 < amount <= 1000:
        raise DeployError("say what one GPU costs: --price in USD per hour, or gpu.price_per_hour of the configuration")
    return amount


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise DeployError(f"{option} {text!r}: write NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _fits(gpu: str, model: str, gpus: int) -> None:
    """Refuse what vLLM's plan refuses, before anything is rented."""
    from spillway_server.planning import models
    from spillway_server.planning.hardware import Hardware
    from spillway_server.planning.plan import PlanOptions, make_plan
    from spillway_server.planning.profiles import PROFILES
    from spillway_server.refusal import Refusal

    profile = PROFILES.get(gpu)
    if profile is None:
        raise DeployError(f"--gpu {gpu!r} is not known; use one of {', '.join(PROFILES)}")
    if model != "demo" and Path(model).expanduser().exists():
        raise DeployError(f"--model {model} is a path of this machine; the rented one needs a hub name (owner/name)")
    machine = Hardware((profile.gpu,), 8, 64 * 2**30)
    spec = models.resolve(model, machine, Path("/nonexistent"))
    made = spec if isinstance(spec, Refusal) else make_plan(profile, spec, PlanOptions(devices=gpus))
    if isinstance(made, Refusal):
        raise DeployError(f"{made.reason} {made.fix}")


def _plan(target: str, order: DeploymentOrder) -> DeploymentPlan:
    """What to do, and what to know of it."""
    plan = TARGETS[target].create(order)
    return replace(plan, notes=(*plan.notes, *pin_notes(order.image)))


def _show(plan: DeploymentPlan, order: DeploymentOrder, creates: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(plan_json(plan, order, creates), indent=2))
        return
    typer.echo(plan_text(plan, order, creates))
    typer.echo("\nDry run: nothing was done.")


def _create(target: str, order: DeploymentOrder, loaded: Loaded, no_key: bool, yes: bool) -> None:
    from spillway_router.commands.deploy_execution import DeploymentRunner, first_key

    hands = DeploymentRunner(target, loaded)
    for line in price_lines(order):
        typer.echo(line)
    _confirm(f"Rent this on {target}?", yes)
    token = ""
    if not no_key:
        token, access = first_key()
        order = replace(order, access=access)
    plan = _plan(target, order)
    handle = hands.rent(plan, order)
    typer.echo(f"made {handle}; give it back with: spillway deploy {target} {handle} --destroy")
    for note in plan.notes:
        typer.echo(f"note  {note}")
    if token:
        typer.echo(f"key   {token}\nKeep the key now: it is not stored and not shown again.")


def _destroy(target: str, handle: str, loaded: Loaded, dry_run: bool, yes: bool, as_json: bool) -> None:
    from spillway_router.commands.deploy_execution import DeploymentRunner, deployments

    known = deployments(loaded).find(target, handle)
    order = DeploymentOrder(known.gpu, "", Decimal(0), "", place=known.place)
    plan = TARGETS[target].destroy(known.handle, order)
    if dry_run:
        _show(plan, order, False, as_json)
        return
    hands = DeploymentRunner(target, loaded)
    _confirm(f"Give back {known.handle} on {target}? What is on its disk is lost.", yes)
    hands.give_back(plan, known)
    for note in plan.notes:
        typer.echo(f"note  {note}")


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        fail("nobody is there to ask: add --yes, or look first with --dry-run")
    typer.confirm(question, abort=True)

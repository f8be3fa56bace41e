"""`spillway deploy TARGET`: rent a GPU and start Spillway on it, or release it; a dry run prints every step first."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_hardware.gpus import BASE, listed
from spillway_router.commands.common import ConfigOption, JsonOption, fail, load
from spillway_router.commands.deploy_answer import DeployAnswer
from spillway_router.commands.deploy_uploads import Uploads, bring_all, model_to_plan, upload_notes, uploads_of
from spillway_router.core.money.tariff import TariffError, amount_of
from spillway_router.deploy import TARGETS
from spillway_router.deploy.container import pin_notes
from spillway_router.deploy.order import PLACEHOLDER_IMAGE, DeployError, DeploymentOrder, DeploymentPlan
from spillway_router.deploy.present import plan_json, plan_text, price_lines

if TYPE_CHECKING:
    from spillway_router.config.load import Loaded
    from spillway_router.config.settings import ServerPart
    from spillway_router.deploy.state import Deployment
    from spillway_server.planning.plan import EnginePlan

IMAGE_VARIABLE = "SPILLWAY_IMAGE"
LEAST_USD = Decimal("0.001")
"""The lowest price of a GPU per hour that is no slip of the keyboard."""
_Handle = Annotated[
    str, typer.Argument(help="With --destroy, the ID of what to release; the only deployment if left out.")
]
_Interruptible = Annotated[
    bool, typer.Option("--interruptible", help="Rent a spot instance, or bid; the price is the maximum.")
]
_Send = Annotated[Path | None, typer.Option(help="A spillway.yaml to run on the machine, instead of a generated one.")]
_Model = Annotated[
    str,
    typer.Option(
        help="A hub name (owner/name), s3://BUCKET/PREFIX, `demo`, `auto` to choose by GPU, or with --to a folder or a "
        "GGUF file."
    ),
]
_To = Annotated[
    str, typer.Option("--to", help="Bring --model there first: s3://BUCKET/PREFIX, or hub:OWNER/NAME (private).")
]
_Lora = Annotated[
    list[str] | None,
    typer.Option("--lora", help="A LoRA adapter, NAME=DIRECTORY (brought to --to) or NAME=s3://... Repeatable."),
]
_Price = Annotated[
    str | None, typer.Option(help="USD per hour of one GPU. The default is gpu.price_per_hour of the configuration.")
]
_Image = Annotated[str, typer.Option(help=f"The image that you pushed. The default is the variable {IMAGE_VARIABLE}.")]
_Place = Annotated[str, typer.Option("--place", help="Data centre, region or namespace, as the target names it.")]
_Secret = Annotated[
    list[str] | None, typer.Option("--secret", help="Name of a secret that the target keeps. Repeatable.")
]
_Cloud = Annotated[list[str] | None, typer.Option("--cloud", help="Overflow to PROVIDER=MODEL. Repeatable.")]
_ModelConfig = Annotated[
    Path | None, typer.Option(help="A folder with a copy of the hub model's config.json, for want of a network.")
]
_Budget = Annotated[
    str | None, typer.Option(help="The most that all clouds together may cost, in USD per day; `none`: without limit.")
]
_Wait = Annotated[int, typer.Option(min=0, max=240, help="Minutes to wait until the machine answers; 0: don't ask it.")]
_Unrecorded = Annotated[
    bool, typer.Option("--unrecorded", help="With --destroy: release even what was not deployed from here.")
]
_Set = Annotated[list[str] | None, typer.Option("--set", help="A setting of the target, NAME=VALUE. Repeatable.")]


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """The options that describe the machine, as given on the command line."""

    gpu: str
    model: str
    gpus: int
    price: str | None
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
    budget: str | None
    model_config: Path | None = None
    force: bool = False
    to: str = ""
    loras: tuple[str, ...] = ()


def deploy(
    target: Annotated[str, typer.Argument(help=f"Where to rent: {', '.join(TARGETS)}.")],
    handle: _Handle = "",
    gpu: Annotated[str, typer.Option(help=f"The GPU: {listed()}. The default is gpu.name.")] = "",
    model: _Model = "auto",
    to: _To = "",
    lora: _Lora = None,
    gpus: Annotated[int, typer.Option(min=1, max=16, help="GPUs to split the model over.")] = 1,
    price: _Price = None,
    image: _Image = "",
    name: Annotated[str, typer.Option(help="What to call the deployment.")] = "spillway",
    interruptible: _Interruptible = False,
    disk: Annotated[int, typer.Option(min=20, max=4000, help="Disk in GB, for image and models.")] = 80,
    place: _Place = "",
    volume: Annotated[str, typer.Option(help="The ID of an existing network volume (RunPod).")] = "",
    secret: _Secret = None,
    cloud: _Cloud = None,
    setting: _Set = None,
    send: _Send = None,
    model_config: _ModelConfig = None,
    force: Annotated[bool, typer.Option("--force", help="Rent although the model may not fit or is unknown.")] = False,
    budget: _Budget = None,
    wait: _Wait = 20,
    unrecorded: _Unrecorded = False,
    no_key: Annotated[bool, typer.Option("--no-key", help="Create no first API key.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print every step and do nothing.")] = False,
    destroy: Annotated[bool, typer.Option("--destroy", help="Release the machine.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")] = False,
    path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rent a GPU and start Spillway on it; --dry-run prints the price, the configuration and every step first."""
    if target not in TARGETS:
        fail(f"{target!r} is not a target; use one of {', '.join(TARGETS)}")
    loaded = load(path)
    if handle and not destroy:
        fail(f"unexpected argument {handle!r}; an ID is only used with --destroy")
    try:
        if destroy:
            scope = _scope(target, place, tuple(setting or ()))
            deployment = _recorded(target, handle, scope, loaded, unrecorded)
            _destroy(deployment, loaded, dry_run=dry_run, yes=yes, as_json=as_json)
            return
        options = DeployOptions(
            gpu=gpu,
            model=model,
            gpus=gpus,
            price=price,
            image=image,
            name=name,
            interruptible=interruptible,
            disk=disk,
            place=place,
            volume=volume,
            secrets=tuple(secret or ()),
            clouds=tuple(cloud or ()),
            options=tuple(setting or ()),
            send=send,
            model_config=model_config,
            force=force,
            budget=budget,
            to=to,
            loras=tuple(lora or ()),
        )
        order, plan = _inspected_order(target, options, loaded, dry_run)
        if dry_run:
            steps = _plan(target, order)
            notes = (*upload_notes(_uploads(options)), *steps.notes, *plan.warnings)
            _show(replace(steps, notes=notes), order, True, as_json)
        else:
            _create(
                target=target,
                order=order,
                loaded=loaded,
                uploads=_uploads(options),
                no_key=no_key,
                yes=yes,
                wait_min=wait,
                as_json=as_json,
            )
    except DeployError as error:
        fail(f"{target}: {error}")


def _inspected_order(
    target: str, options: DeployOptions, loaded: Loaded, dry_run: bool
) -> tuple[DeploymentOrder, EnginePlan]:
    """Return an order in which nothing is wrong, with the plan of its engine. Raises `DeployError`."""
    order = order_of(target, options, loaded, dry_run)
    _inspect(target, order)  # before the model, whose configuration may have to be fetched
    server = None if options.send is None else _server_of(order.yaml)
    written = None if server is None else server.vllm_args
    plan = _check_fit(target, order.gpu, options if options.to else replace(options, model=order.model), written)
    order = replace(order, engine_args=plan.layout.arguments(), force=options.force)
    _inspect(target, order)  # the very text that is sent
    return order, plan


def _usual_place(target: str, environment: Mapping[str, str]) -> str:
    """Return the region that `aws` takes from the environment, so that it is released where it was made."""
    if target != "aws":
        return ""
    return environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION", "")


def order_of(target: str, options: DeployOptions, loaded: Loaded, dry_run: bool) -> DeploymentOrder:
    """Build the order and check it: a known GPU, a price, a model that fits. Raises `DeployError`."""
    part = loaded.settings.gpu
    gpu = options.gpu or part.name or ""
    if not gpu:
        raise DeployError(f"say which GPU: --gpu {BASE}, or gpu.name in the configuration")
    if options.send is not None and not options.send.is_file():
        raise DeployError(f"--send {options.send}: the file does not exist")
    image = options.image or loaded.environment.get(IMAGE_VARIABLE, "")
    if not image and not dry_run:
        raise DeployError(
            "name the image: build it (docker build -f Dockerfile.gpu), push it to a registry that the target can pull "
            f"from, then pass --image or set {IMAGE_VARIABLE}"
        )
    text = "" if options.send is None else _text_of(options.send)
    model = options.model if options.send is None else _model_of(text, options.model)
    uploads = _uploads(options)
    return DeploymentOrder(
        gpu=gpu,
        model=uploads.model or model,
        price_per_hour=_price(options.price, part.hourly),
        image=image or PLACEHOLDER_IMAGE,
        name=options.name,
        count=options.gpus,
        interruptible=options.interruptible,
        disk_gb=options.disk,
        place=options.place or _usual_place(target, loaded.environment),
        volume=options.volume,
        secrets=options.secrets,
        clouds=tuple(_pairs("--cloud", options.clouds).items()),
        yaml=text,
        options=_pairs("--set", options.options),
        budget_per_day=_budget(options.budget),
        unlimited=options.budget == "none",
        loras=uploads.loras,
    )


def _uploads(options: DeployOptions) -> Uploads:
    return uploads_of(options.model, options.to, options.loras)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeployError(f"--send {file}: can't be read ({error})") from None


def _model_of(text: str, typed: str) -> str:
    """Return the model that a configuration to send launches, which is what has to fit the GPU; `typed` if the file is
    wrong, which the inspection reports. Raises `DeployError` if another one was typed, which nothing would launch."""
    server = _server_of(text)
    if server is None:
        return typed
    if typed not in ("auto", server.model):
        raise DeployError(
            f"--model {typed} is not what --send launches: server.model in the file is {server.model}; change it "
            "there, or omit --model"
        )
    return server.model


def _server_of(text: str) -> ServerPart | None:
    """Return the engine that a configuration to send launches, None if the file is wrong."""
    from spillway_router.config.load import ConfigError, parse
    from spillway_router.config.settings import ServerPart

    try:
        return parse(text, _AnyVariable()).server or ServerPart()
    except ConfigError:
        return None


class _AnyVariable(dict[str, str]):
    """An environment that has every variable, with an empty value."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return ""


def _budget(text: str | None) -> Decimal | None:
    """Return USD per day. Raises `DeployError`."""
    if text is None or text == "none":
        return None
    try:
        amount = amount_of(text)
    except TariffError as error:
        raise DeployError(f"--budget {error}, in USD per day, or none") from None
    if amount <= 0:
        raise DeployError(f"--budget {text!r} lets no cloud answer; leave out --cloud, or write USD per day, such as 5")
    return amount


def _inspect(target: str, order: DeploymentOrder) -> None:
    """Raise `DeployError` with everything that is wrong with an order, before anything is rented."""
    from spillway_router.deploy.inspection import order_problems

    problems = order_problems(order, TARGETS[target].accepted, datetime.now(UTC).date())
    if problems:
        raise DeployError("this can't work, and nothing was rented:\n" + "\n".join(f"  - {each}" for each in problems))


def _price(text: str | None, configured: Decimal) -> Decimal:
    try:
        amount = configured if text is None else amount_of(text)
    except TariffError as error:
        raise DeployError(f"--price {error}, in USD per hour") from None
    if not LEAST_USD <= amount <= 1000:
        raise DeployError(
            f"say what one GPU costs: --price in USD per hour, from {LEAST_USD}, or gpu.price_per_hour in the "
            "configuration"
        )
    return amount


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise DeployError(f"{option} {text!r}: write NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _check_fit(target: str, gpu: str, options: DeployOptions, written: tuple[str, ...] | None) -> EnginePlan:
    """Return the plan of the rented machine. `written` are the arguments for vLLM of a configuration to send. Raises
    `DeployError` for a model that can't run on what is rented."""
    from spillway_hardware.gpus import UnknownGpuError
    from spillway_hardware.gpus import gpu as gpu_named
    from spillway_server import sources
    from spillway_server.obstacle import Obstacle
    from spillway_server.planning.rented import RentedMachine, plan_for

    try:
        instances = gpu_named(gpu).targets.aws if target == "aws" else {}
    except UnknownGpuError:
        instances = {}  # plan_for names the GPUs that exist
    rented = RentedMachine(
        gpu=gpu,
        gpus=options.gpus,
        disk_gb=options.disk,
        instance=_pairs("--set", options.options).get("instance") or instances.get(options.gpus, ""),
        has_hub_token="HF_TOKEN" in options.secrets,
        vllm_args=written,
    )
    where = sources.of_environment(options.model_config, options.force)
    plan = plan_for(rented, model_to_plan(rented, options.model, _uploads(options), where), where)
    if isinstance(plan, Obstacle):
        raise DeployError(f"{plan.reason} {plan.fix}")
    return plan


def _plan(target: str, order: DeploymentOrder) -> DeploymentPlan:
    """Return the target's plan, with notes about the image added."""
    plan = TARGETS[target].create(order)
    return replace(plan, notes=(*plan.notes, *pin_notes(order.image)))


def _show(plan: DeploymentPlan, order: DeploymentOrder, creates: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(plan_json(plan, order, creates), indent=2))
        return
    typer.echo(plan_text(plan, order, creates))
    typer.echo("\nDry run: nothing was done.")


def _create(
    *,
    target: str,
    order: DeploymentOrder,
    loaded: Loaded,
    uploads: Uploads,
    no_key: bool,
    yes: bool,
    wait_min: int,
    as_json: bool,
) -> None:
    from spillway_router.commands.deploy_execution import DeploymentRunner, first_key

    runner = DeploymentRunner(target, loaded, notes_on_stderr=as_json)
    for line in price_lines(order):
        typer.echo(line, err=as_json)
    _confirm(f"Rent this on {target}?", yes)
    bring_all(uploads, lambda line: typer.echo(line, err=True))
    token = ""
    if not no_key:
        token, access = first_key()
        order = replace(order, access=access)
    plan = _plan(target, order)
    rented = runner.rent(plan, order)
    answer = DeployAnswer(rented.deployment.handle, token, plan, order)
    with answer.printed(as_json):
        answer.rental = runner.book(rented)
        if TARGETS[target].serves_when_made:
            answer.is_ready = True
        elif wait_min:
            readiness = runner.wait_until_ready(answer.handle, wait_min * 60.0)
            answer.is_ready, answer.url = readiness.ready, readiness.url
            if not readiness.ready:
                runner.end_unready(answer.handle, order, readiness)


def _scope(target: str, place: str, settings: tuple[str, ...]) -> str:
    """Return in which region of AWS or context of Kubernetes something is to be released; "" if that was not said."""
    return _pairs("--set", settings).get("context", "") if target == "kubernetes" else place if target == "aws" else ""


def _recorded(target: str, handle: str, scope: str, loaded: Loaded, unrecorded: bool) -> Deployment:
    """Return what is to be released. Raises `DeployError` for what was not deployed from here: it may be somebody
    else's."""
    from spillway_router.commands.deploy_execution import deployments

    recorded = deployments(loaded)
    mine = [each for each in recorded.all() if each.target == target and (not scope or each.scope in ("", scope))]
    if handle and handle not in [each.handle for each in mine] and not unrecorded:
        raise DeployError(
            f"{handle} was not deployed from here{f' in {scope}' if scope else ''} (deployed are: "
            f"{', '.join(each.handle for each in mine) or 'none'}), so it is left alone; --unrecorded releases it all "
            "the same"
        )
    return recorded.find(target, handle, scope)


def _destroy(deployment: Deployment, loaded: Loaded, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    from spillway_router.commands.deploy_execution import DeploymentRunner

    target = deployment.target
    context = {"context": deployment.cluster} if deployment.cluster else {}
    order = DeploymentOrder(
        deployment.gpu, model="", price_per_hour=Decimal(0), image="", place=deployment.place, options=context
    )
    plan = TARGETS[target].destroy(deployment.handle, order)
    if dry_run:
        _show(plan, order, False, as_json)
        return
    runner = DeploymentRunner(target, loaded, notes_on_stderr=as_json)
    where = deployment.cluster or deployment.scope
    _confirm(
        f"Release {deployment.handle} on {target}{f' ({where})' if where else ''}? What is on its disk is lost.", yes
    )
    runner.release(plan, deployment)
    if as_json:
        values = {"target": target, "released": deployment.handle, "notes": list(plan.notes)}
        typer.echo(json.dumps(values, indent=2))
        return
    for note in plan.notes:
        typer.echo(f"note  {note}")


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        fail("no terminal to confirm on; pass --yes, or look first with --dry-run")
    typer.confirm(question, abort=True, err=True)

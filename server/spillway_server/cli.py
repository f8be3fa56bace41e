"""The server's commands `serve` and `plan`, and the checks of `doctor`, for the router's command line."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from spillway_server import doctor as doctor_checks
from spillway_server import environment, present, sources
from spillway_server.engine import launcher
from spillway_server.engine.events import EngineEvent
from spillway_server.engine.launcher import InstalledEngine
from spillway_server.engine.serve import ServeOptions, run_server
from spillway_server.obstacle import Obstacle
from spillway_server.on_ray.application import RayOrder, deploy
from spillway_server.on_ray.replica import HOST, PORT
from spillway_server.planning import hardware, measurements, plan_table, profiles
from spillway_server.planning.memory import MEAN_TOKENS
from spillway_server.planning.plan import PlanOptions, make_plan
from spillway_server.planning.profiles import PROFILES, Profile
from spillway_server.planning.speed import Speed, speed_of
from spillway_server.planning.speed import settings as settings_part
from spillway_server.stores import located

_MODEL = typer.Option(
    help="A directory, a GGUF file, a hub name (owner/name), s3://BUCKET/PREFIX, `demo`, or `auto` to choose by "
    "hardware."
)
_VLLM_ARG = typer.Option(
    "--vllm-arg", help="An argument for vLLM, such as --vllm-arg=--max-model-len=4096. Repeatable."
)
_LORA = typer.Option(
    "--lora", help="A LoRA adapter as NAME=DIRECTORY (or =s3://...), served under its name. Repeatable."
)
_JSON = typer.Option("--json", help="Print JSON instead of tables.")
_SETTINGS = typer.Option(
    "--settings", metavar="BACKEND", help="Print the part of spillway.yaml that follows from the plan."
)
_DEVICES = typer.Option(
    "--gpus", min=1, max=16, help="GPUs to use: for one engine if it needs them, else an engine each."
)
_FORCE = typer.Option("--force", help="Go on although the model is unknown or doesn't fit by Spillway's arithmetic.")
_MODEL_CONFIG = typer.Option(
    help="A folder with a copy of the hub model's config.json and model.safetensors.index.json, for want of a network."
)


def serve(
    model: Annotated[str, _MODEL] = "auto",
    host: Annotated[
        str, typer.Option(help="Address to listen on; keep it on loopback unless you have a reason.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8001,
    uds: Annotated[str | None, typer.Option(help="Listen on this Unix socket instead.")] = None,
    engine_python: Annotated[Path | None, typer.Option(help="A Python that has vLLM.")] = None,
    vllm_arg: Annotated[list[str] | None, _VLLM_ARG] = None,
    gpus: Annotated[int, _DEVICES] = 1,
    device: Annotated[str, typer.Option(help="auto, gpu or cpu.")] = "auto",
    lora: Annotated[list[str] | None, _LORA] = None,
    embed: Annotated[bool, typer.Option(help="Serve /v1/embeddings instead of completions.")] = False,
    model_config: Annotated[Path | None, _MODEL_CONFIG] = None,
    force: Annotated[bool, _FORCE] = False,
    log: Annotated[Path, typer.Option(help="vLLM's log file.")] = Path("data/engine.log"),
    on: Annotated[str, typer.Option(help="local, or ray: an application of Ray Serve.")] = "local",
    ray: Annotated[str, typer.Option(help="With --on ray: the address of Ray's dashboard.")] = "http://127.0.0.1:8265",
    name: Annotated[str, typer.Option(help="With --on ray: the name of the application.")] = "spillway",
    replicas: Annotated[int, typer.Option(min=0, max=1024, help="With --on ray: how many engines.")] = 1,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Start vLLM for this machine and keep it running; Ctrl-C or SIGTERM shuts it down in order."""
    if device not in ("auto", "gpu", "cpu"):
        raise typer.BadParameter(f"{device!r} is not one of auto, gpu, cpu", param_hint="--device")
    if on not in ("local", "ray"):
        raise typer.BadParameter(f"{on!r} is not one of local, ray", param_hint="--on")
    if on == "ray":
        words = _serve_words(model, device, gpus, engine_python, vllm_arg, lora, embed=embed, force=force)
        order = RayOrder(name=name, replicas=replicas, gpus=0 if device == "cpu" else gpus, command=words)
        _serve_on_ray(ray, order, as_json)
        return
    options = ServeOptions(
        model=model,
        host=host,
        port=port,
        uds=uds,
        engine_python=engine_python,
        vllm_args=tuple(vllm_arg or ()),
        devices=gpus,
        device=device,
        log_path=log,
        loras=tuple(lora or ()),
        embedding=embed,
        model_config=model_config,
        force=force,
    )
    obstacle = asyncio.run(_serve_until_signal(options, _event_printer(as_json), _line_printer(as_json)))
    if obstacle is not None:
        present.end_at_obstacle(obstacle, as_json)


def _serve_words(
    model: str,
    device: str,
    gpus: int,
    engine_python: Path | None,
    vllm_arg: list[str] | None,
    lora: list[str] | None,
    *,
    embed: bool,
    force: bool,
) -> tuple[str, ...]:
    """Return the command that a node of Ray runs: the same one, on the node's own address and a free port."""
    words = ["spillway", "serve", "--model", model, "--host", HOST, "--port", PORT, "--json"]
    words += ["--device", device, "--gpus", str(gpus), "--log", f"spillway-engine-{PORT}.log"]
    words += [] if engine_python is None else ["--engine-python", str(engine_python)]
    words += [f"--vllm-arg={one}" for one in vllm_arg or ()]
    words += [word for one in lora or () for word in ("--lora", one)]
    return (*words, *(["--embed"] if embed else []), *(["--force"] if force else []))


def _serve_on_ray(address: str, order: RayOrder, as_json: bool) -> None:
    """Have Ray Serve run the engines, and say how the router finds them."""
    obstacle = deploy(address, order)
    if obstacle is not None:
        present.end_at_obstacle(obstacle, as_json)
    backend = {
        "name": "pool",
        "provider": "vllm",
        "local": True,
        "model": "MODEL",
        "discover": "ray",
        "discover_from": order.name,
        "discover_api": address,
    }
    if as_json:
        _print_json({"application": order.name, "replicas": order.replicas, "backend": backend})
        return
    typer.echo(f"# Ray starts {order.replicas} engines of the application {order.name}. The router finds them by:")
    typer.echo(yaml.safe_dump({"backends": [backend]}, sort_keys=False), nl=False)


def plan(
    gpu: Annotated[
        str | None, typer.Option(help=f"{', '.join([*PROFILES, 'cpu'])}. The default is this machine.")
    ] = None,
    model: Annotated[str, _MODEL] = "auto",
    gpus: Annotated[int, _DEVICES] = 1,
    vllm_arg: Annotated[list[str] | None, _VLLM_ARG] = None,
    mean_tokens: Annotated[
        int, typer.Option(min=1, help="The mean request, prompt and answer, in tokens.")
    ] = MEAN_TOKENS,
    as_json: Annotated[bool, _JSON] = False,
    table: Annotated[bool, typer.Option("--table", help="Print what fits where, for all known GPUs.")] = False,
    as_settings: Annotated[str, _SETTINGS] = "",
    embed: Annotated[bool, typer.Option(help="Plan for /v1/embeddings instead of completions.")] = False,
    model_config: Annotated[Path | None, _MODEL_CONFIG] = None,
    force: Annotated[bool, _FORCE] = False,
) -> None:
    """Show vLLM's command line for a GPU and a model, the memory arithmetic behind it, and its measured or estimated
    speed. Starts nothing."""
    if as_json and (table or as_settings):
        raise typer.BadParameter("--table and --settings print no JSON; omit one of both", param_hint="--json")
    if table:
        typer.echo(plan_table.page(), nl=False)
        return
    machine = hardware.detect()
    if gpu is None:
        profile = profiles.of_machine(machine)
    elif gpu.lower() == "cpu":
        machine = machine.without_gpus()
        profile = profiles.of_machine(machine)
    elif gpu.lower() in PROFILES:
        profile = PROFILES[gpu.lower()]
        machine = replace(machine, gpus=(profile.gpu,))
    else:
        raise typer.BadParameter(f"{gpu!r} is not one of {', '.join([*PROFILES, 'cpu'])}", param_hint="--gpu")
    spec = located.described(model, environment.stored_models(), machine, sources.of_environment(model_config, force))
    engine = _installed_engine(profile)
    options = PlanOptions(
        devices=gpus,
        vllm_args=tuple(vllm_arg or ()),
        mean_tokens=mean_tokens,
        queue_limit=engine is None or engine.has_queue_limit,
        embedding=embed,
        force=force,
    )
    engine_plan = spec if isinstance(spec, Obstacle) else make_plan(profile, spec, options)
    if isinstance(engine_plan, Obstacle):
        present.end_at_obstacle(engine_plan, as_json)
    location = engine_plan.model.location
    launcher_words = ("vllm", "serve", location) if engine is None else engine.command(location)
    command = (*launcher_words, *engine_plan.arguments)
    speed = speed_of(engine_plan, machine, measurements.shipped(), gpus)
    if as_settings:
        _print_settings(speed, as_settings, engine_plan.max_num_seqs)
    elif as_json:
        _print_json(present.plan_json(engine_plan, command, speed))
    else:
        Console().print(present.plan_view(engine_plan, command, speed), soft_wrap=True)


def examine_machine() -> tuple[doctor_checks.Check, ...]:
    """Check this machine: Python, memory, disk, GPU, driver, vLLM, startup files, demo model."""
    engine = launcher.find_engine(None, (Path.cwd(), environment.project_root()))
    return doctor_checks.examine(hardware.detect(), engine, Path.cwd())


def show_checks(checks: tuple[doctor_checks.Check, ...], as_json: bool) -> None:
    """Print the checks, and end with status 1 if one fails."""
    failed = any(check.verdict is doctor_checks.CheckStatus.FAIL for check in checks)
    if as_json:
        _print_json({"ok": not failed, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        Console().print(present.doctor_view(checks))
    if failed:
        raise typer.Exit(1)


async def _serve_until_signal(
    options: ServeOptions, on_event: Callable[[EngineEvent], None], report: Callable[[str], None]
) -> Obstacle | None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await run_server(options, on_event, stop, report)


def _event_printer(as_json: bool) -> Callable[[EngineEvent], None]:
    if as_json:
        return lambda event: _print_json(present.event_json(event), indent=None)
    console = Console(stderr=True)
    return lambda event: present.show_event(console, event)


def _line_printer(as_json: bool) -> Callable[[str], None]:
    if as_json:
        return lambda line: _print_json({"event": "Note", "text": line}, indent=None)
    console = Console(stderr=True)
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


def _installed_engine(profile: Profile) -> InstalledEngine | None:
    """Return the installed engine if it is of the right kind; None stands for the version that Spillway installs."""
    engine = launcher.find_engine(None, (Path.cwd(), environment.project_root()))
    return None if isinstance(engine, Obstacle) or engine.is_cpu_build is not profile.is_cpu else engine


def _print_settings(speed: Speed | None, backend: str, max_sequences: int) -> None:
    if speed is None:
        reason = "nothing like it was measured, and there is no data sheet to estimate from."
        present.end_at_obstacle(Obstacle(reason, "Measure it: python -m loadtests.gpu_profile measure --save."), False)
    typer.echo(
        f"# {speed.basis}\n{yaml.safe_dump(settings_part(speed, backend, max_sequences), sort_keys=False)}", nl=False
    )


def _print_json(value: dict[str, Any], indent: int | None = 2) -> None:
    print(json.dumps(value, indent=indent, default=str), flush=True)

"""From the user's options to a running engine: hardware -> model -> plan -> command -> supervisor.

`prepare` decides everything and starts nothing, so that a caller knows address and model before the engine is up;
`run_server` prepares and runs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from spillway_server import environment, sources
from spillway_server.convert.steps import free_bytes
from spillway_server.engine import first_use
from spillway_server.engine.client import EngineAddress
from spillway_server.engine.events import EngineEvent
from spillway_server.engine.launcher import InstalledEngine, find_engine
from spillway_server.engine.lifecycle import Rules
from spillway_server.engine.supervise import Intervals, Launch, Supervisor
from spillway_server.obstacle import Obstacle
from spillway_server.planning import adapters, hardware, measurements, models, profiles
from spillway_server.planning import machine as machine_limits
from spillway_server.planning.hardware import Hardware
from spillway_server.planning.machine import Machine
from spillway_server.planning.models import ModelSpec
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan
from spillway_server.planning.speed import Speed, speed_of
from spillway_server.stores import located


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What to serve and where.

    `port` 0 takes a free port, and `port_cure` says how to choose another; `uds` replaces host and port; `cache_root`
    is where vLLM keeps compiled code (None: its own default); `device` is auto, gpu or cpu; `loras` are adapters as
    NAME=DIRECTORY or =s3://BUCKET/PREFIX; `embedding` serves /v1/embeddings instead of completions; `model_config` is a
    folder with a copy of a hub model's configuration; `force` goes on although the model is unknown or doesn't fit;
    `converted` is the folder of models that were converted from GGUF files.
    """

    model: str = "auto"
    host: str = "127.0.0.1"
    port: int = 8001
    port_cure: str = "choose another with --port (0 takes a free one)"
    uds: str | None = None
    engine_python: Path | None = None
    vllm_args: tuple[str, ...] = ()
    devices: int = 1
    device: str = "auto"
    log_path: Path = Path("data/engine.log")
    cache_root: Path | None = None
    loras: tuple[str, ...] = ()
    embedding: bool = False
    model_config: Path | None = None
    force: bool = False
    converted: Path = Path("data/models")
    rules: Rules = field(default_factory=Rules)
    intervals: Intervals = field(default_factory=Intervals)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that is decided before the launch: the plan, the engine, its command, and its speed where it is
    known."""

    plan: EnginePlan
    engine: InstalledEngine
    launch: Launch
    speed: Speed | None = None


def prepare(options: ServeOptions, report: Callable[[str], None] = lambda _line: None) -> Prepared | Obstacle:
    """Decide how to serve, or return why it can't be done. Queries NVML and a few Pythons; takes about a second.

    A GGUF file that the engine can't read is converted first, which takes minutes for a large one. `report` receives
    progress and warnings as lines of text.
    """
    engine = find_engine(options.engine_python, (Path.cwd(), environment.project_root()))
    if isinstance(engine, Obstacle):
        return engine
    machine = hardware.detect()
    if options.device == "gpu" and not machine.gpus:
        return Obstacle(f"no GPU was found: {machine.gpu_note}.", "Omit --device to use the CPU.")
    if options.device == "cpu" or engine.is_cpu_build:
        machine = machine.without_gpus()
    elif not machine.gpus:
        return Obstacle(
            f"vLLM in {engine.python} is the GPU build and no GPU was found: {machine.gpu_note}.",
            "Install the CPU engine: make install ENGINE=cpu.",
        )
    model = _model(options, machine, reads_gguf=bool(machine.gpus) and engine.gguf_plugin, report=report)
    if isinstance(model, Obstacle):
        return model
    loras = _loras(options, report)
    lora_adapters = loras if isinstance(loras, Obstacle) else adapters.read(loras, model.served_name)
    if isinstance(lora_adapters, Obstacle):
        return lora_adapters
    port = 0 if options.uds else _claim_port(options)
    if isinstance(port, Obstacle):
        return port
    plan_options = PlanOptions(
        host=options.host,
        port=port,
        uds=options.uds,
        devices=options.devices,
        vllm_args=options.vllm_args,
        adapters=lora_adapters,
        embedding=options.embedding,
        gguf_plugin=engine.gguf_plugin,
        queue_limit=engine.has_queue_limit,
        force=options.force,
    )
    plan = make_plan(profiles.of_machine(machine), model, plan_options)
    if isinstance(plan, Obstacle):
        return plan
    small = None if options.force else machine_limits.obstacle(plan, _machine(plan, machine))
    if small is not None:
        return small
    for warning in plan.warnings:
        report(f"warning: {warning}")
    speed = speed_of(plan, machine, measurements.shipped(), options.devices)
    if speed is not None:
        report(f"speed: {speed.basis}; prefills {speed.rates.prefill_tokens_per_s:,.0f} prompt tokens/s")
    return Prepared(plan, engine, _launch(options, engine, model.location, plan, port), speed)


def _model(
    options: ServeOptions, machine: Hardware, reads_gguf: bool, report: Callable[[str], None]
) -> ModelSpec | Obstacle:
    """Return the model, fetched from its object store and converted from GGUF where that is needed."""
    name = located.fetched(options.model, environment.stored_models(), report)
    if isinstance(name, Obstacle):
        return name
    model = models.resolve(name, machine, sources.of_environment(options.model_config, options.force))
    if isinstance(model, ModelSpec) and model.quantisation == "gguf" and not reads_gguf:
        model = first_use.converted(Path(model.location), options.converted, report, not machine.gpus)
    known_as = located.served_name(options.model)
    return replace(model, served_name=known_as) if known_as and isinstance(model, ModelSpec) else model


def _loras(options: ServeOptions, report: Callable[[str], None]) -> tuple[str, ...] | Obstacle:
    """Return the adapters as NAME=DIRECTORY; those in an object store are fetched."""
    words: list[str] = []
    for word in options.loras:
        name, equals, place = word.partition("=")
        path = located.fetched(place, environment.stored_models(), report)
        if isinstance(path, Obstacle):
            return path
        words.append(f"{name}{equals}{path}")
    return tuple(words)


def _machine(plan: EnginePlan, hardware_here: Hardware) -> Machine:
    """Return what this machine offers the plan: its memory, and for a hub model the disk that its files go to."""
    spec = plan.model
    folder = environment.hub_cache()
    on_disk = spec.is_local or any(folder.glob(f"models--{spec.location.replace('/', '--')}/snapshots/*/*.safetensors"))
    return Machine(None if on_disk else free_bytes(folder), hardware_here.memory_bytes)


def _launch(options: ServeOptions, engine: InstalledEngine, location: str, plan: EnginePlan, port: int) -> Launch:
    cache = (("VLLM_CACHE_ROOT", str(options.cache_root.absolute())),) if options.cache_root else ()
    host = f"[{options.host}]" if ":" in options.host else options.host
    return Launch(
        argv=(*engine.command(location), *plan.arguments),
        env=environment.engine_environment((*plan.env, *cache)),
        address=EngineAddress(
            root_url="http://localhost" if options.uds else f"http://{_reachable(host)}:{port}",
            served_model=plan.served_name,
            uds=options.uds,
            api_key=environment.engine_api_key(),
            embedding=options.embedding,
        ),
        log_path=options.log_path,
    )


async def run_server(
    options: ServeOptions,
    on_event: Callable[[EngineEvent], None],
    stop: asyncio.Event | None = None,
    report: Callable[[str], None] = lambda _line: None,
) -> Obstacle | None:
    """Serve until `stop` is set. Returns None after an orderly end, else why the engine couldn't start or was given up.

    Cancelling the coroutine also ends the engine, before the cancellation propagates.
    """
    prepared = await asyncio.to_thread(prepare, options, report)
    if isinstance(prepared, Obstacle):
        return prepared
    return await run_prepared(prepared, options, on_event, stop)


async def run_prepared(
    prepared: Prepared,
    options: ServeOptions,
    on_event: Callable[[EngineEvent], None],
    stop: asyncio.Event | None = None,
) -> Obstacle | None:
    """Run the second half of `run_server`, for a caller that has prepared already."""
    supervisor = Supervisor(prepared.launch, on_event, rules=options.rules, intervals=options.intervals)
    return await supervisor.run(stop or asyncio.Event())


def _reachable(host: str) -> str:
    # Listening on every address includes loopback, which the supervisor connects to.
    return {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104 - compared, not bound


def _claim_port(options: ServeOptions) -> int | Obstacle:
    """Return the port if nobody listens on it, or for 0 one that is free now (vLLM can't choose one and report it).

    This is checked before the launch, since a leftover engine on the port would answer the readiness probe instead of
    vLLM.
    """
    host, port = options.host, options.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # Servers set it too, so that connections that are still closing don't occupy the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Obstacle(
                f"the engine can't listen on {host} port {port}: {error.strerror or error}.",
                f"Stop the process that occupies it, or {options.port_cure}.",
            )
        return int(probe.getsockname()[1])

"""`spillway up`: run the engine and the router."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer

from spillway_router.aio.line_output import LineOutput
from spillway_router.commands.common import ConfigOption, fail, load
from spillway_router.commands.fingerprint import fingerprint_of
from spillway_router.commands.first_price import with_price
from spillway_router.commands.route import run_router
from spillway_router.config.load import Loaded
from spillway_router.config.settings import FingerprintPart, MediaPart, ServerPart, Settings
from spillway_server.engine.events import EngineEvent, EngineExited, EngineProgress, EngineReady, EngineStarting
from spillway_server.engine.serve import Prepared, ServeOptions, prepare, run_prepared
from spillway_server.obstacle import Obstacle
from spillway_server.planning.speed import MEASURED


def up(path: ConfigOption = None) -> None:
    """Run the engine and the router. The router starts first and overflows to the cloud while the engine warms up."""
    loaded = with_price(load(path))
    backend = next((b for b in loaded.settings.backends if b.provider == "vllm" and b.base_url), None)
    if backend is None:
        fail("`up` launches the engine of a vllm backend and the configuration has none; use `spillway route`")
    url = urlsplit(str(backend.base_url))
    server = loaded.settings.server or ServerPart()
    options = ServeOptions(
        model=server.model,
        host=url.hostname or "127.0.0.1",
        port=url.port or 8001,
        port_cure=f"write another into backends.{backend.name}.base_url, such as http://127.0.0.1:8002/v1",
        vllm_args=vllm_arguments(server, loaded.settings.media),
        loras=tuple(f"{name}={folder}" for name, folder in server.loras.items()),
        cache_root=Path(".cache/vllm"),
        force=server.force,
    )
    prepared = prepare(options, typer.echo)
    if isinstance(prepared, Obstacle):
        fail(f"engine: {prepared.reason} {prepared.fix}")
    served = loaded.served_by(partial(_with_engine, backend.name, prepared, fingerprint_of(prepared.plan.model)))
    with LineOutput(sys.stdout.fileno()) as screen:
        supervise = partial(_supervise, prepared, options, next_steps(served, prepared), screen.put)
        run_router(served, supervise, engine_log=options.log_path)


def vllm_arguments(server: ServerPart, media: MediaPart) -> tuple[str, ...]:
    """Return vLLM's further arguments, with the hosts of media that the router permits, unless the user names some."""
    if not media.domains or any(word.startswith("--allowed-media-domains") for word in server.vllm_args):
        return server.vllm_args
    return (*server.vllm_args, "--allowed-media-domains", *media.domains)


def _with_engine(name: str, prepared: Prepared, fingerprint: FingerprintPart, settings: Settings) -> Settings:
    """Complete the settings with what the plan knows of the engine that it launches.

    That is the served name, the fingerprint, the number of sequences, and, where the engine was measured on such
    hardware, its prefill rate and the work per token. The served name and the fingerprint always follow the engine; of
    the rest, what the user wrote is kept.
    """
    flags = dict(zip(prepared.plan.arguments, prepared.plan.arguments[1:], strict=False))
    certain = {"model": prepared.plan.served_name, "fingerprint": fingerprint}
    derived: dict[str, Any] = dict(certain)
    derived["max_sequences"] = int(flags.get("--max-num-seqs", 256))
    gpu, speed = settings.gpu, prepared.speed
    if speed is not None and speed.origin == MEASURED:
        if not prepared.plan.profile.is_cpu:
            # On a CPU the engine was measured alone; here router and clients share its cores, so the router learns the
            # rate.
            derived["prefill_tokens_per_s"] = speed.rates.prefill_tokens_per_s
        measured = {name: Decimal(str(value)) for name, value in speed.work_us().items()}
        missing = {name: value for name, value in measured.items() if getattr(gpu.work, name) is None}
        gpu = gpu.model_copy(update={"work": gpu.work.model_copy(update=missing)})
    backends = tuple(
        b.model_copy(update={k: v for k, v in derived.items() if k in certain or getattr(b, k) is None})
        if b.name == name
        else b
        for b in settings.backends
    )
    return settings.model_copy(update={"backends": backends, "gpu": gpu})


def next_steps(loaded: Loaded, prepared: Prepared) -> tuple[str, ...]:
    """Return what a newcomer can do once the engine answers."""
    settings = loaded.settings
    is_demo = prepared.plan.served_name == "demo"
    steps = [
        "try:       spillway " + ("extract docs/examples/report.txt" if is_demo else 'chat "Hello"'),
        f"watch:     spillway top, or {settings.scheme}://{settings.listen}/",
        f"the books: {settings.ledger.path or 'PostgreSQL'}; spillway report says what the GPU and the clouds cost",
    ]
    if all(backend.provider == "vllm" for backend in settings.backends):
        steps.append("no cloud:  what the GPU can't serve in time waits; spillway init adds one")
    return tuple(steps)


async def _supervise(
    prepared: Prepared, options: ServeOptions, steps: Sequence[str], say: Callable[[str], None]
) -> None:
    """Run the engine next to the router. When the engine ends, the router goes on: the cloud still answers.

    `say` must not wait for whoever reads the lines, as the router runs in the same loop.
    """
    obstacle = await run_prepared(prepared, options, lambda event: _report(event, steps, say))
    if obstacle is not None:
        say(f"giving up on the engine: {obstacle.reason} {obstacle.fix}")


def _report(event: EngineEvent, steps: Sequence[str], say: Callable[[str], None]) -> None:
    if isinstance(event, EngineStarting):
        say(f"engine starting; its log: {event.log_path}")
    elif isinstance(event, EngineReady):
        say(f"engine ready after {event.elapsed_s:.0f} s: {event.served_model} at {event.base_url}")
        for step in steps:
            say(step)
    elif isinstance(event, EngineProgress):
        say(f"engine {event.elapsed_s:.0f} s: {event.phase}")
    elif isinstance(event, EngineExited):
        say(f"engine ended: {event.diagnosis.reason} {event.diagnosis.fix}")

"""`spillway route` and `spillway up`."""

from __future__ import annotations

import logging
import sys
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import typer

from spillway_router import compiled
from spillway_router.commands.common import ConfigOption, fail, load, version
from spillway_router.commands.fingerprint import fingerprint_of
from spillway_router.config.load import ConfigError, Loaded
from spillway_router.config.settings import ServerPart, Settings
from spillway_router.config.settings_confidence import FingerprintPart
from spillway_server.engine.events import EngineEvent, EngineExited, EngineProgress, EngineReady, EngineStarting
from spillway_server.engine.serve import Prepared, ServeOptions, prepare, run_prepared
from spillway_server.planning.speed import MEASURED
from spillway_server.refusal import Refusal as ServerRefusal


def _run(loaded: Loaded, beside: tuple[Any, ...] = ()) -> None:
    import uvloop

    from spillway_router.ledger.errors import LedgerError
    from spillway_router.runtime.serve import route as run_router

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)

    def listening(url: str) -> None:
        if (hot_path := compiled.state()) != "compiled":
            typer.echo(f"hot path: {hot_path}")
        typer.echo(f"Spillway listens on {url}  (OpenAI base URL: {url}/v1, docs: {url}/docs)")
        sys.stdout.flush()

    try:
        uvloop.run(run_router(loaded, version(), listening, beside))
    except ConfigError as error:
        fail("\n".join(str(m) for m in error.mistakes))
    except LedgerError as error:
        fail(f"ledger: {error}")
    except OSError as error:
        fail(f"can't listen on {loaded.settings.listen}: {error.strerror or error}; change `listen` or stop the other")


def route(path: ConfigOption = None) -> None:
    """Run the router only."""
    _run(load(path))


def up(path: ConfigOption = None) -> None:
    """Run the engine and the router; the router answers first and overflows while the engine warms up."""
    loaded = load(path)
    place = next((b for b in loaded.settings.backends if b.provider == "vllm" and b.base_url), None)
    if place is None:
        fail("`up` launches the engine of a vllm backend and the configuration has none; use `spillway route`")
    url = urlsplit(str(place.base_url))
    server = loaded.settings.server or ServerPart()
    options = ServeOptions(
        model=server.model,
        host=url.hostname or "127.0.0.1",
        port=url.port or 8001,
        vllm_args=server.vllm_args,
        loras=tuple(f"{name}={folder}" for name, folder in server.loras.items()),
        cache_root=Path(".cache/vllm"),
    )
    prepared = prepare(options, typer.echo)
    if isinstance(prepared, ServerRefusal):
        fail(f"engine: {prepared.reason} {prepared.fix}")
    served = loaded.served_by(partial(_serving, place.name, prepared, fingerprint_of(prepared.plan.model)))
    _run(served, (_supervise(prepared, options),))


def _serving(name: str, prepared: Prepared, fingerprint: FingerprintPart, settings: Settings) -> Settings:
    """The settings with what the plan knows of the engine it launches: served name, fingerprint, sequences, and where
    it was measured on such hardware, its prefill rate and the work of a token. What the user wrote stays."""
    flags = dict(zip(prepared.plan.arguments, prepared.plan.arguments[1:], strict=False))
    sure = {"model": prepared.plan.served_name, "fingerprint": fingerprint}
    known: dict[str, Any] = dict(sure)
    known["max_sequences"] = int(flags.get("--max-num-seqs", 256))
    gpu, speed = settings.gpu, prepared.speed
    if speed is not None and speed.origin == MEASURED:
        if not prepared.plan.profile.is_cpu:
            # On a CPU the engine was measured alone; here router and clients share its cores, so the router learns.
            known["prefill_tokens_per_s"] = speed.rates.prefill_tokens_per_s
        measured = {name: Decimal(str(value)) for name, value in speed.work_us().items()}
        missing = {name: value for name, value in measured.items() if getattr(gpu.work, name) is None}
        gpu = gpu.model_copy(update={"work": gpu.work.model_copy(update=missing)})
    backends = tuple(
        b.model_copy(update={k: v for k, v in known.items() if k in sure or getattr(b, k) is None})
        if b.name == name
        else b
        for b in settings.backends
    )
    return settings.model_copy(update={"backends": backends, "gpu": gpu})


async def _supervise(prepared: Prepared, options: ServeOptions) -> None:
    """Run the engine beside the router. Its end is not the router's: the cloud still answers."""
    refusal = await run_prepared(prepared, options, _tell)
    if refusal is not None:
        typer.echo(f"engine given up: {refusal.reason} {refusal.fix}", err=True)


def _tell(event: EngineEvent) -> None:
    if isinstance(event, EngineStarting):
        typer.echo(f"engine starting; its log: {event.log_path}")
    elif isinstance(event, EngineReady):
        typer.echo(f"engine ready after {event.elapsed_s:.0f} s: {event.served_model} at {event.base_url}")
    elif isinstance(event, EngineProgress):
        typer.echo(f"engine {event.elapsed_s:.0f} s: {event.phase}")
    elif isinstance(event, EngineExited):
        typer.echo(f"engine ended: {event.diagnosis.reason} {event.diagnosis.fix}", err=True)

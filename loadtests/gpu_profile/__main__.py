"""`python -m loadtests.gpu_profile`: measure an engine on this machine and store the result, or show its settings.

measure   start `spillway serve` (or use --base-url), measure, print the part of spillway.yaml that follows; --save
          stores the result in server/spillway_server/planning/measured/, where `spillway plan`, `serve` and `up`
          find it
settings  print the part of spillway.yaml that follows from a result file
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import httpx
import typer
from demo.processes import ChildError
from rich.console import Console
from rich.text import Text

from loadtests.bench import machine
from loadtests.gpu_profile import engine, result
from loadtests.gpu_profile.engine import EngineTarget
from loadtests.gpu_profile.fit import FitError, rates
from loadtests.gpu_profile.probe import TIMEOUT_S, Grid, Probed, ProbeError, Prober
from spillway_server import sources
from spillway_server.planning import hardware as hardware_of
from spillway_server.planning import measurements, models, profiles
from spillway_server.planning.measurements import MeasuredRates, Subject

_KINDS = (*profiles.PROFILES, profiles.CPU, "other")
app = typer.Typer(no_args_is_help=True, help=__doc__, add_completion=False)


@app.command()
def measure(
    model: Annotated[str, typer.Option(help="What `spillway serve` shall serve.")] = "auto",
    base_url: Annotated[str, typer.Option(help="An engine that runs already, such as http://127.0.0.1:8001/v1.")] = "",
    flags: Annotated[
        list[str] | None,
        typer.Option(help="A set of vLLM flags, space-separated; repeat to measure several profiles."),
    ] = None,
    hardware: Annotated[str, typer.Option(help="Name of the engine's hardware, where it is not this machine's.")] = "",
    kind: Annotated[str, typer.Option(help=f"With --hardware: {', '.join(_KINDS)}.")] = "other",
    gpus: Annotated[int, typer.Option(help="GPUs that the engine is split over.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="auto, gpu or cpu.")] = "auto",
    concurrency: Annotated[str, typer.Option(help="Requests at once, comma-separated.")] = "1,2,4,8,16,32,64",
    context: Annotated[int, typer.Option(help="Longest context to measure, tokens.", min=256)] = 4096,
    output: Annotated[int, typer.Option(help="Output tokens per request.", min=32)] = 96,
    prompts: Annotated[int, typer.Option(help="Long prompts sent together for the prefill rate.", min=1)] = 8,
    save: Annotated[bool, typer.Option("--save", help="Keep the result file.")] = False,
    folder: Annotated[Path, typer.Option(help="Where result files are kept.")] = measurements.FOLDER,
) -> None:
    """Measure throughput, TTFT and TPOT against concurrency, fit the rates, and store them with --save."""
    if kind not in _KINDS:
        raise typer.BadParameter(f"{kind!r} is not one of {', '.join(_KINDS)}", param_hint="--kind")
    console = Console(highlight=False)
    loads = tuple(int(part) for part in concurrency.split(","))
    grid = Grid(concurrency=loads, context=context, output=output, prefill_prompts=prompts)
    place_name, place_kind = (hardware, kind) if hardware else this_place(device, gpus)
    try:
        for words in flags or [""]:
            place: AbstractContextManager[EngineTarget]
            place = (
                nullcontext(engine.running(base_url, words.split()))
                if base_url
                else engine.served(model, words.split(), device)
            )
            with place as target:
                subject = Subject(
                    hardware=place_name,
                    device=place_kind,
                    devices=gpus,
                    model=target.model,
                    quantisation=quantisation_of(target.model),
                )
                console.print(Text(f"{target.model} on {place_name}: {' '.join(target.flags) or 'flags not known'}"))
                probed, rates = examine(target, grid, lambda line: console.print(Text(line)))
            versions = {"engine": target.version, "spillway": importlib.metadata.version("spillway-llm")}
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            run = result.run_of(target.flags, probed, rates, moment, machine.describe(), versions)
            console.print(Text(result.settings_of({"format": 2, **asdict(subject), "runs": [run]})))
            if save:
                path = measurements.path_of(subject, folder)
                result.add(path, subject, run)
                console.print(Text(f"written to {path}"))
    except (ChildError, ProbeError, FitError, measurements.ResultError, httpx.HTTPError) as error:
        console.print(Text(f"Not measured: {error}", style="red"))
        raise typer.Exit(1) from error


@app.command()
def settings(
    file: Annotated[Path, typer.Argument(help="A result file.")],
    run: Annotated[int, typer.Option(help="Which run of the file; -1 is the newest.")] = -1,
) -> None:
    """Print the part of spillway.yaml that follows from a result file."""
    try:
        typer.echo(result.settings_of(measurements.load(file), run), nl=False)
    except (measurements.ResultError, OSError, IndexError) as error:
        typer.echo(f"No settings: {error}", err=True)
        raise typer.Exit(1) from error


def examine(target: EngineTarget, grid: Grid, say: Callable[[str], None]) -> tuple[Probed, MeasuredRates]:
    """Measure one engine.

    Raises:
        ProbeError: the engine could not be measured.
        FitError: the timings don't give the rates.
    """
    grid = replace(grid, context=min(grid.context, target.context or grid.context))
    probed = asyncio.run(_probe(target, grid, say))
    return probed, rates(probed.prefill_tokens_per_s, probed.decodes)


async def _probe(target: EngineTarget, grid: Grid, say: Callable[[str], None]) -> Probed:
    limits = httpx.Limits(max_connections=max(*grid.concurrency, grid.prefill_prompts))
    async with httpx.AsyncClient(base_url=target.base_url, timeout=TIMEOUT_S, limits=limits, trust_env=False) as client:
        return await Prober(client, target.model, grid).run(say)


def this_place(device: str, gpus: int) -> tuple[str, str]:
    """Return the name and the kind of this machine's hardware: so many of its GPUs, or its processor."""
    here = hardware_of.detect()
    here = here.without_gpus() if device == "cpu" else replace(here, gpus=here.gpus[:gpus])
    return here.title, profiles.of_machine(here).key


def quantisation_of(model: str) -> str | None:
    """Return how a served model's weights are stored, as far as its name or its files say."""
    spec = models.resolve(model, hardware_of.detect(), sources.of_environment())
    return spec.quantisation if isinstance(spec, models.ModelSpec) else None


if __name__ == "__main__":
    app()

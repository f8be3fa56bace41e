"""`spillway report what-if`: compare what a volume of documents costs on rented GPUs and in the cloud."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from spillway_hardware.gpus import GPUS
from spillway_router.commands.common import ConfigOption, JsonOption, fail, load
from spillway_router.core.money.whatif import OUTPUT_TOKENS, PROMPT_TOKENS, VOLUMES

_GPU_HELP = ", ".join(" or ".join((model.name, *model.aliases)) for model in GPUS.values())


def what_if(
    path: ConfigOption = None,
    gpu: Annotated[list[str] | None, typer.Option(help=f"{_GPU_HELP}; or NAME=PRICE. Repeatable.")] = None,
    price: Annotated[
        list[str] | None, typer.Option(help="USD of one GPU, such as 1.39 per hour or 250/month. Give one per --gpu.")
    ] = None,
    hours_per_day: Annotated[float, typer.Option(help="For how many hours of each day GPUs are rented.")] = 24,
    count: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Also show exactly this many GPUs, with the rest overflowing. Repeatable."),
    ] = None,
    volume: Annotated[
        list[str] | None, typer.Option(help="Number of documents, such as 10000/day or 1.5M/month. Repeatable.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=0, help="Prompt tokens per document.")] = PROMPT_TOKENS,
    output_tokens: Annotated[int, typer.Option(min=0, help="Output tokens per document.")] = OUTPUT_TOKENS,
    tokens_per_s: Annotated[
        float | None, typer.Option(help="Measured tokens per second of one GPU at full load, prompt + output.")
    ] = None,
    at_load: Annotated[float, typer.Option("--load", help="Share of full load to plan for, above 0 up to 1.")] = 0.8,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="PROVIDER/MODEL of the price list to compare with, or NAME=IN/OUT in USD per million tokens."
        ),
    ] = None,
    mix: Annotated[
        list[str] | None,
        typer.Option(help="Also show GPUs from which a share leaves, such as 20%=NAME; names are those of --against."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the cost per document and per month of rented GPUs and clouds, by volume."""
    from spillway_router.replay.planning import PlanError, PlanQuery, plan_values, planned

    query = PlanQuery(
        gpus=gpu or (),
        prices=price or (),
        hours_per_day=hours_per_day,
        counts=count or (),
        volumes=volume or VOLUMES,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        tokens_per_s=tokens_per_s,
        load=at_load,
        against=against or (),
        mix=mix or (),
    )
    try:
        table = planned(query, load(path), datetime.now(UTC).date())
    except PlanError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps(plan_values(table), indent=2))
    else:
        from rich.console import Console

        from spillway_router.commands.whatif_table import render_plan

        render_plan(table, Console())

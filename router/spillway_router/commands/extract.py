"""`spillway extract`: values out of documents, one, several or a batch, by a running router."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, router_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway_router.commands.extract_batch import BatchProgress, RouterAddress

FilesArgument = Annotated[
    list[Path] | None, typer.Argument(help="Text files, one document each; - reads one from standard input.")
]
SchemaOption = Annotated[
    str, typer.Option(help="Name of a schema, or a file with a JSON schema; else the configured one.")
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Documents on their way at once.")]


def extract(
    files: FilesArgument = None,
    path: ConfigOption = None,
    batch: Annotated[Path | None, typer.Option(help='JSON lines of documents: {"text": ..., "id": ...}.')] = None,
    out: Annotated[Path | None, typer.Option(help="JSON lines of results; a run that was killed goes on here.")] = None,
    schema: SchemaOption = "",
    parser: Annotated[str, typer.Option(help="auto, none, or a parser's name.")] = "auto",
    min_confidence: Annotated[float | None, typer.Option(min=0, max=1, help="Instead of the thresholds.")] = None,
    private: Annotated[bool, typer.Option("--private", help="The documents must not leave.")] = False,
    concurrency: Concurrency = 8,
    url: Annotated[str | None, typer.Option(help="The router's address; else `listen` of the configuration.")] = None,
    key: Annotated[str, typer.Option(envvar="SPILLWAY_API_KEY", show_envvar=True, help="API key.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Read values out of documents: a local model, parsers, an external model, or a person's review."""
    from spillway_router.commands.extract_batch import RouterAddress

    if (batch is None) == (not files):
        fail("name text files to read, or --batch IN.jsonl --out OUT.jsonl")
    if (batch is None) != (out is None):
        fail("--batch and --out belong together")
    place = RouterAddress(router_url(path, url), key, private, concurrency)
    if batch is not None and out is not None:
        _batch(batch, out, place, as_json=as_json)
        return
    fields: dict[str, Any] = {"parser": parser}
    if schema:
        fields["schema"] = _schema(schema)
    if min_confidence is not None:
        fields["min_confidence"] = min_confidence
    _files(files or [], place, fields, as_json=as_json)


def _schema(name: str) -> Any:
    file = Path(name)
    if file.suffix != ".json" and not file.is_file():
        return name
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"{file}: can't be used as a JSON schema: {error}")


def _files(files: list[Path], place: RouterAddress, fields: Mapping[str, Any], *, as_json: bool) -> None:
    import asyncio

    from spillway_router.commands.extract_batch import asking

    async def all_of_them() -> bool:
        good = True
        async with asking(place) as ask:
            for file in files:
                status, told = await ask({"text": _text(file), **fields})
                good = good and status == 200
                if as_json:
                    kind = "result" if status == 200 else "error"
                    typer.echo(json.dumps({"file": str(file), kind: told}, ensure_ascii=False))
                elif status == 200:
                    _show(file, told)
                else:
                    typer.echo(f"{file}: {told['message']}", err=True)
        return good

    if not asyncio.run(all_of_them()):
        raise typer.Exit(1)


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file}: can't be read as UTF-8 text: {error}")


def _show(file: Path, told: Mapping[str, Any]) -> None:
    sure = "unknown" if told["confidence"] is None else f"{told['confidence']:.3f}"
    typer.echo(f"{file}: {told['step']}, confidence {sure}, {told['cost_usd']} USD  {told['id']}")
    for pointer, field in told["fields"].items():
        confidence = "" if field["confidence"] is None else f"{field['confidence']:.3f}"
        typer.echo(
            f"  {pointer:12} {json.dumps(field['value'], ensure_ascii=False):>14}  {confidence:5}  {field['why']}"
        )
    for step in told["steps"]:
        typer.echo(f"  {step['step']:9} {step['outcome']:9} {step['backend']} {step['why']}".rstrip())
    if told["review_id"] is not None:
        typer.echo(f"  waits for a person: spillway reviews show {told['review_id']}")


def _batch(source: Path, target: Path, place: RouterAddress, *, as_json: bool) -> None:
    import asyncio

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from spillway_router.commands.extract_batch import BatchError, count_lines, extract_batch

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=Console(stderr=True),
    )  # fmt: skip
    try:
        total = count_lines(source)
        with bar:
            task = bar.add_task(source.name, total=total)

            def on_row(tally: BatchProgress) -> None:
                told = f"{source.name}: {tally.reviews} to review, {tally.errors} errors, {tally.cost_usd:.6f} USD"
                bar.update(task, completed=tally.before + tally.results + tally.errors, description=told)

            tally = asyncio.run(extract_batch(source, target, place, on_row))
    except BatchError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail(f"stopped; the same command goes on where {target} ends")
    if as_json:
        told = {"documents": total, "before": tally.before, "results": tally.results, "to_review": tally.reviews}
        typer.echo(json.dumps({**told, "errors": tally.errors, "cost_usd": f"{tally.cost_usd:.6f}"}))
    else:
        typer.echo(
            f"{total} documents: {tally.before} before, {tally.results} now, {tally.reviews} of them to review, "
            f"{tally.errors} errors; {tally.cost_usd:.6f} USD -> {target}"
        )
    if tally.errors:
        raise typer.Exit(1)

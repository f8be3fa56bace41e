"""`spillway extract`: extract fields from one document, several, or a batch, through a running router."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, router_url, say
from spillway_router.commands.running_router import KeyOption, RouterAddress, RouterOption

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway_router.commands.extract_batch import BatchProgress, ExtractCall, ExtractPlace

FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Files with one document each: text, PDF, DOCX, a picture; folders of them; - reads standard input."
    ),
]
SchemaOption = Annotated[
    str, typer.Option(help="Name of a schema, or a file with a JSON schema. The default is the configured one.")
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Documents in flight at once.")]


def extract(
    files: FilesArgument = None,
    path: ConfigOption = None,
    batch: Annotated[Path | None, typer.Option(help='JSON lines of documents: {"text": ..., "id": ...}.')] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "--out", help="JSON lines of results; an interrupted run resumes from this file."),
    ] = None,
    schema: SchemaOption = "",
    parser: Annotated[str, typer.Option(help="auto, none, or a parser's name.")] = "auto",
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Use this confidence instead of the configured thresholds.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="The documents must not leave this machine's engines.")
    ] = False,
    concurrency: Concurrency = 8,
    url: RouterOption = None,
    key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Extract fields from documents, by a local model, parsers, an external model, or a person's review."""
    from spillway_router.commands.extract_batch import ExtractPlace

    if (batch is None) == (not files):
        fail("name files or folders to read, or pass --batch IN.jsonl --out OUT.jsonl")
    if (batch is None) != (out is None):
        fail("--batch and --out must be used together")
    place = ExtractPlace(RouterAddress(router_url(path, url), key, private), concurrency)
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
        fail(f"{file} can't be used as a JSON schema: {error}")


def _files(files: list[Path], place: ExtractPlace, fields: Mapping[str, Any], *, as_json: bool) -> None:
    import asyncio

    from spillway_router.commands.extract_batch import extract_client

    async def extract_all() -> bool:
        succeeded = True
        async with extract_client(place) as extract_one:
            for file in _named(files):
                status, reply = await _reply(extract_one, file, fields)
                succeeded = succeeded and status == 200
                if as_json:
                    kind = "result" if status == 200 else "error"
                    typer.echo(json.dumps({"file": str(file), kind: reply}, ensure_ascii=False))
                elif status == 200:
                    _show(file, reply)
                else:
                    named = "" if str(file) in reply["message"] else f"{file}: "
                    typer.echo(f"{named}{reply['message']}", err=True)
        return succeeded

    if not asyncio.run(extract_all()):
        raise typer.Exit(1)


async def _reply(extract_one: ExtractCall, file: Path, fields: Mapping[str, Any]) -> tuple[int, Any]:
    """Return status and reply for one file; one that can't be read does not keep the others from being read."""
    from spillway_router.documents.files import UnreadableFileError

    try:
        content = _content(file)
    except UnreadableFileError as error:
        return 0, {"code": "unreadable", "message": str(error)}
    return await extract_one({**content, **fields})


def _content(file: Path) -> dict[str, Any]:
    """Return a document as fields of a request: its text, or the file itself, which the router reads.

    Raise UnreadableFileError.
    """
    from base64 import b64encode

    from spillway_router.documents.files import bytes_of, is_text, text_of

    is_input = str(file) == "-"
    content, name = (sys.stdin.buffer.read(), "standard input") if is_input else (bytes_of(file), str(file))
    if is_text(content):
        return {"text": text_of(content, name).text}
    return {"file": {"name": name, "data": b64encode(content).decode("ascii")}}


def _named(files: list[Path]) -> list[Path]:
    """Return the files, with those of folders instead of the folders."""
    from spillway_router.documents.files import SUFFIXES, documents_in

    named: list[Path] = []
    for file in files:
        if file.is_dir():
            inside = documents_in(file)
            if not inside:
                fail(f"{file} holds no documents ({', '.join(SUFFIXES)})")
            named.extend(inside)
        else:
            named.append(file)
    return named


def _show(file: Path, reply: Mapping[str, Any]) -> None:
    overall = "unknown" if reply["confidence"] is None else f"{reply['confidence']:.3f}"
    say(f"{file}: {reply['step']}, confidence {overall}, {reply['cost_usd']} USD  {reply['id']}")
    for pointer, field in reply["fields"].items():
        confidence = "" if field["confidence"] is None else f"{field['confidence']:.3f}"
        say(f"  {pointer:12} {json.dumps(field['value'], ensure_ascii=False):>14}  {confidence:5}  {field['why']}")
    for step in reply["steps"]:
        typer.echo(f"  {step['step']:9} {step['outcome']:9} {step['backend']} {step['why']}".rstrip())
    if reply["review_id"] is not None:
        say(f"  waiting for review: spillway reviews show {reply['review_id']}")


def _batch(source: Path, target: Path, place: ExtractPlace, *, as_json: bool) -> None:
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

            def on_row(so_far: BatchProgress) -> None:
                text = f"{source.name}: {so_far.reviews} to review, {so_far.errors} errors, {so_far.cost_usd:.6f} USD"
                bar.update(task, completed=so_far.before + so_far.results + so_far.errors, description=text)

            progress = asyncio.run(extract_batch(source, target, place, on_row))
    except BatchError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail(f"interrupted; run the same command to resume where {target} ends")
    if as_json:
        counts = {
            "documents": total,
            "before": progress.before,
            "results": progress.results,
            "to_review": progress.reviews,
        }
        typer.echo(json.dumps({**counts, "errors": progress.errors, "cost_usd": f"{progress.cost_usd:.6f}"}))
    else:
        typer.echo(
            f"{total} documents: {progress.before} before, {progress.results} now, {progress.reviews} of them "
            f"to review, {progress.errors} errors; {progress.cost_usd:.6f} USD -> {target}"
        )
    if progress.errors:
        raise typer.Exit(1)

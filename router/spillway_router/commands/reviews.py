"""`spillway reviews`: work through the documents that wait for a person's review, in the ledger's database."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened, say, writing
from spillway_router.core.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway_router.ledger.store.open import Access
    from spillway_router.ledger.tables.reviews import ReviewTable

reviews_app = typer.Typer(
    no_args_is_help=True, help="Review the documents that no step was sure of: list, show, decide, export labels."
)
IdArgument = Annotated[str, typer.Argument(help="The review's ID, rev_...")]


@reviews_app.command("list")
def list_reviews(
    path: ConfigOption = None,
    state: Annotated[
        str, typer.Option(metavar="open|accepted|corrected|dismissed|all", help="Which reviews.")
    ] = "open",
    schema: Annotated[str, typer.Option(help="List only reviews of this schema.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="The maximum number of reviews to list.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the newest reviews."""
    from spillway_router.documents.reviews import review_summary
    from spillway_router.ledger.tables.reviews import ReviewFilter

    if state not in ("open", "accepted", "corrected", "dismissed", "all"):
        fail("--state must be open, accepted, corrected, dismissed or all")
    with _table(path) as table:
        records = table.list(ReviewFilter("" if state == "all" else state, schema, limit=limit))
    if as_json:
        typer.echo(json.dumps([review_summary(record) for record in records], indent=2))
        return
    if records:
        typer.echo(f"{'id':32}  {'state':9}  {'created':23}  {'schema':12} {'step':8} {'sure':5}  why")
    for r in records:
        confidence = "     " if r.confidence is None else f"{r.confidence:.3f}"
        say(f"{r.id}  {r.state:9}  {_when(r.created_ms)}  {r.schema_name:12} {r.step:8} {confidence}  {r.why}")
    if not records:
        typer.echo("no reviews", err=True)


@reviews_app.command("show")
def show_review(review_id: IdArgument, path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show one review: the document with its values marked, and the confidence of each value."""
    from spillway_router.documents.reviews import review_with_document

    with _table(path) as table:
        record = table.get(review_id)
    if record is None:
        fail(f"no review has the ID {review_id}; `spillway reviews list --state all` shows them")
    review = review_with_document(record)
    if as_json:
        typer.echo(json.dumps(review, indent=2, ensure_ascii=False))
    else:
        _print(review)


@reviews_app.command("accept")
def accept_review(review_id: IdArgument, path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Accept a review: all values are right as they were read."""
    _decide(review_id=review_id, action="accept", changes=None, path=path, as_json=as_json)


@reviews_app.command("correct")
def correct_review(
    review_id: IdArgument,
    values: Annotated[
        list[str], typer.Argument(help="FIELD=VALUE, the value as JSON or as text: AL=23.4 eye=OD K1=null")
    ],
    path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Correct a review: these fields have other values, the rest is right as it was read."""
    changes: dict[str, Any] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            fail(f"{text!r} is not FIELD=VALUE")
        changes[name] = _value(value)
    _decide(review_id=review_id, action="correct", changes=changes, path=path, as_json=as_json)


@reviews_app.command("dismiss")
def dismiss_review(review_id: IdArgument, path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Dismiss a review: the document can't be read, and yields no label."""
    _decide(review_id=review_id, action="dismiss", changes=None, path=path, as_json=as_json)


@reviews_app.command("labels")
def export_labels(
    path: ConfigOption = None,
    task: Annotated[
        str, typer.Option(help="Export only labels of this task: a schema's name, json or chat. The default is all.")
    ] = "",
    output: Annotated[Path | None, typer.Option(help="File to write. The default is standard output.")] = None,
) -> None:
    """Export accepted, corrected and audited answers with their scores, without content, for `spillway calibrate`."""
    from spillway_router.documents.labels import all_labels

    count = 0
    with opened(load(path), "read") as ledger, writing(output) as out:
        for label in all_labels(ledger, task=task):
            out.write(json.dumps(label) + "\n")
            count += 1
    typer.echo(f"{count} labels", err=True)


@contextmanager
def _table(path: str | None, access: Access = "read") -> Iterator[ReviewTable]:
    with opened(load(path), access) as ledger:
        yield ledger.reviews


def _decide(review_id: str, action: str, changes: dict[str, Any] | None, path: str | None, as_json: bool) -> None:
    from spillway_router.documents.reviews import ReviewError, decision_of, review_with_document
    from spillway_router.ledger.tables.reviews import COMMAND

    with _table(path, "write") as table:
        record = table.get(review_id)
        if record is None:
            fail(f"no review has the ID {review_id}; `spillway reviews list --state all` shows them")
        try:
            decision = decision_of(record, action, changes, now_ms(), COMMAND)
        except ReviewError as error:
            fail(str(error))
        if not table.decide(review_id, decision):
            fail("somebody else has decided this review in the meantime")
        after = table.get(review_id)
    assert after is not None
    if as_json:
        typer.echo(json.dumps(review_with_document(after), indent=2, ensure_ascii=False))
    else:
        say(f"{review_id} {after.state}")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _print(review: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    say(f"{review['id']}  {review['state']}  {_when(review['created_ms'])}  {review['schema']}  {review['request_id']}")
    say(f"why: {review['why']}")
    if review["document"] is None:
        typer.echo("the document was removed (documents.keep_days)")
        return
    text = Text()
    for segment in review["highlighted"]:
        text.append(printable(segment["text"], keeps="\n\t"), "bold reverse" if segment["field"] else "")
        if segment["field"]:
            text.append(f"[{printable(segment['field'][1:])}]", "dim")
    Console().print(text)
    for pointer, field in review["fields"].items():
        confidence = "" if field["confidence"] is None else f"{field['confidence']:.3f}"
        say(f"  {pointer[1:]:12} {json.dumps(field['value'], ensure_ascii=False):>14}  {confidence:5}  {field['why']}")
    if review["values"] != review["drafted"]:
        say(f"decided: {json.dumps(review['values'], ensure_ascii=False)}")

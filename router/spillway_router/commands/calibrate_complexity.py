"""`spillway calibrate-complexity`: learn from labelled requests which ones a local model answers badly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router.commands.calibrate import MISSING_EXTRA
from spillway_router.commands.common import ConfigOption, JsonOption, fail, rows_of
from spillway_router.commands.embedding import embedding_target, vectors_of

if TYPE_CHECKING:
    from spillway_router.calibration.complexity import FittedComplexity
    from spillway_router.calibration.measures import Figure
    from spillway_router.calibration.requests import LabelledRequest

RequestsArgument = Annotated[
    list[Path],
    typer.Argument(help='JSON lines {"text": "...", "hard": true}; agrees, rating or escalated may stand for hard.'),
]


def calibrate_complexity(
    requests: RequestsArgument,
    out: Annotated[Path, typer.Option("--output", "--out", help="The file to write.")] = Path("complexity.json"),
    dear_share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="The share of requests that may go to the dear backend.")
    ] = 0.3,
    embedder: Annotated[
        str | None, typer.Option(help="A local backend that embeds: scorers on its embeddings are compared, too.")
    ] = None,
    path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn the complexity of requests from labels, and compare it with the documented rule on held-out requests.

    Labels: hard (true if the local answer was not good enough), agrees (an audit), rating (1 to 5) or escalated.
    Optional: group, user_messages, json, dear_quality (0 to 1) and dear_usd. 60% of the groups fit, the rest judge.
    The file holds weights and hashes of words, nothing of the texts.
    """
    try:
        from spillway_router.calibration.complexity import ComplexityFitError, fit_complexity
    except ImportError as error:
        fail(MISSING_EXTRA.format(error=error))
    from spillway_router.calibration.requests import RequestLabelError, read_requests

    rows = rows_of(requests, read_requests, RequestLabelError)
    vectors = None if embedder is None else _vectors(rows, embedder, path)
    try:
        fitted = fit_complexity(rows, dear_share, vectors=vectors)
    except ComplexityFitError as error:
        fail(str(error))
    provenance = {"on": datetime.now(UTC).date().isoformat(), "fitted_on": fitted.fitted_on, "verdict": fitted.verdict}
    try:
        out.write_text(fitted.learned.to_json(provenance), encoding="utf-8")
    except OSError as error:
        fail(f"can't write {out}: {error.strerror}; choose another --output")
    _print_result(fitted, out, as_json=as_json)


def _vectors(rows: Sequence[LabelledRequest], embedder: str, path: str | None) -> Mapping[str, Sequence[float]]:
    """Return the embedding of each message."""
    from spillway_router.caching.similar import NoVectorError

    target = embedding_target(path, embedder)
    texts = dict.fromkeys(row.conversation.asked for row in rows)
    try:
        vectors = asyncio.run(vectors_of(target, texts))
    except NoVectorError as error:
        fail(f"{embedder} gave no vector: {error}")
    return {text: list(vector.numbers) for text, vector in vectors.items()}


def _print_result(fitted: FittedComplexity, out: Path, *, as_json: bool) -> None:
    if as_json:
        summary = {
            "file": str(out),
            "fitted_on": fitted.fitted_on,
            "judged_on": fitted.judged_on,
            "hard_share": round(fitted.hard_share, 4),
            "best_single": fitted.best_single,
            "compared": [asdict(row) for row in fitted.compared],
            "over_rule": {name: asdict(figure) for name, figure in fitted.over_rule.items()},
            "verdict": fitted.verdict,
        }
        typer.echo(json.dumps(summary, indent=2))
        return
    typer.echo(
        f"{out}: fitted on {fitted.fitted_on} requests, judged on {fitted.judged_on} others, {fitted.hard_share:.1%} "
        "of them hard; 95% intervals\n"
    )
    for line in table(fitted):
        typer.echo(line)
    typer.echo(f"\n{fitted.verdict}")
    typer.echo(f"Put it into spillway.yaml:  policy: {{learned_complexity: {out}}}")


def table(fitted: FittedComplexity) -> Iterator[str]:
    """Yield the lines of the comparison as a table in Markdown."""
    yield "| scorer | AUROC | to the dear backend | USD per 1,000 requests | quality |"
    yield "|---|---|---|---|---|"
    for row in fitted.compared:
        name = f"{row.name} (best single)" if row.name == fitted.best_single else row.name
        curve = "" if row.auroc is None else _span(row.auroc, "{:.3f}")
        cost = _span(row.usd, "{:.3f}", 1000)
        yield f"| {name} | {curve} | {_span(row.share, '{:.1%}')} | {cost} | {_span(row.quality, '{:.3f}')} |"


def _span(figure: Figure, form: str, times: float = 1) -> str:
    value, low, high = (form.format(x * times) for x in (figure.value, figure.low, figure.high))
    return value if value == low == high else f"{value} ({low} to {high})"

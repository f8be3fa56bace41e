"""`spillway calibrate-cache`: turn labelled pairs of questions into the certificate of the semantic cache."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, rows_of
from spillway_router.commands.embedding import embedding_target, vectors_of

if TYPE_CHECKING:
    from spillway_router.calibration.pairs import LabelledPair
    from spillway_router.core.caching.certificate import SemanticCertificate

PairsArgument = Annotated[
    list[Path],
    typer.Argument(help='JSON lines {"a": "...", "b": "...", "same": true}: whether one answer serves both.'),
]


def calibrate_cache(
    pairs: PairsArgument,
    path: ConfigOption = None,
    embedder: Annotated[
        str | None, typer.Option(help="The local backend that embeds; otherwise cache.semantic.embedder.")
    ] = None,
    out: Annotated[Path, typer.Option("--output", "--out", help="The certificate to write.")] = Path(
        "cache-certificate.json"
    ),
    alpha: Annotated[float, typer.Option(min=0.0001, max=0.9999, help="The share of hits that may be wrong.")] = 0.01,
    delta: Annotated[
        float, typer.Option(min=0.0001, max=0.9999, help="The probability that the promise is broken.")
    ] = 0.1,
    as_json: JsonOption = False,
) -> None:
    """Certify from which similarity on two questions may share a stored answer: at most ALPHA of the hits wrong.

    The certificate holds for requests like the pairs: take a request and the most similar earlier one from your
    traffic, and label whether one answer serves both. It is bound to the embedder's model.
    """
    from spillway_router.caching.similar import NoVectorError
    from spillway_router.calibration.pairs import agreeing_texts, certificate_of, pairs_needed

    rows = _read(pairs)
    target = embedding_target(path, embedder)
    try:
        vectors = asyncio.run(vectors_of(target, agreeing_texts(rows)))
    except NoVectorError as error:
        fail(f"{target.backend.name} gave no vector: {error}")
    certificate = certificate_of(rows, vectors, target.backend.model, alpha=alpha, delta=delta)
    text = certificate.to_json(datetime.now(UTC).date().isoformat())
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"can't write {out}: {error.strerror}; choose another --out")
    if as_json:
        summary = {"file": str(out), **json.loads(text), "hits_needed_at_least": pairs_needed(alpha, delta)}
        typer.echo(json.dumps(summary, indent=2))
        return
    _print_result(certificate, target.backend.name, out)


def _read(paths: Sequence[Path]) -> list[LabelledPair]:
    from spillway_router.calibration.pairs import PairError, read_pairs

    return rows_of(paths, read_pairs, PairError)


def _print_result(certificate: SemanticCertificate, embedder: str, out: Path) -> None:
    from spillway_router.calibration.pairs import pairs_needed

    alpha, delta = certificate.alpha, certificate.delta
    fewest = pairs_needed(alpha, delta)
    typer.echo(
        f"{out}: {certificate.agreeing} of {certificate.pairs} pairs have the same marks, for {certificate.model}"
    )
    if certificate.threshold is None:
        typer.echo(
            f"No threshold could be certified: at most {alpha:.1%} wrong needs more pairs (no fewer than {fewest} hits "
            "without an error) or a larger --alpha."
        )
        return
    typer.echo(
        f"From a similarity of {certificate.threshold:.4f} on, {certificate.hits} of them hit, {certificate.errors} "
        f"wrongly: at most {alpha:.1%} of such hits are wrong with probability {1 - delta:.0%}."
    )
    typer.echo(f"Put it into spillway.yaml:  cache: {{semantic: {{embedder: {embedder}, certificate: {out}}}}}")

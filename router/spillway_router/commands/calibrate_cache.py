"""`spillway calibrate-cache`: turn labelled pairs of questions into the certificate of the semantic cache."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, rows_of

if TYPE_CHECKING:
    from spillway_router.calibration.pairs import LabelledPair
    from spillway_router.config.assemble import BackendTarget
    from spillway_router.core.caching.certificate import SemanticCertificate
    from spillway_router.core.caching.vectors import Vector

WITHIN_S = 60.0
"""The longest wait for one vector."""
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
    from spillway_router.calibration.pairs import certificate_of

    rows = _read(pairs)
    target = _target(path, embedder)
    try:
        vectors = asyncio.run(_vectors(target, rows))
    except NoVectorError as error:
        fail(f"{target.backend.name} gave no vector: {error}")
    certificate = certificate_of(rows, vectors, target.backend.model, alpha=alpha, delta=delta)
    try:
        out.write_text(certificate.to_json(datetime.now(UTC).date().isoformat()), encoding="utf-8")
    except OSError as error:
        fail(f"can't write {out}: {error.strerror}; choose another --out")
    _print_result(certificate, target.backend.name, out, as_json=as_json)


def _read(paths: Sequence[Path]) -> list[LabelledPair]:
    from spillway_router.calibration.pairs import PairError, read_pairs

    return rows_of(paths, read_pairs, PairError)


def _target(path: str | None, name: str | None) -> BackendTarget:
    """Return the backend that embeds. One that can't is an error."""
    from spillway_router.config.assemble import assembly_of
    from spillway_router.config.load import ConfigError
    from spillway_router.core.routing.spaces import serves_embeddings

    loaded = load(path)
    semantic = loaded.settings.cache.semantic
    name = name or (None if semantic is None else semantic.embedder)
    if name is None:
        fail("name the backend that embeds: set cache.semantic.embedder in spillway.yaml, or give --embedder")
    try:
        target = assembly_of(loaded, datetime.now(UTC).date()).targets.get(name)
    except ConfigError as error:
        fail("The configuration has errors:\n" + "\n".join(f"  - {problem}" for problem in error.problems))
    if target is None or not target.backend.local or not serves_embeddings(target.backend):
        fail(f"{name!r} is no local backend that serves embeddings")
    return target


async def _vectors(target: BackendTarget, rows: Sequence[LabelledPair]) -> dict[str, Vector]:
    """Return the vectors of the pairs' texts, as the router would ask for them. Raises NoVectorError."""
    from spillway_router.caching.similar import NoVectorError, TextRefusedError
    from spillway_router.calibration.pairs import agreeing_texts
    from spillway_router.config.assemble import backend_routes
    from spillway_router.proxy.exchange.similar_answers import embedded

    route = backend_routes({target.backend.name: target}, {})[target.backend.name]
    vectors: dict[str, Vector] = {}
    try:
        for text in agreeing_texts(rows):
            try:
                vectors[text] = await embedded(route, text, WITHIN_S, private=True)
            except TextRefusedError as error:
                raise NoVectorError(f"{error}; leave out {text[:60]!r}") from error
        return vectors
    finally:
        route.pool.close()


def _print_result(certificate: SemanticCertificate, embedder: str, out: Path, *, as_json: bool) -> None:
    from spillway_router.calibration.pairs import pairs_needed

    alpha, delta = certificate.alpha, certificate.delta
    fewest = pairs_needed(alpha, delta)
    if as_json:
        summary = {"file": str(out), **json.loads(certificate.to_json("")), "hits_needed_at_least": fewest}
        typer.echo(json.dumps(summary, indent=2))
        return
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

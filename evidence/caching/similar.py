"""Labelled pairs of questions through a whole router with its semantic cache on: which second questions hit.

The certificate is made from other pairs than those that are sent; no question is among both. The embedder is a stub
that gives the vectors of the real model. Texts of pairs whose marks differ all get the same vector, so that the marks
alone keep them apart. Every pair has a system text of its own, and so a cache of its own.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evidence.caching.minilm import MODEL, vectors_of
from evidence.caching.questions import Pair, pairs
from spillway_router.calibration.pairs import LabelledPair, agreeing_texts, certificate_of
from spillway_router.core.caching.certificate import SemanticCertificate
from spillway_router.core.caching.vectors import Vector
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, local, routing, settings
from spillway_router.testing.openai_wire import embeddings
from spillway_router.testing.upstream import Arrival

ALPHA, DELTA = 0.005, 0.05
"""Of the certificate: half of what is promised, so that chance alone does not break the promise."""
SEED = 20_261_130
_ANSWER = Answer.json(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
)
CONFIG = """
cache:
  {{enabled: true, default: true, max_mb: 512, semantic: {{embedder: embedder, certificate: {file}, timeout_ms: 5000}}}}
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """The certificate, the pairs that were sent, and for each whether its second question got the first answer."""

    certificate: SemanticCertificate
    sent: tuple[Pair, ...]
    hits: tuple[bool, ...]


Embed = Callable[[Sequence[str]], Mapping[str, Sequence[float]]]
"""Returns the vector of each text."""


def try_pairs(
    fitted: int, sent: int, say: Callable[[str], None], embed: Embed = vectors_of, *, fault: bool = False
) -> Trial:
    """Certify on so many pairs and send so many others. Raises loadtests' Unavailable without the model.

    `fault`: the certificate names a threshold that many pairs of different questions reach.
    """
    generated = pairs(fitted + sent, SEED)
    labelled = [LabelledPair(pair.a, pair.b, pair.same) for pair in generated]
    texts = agreeing_texts(labelled)
    say(f"  embedding {len(texts):,} texts with {MODEL}")
    vectors = embed(texts)
    units = {text: unit for text, numbers in vectors.items() if (unit := Vector.of(numbers)) is not None}
    certificate = certificate_of(labelled[:fitted], units, MODEL, alpha=ALPHA, delta=DELTA)
    if fault:
        certificate = replace(certificate, threshold=0.4)
    say(f"  the certified threshold is {certificate.threshold}")
    later = generated[fitted:]
    return Trial(certificate, tuple(later), tuple(asyncio.run(_sent(certificate, later, vectors))))


async def _sent(
    certificate: SemanticCertificate, later: Sequence[Pair], vectors: Mapping[str, Sequence[float]]
) -> list[bool]:
    constant = [1.0, *[0.0] * (len(next(iter(vectors.values()))) - 1)]

    def embed(arrival: Arrival) -> Answer:
        return Answer.json(embeddings(MODEL, [vectors.get(arrival.json["input"], constant)], 8))

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "certificate.json"
        file.write_text(certificate.to_json("2026-01-01"))
        async with FaultUpstream(_ANSWER) as own, FaultUpstream() as embedder:
            embedder.choose = embed
            backends = (local(own), local(embedder, "embedder").replace("model: m", f"model: {MODEL}"))
            text = settings(*backends, more=CONFIG.format(file=json.dumps(str(file))))
            text += "aliases: {auto: {chain: [local]}}\n"
            async with routing(text) as router:
                return [await _hits(router, number, pair) for number, pair in enumerate(later)]


async def _hits(router: Router, number: int, pair: Pair) -> bool:
    """Return whether the second question of a pair gets the stored answer to the first one."""
    replies = []
    for text in (pair.a, pair.b):
        messages = [{"role": "system", "content": f"pair {number}"}, {"role": "user", "content": text}]
        replies.append(await router.post({"model": "auto", "temperature": 0, "messages": messages}))
        cache = router.runtime.services.config().cache
        assert cache is not None
        await cache.settled()
    notes = [reply.headers["x-spillway-cache"] for reply in replies]
    if notes[0] != "miss" or any(reply.status_code != 200 for reply in replies):
        raise AssertionError(f"the first question of {pair} was no miss: {notes}")
    return notes[1] == "hit"

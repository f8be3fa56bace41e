"""Documents that nothing was made from: how many are answered without a person, and how many of these are wrong.

The documents go through a whole router with the shipped demo model and its calibration, in real vLLM on the CPU. No
external model takes part. As the engine is slow, only the first `WITH_ENGINE` documents of the corpus and all foreign
reports have one; the other documents meet a router whose engine is away, and are left to captions and parsers.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loadtests.bench.processes import free_port

from evidence.documents.corpus import CorpusDocument, document
from evidence.documents.foreign import foreign
from evidence.documents.reading import Outcome, counts, outcomes
from evidence.documents.words import HELD_OUT
from evidence.measures_caching import upper_end
from evidence.results import Measurement, not_measured
from evidence.served import FailedError, serving
from spillway_router.testing.harness import routing
from spillway_server import demo_model

WRONG, COVERAGE, FOREIGN = "documents.wrong_accepted", "documents.coverage", "documents.foreign_answered"
IDS = (WRONG, COVERAGE, FOREIGN)
DOCUMENTS, WITH_ENGINE, FOREIGN_REPORTS, DAMAGED_REPORTS = 3000, 1000, 600, 200
FIRST_SEED = 100_000
MOST_WRONG = 0.01
_CALIBRATION = Path(demo_model.__file__).with_name("calibration.json")


def documents(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Measure all three promises."""
    corpus = [document(FIRST_SEED + n, HELD_OUT) for n in range(DOCUMENTS)]
    reports = [foreign(n) for n in range(FOREIGN_REPORTS)]
    damaged = [foreign(n, damaged=True) for n in range(DAMAGED_REPORTS)]
    served = [*corpus[:WITH_ENGINE], *reports, *damaged]
    try:
        with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (base, model):
            say(f"  {len(served)} documents with the engine")
            read = asyncio.run(_read(base, model, served))
    except FailedError as error:
        return dict.fromkeys(IDS, not_measured(str(error)))
    say(f"  {DOCUMENTS - WITH_ENGINE} documents without one")
    rest = asyncio.run(_read(f"http://127.0.0.1:{free_port()}/v1", "demo", corpus[WITH_ENGINE:]))
    first = WITH_ENGINE + FOREIGN_REPORTS
    return {**judged_corpus([*read[:WITH_ENGINE], *rest]), **judged_foreign(read[WITH_ENGINE:first], read[first:])}


async def _read(base: str, model: str, papers: Sequence[CorpusDocument]) -> list[Outcome]:
    local = json.dumps({"name": "local", "provider": "vllm", "local": True, "base_url": base, "model": model})
    slo = "slo: {ttft_ms: 60000, tpot_ms: 10000}\n"  # a queue at a slow machine is no reason to skip the engine
    text = f"backends:\n  - {local}\nconfidence: {{calibration: '{_CALIBRATION}'}}\n{slo}"
    async with routing(text) as router:
        return await outcomes(router, papers)


def judged_corpus(results: Sequence[Outcome]) -> dict[str, Measurement]:
    """Return the share of answered documents with a wrong value (upper end of the 95% interval), and the coverage."""
    answered = sum(one.answered for one in results)
    wrong = sum(one.wrong for one in results)
    details: dict[str, Any] = {
        "answered": answered,
        "wrong": wrong,
        "share_wrong": round(wrong / max(1, answered), 5),
        "with_engine": min(WITH_ENGINE, len(results)),
        "external_model": "none",
        "wrong_means": "a value of the document differs, or a document was answered that nobody can answer",
        "counts": counts(results),
    }
    share = {"answered": answered, "of": "all documents, those of other kinds and damaged ones included"}
    return {
        WRONG: Measurement(round(upper_end(wrong, max(1, answered)), 5), len(results), details),
        COVERAGE: Measurement(round(answered / len(results), 4), len(results), share),
    }


def judged_foreign(results: Sequence[Outcome], damaged: Sequence[Outcome]) -> dict[str, Measurement]:
    """Return the share of foreign reports that is answered; 0 if more than 1% of the answers is wrong."""
    answered = sum(one.answered for one in results)
    wrong = sum(one.wrong for one in results)
    details = {
        "answered": answered,
        "wrong": wrong,
        "counts": counts(results),
        "lightly_damaged_besides": {
            "note": "replaced and lost digits that nothing on the page betrays make an answer wrong; not in the value",
            **counts(damaged)["all"],
        },
    }
    share = answered / len(results) if wrong <= MOST_WRONG * answered else 0.0
    return {FOREIGN: Measurement(round(share, 4), len(results), details)}

"""100,000 made-up requests: none gets a 5xx of the router's own making, and none gets past keys or privacy."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from evidence.fuzz.site import site
from evidence.fuzz.trial import Trial, fuzz
from evidence.results import Measurement, not_measured
from evidence.served import FailedError
from spillway_router import compiled

FUZZ = "security.fuzz_5xx_or_bypass"
REQUESTS = 100_000
SEED = 20_261_129


def fuzzed_requests(say: Callable[[str], None], requests: int = REQUESTS, seed: int = SEED) -> dict[str, Measurement]:
    """Count the requests after which something happened that must not, and the tracebacks in the router's log.

    It is void if no private and no open request reached the backends at all, because then it would prove nothing.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="spillway-fuzz-") as name:
            trial, tracebacks, local, cloud = asyncio.run(_trial(Path(name), requests, seed))
    except FailedError as error:
        return {FUZZ: not_measured(str(error))}
    details = {
        "findings": dict(trial.counts),
        "tracebacks": tracebacks,
        "statuses": dict(sorted(trial.statuses.items())),
        "reached_local": local,
        "reached_cloud": cloud,
        "seed": seed,
        "hot_path": compiled.state(),
        "examples": [finding.raw.decode("latin-1")[:2000] for finding in trial.findings[:5]],
    }
    say(f"  {details}")
    if not local or not cloud:
        return {FUZZ: Measurement(None, 0, {"reason": "nothing reached one of the backends", **details})}
    return {FUZZ: Measurement(float(sum(trial.counts.values()) + tracebacks), trial.requests, details)}


async def _trial(folder: Path, requests: int, seed: int) -> tuple[Trial, int, int, int]:
    async with site(folder) as (place, log):
        trial = await fuzz(place, seed, requests)
        tracebacks = log.read_text(errors="replace").count("Traceback")
        return trial, tracebacks, len(place.local), len(place.cloud)

"""Stored answers that reach another request than the one they were made for, or a question that asks something else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loadtests.bench.install import Unavailable

from evidence.caching.crossings import changes, try_requests
from evidence.caching.minilm import MODEL, vectors_of
from evidence.caching.similar import Embed, Trial, try_pairs
from evidence.results import Measurement, not_measured
from spillway_router.calibration.certify import binomial_cdf

CROSSINGS = "policy.cache_crossings"
ASKED = 120_000
ASKED_ALONE = 5_000
LEAST_HITS = 0.1
WRONG_HITS = "policy.semantic_cache_wrong_hits"
FITTED, SENT = 9_000, 9_000
INTERVAL = 0.95


def crossings(say: Callable[[str], None], requests: int = ASKED) -> dict[str, Measurement]:
    """Send requests that differ from earlier ones in one thing. It is void if anything was never changed, or if too few
    of them got a stored answer for that to say anything."""
    seen = asyncio.run(try_requests(requests))
    # Of several at once some repeat a request whose answer is still under way, and miss it.
    alone = asyncio.run(try_requests(min(requests, ASKED_ALONE), at_once=1))
    untried = sorted(changes() - seen.tried.keys())
    if untried:
        return {CROSSINGS: not_measured(f"nothing was changed in: {', '.join(untried)}")}
    if seen.hits < LEAST_HITS * requests:
        return {CROSSINGS: not_measured(f"only {seen.hits} of {requests} requests got a stored answer")}
    for crossed in seen.crossed[:20]:
        say(f"  {crossed}")
    details = {
        "crossed": seen.crossed[:20],
        "hits": seen.hits,
        "asked_before": seen.repeated,
        "asked_before_and_missed": seen.missed,
        "asked_before_and_missed_one_after_the_other": alone.missed,
        "changed": dict(sorted(seen.tried.items())),
    }
    return {CROSSINGS: Measurement(len(seen.crossed), seen.requests, details)}


def wrong_hits(
    say: Callable[[str], None],
    fitted: int = FITTED,
    sent: int = SENT,
    embed: Embed = vectors_of,
    *,
    fault: bool = False,
) -> dict[str, Measurement]:
    """Send labelled pairs of questions to a router whose certificate is of other pairs. The value is the upper end of
    the 95% interval (Clopper and Pearson) of the share of hits that are wrong."""
    try:
        trial = try_pairs(fitted, sent, say, embed, fault=fault)
    except Unavailable as reason:
        return {WRONG_HITS: not_measured(str(reason))}
    wrong = [pair for pair, hit in zip(trial.sent, trial.hits, strict=True) if hit and not pair.same]
    hits = sum(trial.hits)
    if not hits:
        return {WRONG_HITS: not_measured("no pair hit")}
    details = {
        "hits": hits,
        "wrong": len(wrong),
        "wrong_pairs": [f"{pair.a} | {pair.b}" for pair in wrong[:20]],
        "pairs_sent": len(trial.sent),
        "coverage": {name or "both": _coverage(trial, name) for name in ("", "en", "de")},
        "threshold": trial.certificate.threshold,
        "certificate": f"alpha {trial.certificate.alpha}, delta {trial.certificate.delta}, "
        f"{trial.certificate.hits} hits of {trial.certificate.agreeing} pairs with the same marks",
        "embedder": MODEL,
    }
    return {WRONG_HITS: Measurement(upper_end(len(wrong), hits), hits, details)}


def _coverage(trial: Trial, language: str) -> float:
    """Return the share of the pairs of the same question that hit, in one language or ("") in both."""
    same = [hit for pair, hit in zip(trial.sent, trial.hits, strict=True) if pair.same and language in pair.language]
    return round(sum(same) / len(same), 4) if same else 0.0


def upper_end(errors: int, n: int) -> float:
    """Return the upper end of the 95% interval of Clopper and Pearson for a share of `errors` in `n`."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_cdf(errors, n, middle) > (1 - INTERVAL) / 2 else (low, middle)
    return round(high, 5)

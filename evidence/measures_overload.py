"""What overload and attackers do to the others: goodput, refusals, memory, and a calm client beside each of them."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from evidence.overload.attackers import ATTACKER_KEYS, ATTACKS, MANY_SEQUENCES, Attack, flood
from evidence.overload.load import Reply, offer
from evidence.overload.site import SEQUENCES, SLO_S, Site, SiteError, site
from evidence.results import Measurement, not_measured

WITH_CAP = ("overload.goodput_share_of_peak", "overload.reject_p99", "overload.rss_growth")
WITHOUT_CLOUD = "overload.goodput_without_cloud"
CALM_KEY = "overload.calm_key_in_time"
VICTIM = "trust.victim_local_share"
QUEUE_CAP = 40
"""Requests that may wait at the engine where it has a queue cap."""
CAPACITY_PER_S = 20.0
"""What the engine answers per second, about; the peak is measured."""
MULTIPLES = (1, 2, 4)
CALM_PER_S = 2.5
WARM_UP_S = 5.0

Say = Callable[[str], None]


def with_queue_cap(say: Say, seconds: float = 20.0) -> dict[str, Measurement]:
    """Measure goodput, the time to a refusal and memory at four times the capacity of an engine with a queue cap."""
    try:
        steps = _loaded(say, seconds, queue_cap=QUEUE_CAP)
    except SiteError as error:
        return {name: not_measured(str(error)) for name in WITH_CAP}
    last = steps[-1]
    refused_ms = sorted(reply.total_s * 1000 for reply in last["replies"] if reply.status == 503)
    details = {"steps": [_summary_of_step(step) for step in steps], "slo_s": SLO_S, "sequences": SEQUENCES}
    goodput, reject, growth = WITH_CAP
    return {
        goodput: Measurement(_share_of_peak(steps), len(last["replies"]), details),
        reject: Measurement(round(_percentile(refused_ms, 0.99), 1), len(refused_ms), details),
        growth: Measurement(round(last["rss_most"] / steps[0]["rss_before"] - 1, 4), len(last["replies"]), details),
    }


def without_cloud(say: Say, seconds: float = 20.0) -> dict[str, Measurement]:
    """Measure goodput at four times the capacity of an engine that queues without an end, with nobody else to ask; the
    lower share of an engine whose metrics are read, and of one that has none."""
    try:
        runs = {name: _loaded(say, seconds, has_metrics=has) for name, has in (("read", True), ("none", False))}
    except SiteError as error:
        return {WITHOUT_CLOUD: not_measured(str(error))}
    shares = {name: _share_of_peak(steps) for name, steps in runs.items()}
    details = {
        "share_by_metrics": shares,
        "steps_by_metrics": {name: [_summary_of_step(step) for step in steps] for name, steps in runs.items()},
        "slo_s": SLO_S,
        "sequences": SEQUENCES,
    }
    return {WITHOUT_CLOUD: Measurement(min(shares.values()), len(runs["none"][-1]["replies"]), details)}


def calm_key(say: Say, seconds: float = 60.0, calm_name: str = "calm") -> dict[str, Measurement]:
    """Measure the share of a calm key's requests that are answered in time beside a flood from another key.

    A test calls it with the flood's own key, which must fail.
    """
    try:
        with _folder() as folder, site(folder, keys=("flood", "calm")) as here:
            flooding, calm = _run(_side_by_side(here, seconds, here.keys[calm_name]))
    except SiteError as error:
        return {CALM_KEY: not_measured(str(error))}
    in_time = sum(reply.in_time(SLO_S) for reply in calm)
    details = {"calm": _summary(calm), "flood": _summary(flooding), "slo_s": SLO_S}
    say(f"  calm: {details['calm']}; flood: {details['flood']}")
    return {CALM_KEY: Measurement(round(in_time / len(calm), 4), len(calm), details)}


def victim(say: Say, seconds: float = 80.0, attacks: Mapping[str, Attack] = ATTACKS) -> dict[str, Measurement]:
    """Measure the share of a victim's requests that stay local and in time beside each attacker, with a cloud behind
    the engine; the worst attacker counts."""
    shares: dict[str, float] = {}
    summaries: dict[str, Any] = {}
    for name, attack in attacks.items():
        try:
            sequences = SEQUENCES if attack is flood else MANY_SEQUENCES
            keys = ("victim", *ATTACKER_KEYS)
            with _folder() as folder, site(folder, keys=keys, has_cloud=True, sequences=sequences) as here:
                replies = _run(_beside(here, attack, seconds))
        except SiteError as error:
            return {VICTIM: not_measured(str(error))}
        good = sum(reply.in_time(SLO_S) and reply.backend == "local" for reply in replies)
        shares[name], summaries[name] = round(good / len(replies), 4), _summary(replies)
        say(f"  {name}: {shares[name]:.1%} of {len(replies)}, {summaries[name]}")
    details = {"by_attacker": shares, "replies": summaries, "slo_s": SLO_S}
    n = sum(sum(summary["answers"].values()) for summary in summaries.values())
    return {VICTIM: Measurement(min(shares.values()), n, details)}


async def _side_by_side(here: Site, seconds: float, calm_key: str) -> tuple[list[Reply], list[Reply]]:
    flooding = offer(here.port, 4 * CAPACITY_PER_S, seconds, here.keys["flood"])
    calm = offer(here.port, CALM_PER_S, seconds, calm_key, seed=3)
    flooded, calmed = await asyncio.gather(flooding, calm)
    return flooded, calmed


async def _beside(here: Site, attack: Attack, seconds: float) -> list[Reply]:
    await offer(here.port, CAPACITY_PER_S / 2, WARM_UP_S, here.keys["victim"])  # the router learns the engine's speed
    attacking = asyncio.ensure_future(attack(here, CAPACITY_PER_S))
    try:
        return await offer(here.port, CALM_PER_S, seconds, here.keys["victim"], seed=3)
    finally:
        attacking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await attacking


def _loaded(say: Say, seconds: float, **options: Any) -> list[dict[str, Any]]:
    """Offer one, two and four times the capacity, after a warm-up; return what happened at each."""
    with _folder() as folder, site(folder, **options) as here:
        _run(offer(here.port, CAPACITY_PER_S / 2, seconds / 3))
        steps = []
        for multiple in MULTIPLES:
            step = _run(_step(here, multiple, seconds))
            steps.append(step)
            say(f"  {multiple} times: {_summary_of_step(step)}")
        return steps


async def _step(here: Site, multiple: int, seconds: float) -> dict[str, Any]:
    before = most = here.rss_bytes()
    load = asyncio.ensure_future(offer(here.port, multiple * CAPACITY_PER_S, seconds, seed=multiple))
    while not load.done():
        await asyncio.wait({load}, timeout=0.2)
        most = max(most, here.rss_bytes())
    replies = load.result()
    goodput = sum(reply.in_time(SLO_S) for reply in replies) / seconds
    return {"multiple": multiple, "goodput_per_s": goodput, "replies": replies, "rss_before": before, "rss_most": most}


def _summary_of_step(step: Mapping[str, Any]) -> dict[str, Any]:
    rss = {name: round(step[name] / 2**20, 1) for name in ("rss_before", "rss_most")}
    return {
        "multiple": step["multiple"],
        "goodput_per_s": round(step["goodput_per_s"], 2),
        **_summary(step["replies"]),
        "rss_before_mib": rss["rss_before"],
        "rss_most_mib": rss["rss_most"],
    }


def _share_of_peak(steps: Sequence[Mapping[str, Any]]) -> float:
    goodput: list[float] = [step["goodput_per_s"] for step in steps]
    return round(goodput[-1] / max(goodput), 4)


def _summary(replies: Sequence[Reply]) -> dict[str, Any]:
    first_s = sorted(reply.first_s for reply in replies if reply.whole)
    refused_ms = sorted(reply.total_s * 1000 for reply in replies if reply.status == 503)
    return {
        "answers": dict(Counter(f"{reply.status} {reply.backend}".strip() for reply in replies)),
        "first_p50_s": round(_percentile(first_s, 0.5), 3),
        "first_p99_s": round(_percentile(first_s, 0.99), 3),
        "refusal_p99_ms": round(_percentile(refused_ms, 0.99), 1),
    }


def _percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile of sorted values; 0 if there are none."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


@contextlib.contextmanager
def _folder() -> Any:
    with tempfile.TemporaryDirectory(prefix="spillway-overload-") as folder:
        yield Path(folder)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    return uvloop.run(work)

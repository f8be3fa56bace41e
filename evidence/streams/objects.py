"""`wire.client_objects_differ`: the router changes nothing in what a client library builds.

Each answer of each provider goes to each library of its protocol, whole and streamed: twice straight from the scripted
upstream, and once through the router. What differs between the first two (an id that the library makes up, a time) is
no part of the answer. What differs with the router is a difference, unless shapes/documented.yaml states it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from loadtests.bench.install import Unavailable

from evidence.results import Measurement, not_measured
from evidence.streams.judging import JUDGES, Job, Judge, Judges, Verdict, install, judging, versions
from evidence.streams.shapes import DOCUMENTED, FOLDER, Exchange, answering, load_exchanges
from spillway_router.providers.catalogue import load_catalogue
from spillway_router.testing.harness import routing, settings

DIFFER = "wire.client_objects_differ"
EXAMPLES = 20
MISSING = object()
SLOW = "slo: {ttft_ms: 60000, tpot_ms: 10000}\n"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One answer, read by one library with and without the router.

    `differences` are paths with what stood there without and with the router; `documented` are those that the
    documentation states. `unreadable`: the library raises on this answer without the router too.
    """

    name: str
    differences: Mapping[str, tuple[Any, Any]]
    documented: Mapping[str, tuple[Any, Any]]
    unreadable: str | None = None


def client_objects(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Compare the objects of all libraries for all exchanges."""
    try:
        install()
        exchanges = load_exchanges()
        say(f"  {len(exchanges)} answers, each whole and streamed where it can be")
        logging.disable(logging.WARNING)  # about engines that report fewer figures than real ones
        return {DIFFER: measurement(asyncio.run(compare(exchanges)), versions())}
    except Unavailable as error:
        return {DIFFER: not_measured(str(error))}
    finally:
        logging.disable(logging.NOTSET)


def measurement(comparisons: Sequence[Comparison], libraries: Mapping[str, str]) -> Measurement:
    """Count the comparisons with differences that the documentation does not state."""
    readable = [comparison for comparison in comparisons if comparison.unreadable is None]
    changed = [comparison for comparison in readable if comparison.differences]
    members = Counter(path.split(".")[-1] for comparison in readable for path in comparison.documented)
    details = {
        "different": {
            comparison.name: {path: [_shown(side) for side in sides] for path, sides in comparison.differences.items()}
            for comparison in changed[:EXAMPLES]
        },
        "documented_differences": dict(members.most_common()),
        "unreadable_without_the_router": {c.name: c.unreadable for c in comparisons if c.unreadable is not None},
    }
    return Measurement(len(changed), len(readable), details, libraries)


def _shown(side: Any) -> str:
    return "missing" if side is MISSING else repr(side)[:120]


Rules = Sequence[Mapping[str, str]]


def rules() -> Rules:
    """Read the documented differences."""
    documented: Rules = yaml.safe_load((FOLDER / DOCUMENTED).read_text(encoding="utf-8"))
    return documented


@dataclass(frozen=True, slots=True)
class Documented:
    """The differences that the documentation states."""

    rules: Rules

    def states(self, path: str, sides: tuple[Any, Any]) -> bool:
        """Return whether the documentation states this difference."""
        return any(_states(rule, path, sides) for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Comparing:
    """What every comparison needs; `router` is its root URL."""

    judges: Judges
    router: str
    documented: Documented


async def compare(exchanges: Sequence[Exchange], judges_of: Sequence[Judge] = JUDGES) -> list[Comparison]:
    """Run every comparison."""
    async with (
        answering(exchanges) as upstream,
        routing(router_settings(exchanges, upstream)) as router,
        judging(upstream) as judges,
    ):
        comparing = Comparing(judges, router.url, Documented(rules()))
        jobs = [(exchange, job) for exchange in exchanges for job in _jobs(exchange, judges_of)]
        return await asyncio.gather(*(_one(comparing, exchange, job) for exchange, job in jobs))


def router_settings(exchanges: Sequence[Exchange], upstream: str) -> str:
    catalogue = load_catalogue()
    lines, aliases = [], []
    for exchange in exchanges:
        where = f"base_url: '{upstream}/v1', model: {exchange.model}, name: {exchange.model}"
        paid = 'api_key: k, price: {input_per_million: "1", output_per_million: "2"}'
        more = "local: true" if catalogue[exchange.backend].local else paid
        lines.append(f"{{provider: {exchange.backend}, {where}, {more}}}")
        aliases.append(f"  {exchange.model}: {{chain: [{exchange.model}]}}\n")
    return settings(*lines, more=SLOW + "aliases:\n" + "".join(aliases))


def _jobs(exchange: Exchange, judges: Sequence[Judge]) -> Iterator[Job]:
    for judge in judges:
        if judge.protocol != exchange.endpoint or judge.library in exchange.not_for:
            continue
        for stream in (True, False):
            if (exchange.whole is None and not stream) or (judge.way == "helper" and not stream):
                continue
            yield Job(judge, exchange.model, _request_for(judge, exchange.request, stream), stream, whole_object=True)


def _request_for(judge: Judge, request: Mapping[str, Any], stream: bool) -> Mapping[str, Any]:
    """Return the request without what the library itself forbids or sends."""
    if stream:
        return request
    return {name: value for name, value in request.items() if name != "stream_options"}


async def _one(comparing: Comparing, exchange: Exchange, job: Job) -> Comparison:
    name = f"{job.model}: {job.judge.name}, {'streamed' if job.stream else 'whole'}"
    judges = comparing.judges
    first, again = await judges.ask(job), await judges.ask(job)
    if first.error is not None:
        return Comparison(name, {}, {}, first.error)
    routed = await judges.ask(job, comparing.router)
    if exchange.refused and routed.error is not None:
        return Comparison(name, {}, {"refused": (None, routed.error)})
    noise = unlike(paths(first), paths(again))
    changes = {path: sides for path, sides in unlike(paths(first), paths(routed)).items() if path not in noise}
    documented = {path: sides for path, sides in changes.items() if comparing.documented.states(path, sides)}
    return Comparison(name, {path: sides for path, sides in changes.items() if path not in documented}, documented)


def paths(verdict: Verdict) -> dict[str, Any]:
    """Return every leaf of what the library built and told, by its path."""
    whole = {"built": verdict.built, "content": verdict.content, "finish": verdict.finish, "error": verdict.error}
    return dict(_leaves("", whole))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in pairs:
            yield from _leaves(f"{path}.{name}" if path else str(name), inner)
    else:
        yield path, value


def unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        path: (first.get(path, MISSING), second.get(path, MISSING))
        for path in [*first, *(path for path in second if path not in first)]
        if first.get(path, MISSING) != second.get(path, MISSING)
    }


def _states(rule: Mapping[str, str], path: str, sides: tuple[Any, Any]) -> bool:
    """Return whether the documentation states this difference."""
    member = rule["member"]
    if rule["when"] == "any":
        return f".{member}." in f".{path}."
    if not (path == member or path.endswith("." + member)):
        return False
    if rule["when"] == "added":
        return sides[0] is MISSING
    return all(side is None or side is MISSING for side in sides)

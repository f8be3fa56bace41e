"""`stream.silent_truncations`: no client library takes a truncated answer for a whole one.

The measurement has two layers. Every case of the fault matrix runs through the compiled and the interpreted router over
real sockets, and every byte that comes out is recorded. Each distinct reply then goes to the client libraries of its
protocol, through a server that repeats it. A stream counts as silently truncated if any of them does.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loadtests.bench.install import Unavailable

from evidence.results import Measurement, not_measured
from evidence.served import FailedError
from evidence.streams.builds import Build, MatrixRun, available, run_matrix, send_again
from evidence.streams.faults import FIRST, SECOND, Case, fault_matrix
from evidence.streams.judging import JUDGES, Job, Judge, Judges, Verdict, install, judging, versions
from evidence.streams.protocols import ANSWERS
from evidence.streams.replay import Recording, replaying
from evidence.streams.verdicts import Judged, judged
from spillway_router.testing import openai_wire as wire

SILENT = "stream.silent_truncations"
DIFFER = "wire.builds_differ"
IDS = (SILENT, DIFFER)
EXAMPLES = 12
MOST_AGAIN = 2000
"""Cases that are sent again, at most."""
EVENTS = "text/event-stream; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Trial:
    """The matrix through the builds: its cases in order, and what each build sent.

    `again` has the digests of what the builds sent when the cases in which they differ were sent again.
    """

    cases: Sequence[Case]
    runs: Mapping[Build, MatrixRun]
    again: Mapping[Build, Mapping[int, str]] = field(default_factory=dict)

    @property
    def unlike(self) -> list[int]:
        """The numbers of the cases in which the builds sent other bytes at first."""
        first, second = self.runs.values()
        return [number for number in range(len(self.cases)) if first.digests[number] != second.digests[number]]

    def differs_again(self, number: int) -> bool:
        """Return whether the builds sent other bytes again, or were not asked again."""
        digests = {replies.get(number, build) for build, replies in self.again.items()}
        return len(digests) != 1


def streams(say: Callable[[str], None], every: int = 1) -> dict[str, Measurement]:
    """Measure both promises that the matrix supports."""
    builds = available()
    try:
        trial = Trial(fault_matrix(every).cases, run_matrix(say, builds, every))
        if len(builds) > 1 and 0 < len(trial.unlike) <= MOST_AGAIN:
            say(f"  the builds differ in {len(trial.unlike)} cases, which are sent again")
            trial = replace(trial, again=send_again(say, builds, every, trial.unlike))
    except FailedError as error:
        return dict.fromkeys(IDS, not_measured(str(error)))
    measured = {DIFFER: differences(trial)}
    try:
        install()
        say("  the libraries judge each distinct reply")
        measured[SILENT] = asyncio.run(silent_truncations(trial))
    except Unavailable as error:
        measured[SILENT] = not_measured(str(error))
    return measured


# The two builds


def differences(trial: Trial) -> Measurement:
    """Count the cases in which the two builds sent other bytes, twice; an unexpected error in either counts too.

    What a stream gets before it breaks depends on time, too: the event with the finish waits a quarter of a second for
    usage, and a stream that is silent for a second has stalled. A machine that stands still for so long makes the
    builds differ once. The libraries judge both replies.
    """
    if len(trial.runs) < 2:
        return not_measured("only one build can run here; `make install` compiles the other")
    at_first = trial.unlike
    unlike = [number for number in at_first if trial.differs_again(number)]
    unexpected = {build: sum(run.unexpected.values()) for build, run in trial.runs.items()}
    details = {
        "unexpected_errors": unexpected,
        "distinct_replies": {build: len(run.replies) for build, run in trial.runs.items()},
        "differed_once": len(at_first) - len(unlike),
        "kinds": dict(Counter(trial.cases[number].fault.split(",")[0] for number in unlike).most_common(EXAMPLES)),
        "examples": [trial.cases[number].name for number in unlike[:EXAMPLES]],
    }
    return Measurement(len(unlike) + sum(unexpected.values()), len(trial.cases), details)


# The judges


async def silent_truncations(trial: Trial) -> Measurement:
    """Let the libraries judge each distinct reply, and count the streams that any of them takes for whole wrongly."""
    recordings = {digest: _recording(reply) for run in trial.runs.values() for digest, reply in run.replies.items()}
    wanted = _wanted(trial)
    kinds = sorted({kind for kind, _ in wanted}, key=lambda kind: kind.name)
    references = {f"{kind.name} {word}": kind.recording(word) for kind in kinds for word in (FIRST, SECOND)}
    direct = {f"direct {case.name}": case for case in _cut_directly(trial.cases)}
    everything = recordings | references | {name: _direct_case(case) for name, case in direct.items()}
    async with replaying(everything) as base, judging(base) as judges:
        whole = await _references(judges, kinds)
        verdicts = await _all_verdicts(judges, wanted, whole)
        seeded = await _all_verdicts(judges, {(Kind.of(case), name) for name, case in direct.items()}, whole)
    return count(trial, verdicts, seeded, versions())


def _recording(reply: Mapping[str, Any]) -> Recording:
    content_type = reply["headers"].get("content-type", "application/json")
    return Recording(reply["status"], content_type, reply["body"].encode("latin-1"), reply["ended"] != "whole")


@dataclass(frozen=True, slots=True)
class Kind:
    """An answer, with a stream or without: the judges of both are not the same."""

    answer: str
    stream: bool

    @classmethod
    def of(cls, case: Case) -> Kind:
        return cls(case.answer, case.stream)

    @property
    def name(self) -> str:
        return f"{self.answer}{'' if self.stream else ', without a stream'}"

    @property
    def request(self) -> Mapping[str, Any]:
        return ANSWERS[self.answer](FIRST).request

    def recording(self, word: str) -> Recording:
        """Return the whole answer as its provider sends it."""
        answer = ANSWERS[self.answer](word)
        if self.stream:
            return Recording(200, EVENTS, answer.body)
        return Recording(200, wire.JSON, wire.dump(answer.whole))

    def judges(self) -> list[Judge]:
        """Return the judges of the protocol. Stream helpers need a stream. The AI SDK and LangChain read only the first
        of several choices, so they can't tell whether the second one is whole."""
        protocol, several = ANSWERS[self.answer](FIRST).protocol, "n" in self.request
        return [
            judge
            for judge in JUDGES
            if judge.protocol == protocol
            and not (several and judge.library in ("ai-sdk", "langchain"))
            and (self.stream or judge.way != "helper")
        ]


def _wanted(trial: Trial) -> set[tuple[Kind, str]]:
    """Return each kind of answer with each distinct reply that it led to."""
    return {
        (Kind.of(case), digest)
        for run in trial.runs.values()
        for case, digest in zip(trial.cases, run.digests, strict=True)
    }


def _cut_directly(cases: Iterable[Case]) -> list[Case]:
    """Return the cases that show without a router that the judges can see a truncation: clean ends between events."""
    chosen = "clean end, an event per packet"
    return [case for case in cases if case.fault.startswith("cut at byte") and case.fault.endswith(chosen)][::25]


def _direct_case(case: Case) -> Recording:
    answer = ANSWERS[case.answer](FIRST)
    at = int(case.fault.split(",")[0].removeprefix("cut at byte "))
    return Recording(200, EVENTS, answer.body[:at])


References = Mapping[tuple[Kind, Judge], set[tuple[str, str]]]
Verdicts = Mapping[tuple[Kind, str], Mapping[Judge, Judged]]


async def _references(judges: Judges, kinds: Sequence[Kind]) -> References:
    """Return what each judge sees of the whole answers, read without a router."""
    whole: dict[tuple[Kind, Judge], set[tuple[str, str]]] = defaultdict(set)
    for kind in kinds:
        for judge in kind.judges():
            for word in (FIRST, SECOND):
                verdict = await judges.ask(Job(judge, f"{kind.name} {word}", kind.request, kind.stream))
                if verdict.error is not None or not verdict.content:
                    raise Unavailable(f"{judge.name} can't read the whole answer {kind.name!r}: {verdict}")
                whole[kind, judge].add((verdict.content, verdict.finish))
    return whole


async def _all_verdicts(judges: Judges, wanted: Iterable[tuple[Kind, str]], whole: References) -> Verdicts:
    async def one(kind: Kind, recording: str, judge: Judge) -> Judged:
        verdict: Verdict = await judges.ask(Job(judge, recording, kind.request, kind.stream))
        return judged(verdict, whole[kind, judge])

    pairs = sorted(wanted, key=lambda pair: (pair[0].name, pair[1]))
    jobs = [(kind, recording, judge) for kind, recording in pairs for judge in kind.judges()]
    answers = await asyncio.gather(*(one(*job) for job in jobs))
    verdicts: dict[tuple[Kind, str], dict[Judge, Judged]] = {pair: {} for pair in pairs}
    for (kind, recording, judge), answer in zip(jobs, answers, strict=True):
        verdicts[kind, recording][judge] = answer
    return verdicts


def count(trial: Trial, verdicts: Verdicts, seeded: Verdicts, libraries: Mapping[str, str]) -> Measurement:
    """Count the streams that at least one library took for whole wrongly."""
    silent: list[str] = []
    per_library: dict[str, Counter[str]] = defaultdict(Counter)
    decided = 0
    for build, run in trial.runs.items():
        for case, digest in zip(trial.cases, run.digests, strict=True):
            by_judge = verdicts[Kind.of(case), digest]
            decided += len(by_judge)
            for judge, verdict in by_judge.items():
                per_library[f"{judge.library} {judge.way}"][verdict] += 1
            wrong = [judge.name for judge, verdict in by_judge.items() if verdict == "silent"]
            if wrong:
                silent.append(f"{build}: {case.name}: {', '.join(wrong)}")
    details = {
        "streams_through_the_router": {build: len(run.digests) for build, run in trial.runs.items()},
        "distinct_replies_judged": len(verdicts),
        "verdicts_of_libraries": sum(len(by_judge) for by_judge in verdicts.values()),
        "streams_times_judges": decided,
        "by_library": {name: dict(counts) for name, counts in sorted(per_library.items())},
        "silent_without_a_router": _seeded(seeded),
        "examples": silent[:: max(1, len(silent) // EXAMPLES)][:EXAMPLES],
    }
    n = sum(len(run.digests) for run in trial.runs.values())
    return Measurement(len(silent), n, details, libraries)


def _seeded(seeded: Verdicts) -> dict[str, str]:
    """Return how many of the streams that were cut without a router each library took for whole."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for by_judge in seeded.values():
        for judge, verdict in by_judge.items():
            counts[f"{judge.library} {judge.way}"][verdict] += 1
    return {name: f"{count['silent']} of {count.total()}" for name, count in sorted(counts.items())}

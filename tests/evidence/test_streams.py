"""The fault matrix of streams in a short run, compiled and interpreted, and its evidence with seeded faults."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from evidence.promises import load_promises
from evidence.results import Circumstances, judge
from evidence.streams.builds import Build, MatrixRun, available, run_matrix, send_again
from evidence.streams.client import RecordingClient
from evidence.streams.faults import FIRST, SECOND, Case, FaultMatrix, empty_event, fault_matrix, large_cases
from evidence.streams.judging import JUDGES, Judge, Verdict
from evidence.streams.protocols import ANSWERS
from evidence.streams.run import PATIENT, Matrix, Recorded
from evidence.streams.truncations import DIFFER, SILENT, Kind, Trial, count, differences
from evidence.streams.verdicts import Judged, judged

EVERY = 113
"""A prime, so that every kind of fault meets every part of a stream."""
TAKEN = Circumstances("make evidence ONLY=wire.builds", "2026-01-01T00:00:00Z", {}, {})


def _quiet(_line: str) -> None:
    """Print nothing."""


@pytest.fixture(scope="module")
def runs() -> dict[Build, MatrixRun]:
    """Every 113th case through each build that this checkout has."""
    return run_matrix(_quiet, available(), EVERY)


@pytest.fixture(scope="module")
def matrix() -> FaultMatrix:
    return fault_matrix(EVERY)


def events_of(body: bytes) -> list[tuple[bytes, Any]]:
    """Return name and JSON of each event (`[DONE]` as it is), without comments, lines that no client knows, and the
    log-probabilities that no request asks for."""
    assert body.endswith(b"\n\n"), body
    events: list[tuple[bytes, Any]] = []
    for block in body[:-2].split(b"\n\n"):
        fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
        data = fields.get(b"data")
        if data == b"[DONE]":
            events.append((b"", data))
        elif data is not None:
            event = json.loads(data)
            for choice in event.get("choices", ()):
                choice.pop("logprobs", None)
            events.append((fields.get(b"event", b""), event))
    return events


def whole_events(answer: str, word: str) -> list[tuple[bytes, Any]]:
    """Return what a client gets of a whole answer: all but the usage event, which it did not ask for."""
    return [(name, event) for name, event in events_of(ANSWERS[answer](word).body) if not is_usage(event)]


def with_text(answer: str, events: list[tuple[bytes, Any]]) -> list[tuple[bytes, Any]]:
    """Return the events without those that a case with very many events adds."""
    ((_, empty),) = events_of(empty_event(ANSWERS[answer](FIRST)))
    rest = [(name, event) for name, event in events if event != empty]
    return rest if len(events) - len(rest) > 100 else events


def is_usage(event: Any) -> bool:
    """Return whether an event has usage alone."""
    return isinstance(event, dict) and event.get("choices") == []


def is_loud(answer: str, reply: Mapping[str, Any]) -> bool:
    """Return whether a reply is a part of the broken answer and then exactly one error event of its protocol."""
    *sent, (name, error) = with_text(answer, events_of(reply["body"].encode("latin-1")))
    named = answer.split()[0] in ("messages", "responses")
    if not sent or sent != whole_events(answer, FIRST)[: len(sent)] or not isinstance(error, dict):
        return False
    shape = (name, error.get("type")) == ((b"error", "error") if named else (b"", None))
    return shape and error.get("error", {}).get("code") == "upstream_interrupted"


def test_no_cut_is_silent(runs: Mapping[Build, MatrixRun], matrix: FaultMatrix) -> None:
    """Each reply is a whole answer of one backend, or ends with the protocol's own error event."""
    for build, run in runs.items():
        assert len(run.digests) == len(matrix.cases)
        for case, digest in zip(matrix.cases, run.digests, strict=True):
            reply = run.replies[digest]
            assert (reply["status"], reply["ended"]) == (200, "whole"), (build, case.name, reply)
            body = reply["body"].encode("latin-1")
            if not case.stream:
                whole_bodies = [json.loads(json.dumps(ANSWERS[case.answer](word).whole)) for word in (FIRST, SECOND)]
                assert json.loads(body) in whole_bodies, (build, case.name, reply)
                continue
            whole = [whole_events(case.answer, word) for word in (FIRST, SECOND)]
            events = with_text(case.answer, events_of(body))
            assert events in whole or is_loud(case.answer, reply), (build, case.name, reply["body"][-500:])


def test_both_builds_send_the_same_bytes(runs: Mapping[Build, MatrixRun], matrix: FaultMatrix) -> None:
    if len(runs) < 2:
        pytest.skip("the compiled modules are missing or stale: `make install` compiles them")
    promise = replace(load_promises()[DIFFER], min_n=1000)
    measurement = differences(Trial(matrix.cases, runs))
    assert judge(promise, measurement, TAKEN).holds, measurement.details


def test_what_is_large_comes_through_unless_it_is_larger_than_an_event_may_be(
    runs: Mapping[Build, MatrixRun], matrix: FaultMatrix
) -> None:
    large = {case.name for case in large_cases(2000)}
    for run in runs.values():
        seen = set()
        for case, digest in zip(matrix.cases, run.digests, strict=True):
            if case.name not in large:
                continue
            ends = "cut" if "cut" in case.fault else "rejected" if " has 9 MB" in case.fault else "whole"
            seen.add((ends, case.stream))
            if ends == "whole" and case.end == "keep":
                assert FIRST in run.replies[digest]["body"], case.name
            elif ends == "rejected":
                body = run.replies[digest]["body"]
                assert SECOND in body or "larger than" in body[-700:], case.name
        assert {ends for ends, stream in seen if stream} == {"rejected", "cut", "whole"}
        assert ("whole", False) in seen


def test_an_exception_that_nobody_expected_is_counted_in_no_stream(runs: Mapping[Build, MatrixRun]) -> None:
    assert {sum(run.unexpected.values()) for run in runs.values()} == {0}


EVERYTHING_ON = """
cache: {enabled: true, default: true, sampled: true}
hedging: {enabled: true, after: 1, share: 1, usd_per_second: 1}
experiments:
  - name: other
    by: request
    arms: [{name: asked, share: 0.9, shadow: asked, budget_usd_per_day: 100, chain: [second]}]
"""


async def _replies(cases: Sequence[Case], more: str, times: int) -> tuple[list[Recorded], Mapping[object, int]]:
    """Send cases so often through one router; return the replies, and which backends its shadows chose."""
    matrix, replies = Matrix(cases), []
    async with matrix.router(PATIENT + more) as router:
        place = urlsplit(router.url)
        client = RecordingClient(str(place.hostname), int(place.port or 0))
        for number in [*range(len(cases))] * times:
            router.forget_calls()
            await matrix.ask(client, number)
            replies.append(matrix.replies[matrix.digests[number]])
        client.close()
        return replies, dict(router.runtime.services.shadows.counts.choices)


def _seen(replies: Sequence[Recorded]) -> list[tuple[int, str, str]]:
    return [(reply.status, reply.body, reply.ended) for reply in replies]


async def test_shadows_hedges_experiments_and_the_cache_change_no_answer(matrix: FaultMatrix) -> None:
    """What the cache gives again is the answer that was sent before, and no broken one is in it."""
    cases = matrix.cases[: matrix.first_held : 13]
    plain, _ = await _replies(cases, "", 1)
    twice, shadows = await _replies(cases, EVERYTHING_ON, 2)
    assert _seen(twice) == _seen(plain) * 2
    given_again = [reply for reply in twice if reply.headers.get("x-spillway-decision") == "cache"]
    assert 10 < len(given_again) < len(cases)
    assert not [reply for reply in given_again if "upstream_interrupted" in reply.body]
    assert shadows


def test_the_short_run_has_every_kind_of_end(matrix: FaultMatrix) -> None:
    assert {case.end for case in matrix.cases} == {"keep", "fin", "rst", "hang"}
    assert {case.answer for case in matrix.cases} == set(ANSWERS)


CASES = (Case("chat text", "cut at byte 1, seeded", (), "fin"),) * 2
KIND = Kind("chat text", stream=True)
REPLY = {"path": "/", "status": 200, "headers": {}, "body": "", "ended": "whole"}


def _run(*digests: str, unexpected: int = 0) -> MatrixRun:
    return MatrixRun(
        build="build",
        digests=digests,
        replies=dict.fromkeys(digests, REPLY),
        unexpected={"request": unexpected},
        upstream_calls=(2, 0),
    )


@pytest.mark.parametrize(
    ("compiled", "value"),
    [
        pytest.param(_run("a", "b"), 0, id="the same"),
        pytest.param(_run("a", "c"), 1, id="another reply"),
        pytest.param(_run("a", "b", unexpected=1), 1, id="an unexpected error behind the same reply"),
    ],
)
def test_a_build_that_differs_is_seen(compiled: MatrixRun, value: int) -> None:
    trial = Trial(CASES, {"compiled": compiled, "interpreted": _run("a", "b")})
    measurement = differences(trial)
    assert (measurement.value, measurement.n) == (value, 2)
    assert judge(replace(load_promises()[DIFFER], min_n=2), measurement, TAKEN).holds is (value == 0)


@pytest.mark.parametrize(
    ("again", "value"),
    [
        pytest.param({"compiled": {1: "x"}, "interpreted": {1: "x"}}, 0, id="the machine stood still"),
        pytest.param({"compiled": {1: "x"}, "interpreted": {1: "y"}}, 1, id="another reply again"),
        pytest.param({"compiled": {}, "interpreted": {}}, 1, id="not sent again"),
        pytest.param({}, 1, id="nothing sent again"),
    ],
)
def test_builds_differ_where_they_do_so_twice(again: dict[Build, dict[int, str]], value: int) -> None:
    trial = Trial(CASES, {"compiled": _run("a", "c"), "interpreted": _run("a", "b")}, again)
    measurement = differences(trial)
    assert (measurement.value, measurement.details["differed_once"]) == (value, 1 - value)


def test_cases_are_sent_again(runs: Mapping[Build, MatrixRun], matrix: FaultMatrix) -> None:
    numbers = [2, matrix.first_held, len(matrix.cases) - 1]
    for build, digests in send_again(_quiet, available()[:1], EVERY, numbers).items():
        assert [digests[number] for number in numbers[:2]] == [runs[build].digests[number] for number in numbers[:2]]
        assert digests[numbers[2]]


def test_one_build_alone_proves_nothing() -> None:
    assert differences(Trial(CASES, {"interpreted": _run("a", "b")})).value is None


@pytest.mark.parametrize(
    ("seen", "value"),
    [
        pytest.param(("whole", "loud"), 0, id="whole for one library, loud for another"),
        pytest.param(("silent", "loud"), 1, id="silent for one library"),
        pytest.param(("silent", "silent"), 1, id="silent for both, but one stream"),
    ],
)
def test_a_stream_that_is_silent_for_any_library_is_counted_once(seen: tuple[Judged, Judged], value: int) -> None:
    trial = Trial(CASES, {"compiled": _run("a", "b")})
    python, node = JUDGES[:2]
    whole: dict[Judge, Judged] = {python: "whole", node: "whole"}
    verdicts = {(KIND, "a"): whole, (KIND, "b"): dict(zip((python, node), seen, strict=True))}
    measurement = count(trial, verdicts, {}, {})
    assert (measurement.value, measurement.n) == (value, 2)
    assert measurement.details["streams_times_judges"] == 4
    assert judge(replace(load_promises()[SILENT], min_n=2), measurement, TAKEN).holds is (value == 0)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict("alpha é!", "0:stop", None), "whole"),
        (Verdict("alpha ", "", "APIError: it broke off"), "loud"),
        (Verdict("alpha ", "", None), "silent"),
        (Verdict("alpha é!", "", None), "silent"),
        (Verdict("", "", None), "silent"),
        (Verdict("alpha é!bravo é!", "0:stop", None), "silent"),
    ],
)
def test_what_a_client_saw_is_whole_loud_or_silent(verdict: Verdict, expected: str) -> None:
    assert judged(verdict, {("alpha é!", "0:stop"), ("bravo é!", "0:stop")}) == expected

"""What a run of a suite came to, as one JSON file in conformance/results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from conformance.model import DIRECT, ROUTED, Case, Suite, SuiteRun
from conformance.reasons import Rule, explain

FOLDER = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tests passed, failed and were skipped in one way of running."""

    passed: int
    failed: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A test that failed in at least one way, with its reason.

    `direct` and `routed` are verdicts, "" where the test did not run. `blame` and `reason` are empty while nobody
    explained it.
    """

    test: str
    direct: str
    routed: str
    message: str
    blame: str
    reason: str


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When and where a suite ran."""

    date: str
    machine: str
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """The published result of a suite. `new` counts the tests that only the router fails; `skips` the reasons for which
    tests were skipped through the router."""

    suite: str
    about: str
    upstream: str
    taken: Circumstances
    direct: Counts | None
    routed: Counts
    new: int
    failures: tuple[Failure, ...]
    skips: Mapping[str, int]

    def unexplained(self) -> list[Failure]:
        """Return the failures without a reason."""
        return [failure for failure in self.failures if not failure.reason]


def judge(suite: Suite, run: SuiteRun, rules: Iterable[Rule], taken: Circumstances) -> Result:
    """Compare the two ways of a run and look up the reasons of its failures."""
    rules = tuple(rules)
    direct = {case.name: case for case in run.direct}
    routed = {case.name: case for case in run.routed}
    failures = []
    for name in {**direct, **routed}:
        there, here = direct.get(name), routed.get(name)
        case = next((c for c in (here, there) if c is not None and c.verdict == "failed"), None)
        if case is None:
            continue
        rule = explain(case, there.verdict if there else "", rules)
        failures.append(
            Failure(
                test=name,
                direct=there.verdict if there else "",
                routed=here.verdict if here else "",
                message=case.message,
                blame=rule.blame if rule else "",
                reason=rule.reason if rule else "",
            )
        )
    return Result(
        suite=suite.name,
        about=suite.about,
        upstream=suite.upstream,
        taken=taken,
        direct=_counts(run.direct) if run.direct else None,
        routed=_counts(run.routed),
        new=sum(failure.routed == "failed" and failure.direct == "passed" for failure in failures),
        failures=tuple(failures),
        skips=dict(Counter(case.message for case in run.routed if case.verdict == "skipped")),
    )


def reexplain(result: Result, rules: Iterable[Rule]) -> Result:
    """Look up the reasons of a published result's failures again, by today's rules."""
    rules = tuple(rules)
    failures = []
    for failure in result.failures:
        rule = explain(Case(failure.test, "failed", failure.message), failure.direct, rules)
        failures.append(replace(failure, blame=rule.blame if rule else "", reason=rule.reason if rule else ""))
    return replace(result, failures=tuple(failures))


def _counts(cases: Iterable[Case]) -> Counts:
    verdicts = Counter(case.verdict for case in cases)
    return Counts(verdicts["passed"], verdicts["failed"], verdicts["skipped"])


def write_result(result: Result, folder: Path = FOLDER) -> None:
    """Write the suite's file."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(result), indent=1, ensure_ascii=False)
    (folder / f"{result.suite}.json").write_text(text + "\n", encoding="utf-8")


def read_results(names: Iterable[str], folder: Path = FOLDER) -> dict[str, Result]:
    """Read the published results of these suites; a suite that was never run has none."""
    paths = {name: folder / f"{name}.json" for name in names}
    return {name: _read(json.loads(path.read_text(encoding="utf-8"))) for name, path in paths.items() if path.exists()}


def _read(document: Mapping[str, Any]) -> Result:
    direct = document[DIRECT]
    return Result(
        **{
            **document,
            "taken": Circumstances(**document["taken"]),
            DIRECT: None if direct is None else Counts(**direct),
            ROUTED: Counts(**document[ROUTED]),
            "failures": tuple(Failure(**failure) for failure in document["failures"]),
        }
    )

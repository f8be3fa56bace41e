"""Why tests fail: rules in conformance/reasons/<suite>.yaml, each with the party to blame.

A rule is `{tests, message?, direct?, blame, reason, may_pass?}`. `tests` and `message` are regular expressions that are
searched in the test's name and in its message; `direct` is the verdict that the test must have had directly. The first
rule that fits explains a failure. A failure that no rule fits is
unexplained, and a rule that fits no failure is stale: both make the run fail, so that the page says what is true today.
`may_pass` is for what depends on the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import yaml

from conformance.model import Case

FOLDER = Path(__file__).resolve().parent / "reasons"
Blame = Literal["router", "not offered", "decision", "upstream", "suite", "machine"]
"""Who is to blame: the router (a fault to mend), the router's scope, a decision with its reason, the upstream behind
it, the suite itself, or the machine that ran it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The reason for every failure whose name and message fit."""

    tests: re.Pattern[str]
    message: re.Pattern[str]
    blame: Blame
    reason: str
    direct: str = ""
    may_pass: bool = False

    def fits(self, case: Case, direct: str) -> bool:
        """Return whether the rule explains this failure of a test that had this verdict directly."""
        if self.direct not in ("", direct):
            return False
        return self.tests.search(case.name) is not None and self.message.search(case.message) is not None


class ReasonError(Exception):
    """A file of reasons is not as its format says; the message names the place."""


def load_rules(suite: str, folder: Path = FOLDER) -> tuple[Rule, ...]:
    """Read the rules of a suite; a suite without a file has none.

    Raises:
        ReasonError: an entry has an unknown or a missing member.
    """
    path = folder / f"{suite}.yaml"
    if not path.exists():
        return ()
    entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    return tuple(_rule(entry, f"{path.name}, entry {number}") for number, entry in enumerate(entries, 1))


def _rule(entry: dict[str, object], place: str) -> Rule:
    unknown = sorted(entry.keys() - {"tests", "message", "direct", "blame", "reason", "may_pass"})
    missing = sorted({"tests", "blame", "reason"} - entry.keys())
    if unknown or missing:
        raise ReasonError(f"{place}: unknown {unknown}, missing {missing}")
    if entry["blame"] not in get_args(Blame):
        raise ReasonError(f"{place}: blame must be one of {', '.join(get_args(Blame))}")
    blame: Blame = entry["blame"]  # type: ignore[assignment] # compared above
    patterns = (re.compile(str(entry["tests"])), re.compile(str(entry.get("message", ""))))
    return Rule(
        tests=patterns[0],
        message=patterns[1],
        blame=blame,
        reason=" ".join(str(entry["reason"]).split()),
        direct=str(entry.get("direct", "")),
        may_pass=bool(entry.get("may_pass", False)),
    )


def explain(case: Case, direct: str, rules: Iterable[Rule]) -> Rule | None:
    """Return the first rule that explains a failure of a test with this verdict directly, or None."""
    return next((rule for rule in rules if rule.fits(case, direct)), None)


def stale(rules: Iterable[Rule], reasons: Iterable[str]) -> list[Rule]:
    """Return the rules whose reason is none of those that explain a failure, although it should be one."""
    used = set(reasons)
    return [rule for rule in rules if rule.reason not in used and not rule.may_pass]

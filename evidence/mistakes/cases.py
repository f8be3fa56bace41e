"""Forty-five configurations that people write, and what `spillway check` must say of each: what is wrong, in which line
of which file, and how to mend it; all mistakes in one round, nothing else, and nothing in the words of a library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

_FOLDER: Final = Path(__file__).parent
_REPORTED: Final = re.compile(r"^  (?:- |error +|warning +|disabled +)(.*)$", re.MULTILINE)
_LIBRARY_WORDS: Final = (
    "Input should", "should match", "valid tuple", "valid dictionary", "AliasPart", "codec", "<block end>", "<scalar>",
    "Traceback", "Errno",
)  # fmt: skip
_NAME: Final = "spillway.yaml"


@dataclass(frozen=True, slots=True)
class Mistake:
    """What has to be said of one mistake. `line` 0: it is the whole file's."""

    line: int
    what: str
    fix: str

    def is_told_in(self, sentence: str) -> bool:
        """Return whether a reported line says place, mistake and fix."""
        place = f"{_NAME}:{self.line}: " if self.line else f"{_NAME}: "
        return sentence.startswith(place) and self.what in sentence and self.fix in sentence


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration. `code` is the exit status that `check` must have."""

    name: str
    content: bytes
    code: int
    mistakes: tuple[Mistake, ...]
    never: tuple[str, ...]


def cases() -> tuple[Case, ...]:
    """Return all cases in the order of their numbers."""
    rows = yaml.safe_load((_FOLDER / "expected.yaml").read_text(encoding="utf-8"))
    return tuple(_case(row) for row in rows)


def _case(row: Mapping[str, Any]) -> Case:
    return Case(
        name=row["file"],
        content=(_FOLDER / "configurations" / f"{row['file']}.yaml").read_bytes(),
        code=row["code"],
        mistakes=tuple(Mistake(one.get("line", 0), one["what"], one["fix"]) for one in row["mistakes"]),
        never=(*_LIBRARY_WORDS, *row.get("never", ())),
    )


def faults_of(case: Case, output: str, code: int) -> list[str]:
    """Return what is wrong with the answer of `check` to a case; [] if it is well told."""
    reported = _REPORTED.findall(output)
    faults = [f"exit status {code} instead of {case.code}"] if code != case.code else []
    for mistake in case.mistakes:
        sentence = next((one for one in reported if mistake.is_told_in(one)), None)
        if sentence is None:
            faults.append(f"not told: line {mistake.line}, {mistake.what}; {mistake.fix}")
        else:
            reported.remove(sentence)
    faults += [f"told besides: {one}" for one in reported]
    return faults + [f"contains {word!r}" for word in case.never if word in output]

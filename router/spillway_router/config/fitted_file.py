"""Reads a file that a command fitted from labels and that a setting names: a calibration, a certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from spillway_router.config.load import ConfigProblem, Findings

Fitted = TypeVar("Fitted")


@dataclass(frozen=True, slots=True)
class FittedFile(Generic[Fitted]):
    """The files of one setting: how their content is read, the error of a malformed one, and how to make one."""

    setting: str
    from_json: Callable[[bytes], Fitted]
    malformed: type[Exception]
    make_one: str

    def read(self, path: Path, findings: Findings) -> Fitted | None:
        """Return what a file holds; None, with the problem added to `findings`, if it can't be used."""
        try:
            return self.from_json(path.expanduser().read_bytes())
        except OSError as error:
            problem = f"{path} can't be read ({error.strerror}); {self.make_one}"
        except self.malformed as error:
            problem = f"{path} can't be used: {error}"
        findings.problems.append(ConfigProblem(self.setting, 0, problem))
        return None

"""The promises: id, bound and the smallest number of samples that may speak for them (promises.json)."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).parent / "results"
PROMISES = Path(__file__).with_name("promises.json")

_COMPARE: MappingProxyType[str, Callable[[float, float], bool]] = MappingProxyType(
    {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}
)


@dataclass(frozen=True, slots=True)
class Promise:
    """`value op bound`, in `unit`, measured on at least `min_n` samples. `step` is the milestone it belongs to."""

    id: str
    step: int
    op: str
    bound: float
    unit: str
    what: str
    min_n: int = 1

    def holds(self, value: float | None, n: int) -> bool:
        """Does a measured value keep the promise? No value, a NaN or too few samples never do."""
        if value is None or math.isnan(value) or n < self.min_n:
            return False
        return _COMPARE[self.op](value, self.bound)

    @property
    def bound_text(self) -> str:
        return f"{self.op} {self.bound:g} {self.unit}"


def load_promises(file: Path = PROMISES) -> dict[str, Promise]:
    """All promises by id, in the file's order.

    Raises:
        ValueError: an id twice, or a comparison that isn't one of <=, >=, <, >, ==.
    """
    found: dict[str, Promise] = {}
    for entry in json.loads(file.read_text(encoding="utf-8")):
        promise = Promise(**entry)
        if promise.id in found:
            raise ValueError(f"{file}: {promise.id} is there twice")
        if promise.op not in _COMPARE:
            raise ValueError(f"{file}: {promise.id} compares with {promise.op!r}, not one of {', '.join(_COMPARE)}")
        found[promise.id] = promise
    return found

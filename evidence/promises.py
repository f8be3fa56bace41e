"""The promises: an id, a bound and the smallest number of samples that can support it (promises.json)."""

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
    """The claim that `value op bound` holds, in `unit`, measured on at least `min_n` samples.

    `area` names the part of the product that the promise belongs to, `what` the quantity that is measured.
    """

    id: str
    area: str
    op: str
    bound: float
    unit: str
    what: str
    min_n: int = 1

    def holds(self, value: float | None, n: int) -> bool:
        """Return whether a measured value keeps the promise. A missing value, a NaN or too few samples never do."""
        if value is None or math.isnan(value) or n < self.min_n:
            return False
        return _COMPARE[self.op](value, self.bound)

    @property
    def bound_text(self) -> str:
        """The bound as text, such as `<= 50 ms`."""
        return f"{self.op} {self.bound:g} {self.unit}"


def load_promises(file: Path = PROMISES) -> dict[str, Promise]:
    """Read all promises by id, in the file's order.

    Raises:
        ValueError: an id occurs twice, or a comparison is not one of <=, >=, <, >, ==.
    """
    promises: dict[str, Promise] = {}
    for entry in json.loads(file.read_text(encoding="utf-8")):
        promise = Promise(**entry)
        if promise.id in promises:
            raise ValueError(f"{file}: duplicate id {promise.id}")
        if promise.op not in _COMPARE:
            raise ValueError(f"{file}: {promise.id} compares with {promise.op!r}, not one of {', '.join(_COMPARE)}")
        promises[promise.id] = promise
    return promises

"""Unit vectors of texts, and how similar two of them are."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import mul

MOST_NUMBERS = 8192
"""Of a vector; embedding models have up to some thousand."""


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector of length 1. Bit n of `signs` says whether number n is negative: similar vectors differ in few."""

    numbers: array[float] = field(repr=False)
    signs: int = field(repr=False)

    @staticmethod
    def of(numbers: Sequence[float]) -> Vector | None:
        """Return the vector of length 1 in this direction; None if there is none, or for numbers that are none."""
        if not 0 < len(numbers) <= MOST_NUMBERS or not all(type(number) in (int, float) for number in numbers):
            return None
        length = math.hypot(*numbers)
        if not math.isfinite(length) or length == 0.0:
            return None
        unit = array("f", [number / length for number in numbers])
        return Vector(unit, int("".join(["1" if number < 0 else "0" for number in unit]), 2))

    @property
    def size_bytes(self) -> int:
        """The memory of its numbers and signs."""
        return len(self.numbers) * self.numbers.itemsize + len(self.numbers) // 8

    def cosine(self, other: Vector) -> float:
        """Return the cosine of the angle between two vectors, -1 to 1; -1 for vectors of different lengths."""
        if len(self.numbers) != len(other.numbers):
            return -1.0
        return max(-1.0, min(1.0, float(sum(map(mul, self.numbers, other.numbers)))))

"""The index of similar questions and their vectors, by randomly drawn vectors."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.caching.neighbours import ENTRY_BYTES, MOST_TOGETHER, Neighbours
from spillway_router.core.caching.key import Neighbourhood
from spillway_router.core.caching.vectors import Vector

NUMBERS = st.lists(st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-3), min_size=4, max_size=4)


def vector(*numbers: float) -> Vector:
    unit = Vector.of(numbers)
    assert unit is not None
    return unit


def at(degrees: float) -> Vector:
    return vector(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))


@given(NUMBERS, NUMBERS)
def test_the_cosine_is_that_of_the_angle(one: list[float], other: list[float]) -> None:
    expected = sum(a * b for a, b in zip(one, other, strict=True))
    expected /= math.hypot(*one) * math.hypot(*other)
    assert vector(*one).cosine(vector(*other)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("numbers", [[], [0.0, 0.0], [math.nan, 1.0], [math.inf], ["1"], [True], [0.1] * 9000])
def test_what_is_no_direction_is_no_vector(numbers: list[float]) -> None:
    assert Vector.of(numbers) is None


def test_the_most_similar_question_of_the_same_neighbourhood_is_found() -> None:
    index = Neighbours()
    for degrees in range(0, 90, 10):
        index.add(Neighbourhood(b"here", at(degrees)), bytes([degrees]))
    index.add(Neighbourhood(b"there", at(31)), b"other")
    nearest = index.nearest(Neighbourhood(b"here", at(31)), 0.99)
    assert nearest is not None
    assert nearest[0] == bytes([30])
    assert nearest[1] == pytest.approx(math.cos(math.radians(1)), abs=1e-6)
    assert index.nearest(Neighbourhood(b"here", at(35)), 0.999) is None
    assert index.nearest(Neighbourhood(b"nowhere", at(0)), 0.1) is None
    assert index.nearest(Neighbourhood(b"here", vector(1, 0, 0)), 0.1) is None, "another number of numbers"
    index.forget(b"here", bytes([30]))
    again = index.nearest(Neighbourhood(b"here", at(31)), 0.9)
    assert again is not None
    assert again[0] == bytes([40])


def test_what_was_added_first_goes_when_there_is_no_room() -> None:
    size = at(0).size_bytes + ENTRY_BYTES
    index = Neighbours(most_bytes=3 * size)
    for n in range(5):
        index.add(Neighbourhood(bytes([n % 2]), at(n)), bytes([n]))
    assert (len(index), index.size_bytes) == (3, 3 * size)
    assert index.nearest(Neighbourhood(bytes([1]), at(1)), 0.9999) is None
    for _ in range(2):  # the same answer takes one place
        index.add(Neighbourhood(bytes([0]), at(4)), bytes([4]))
    assert len(index) == 3


def test_one_neighbourhood_has_a_bound_of_its_own() -> None:
    index = Neighbours()
    for n in range(MOST_TOGETHER + 10):
        index.add(Neighbourhood(b"here", at(n / 100)), n.to_bytes(2, "big"))
    assert len(index) == MOST_TOGETHER

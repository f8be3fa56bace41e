"""Thompson sampling over the arms of an experiment."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from tests.core.comparison.helpers import worth

from spillway_router.core.comparison.differences import FEWEST_UNITS
from spillway_router.core.comparison.thompson import ArmWorth, thompson_shares


def test_the_arm_that_brings_more_per_dollar_gets_the_traffic() -> None:
    shares = thompson_shares({"control": worth(4.2, 10.0), "cheap": worth(4.0, 5.0)}, Random(1))
    assert shares == {"cheap": 1.0, "control": 0.0}


def test_equal_arms_share_the_traffic() -> None:
    shares = thompson_shares({"a": worth(4.0, 5.0), "b": worth(4.0, 5.0)}, Random(1))
    assert 0.45 < shares["a"] < 0.55


def test_an_arm_that_is_little_known_keeps_a_chance() -> None:
    well_known = {"a": worth(4.0, 5.0, units=5000), "b": worth(3.85, 5.0, units=5000)}
    little_known = {**well_known, "b": worth(3.85, 5.0, units=FEWEST_UNITS)}
    assert thompson_shares(well_known, Random(1))["b"] < 0.01
    assert thompson_shares(little_known, Random(1))["b"] > 0.1


def test_nothing_is_said_with_too_few_units_one_arm_or_no_cost() -> None:
    assert thompson_shares({"a": worth(4.0, 5.0), "b": worth(4.0, 5.0, units=FEWEST_UNITS - 1)}, Random(1)) == {}
    assert thompson_shares({"a": worth(4.0, 5.0)}, Random(1)) == {}
    assert thompson_shares({"a": worth(4.0, 5.0), "free": worth(4.0, 0.0)}, Random(1)) == {}


ARMS = st.dictionaries(
    st.sampled_from(["control", "a", "b", "c"]),
    st.builds(worth, st.floats(1, 5), st.floats(0.1, 1e6), st.integers(FEWEST_UNITS, 1000), st.floats(0, 2)),
    min_size=2,
)


@given(ARMS, st.integers())
def test_a_bandit_adds_no_arm_and_the_same_draws_give_the_same_shares(arms: dict[str, ArmWorth], seed: int) -> None:
    shares = thompson_shares(arms, Random(seed), draws=50)
    assert shares.keys() == arms.keys()
    assert sum(shares.values()) == 1 or abs(sum(shares.values()) - 1) < 1e-9
    assert shares == thompson_shares(arms, Random(seed), draws=50)

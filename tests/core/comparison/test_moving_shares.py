"""The shares that a bandit moves: where to, how far, and that nothing else happens."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.comparison.helpers import worth

from spillway_router.core.comparison.differences import FEWEST_UNITS
from spillway_router.core.comparison.moving_shares import SMALLEST_MOVE, MovingRule, next_shares
from spillway_router.core.comparison.thompson import ArmWorth

RULE = MovingRule(worth="rating", every_s=3600, floor=0.05, most_moved=0.1, days=28)


BETTER = {"control": worth(4.2, 10.0), "cheap": worth(4.0, 5.0)}


def test_shares_move_to_the_better_arm_at_the_stated_pace_and_stop_at_the_floor() -> None:
    shares = {"control": 0.7, "cheap": 0.3}
    path = []
    for interval in range(9):
        step = next_shares("e", RULE, shares, BETTER, interval)
        shares = dict(step.after)
        path.append((round(shares["cheap"], 3), step.reasons))
    paced, last = ("thompson", "floor:control", "pace"), ("thompson", "floor:control")
    assert path[:7] == [(round(0.4 + 0.1 * n, 3), paced) for n in range(6)] + [(0.95, last)]
    assert path[7:] == [(0.95, ("small",))] * 2


def test_without_a_floor_an_arm_that_is_surely_worse_ends_and_is_not_asked_about_again() -> None:
    rule = replace(RULE, floor=0.0, most_moved=1.0)
    step = next_shares("e", rule, {"control": 0.5, "cheap": 0.5}, BETTER, 1)
    assert (step.after, step.reasons) == ({"control": 0.0, "cheap": 1.0}, ("thompson",))
    assert next_shares("e", rule, step.after, BETTER, 2).reasons == ("alone",)


@pytest.mark.parametrize(
    ("arm", "reasons"),
    [
        (ArmWorth(), ("few:cheap",)),
        (worth(4.0, 5.0, FEWEST_UNITS - 1), ("few:cheap",)),
        (worth(4.0, 0.0), ("free:cheap",)),
    ],
)
def test_nothing_moves_while_an_arm_is_not_known(arm: ArmWorth, reasons: tuple[str, ...]) -> None:
    step = next_shares("e", RULE, {"control": 0.5, "cheap": 0.5}, {**BETTER, "cheap": arm}, 1)
    assert (step.moves, step.reasons, step.drawn) == (False, reasons, {})


def test_two_routers_draw_the_same_for_an_interval_and_otherwise_for_the_next() -> None:
    arms = {"a": worth(4.0, 5.0), "b": worth(4.05, 5.0)}
    shares = {"a": 0.5, "b": 0.5}
    drawn = [next_shares("e", RULE, shares, arms, interval).drawn for interval in (7, 7, 8)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert next_shares("f", RULE, shares, arms, 7).drawn != drawn[0]


ARMS = st.dictionaries(
    st.sampled_from(["control", "a", "b", "c"]),
    st.builds(worth, st.floats(1, 5), st.floats(0.1, 1e6), st.integers(FEWEST_UNITS, 1000)),
    min_size=2,
)
RULES = st.builds(
    lambda floor, most_moved: replace(RULE, floor=floor, most_moved=most_moved), st.floats(0, 0.25), st.floats(0.01, 1)
)


@given(ARMS, RULES, st.lists(st.floats(0, 1), min_size=5, max_size=5), st.integers(0, 10**6))
def test_what_holds_of_every_step(
    arms: dict[str, ArmWorth], rule: MovingRule, weights: list[float], interval: int
) -> None:
    names = [*sorted(arms), "shadow"]
    total = math.fsum(weights[: len(names)]) or 1.0
    shares = {name: weight / total for name, weight in zip(names, weights, strict=False)}
    step = next_shares("e", rule, shares, arms, interval)
    assert step == next_shares("e", rule, shares, arms, interval)
    assert step.after.keys() == shares.keys()
    assert step.after["shadow"] == shares["shadow"]
    assert math.fsum(step.after.values()) == pytest.approx(math.fsum(shares.values()))
    moved = math.fsum(abs(step.after[name] - shares[name]) for name in shares) / 2
    assert moved <= rule.most_moved + 1e-9
    assert step.moves == (step.reasons[0] == "thompson") == (moved > 0)
    together = [shares[name] for name in arms if shares[name] > 0]
    for name in arms:
        assert (step.after[name] > 0) <= (shares[name] > 0), "an arm that has ended comes back"
        least = min(rule.floor, math.fsum(together) / max(len(together), 1))
        assert step.after[name] >= min(shares[name], least) - 1e-9
    assert not step.moves or moved >= min(SMALLEST_MOVE, rule.most_moved) - 1e-9

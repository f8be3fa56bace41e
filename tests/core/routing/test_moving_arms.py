"""Arms whose places move: as few as the shares allow, over any number of moves, and with the same rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.routing.experiments import PLACES, Arm
from spillway_router.core.routing.moving_arms import (
    MOST_STRETCHES_PER_ARM,
    Stretch,
    moved_stretches,
    shares_in_force,
    shares_of,
    stretches_of,
    with_stretches,
)
from spillway_router.core.routing.rules import Conditions, Rule, Rules


def laid_out(**shares: float) -> tuple[Stretch, ...]:
    stretches, begins = [], 0
    for name, share in shares.items():
        ends = min(PLACES, begins + round(share * PLACES))
        stretches.append(Stretch(name, begins, ends))
        begins = ends
    return (*stretches[:-1], replace(stretches[-1], ends=PLACES))


def places(stretches: tuple[Stretch, ...], arm: str) -> int:
    return sum(one.length for one in stretches if one.arm == arm)


def changed(before: tuple[Stretch, ...], after: tuple[Stretch, ...]) -> int:
    """The places whose arm is another one."""
    kept = 0
    for old in before:
        for new in after:
            if old.arm == new.arm:
                kept += max(0, min(old.ends, new.ends) - max(old.begins, new.begins))
    return PLACES - kept


def rule(name: str, begins: int, ends: int, experiment: str = "e") -> Rule:
    arm = Arm(experiment=experiment, name=name, by="user", begins=begins, ends=ends)
    return Rule(f"{experiment}/{name}", Conditions(), chain=(name,), arm=arm)


RULES = Rules(
    (
        rule("b", 0, PLACES // 4),
        rule("control", PLACES // 4, PLACES),
        rule("x", 0, PLACES, "other"),
        Rule("r", Conditions()),
    )
)


def test_a_common_end_moves_and_nothing_else() -> None:
    before = laid_out(a=0.25, b=0.25, c=0.5)
    after = moved_stretches(before, {"a": 0.125, "b": 0.375, "c": 0.5})
    assert after == (
        Stretch("a", 0, PLACES // 8),
        Stretch("b", PLACES // 8, PLACES // 2),
        Stretch("c", PLACES // 2, PLACES),
    )


def test_arms_without_a_common_end_leave_those_between_them_alone_and_return_the_same_places() -> None:
    before = laid_out(a=0.25, b=0.25, c=0.5)
    after = moved_stretches(before, {"a": 0.125, "b": 0.25, "c": 0.625})
    assert [one.arm for one in after] == ["a", "c", "b", "c"]
    assert after[2] == before[1]
    assert moved_stretches(after, {"a": 0.25, "b": 0.25, "c": 0.5}) == before


def test_the_rules_of_an_arm_keep_their_effects_and_other_rules_their_place() -> None:
    moved = with_stretches(RULES, "e", (Stretch("control", 0, 5), Stretch("b", 5, 9), Stretch("control", 9, PLACES)))
    assert [one.name for one in moved.rules] == ["e/b", "e/control", "e/control", "other/x", "r"]
    assert {one.chain for one in moved.rules if one.name == "e/b"} == {("b",)}
    assert stretches_of(moved, "e") == (Stretch("control", 0, 5), Stretch("b", 5, 9), Stretch("control", 9, PLACES))
    assert shares_in_force(RULES) == {"e": {"b": 0.25, "control": 0.75}, "other": {"x": 1.0}}
    again = with_stretches(moved, "e", stretches_of(RULES, "e"))
    assert stretches_of(again, "e") == stretches_of(RULES, "e")
    unknown = with_stretches(RULES, "e", (Stretch("control", 0, PLACES), Stretch("new", 0, 9)))
    assert [one.name for one in unknown.rules] == ["e/control", "other/x", "r"]


SHARES = st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(sum)


@given(st.lists(SHARES, min_size=2, max_size=40))
def test_only_those_change_their_arm_who_must(steps: list[list[int]]) -> None:
    names = ("a", "b", "c", "control")
    stretches = laid_out(**dict.fromkeys(names, 0.25))
    for weights in steps:
        shares = {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True)}
        after = moved_stretches(stretches, shares)
        ends = [(one.begins, one.ends) for one in after]
        assert [begins for begins, _ in ends] == [0, *[end for _, end in ends[:-1]]]
        assert ends[-1][1] == PLACES
        for name in names:
            assert places(after, name) / PLACES == pytest.approx(shares[name], abs=2 / PLACES)
        must = sum(max(0, places(after, name) - places(stretches, name)) for name in names)
        laid_anew = len(after) == len({one.arm for one in after}) < len(stretches)
        assert changed(stretches, after) == must or laid_anew
        assert len(after) <= MOST_STRETCHES_PER_ARM * len(names)
        assert shares_of(after).keys() == {name for name in names if shares[name]}
        stretches = after

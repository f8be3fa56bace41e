"""Turns at long work: each owner's in its own line, and until the work has really ended."""

from __future__ import annotations

import asyncio
import threading

import pytest

from spillway_router.aio import fair_turns
from spillway_router.aio.fair_turns import TURNS_OF_A_REQUEST, FairTurns

LIMIT_S = 20.0


async def entered(turns: FairTurns, owner: str, gate: asyncio.Event, order: list[str]) -> None:
    async with turns.turn(owner):
        order.append(owner)
        await gate.wait()


async def queued(*works: asyncio.Task[None]) -> None:
    """Let tasks run until they wait."""
    for _ in range(5 * len(works)):
        await asyncio.sleep(0)


async def test_who_has_much_to_do_waits_behind_the_next_one_of_everybody_else() -> None:
    turns, gate, order = FairTurns(), asyncio.Event(), list[str]()
    works = [asyncio.create_task(entered(turns, owner, gate, order)) for owner in ("a", "a", "a", "b", "c")]
    await queued(*works)
    assert order == ["a"]
    gate.set()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*works)
    assert order == ["a", "b", "c", "a", "a"]


async def test_a_turn_lasts_until_the_thread_has_ended_though_its_caller_has_left() -> None:
    turns, begun, end = FairTurns(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end.wait(LIMIT_S)

    first = asyncio.create_task(turns.in_thread("a", work))
    await asyncio.to_thread(begun.wait, LIMIT_S)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(turns.in_thread("b", threading.get_ident))
    done, _ = await asyncio.wait({second}, timeout=0.05)
    assert not done
    end.set()
    async with asyncio.timeout(LIMIT_S):
        assert await second


async def test_who_leaves_the_line_keeps_nobody_back() -> None:
    turns, gate, order = FairTurns(), asyncio.Event(), list[str]()
    works = [asyncio.create_task(entered(turns, owner, gate, order)) for owner in ("a", "a", "b", "b", "c")]
    await queued(*works)
    for leaving in (works[1], works[2]):  # one waits for the own line, one for the turn
        leaving.cancel()
    await asyncio.wait({works[1], works[2]}, timeout=LIMIT_S)
    gate.set()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(works[0], works[3], works[4])
    assert sorted(order) == ["a", "b", "c"]


async def test_work_that_fails_ends_its_turn() -> None:
    turns = FairTurns()

    def fail() -> None:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await turns.in_thread("a", fail)
    assert await turns.in_thread("b", threading.get_ident) != threading.get_ident()


async def long_work(turns: FairTurns, owner: str, steps: int, order: list[str]) -> None:
    async with turns.turn(owner) as turn:
        for _ in range(steps):
            order.append(owner)
            await turn.step()


async def test_long_work_lets_others_have_the_turn_between_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_turns, "SHARE_S", 0.0)
    turns, order = FairTurns(), list[str]()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(
            long_work(turns, "long", 100, order), long_work(turns, "long", 1, order), long_work(turns, "b", 3, order)
        )
    # The second piece of the same owner waits for the end of the first.
    assert "".join(owner[0] for owner in order).rstrip("l") == "llblblb"
    assert order.count("long") == 101


async def test_nobody_waits_for_work_that_is_under_way_less_than_a_share() -> None:
    turns, order = FairTurns(), list[str]()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(long_work(turns, "a", 3, order), long_work(turns, "b", 3, order))
    assert order == ["a"] * 3 + ["b"] * 3


async def test_work_that_is_cancelled_while_others_have_the_turn_ends_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_turns, "SHARE_S", 0.0)
    turns, gate, order = FairTurns(), asyncio.Event(), list[str]()
    left = asyncio.create_task(long_work(turns, "left", 100, order))
    holding = asyncio.create_task(entered(turns, "holds", gate, order))
    waiting = asyncio.create_task(long_work(turns, "left", 1, order))
    await queued(left, holding, waiting)
    assert order[-1] == "holds"
    left.cancel()
    await asyncio.wait({left}, timeout=LIMIT_S)
    assert not holding.done()
    assert order.count("left") < 100
    gate.set()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(holding, waiting, long_work(turns, "c", 2, order))
    assert order[-3:] == ["left", "c", "c"]


@pytest.mark.parametrize(("step_s", "loop_turns"), [(0.0, 1), (0.002, 1), (0.015, TURNS_OF_A_REQUEST)])
async def test_a_short_request_waits_for_one_long_step_only(step_s: float, loop_turns: int) -> None:
    seconds, seen = 0.0, 0

    async def request() -> None:
        nonlocal seen
        while True:
            await asyncio.sleep(0)
            seen += 1

    async with FairTurns(lambda: seconds).turn("a") as turn:
        others = asyncio.create_task(request())
        await asyncio.sleep(0)
        for steps in range(1, 4):
            seconds += step_s
            await turn.step()
            assert seen == steps * loop_turns
    others.cancel()

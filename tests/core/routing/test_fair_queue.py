"""The order in which waiting requests go: in turns between callers, higher ranks first, nobody saving up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.routing.fair_queue import FairQueue, Work

WORK = Work(prompt_tokens=100, output_tokens=10)


def order(queue: FairQueue[str]) -> list[str]:
    return [queue.pop() for _ in range(len(queue))]


def test_callers_take_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(4):
        queue.put("flood", 0, f"flood {number}", WORK)
    queue.put("calm", 0, "calm", WORK)
    assert order(queue) == ["flood 0", "calm", "flood 1", "flood 2", "flood 3"]


def test_a_caller_who_comes_later_does_not_wait_behind_a_flood() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.put("flood", 0, f"flood {number}", WORK)
    for _ in range(50):
        queue.pop()
    queue.put("calm", 0, "calm", WORK)
    assert "calm" in [queue.pop(), queue.pop()]


def test_a_caller_with_larger_requests_goes_less_often() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(4):
        queue.put("large", 0, "large", Work(prompt_tokens=3000))
        queue.put("small", 0, "small", Work(prompt_tokens=1000))
    assert order(queue)[:5].count("small") >= 3


def test_nobody_saves_up_by_pausing() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("rare", 0, "rare", WORK)
    queue.put("flood", 0, "flood", WORK)
    queue.pop()
    queue.pop()
    for number in range(6):
        queue.put("flood", 0, "flood", WORK)
        queue.put("rare", 0, f"rare {number}", WORK)
    assert order(queue)[:6].count("flood") == 3


def test_a_higher_rank_goes_first() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("free", 1, "free", WORK)
    queue.put("paid", 0, "paid", WORK)
    assert queue.ahead_of("another free", 1).requests == 2
    assert queue.ahead_of("another paid", 0).requests == 1
    assert order(queue) == ["paid", "free"]


def test_what_goes_before_a_new_request() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(50):
        queue.put("flood", 0, "flood", WORK)
    assert queue.ahead_of("flood", 0) == Work(5000, 500, 50)
    assert queue.ahead_of("calm", 0) == Work(100, 10, 1)


def test_a_request_that_leaves_is_taken_out_once() -> None:
    queue: FairQueue[list[int]] = FairQueue()
    first, second = [1], [1]  # equal, but not the same
    queue.put("a", 0, first, WORK)
    queue.put("a", 0, second, WORK)
    queue.remove("a", second)
    queue.remove("a", second)
    queue.remove("nobody", second)
    assert len(queue) == 1
    assert queue.first() is first
    assert queue.ahead_of("a", 0) == Work(100, 10, 1)
    queue.remove("a", first)
    assert queue.first() is None
    with pytest.raises(LookupError):
        queue.pop()


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.integers(0, 5000), st.integers(0, 500)),
        ),
        max_size=60,
    )
)
def test_all_that_enters_leaves_once_and_in_its_order(
    acts: list[tuple[str, int, int, int] | None],
) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    entered: list[tuple[str, int]] = []
    left: list[tuple[str, int]] = []
    for number, act in enumerate(acts):
        if act is None:
            if len(queue):
                left.append(queue.pop())
            continue
        caller, rank, prompt_tokens, output_tokens = act
        queue.put(caller, rank, (caller, number), Work(prompt_tokens, output_tokens))
        entered.append((caller, number))
    left += [queue.pop() for _ in range(len(queue))]
    assert sorted(left) == sorted(entered)
    for caller in "abc":
        numbers = [number for name, number in left if name == caller]
        assert numbers == sorted(numbers)

"""What leaves by price: the cheapest per unit of GPU work of those that can wait no longer, never a private one."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.routing.backlog import BacklogView, EngineRates
from spillway_router.core.routing.leaving import (
    MAY_NOT_LEAVE,
    GatedRequest,
    GateTerms,
    by_density,
    density,
    has_room,
    next_to_enter,
    that_leave,
)

TERMS = GateTerms(slo_ttft_s=1.0, cloud_ttft_s=0.4)
RATES = EngineRates(prefill_tokens_per_s=10_000.0, kv_capacity_tokens=10_000)
IDLE = BacklogView()


def gated(
    number: int, prompt: int = 100, *, density: float = 1.0, at: float = 0.0, leaves: bool = True
) -> GatedRequest:
    by_s = TERMS.leave_by_s(at) if leaves else MAY_NOT_LEAVE
    return GatedRequest(
        number=number,
        prompt_tokens=prompt,
        output_tokens=10,
        arrived_s=at,
        leave_by_s=by_s,
        density=density if leaves else MAY_NOT_LEAVE,
    )


def test_the_density_is_the_price_per_second_of_work_that_the_engine_is_spared() -> None:
    coefficients = WorkCoefficients(prefill_ps=1_000_000, decode_ps=2_000_000, kv_ps=0)
    # 1,000 prompt tokens of 1 us and 500 of the answer of 2 us each are 2 ms of work.
    assert density(4_000, 1_000, 500, coefficients) == 2_000_000
    assert density(1, 0, 0, coefficients) == math.inf


def test_a_long_prompt_is_cheaper_to_send_away_per_second_of_work_than_a_short_one() -> None:
    price = [(150 * prompt + 600 * 200, prompt) for prompt in (200, 4_000)]
    short, long = (density(nano, prompt, 200, WorkCoefficients()) for nano, prompt in price)
    assert long < short


def test_the_engine_gets_the_densest_request_that_fits() -> None:
    waiting = [gated(1, density=1.0), gated(2, density=3.0), gated(3, density=2.0)]
    assert next_to_enter(waiting, IDLE, RATES, TERMS, 0.0) == waiting[1]
    huge = gated(4, 20_000, density=9.0)  # more than the KV cache has
    assert next_to_enter([*waiting, huge], IDLE, RATES, TERMS, 0.0) == waiting[1]


def test_a_full_queue_has_room_for_nobody() -> None:
    # 6,000 tokens at 10,000 a second are 0.6 s of waiting, more than half of the promise.
    busy = BacklogView(in_flight=4, waiting_first_token=4, prefill_tokens=6_000)
    assert next_to_enter([gated(1)], busy, RATES, TERMS, 0.0) is None


def test_a_request_whose_first_token_would_be_late_does_not_enter_unless_no_cloud_may_have_it() -> None:
    assert has_room(gated(1), IDLE, RATES, TERMS, 0.5)
    assert not has_room(gated(1), IDLE, RATES, TERMS, 1.0)
    assert has_room(gated(1, leaves=False), IDLE, RATES, TERMS, 1.0)


def test_nobody_leaves_before_the_last_moment_at_which_a_cloud_keeps_the_promise() -> None:
    early, late = gated(1, at=0.0), gated(2, at=0.2)
    assert TERMS.leave_by_s(0.2) == 0.8
    assert that_leave([early, late], 0.55, 0.02) == []
    assert that_leave([early, late], 0.59, 0.02) == [early]
    assert that_leave([early, late], 0.79, 0.02) == [early, late]


def test_a_cloud_that_is_slower_than_the_promise_gets_a_request_at_once_or_never() -> None:
    slow = GateTerms(slo_ttft_s=1.0, cloud_ttft_s=3.0)
    assert slow.leave_by_s(5.0) == 5.0


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 3), st.booleans()), max_size=12), st.floats(0, 20))
def test_a_private_request_never_leaves_and_goes_before_the_others(
    drawn: list[tuple[float, float, bool]], now_s: float
) -> None:
    waiting = [gated(number, density=dense, at=at, leaves=leaves) for number, (dense, at, leaves) in enumerate(drawn)]
    assert all(one.density < math.inf for one in that_leave(waiting, now_s, 0.02))
    private_first = [one.density == math.inf for one in by_density(waiting)]
    assert private_first == sorted(private_first, reverse=True)


def test_those_that_leave_together_are_sorted_by_what_they_relieve_for_their_price() -> None:
    waiting = [gated(1, density=5.0), gated(2, density=2.0), gated(3, density=4.0)]
    assert [one.number for one in that_leave(waiting, 0.6, 0.02)] == [2, 3, 1]

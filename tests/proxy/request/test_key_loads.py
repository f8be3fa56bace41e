"""The bucket of a key's tokens, and its places: what is taken comes back, no more goes out than the limits permit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.routing.model import KeyRules, Refusal
from spillway_router.proxy.request.key_loads import KeyLoads, KeyShare

Event = tuple[str, int, int]
"""What happens after some seconds: `enter` with tokens, or `leave` with a share of the tokens in percent."""
EVENTS = st.lists(st.tuples(st.sampled_from(["enter", "leave"]), st.integers(0, 60), st.integers(0, 200)), max_size=60)


@given(EVENTS, st.integers(0, 4), st.integers(1, 100))
def test_no_key_gets_more_than_its_limits(events: list[Event], concurrent: int, per_minute: int) -> None:
    loads, rules = KeyLoads(), KeyRules(concurrent=concurrent, tokens_per_minute=per_minute)
    now_s, used, largest = 1000.0, 0, 0
    shares: list[KeyShare] = []
    for kind, after_s, number in events:
        now_s += after_s
        if kind == "enter":
            share = loads.enter("k", rules, number, now_s)
            if isinstance(share, KeyShare):
                shares.append(share)
                largest = max(largest, number)
            else:
                assert share.retry_after_s is not None
                assert share.retry_after_s >= 1
        elif shares:
            share = shares.pop(0)
            spent = share.tokens * min(number, 100) // 100
            loads.leave(share, spent, now_s)
            used += spent
        assert loads.in_progress("k") == len(shares)
        assert not concurrent or len(shares) <= concurrent
        in_flight = sum(share.tokens for share in shares)
        # A bucket's worth, what filled up since, and the debt of the one request that was larger than the bucket.
        assert used + in_flight <= per_minute * (1 + (now_s - 1000.0) / 60) + largest


def test_the_wait_that_is_told_is_long_enough_and_not_longer() -> None:
    loads, rules = KeyLoads(), KeyRules(tokens_per_minute=60)
    taken = loads.enter("k", rules, 60, 0.0)
    assert isinstance(taken, KeyShare)
    refused = loads.enter("k", rules, 30, 0.0)
    assert isinstance(refused, Refusal)
    assert refused.retry_after_s == 30.0
    assert isinstance(loads.enter("k", rules, 30, 29.9), Refusal)
    assert isinstance(loads.enter("k", rules, 30, 30.1), KeyShare)
    loads.leave(taken, 0, 30.1)  # it used nothing, so that all of it is there again
    assert isinstance(loads.enter("k", rules, 60, 30.1), KeyShare)


def test_a_request_above_the_whole_bucket_goes_when_it_is_full_and_is_paid_off() -> None:
    loads, rules = KeyLoads(), KeyRules(tokens_per_minute=60)
    large = loads.enter("k", rules, 180, 0.0)
    assert isinstance(large, KeyShare)
    loads.leave(large, 180, 0.0)
    assert isinstance(loads.enter("k", rules, 180, 179.0), Refusal)
    assert isinstance(loads.enter("k", rules, 1, 122.0), KeyShare)

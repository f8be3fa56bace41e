"""Which caps bind a request: those of its key, its tier, its user and everybody, the more specific line of each."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.money.budget import BudgetError, period_start
from spillway_router.core.money.credits import Asker, Counted, CreditLine, caps_of

REQUESTS = frozenset[Counted]({"requests"})
TIERS, USERS = st.sampled_from(["", "gold"]), st.sampled_from(["u1", "u2"])
ASKERS = st.builds(Asker, st.sampled_from(["", "k1", "k2"]), TIERS, USERS)
LINES = st.lists(
    st.builds(
        CreditLine,
        st.sampled_from(["all", "each key", "each user", "key:k1", "tier:gold"]),
        st.sampled_from(["hour", "day", "month"]),
        st.integers(0, 5),
        st.sampled_from(["requests", "better"]),
    ),
    max_size=8,
)


@given(LINES, ASKERS, st.floats(0, 4e9))
def test_every_cap_comes_from_a_line_that_covers_the_asker_and_none_twice(
    lines: list[CreditLine], asker: Asker, wall_s: float
) -> None:
    caps = caps_of(lines, asker, REQUESTS, wall_s)
    assert Counter((cap.scope, cap.period) for cap in caps).total() == len({(cap.scope, cap.period) for cap in caps})
    mine = {"all", f"key:{asker.key_id}", f"tier:{asker.tier}", f"user:{asker.user_id}"}
    for cap in caps:
        assert cap.scope in mine
        assert (cap.counted, cap.start_ms) == ("requests", period_start(cap.period, wall_s) * 1000)
    covering = {line.period for line in lines if line.counted == "requests" and line.scope in ("all", "each user")}
    assert covering <= {cap.period for cap in caps}


@given(LINES, ASKERS)
def test_the_later_line_counts_for_the_same_asker_and_period(lines: list[CreditLine], asker: Asker) -> None:
    own = CreditLine("each user", "day", 7)
    caps = caps_of([*lines, own], asker, REQUESTS, 0.0)
    assert [cap.limit for cap in caps if (cap.scope, cap.period) == (f"user:{asker.user_id}", "day")] == [7]


@pytest.mark.parametrize("scope", ["backend:groq", "user:u1", "key:", "nobody", "tier"])
def test_a_scope_that_can_not_be_counted_is_refused(scope: str) -> None:
    with pytest.raises(BudgetError):
        CreditLine(scope, "day", 1)

"""Counts of refusals and privacy verdicts: bounded, complete, and without anything that a client or a backend wrote."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.routing.model import Refusal
from spillway_router.proxy.request.verdicts import MOST_COUNTED, OTHERS, Verdicts


def test_more_kinds_than_fit_are_counted_for_others() -> None:
    verdicts = Verdicts()
    for number in range(3 * MOST_COUNTED):
        verdicts.refused(f"k{number}", Refusal(402, "budget_exceeded", ""))
    counts = verdicts.take()
    assert len(counts) == MOST_COUNTED + 1
    assert counts.total() == 3 * MOST_COUNTED
    assert counts[next(verdict for verdict in counts if verdict.key_id == OTHERS)] == 2 * MOST_COUNTED
    assert not verdicts.take()


@given(st.text(), st.integers(400, 599))
def test_a_code_that_is_no_word_is_left_out(code: str, status: int) -> None:
    verdicts = Verdicts()
    verdicts.refused("k1", Refusal(status, code, "message"))
    (verdict,) = verdicts.take()
    assert verdict.reason in (f"{status}", f"{status} {code}")
    assert len(verdict.reason) <= 44
    assert " " not in verdict.reason[4:]


def test_counts_that_could_not_be_written_are_kept() -> None:
    verdicts = Verdicts()
    verdicts.refused("k1", Refusal(429, "rate_limited", ""))
    counts = verdicts.take()
    verdicts.refused("k1", Refusal(429, "rate_limited", ""))
    verdicts.put_back(counts)
    assert list(verdicts.take().values()) == [2]

"""The measurements of overload: a fault that is seeded makes each of them fail."""

from __future__ import annotations

import pytest
from evidence.overload.load import Reply

from evidence import measures_overload

SAID: list[str] = []
IN_TIME = Reply(200, "local", first_s=0.5, total_s=1.0, whole=True)
LATE = Reply(200, "local", first_s=5.0, total_s=6.0, whole=True)
BROKEN = Reply(200, "local", first_s=0.5, total_s=1.0, whole=False)


def test_late_and_broken_answers_are_no_goodput() -> None:
    assert [reply.in_time(measures_overload.SLO_S) for reply in (IN_TIME, LATE, BROKEN)] == [True, False, False]


def test_goodput_that_falls_under_load_is_seen() -> None:
    steps = [{"goodput_per_s": value} for value in (20.0, 8.0, 2.0)]
    assert measures_overload._share_of_peak(steps) == 0.1


@pytest.mark.load
def test_a_calm_client_with_the_key_of_the_flood_is_not_calm() -> None:
    (flooded,) = measures_overload.calm_key(SAID.append, seconds=8.0, calm_name="flood").values()
    assert flooded.value is not None
    assert flooded.value < 0.99

"""The demo's documents: reproducible, held out, and mixed in the stated proportions."""

from __future__ import annotations

from collections import Counter

import pytest
from demo.stages import pace, plan
from demo.workload import NOISE_SHARES, PRIVATE_SHARE, STREAM_SHARE, Sizes, arrive, draw

from spillway_server.demo_model.documents import exact


def test_same_seed_same_documents_and_another_seed_others() -> None:
    assert draw("burst", 0, 50, seed=3) == draw("burst", 0, 50, seed=3)
    assert not {j.text for j in draw("burst", 0, 50, seed=3)} & {j.text for j in draw("burst", 0, 50, seed=4)}


def test_mix_is_as_said() -> None:
    jobs = draw("burst", 0, 3000, seed=1)
    noises = Counter(job.noise for job in jobs)
    for name, share in NOISE_SHARES:
        assert noises[name] / len(jobs) == pytest.approx(share, abs=0.03)
    assert sum(job.private for job in jobs) / len(jobs) == pytest.approx(PRIVATE_SHARE, abs=0.02)
    assert sum(job.stream for job in jobs) / len(jobs) == pytest.approx(STREAM_SHARE, abs=0.03)


def test_answers_of_the_oracle_are_right() -> None:
    assert all(exact(job.answer, job.truth) for job in draw("burst", 0, 300, seed=1))


def test_no_document_comes_twice_and_early_ones_are_not_private() -> None:
    whole = plan(Sizes(burst=400), seed=1)
    assert len({job.text for job in whole.all}) == len(whole.all)
    assert not any(job.private for job in (*whole.warming, *whole.capacity))
    assert any(job.private for job in whole.burst)
    assert all(job.model == "local/demo" for job in whole.capacity)


def test_arrivals_come_in_order_at_the_rate() -> None:
    jobs = arrive(draw("burst", 0, 2000, seed=1), 50.0, seed=7)
    moments = [job.at_s for job in jobs]
    assert moments == sorted(moments)
    assert len(jobs) / moments[-1] == pytest.approx(50.0, rel=0.1)


@pytest.mark.parametrize(("capacity", "burst"), [(4.0, 40.0), (30.0, 75.0), (1000.0, 200.0)])
def test_burst_is_far_past_capacity_within_bounds(capacity: float, burst: float) -> None:
    rates = pace(capacity)
    assert rates.burst == burst
    assert rates.calm <= max(2.0, capacity / 2)

"""The measure of replays sees a model that is wrong: an engine twice as slow as the one that runs."""

from __future__ import annotations

import pytest
from evidence.measures_replay import ERROR, SCALE, error_vs_live
from loadtests.locust_runs.session import LOCUST


@pytest.mark.load
@pytest.mark.skipif(not LOCUST.exists(), reason="locust is not installed: `make loadtest` installs it")
def test_a_model_of_another_engine_is_seen() -> None:
    wrong = error_vs_live(lambda _line: None, 20.0, (("code", 0.5, 180.0),), modelled_scale=2 * SCALE)[ERROR]
    assert wrong.value is not None, wrong.details
    assert wrong.value > 0.3

"""The ratios are those of the compiled router: one that lost its build is not measured in its place."""

from __future__ import annotations

import pytest
from evidence.measures_bench import RATIOS, idle_rss, ratios

from evidence import measures_bench


def test_a_router_that_is_not_compiled_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    state = "interpreted (core/money/tariff.py has changed since it was compiled)"
    monkeypatch.setattr(measures_bench, "hot_path", lambda _python: state)
    lines: list[str] = []
    measured = ratios(lines.append) | idle_rss(lines.append)
    assert set(measured) == {*RATIOS, "bench.idle_rss"}
    for measurement in measured.values():
        assert measurement.value is None
        assert state in str(measurement.details)
    assert lines == []

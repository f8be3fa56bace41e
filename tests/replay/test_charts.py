"""Charts as SVG: axes, guides and dots where they belong."""

from __future__ import annotations

import re

from spillway_router.replay import charts


def test_a_logarithmic_axis_has_decades_and_its_guide_a_name() -> None:
    points = {"a": [(1.0, 0.05), (2.0, 3.0), (4.0, 0.0)]}
    drawn = charts.lines("t", points, charts.Axes(x="load (x)", y="s", guide=2.0, guide_name="promise", log=True))
    for tick in ("0.01", "0.1", "1", "10"):
        assert f">{tick}</text>" in drawn
    assert ">promise</text>" in drawn
    assert "nan" not in drawn
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', drawn)]
    assert heights[1] < heights[0] < heights[2]
    flat = charts.lines("t", points, charts.Axes("load (x)", "s"))
    assert ">promise</text>" not in flat

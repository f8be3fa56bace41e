"""Every page in a real headless Chromium: three widths, light and dark, clicks and keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest
from evidence.dashboard.browser import Place, Visit, look, missing
from evidence.dashboard.scene import business, places, stories

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
REQUIRED = "keys: {required: true}\n"


@pytest.mark.limit_s(300)
async def test_every_page_is_right_at_three_widths_light_and_dark(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=40, size=150, more=REQUIRED) as scene:
        visit = Visit(scene.router.url, places(scene), key=scene.key, stories=stories(scene.key))
        seen = await look(visit)
    assert (seen.failures, seen.axe, seen.foreign) == ([], [], [])
    assert seen.visits == 6 * len(places(scene))
    assert seen.checks >= 3 * seen.visits + 15


async def test_a_page_with_faults_is_noticed(tmp_path: Path) -> None:
    """A seeded fault: the test above can fail."""
    async with business(tmp_path, per_day=4) as scene:
        faulty = (Place("docs", "/docs"), Place("nowhere", "/money?from=2026-01-01&against=nothing"))
        seen = await look(Visit(scene.router.url, faulty, widths=(390,), schemes=("light",)))
        assert any("nowhere at 390 px, light: status 400" in failure for failure in seen.failures), seen

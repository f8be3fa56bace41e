"""Every page in a real headless Chromium: three widths, light and dark, clicks and keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest
from evidence.dashboard.browser import Place, Visit, look, missing
from evidence.dashboard.scene import business, places, stories

from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.ids import first_id
from spillway_router.ledger.records import Write
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing.harness import routing

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


LONG, TURNED = "very-long-name-" * 13, "نموذج \u202eevil"
STRANGE = ("<script>alert(1)</script>", TURNED, LONG, "x" * 200, "👩‍👩‍👧‍👦🔥 模型")


@pytest.mark.limit_s(200)
async def test_pages_hold_strange_names_and_huge_numbers(tmp_path: Path) -> None:
    async with business(tmp_path, per_day=2, more=REQUIRED) as scene:
        router = scene.router
        KeyStore(router.ledger.keys).create(KeySpec(LONG[:90], tier="x" * 90), bytes(6), bytes(32), 0)
        for name in STRANGE:
            await router.chat({"model": name, "user": name}, authorization=f"Bearer {scene.key}")
        rows = [_row(number, name, start_of(scene.last)) for number, name in enumerate(STRANGE)]
        router.ledger.commit([Write((row,)) for row in rows])
        pages = (
            *places(scene),
            Place("strange-request", f"/requests/{rows[2].request_id}"),
            Place("all-requests", "/requests"),
        )
        seen = await look(Visit(router.url, pages, key=scene.key, widths=(390, 1600), schemes=("light",)))
    assert (seen.failures, seen.axe, seen.foreign) == ([], [], [])


def _row(number: int, name: str, at_ms: int) -> Entry:
    return Entry(
        kind="charged",
        request_id=f"{first_id(at_ms + number)}feed{number:013x}",
        attempt_no=1,
        ts=at_ms + number,
        backend=name,
        provider="generic",
        model=name,
        decision="overflow",
        status="ok",
        amount_nano=10**15,
        prompt_tokens=10**11,
        completion_tokens=10**11,
        key_id=name,
        task=name,
    )


@pytest.mark.limit_s(200)
async def test_pages_without_a_request_say_what_to_do(tmp_path: Path) -> None:
    async with routing(REQUIRED, tmp_path) as router:
        key = KeyStore(router.ledger.keys).create(KeySpec("ann", role="admin"), bytes(6), bytes(32), 0).token
        names = ("money", "quality", "experiments", "what-if", "fleet", "requests", "my-usage", "keys", "reviews")
        pages = (Place("now", "/"), *(Place(name, f"/{name}") for name in names))
        seen = await look(Visit(router.url, pages, key=key, widths=(390, 1600), schemes=("light",)))
        first = (
            await router.client.get("/what-if", headers={"authorization": f"Bearer {key}", "accept": "text/html"})
        ).text
    assert (seen.failures, seen.axe, seen.foreign) == ([], [], [])
    assert "Choose a GPU and its price below." in first


async def test_a_page_with_faults_is_noticed(tmp_path: Path) -> None:
    """A seeded fault: the test above can fail."""
    async with business(tmp_path, per_day=4) as scene:
        faulty = (Place("docs", "/docs"), Place("nowhere", "/money?from=2026-01-01&against=nothing"))
        seen = await look(Visit(scene.router.url, faulty, widths=(390,), schemes=("light",)))
        assert any("nowhere at 390 px, light: status 400" in failure for failure in seen.failures), seen

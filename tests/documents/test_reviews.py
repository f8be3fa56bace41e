"""The review queue over real sockets: reviews are listed, shown with their source, decided once, and forgotten."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.documents.harness import ask, setup
from tests.documents.papers import STRANGE, answer, truth, wrong

from spillway_router.calibration.labelled import read
from spillway_router.documents.labels import review_labels
from spillway_router.documents.reviews import DAY_MS, QueueRules, ReviewQueue, review_with_document
from spillway_router.ledger.tables.reviews import ReviewDecision, ReviewRecord
from spillway_router.testing import MemoryLedger
from spillway_router.testing.harness import Router, error_of


@asynccontextmanager
async def waiting(local: str, folder: Path | None = None) -> AsyncIterator[tuple[Router, dict[str, Any]]]:
    """A router with one document in its queue, in which a local model read `local`."""
    async with setup(answer(local, 0.6), answer("no json"), folder=folder) as (_, _, router):
        extraction = await ask(router, STRANGE.text, {"parser": "none"})
        assert extraction["status"] == "review"
        yield router, extraction


async def decide(router: Router, review_id: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = await router.post(body, f"/v1/reviews/{review_id}", **router.admin)
    assert reply.status_code == 200, reply.text
    extraction: dict[str, Any] = reply.json()
    return extraction


async def test_a_review_is_shown_with_its_values_marked_in_the_source(tmp_path: Path) -> None:
    async with waiting(truth(STRANGE), tmp_path) as (router, extraction):
        listed = (await router.client.get("/v1/reviews", params={"state": "open"}, headers=router.admin)).json()
        assert listed["next"] is None
        (row,) = listed["data"]
        assert (row["id"], row["request_id"], row["state"]) == (extraction["review_id"], extraction["id"], "open")
        assert "local: 0.600 < 0.9" in row["why"]
        assert STRANGE.text not in str(listed)
        review = (await router.client.get(f"/v1/reviews/{row['id']}", headers=router.admin)).json()
        assert (review["document"], review["values"]) == (STRANGE.text, STRANGE.truth)
        assert "".join(segment["text"] for segment in review["highlighted"]) == STRANGE.text
        marked = {s["field"]: s["text"] for s in review["highlighted"] if s["field"]}
        for key, value in STRANGE.truth.items():
            if isinstance(value, float):
                assert float(marked[f"/{key}"]) == value
                start, end = review["fields"][f"/{key}"]["span"]
                assert STRANGE.text[start:end] == marked[f"/{key}"]
        assert review["fields"]["/AL"]["confidence"] < review["fields"]["/K1"]["confidence"]
        assert [step["step"] for step in review["steps"]] == ["local", "parser", "external"]


async def test_accepting_makes_a_label_that_says_right(tmp_path: Path) -> None:
    async with waiting(truth(STRANGE), tmp_path) as (router, extraction):
        review = await decide(router, extraction["review_id"], {"action": "accept"})
        assert (review["state"], review["values"]) == ("accepted", STRANGE.truth)
        (label,) = review_labels(router.ledger.reviews)
        assert (label["task"], label["model"], label["right"]) == ("biometry", "m", True)
        assert label["scores"]["value_min"] < 0
        assert set(label["values"].values()) == {True}
        assert str(STRANGE.truth["id"]) not in str(label)
        (answer,) = read([json.dumps(label)])
        assert (answer.right, answer.group) == (True, extraction["id"])
        assert answer.scores["value_min"] == pytest.approx(label["scores"]["value_min"])
        again = await router.post({"action": "dismiss"}, f"/v1/reviews/{extraction['review_id']}", **router.admin)
        assert (again.status_code, error_of(again)["code"]) == (409, "conflict")


async def test_correcting_makes_a_label_that_says_what_was_wrong(tmp_path: Path) -> None:
    async with waiting(wrong(STRANGE), tmp_path) as (router, extraction):
        right = {"AL": STRANGE.truth["AL"]}
        review = await decide(router, extraction["review_id"], {"action": "correct", "values": right})
        assert (review["state"], review["values"]) == ("corrected", STRANGE.truth)
        assert review["drafted"]["AL"] == 29.99
        start, end = review["fields"]["/AL"]["span"]
        assert float(STRANGE.text[start:end]) == STRANGE.truth["AL"]
        (label,) = review_labels(router.ledger.reviews)
        assert not label["right"]
        assert [field for field, good in label["values"].items() if not good] == ["/AL"]


async def test_an_invalid_decision_is_rejected_and_nothing_is_decided() -> None:
    async with waiting(truth(STRANGE)) as (router, extraction):
        place = f"/v1/reviews/{extraction['review_id']}"
        wrong_ones: tuple[tuple[dict[str, Any], str], ...] = (
            ({}, "action"),
            ({"action": "burn"}, "action"),
            ({"action": "accept", "values": {"AL": 1}}, "values"),
            ({"action": "correct"}, "values"),
            ({"action": "correct", "values": {"AL": "long"}}, "values"),
            ({"action": "correct", "values": {"colour": 1}}, "values"),
            ({"action": "accept", "colour": 1}, "colour"),
        )
        for body, param in wrong_ones:
            reply = await router.post(body, place, **router.admin)
            error = error_of(reply)
            assert (reply.status_code, error["code"], error["param"]) == (400, "invalid_request", param), body
        for missing in (
            await router.post({"action": "accept"}, "/v1/reviews/rev_none", **router.admin),
            await router.client.get("/v1/reviews/rev_none", headers=router.admin),
        ):
            assert (missing.status_code, error_of(missing)["code"]) == (404, "review_not_found")
        numbers = ("limit=x", "limit=0", "since_ms=-1", f"after={'9' * 5000}.x", "limit=٣")
        for query in ("state=burnt", "after=x", "colour=1", *numbers):
            reply = await router.client.get(f"/v1/reviews?{query}", headers=router.admin)
            assert (reply.status_code, error_of(reply)["param"]) == (400, query.partition("=")[0]), query
        assert router.ledger.reviews.count("open") == 1


async def test_a_document_without_a_draft_needs_all_values_or_is_dismissed() -> None:
    async with setup(answer("no json"), answer("none")) as (_, _, router):
        extraction = await ask(router, STRANGE.text, {"parser": "none"})
        assert extraction["values"] is None
        place = f"/v1/reviews/{extraction['review_id']}"
        assert (await router.post({"action": "accept"}, place, **router.admin)).status_code == 400
        some = await router.post({"action": "correct", "values": {"AL": 23.0}}, place, **router.admin)
        assert some.status_code == 400
        review = await decide(router, extraction["review_id"], {"action": "correct", "values": STRANGE.truth})
        assert review["values"] == STRANGE.truth
        assert list(review_labels(router.ledger.reviews)) == []
        other = await ask(router, STRANGE.text, {"parser": "none"})
        assert (await decide(router, other["review_id"], {"action": "dismiss"}))["state"] == "dismissed"


async def test_reviews_are_listed_in_pages() -> None:
    async with setup(answer("none")) as (_, _, router):
        for i in range(5):
            router.ledger.reviews.add(
                ReviewRecord(id=f"rev_{i}", request_id="r", created_ms=1000 + i // 2, schema_name="biometry")
            )
        seen: list[str] = []
        after: str | None = ""
        while after is not None:
            query = {"limit": "2", **({"after": after} if after else {})}
            page = (await router.client.get("/v1/reviews", params=query, headers=router.admin)).json()
            seen += [row["id"] for row in page["data"]]
            after = page["next"]
        assert seen == [f"rev_{i}" for i in (4, 3, 2, 1, 0)]


async def test_the_text_is_removed_some_days_after_the_decision_and_the_label_stays() -> None:
    async with waiting(wrong(STRANGE)) as (router, extraction):
        right = {"AL": STRANGE.truth["AL"]}
        await decide(router, extraction["review_id"], {"action": "correct", "values": right})
        table = router.ledger.reviews
        decided = table.get(extraction["review_id"])
        assert decided is not None
        assert decided.decided_ms is not None
        for days, emptied in ((6.9, 0), (7.1, 1)):
            at = (decided.decided_ms + days * DAY_MS) / 1000
            queue = ReviewQueue(table, lambda: QueueRules(keep_days=7), lambda at=at: at, lambda: "rev_x")
            assert await queue.forget() == emptied
        kept = table.get(extraction["review_id"])
        assert kept == replace(decided, content=None, outcome=None)
        assert STRANGE.text not in str(kept)
        review = (await router.client.get(f"/v1/reviews/{extraction['review_id']}", headers=router.admin)).json()
        assert (review["document"], review["values"]) == (None, None)
        assert [label["right"] for label in review_labels(table)] == [False]


def test_the_text_of_an_open_review_is_not_removed() -> None:
    table = MemoryLedger().reviews
    table.add(ReviewRecord(id="rev_1", request_id="r", created_ms=0, schema_name="biometry", content="{}"))
    assert table.forget(2**52) == 0


def test_labels_span_many_pages_and_leave_parsers_out() -> None:
    table = MemoryLedger().reviews
    for i in range(1203):
        step = "parser" if i % 3 == 0 else "local"
        table.add(
            ReviewRecord(
                id=f"rev_{i:04}",
                request_id="r",
                created_ms=i,
                schema_name="biometry",
                step=step,
                scores='{"scores": {}}',
                content="{}",
            )
        )
        table.decide(
            f"rev_{i:04}",
            ReviewDecision(
                state="accepted", outcome="{}", label='{"right": true, "fields": {}}', decided_ms=i, decided_by=""
            ),
        )
    assert sum(1 for _ in review_labels(table)) == 802
    assert sum(1 for _ in review_labels(table, since_ms=1200)) == 2


def test_a_review_whose_text_was_removed_is_shown_without_it() -> None:
    record = ReviewRecord(
        id="rev_1", request_id="r", created_ms=0, schema_name="biometry", state="accepted", decided_ms=1
    )
    assert review_with_document(record)["document"] is None

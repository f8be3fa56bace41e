"""A model's reading against the document itself, over real sockets: wrong values are doubted however sure the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.documents.harness import FREE, ask, setup, steps
from tests.documents.papers import answer

from spillway_router.documents.drafts import DraftContext, draft_of_answer
from spillway_router.documents.schemas import Schema, shipped_schemas
from spillway_router.documents.second_opinion import doubted_draft

REPORT = (
    "IOLMaster 700 Biometry\nPatient ID: K402211  Exam 2026-03-14\nEye: OD (right)\nK2: 44.90 D @ 92°\n"
    "WTW: 11.9 mm  CCT 541 µm\nK1: 43.10 D @ 2°\nAL: 23.87 mm  SNR 205\nACD: 3.21 mm  LT: 4.41 "
    "mm\nIOL +20.5 D  A const 119.1"
)
"""The layout of a shipped parser."""
FOREIGN = "OCULUS QRS device 9\nPatient: K402299 Eye examined: left\nAL 23.11 K1 43.0 K2 44.1 ACD 3.1 LT 4.4 WTW 11.9"
INVOICE = "Invoice 2026-114. 3 boxes of gloves, 12.50 EUR each. Total 37.50 EUR. Pay by 30 June."
TRUTH: dict[str, Any] = {
    "id": "K402211", "eye": "OD", "AL": 23.87, "K1": 43.1, "K2": 44.9, "ACD": 3.21, "LT": 4.41, "WTW": 11.9,
}  # fmt: skip
EMPTY = {"id": "", "eye": "OD", **dict.fromkeys(("AL", "K1", "K2", "ACD", "LT", "WTW"))}


def says(values: dict[str, Any], confidence: float | None = 0.995) -> Any:
    return answer(json.dumps(values), confidence)


@pytest.mark.parametrize("prefix", ["K", "Z", "QZ", "B"])
async def test_a_number_without_its_prefix_is_not_accepted_from_a_sure_model(prefix: str) -> None:
    text = REPORT.replace("K402211", f"{prefix}402211")
    async with setup(says({**TRUTH, "id": "402211"})) as (_, other, router):
        extraction = await ask(router, text)
        assert (extraction["step"], extraction["values"]["id"]) == ("parser", f"{prefix}402211")
        assert f"/id: its caption names {prefix}402211" in extraction["steps"][0]["why"]
        assert not other.seen


async def test_a_right_reading_of_an_unseen_prefix_is_accepted_from_the_local_model() -> None:
    async with setup(says(TRUTH)) as (_, _, router):
        extraction = await ask(router, REPORT)
        assert (extraction["step"], extraction["values"]) == ("local", TRUTH)


async def test_a_report_of_a_foreign_layout_is_answered_by_its_captions_and_nothing_leaves(tmp_path: Path) -> None:
    async with setup(says(EMPTY, 0.6), folder=tmp_path) as (_, other, router):
        extraction = await ask(router, FOREIGN)
        assert extraction["values"] == {
            "id": "K402299", "eye": "OS", "AL": 23.11, "K1": 43.0, "K2": 44.1, "ACD": 3.1, "LT": 4.4, "WTW": 11.9,
        }  # fmt: skip
        assert extraction["read_by"] == {"step": "parser", "backend": "parsers", "model": "captions"}
        assert (extraction["status"], extraction["cost_usd"]) == ("answered", FREE)
        assert extraction["fields"]["/AL"]["span"] == [FOREIGN.index("23.11"), FOREIGN.index("23.11") + 5]
        record = (await router.client.get(f"/v1/requests/{extraction['id']}")).json()
        assert record["backend"] == "parsers"
        assert not other.seen


async def test_a_wrong_eye_and_an_invented_number_are_not_accepted_from_an_external_model() -> None:
    odd = FOREIGN.replace("AL 23.11", "AL about 23.11")  # so captions alone are not sure
    truth = {**TRUTH, "id": "K402299", "eye": "OS", "AL": 23.11, "K1": 43.0, "K2": 44.1, "ACD": 3.1, "LT": 4.4}
    for field, value in (("id", "Z999999"), ("eye", "OD")):
        async with setup(says(EMPTY, 0.6), says({**truth, field: value}, None)) as (_, other, router):
            extraction = await ask(router, odd)
            assert extraction["status"] == "review"
            assert f"/{field}" in extraction["steps"][2]["why"]
            assert other.seen
    async with setup(says(EMPTY, 0.6), says(truth, None)) as (_, _, router):
        extraction = await ask(router, odd)
        assert (extraction["step"], extraction["values"]) == ("external", truth)


async def test_a_page_of_another_kind_goes_to_a_person_however_sure_the_models_are() -> None:
    read = {**EMPTY, "id": "2026-114", "AL": 37.5, "K1": 12.5, "WTW": 12.5}
    for values in (EMPTY, read):
        async with setup(says(values, 0.999), says(values, None)) as (_, _, router):
            extraction = await ask(router, INVOICE)
            assert (extraction["status"], steps(extraction)[0]) == ("review", ("local", "unsure"))
            assert "fewer than this kind of document has" in extraction["steps"][0]["why"]


@pytest.mark.parametrize(("read", "answers"), [("K402299", True), ("402299", False)])
async def test_a_number_under_an_unknown_caption_is_sure_if_the_local_model_reads_the_same(
    read: str, answers: bool
) -> None:
    """The model's own reading is wrong at the eye, so it does not answer; it agrees on the number, or does not."""
    text = FOREIGN.replace("Patient: K402299 Eye examined: left", "Subject: K402299\nEye: left")
    values = {**TRUTH, "id": read, "eye": "OD", "AL": 23.11, "K1": 43.0, "K2": 44.1, "ACD": 3.1, "LT": 4.4}
    async with setup(says(values, 0.9), answer("no json")) as (_, _, router):
        extraction = await ask(router, text)
        assert (extraction["status"] == "answered") == answers
        if answers:
            assert (extraction["values"]["id"], extraction["values"]["eye"]) == ("K402299", "OS")
            assert extraction["read_by"]["model"] == "captions"


async def test_where_parser_and_captions_disagree_neither_answers() -> None:
    """The layout's parser denies K1 above K2, so captions, which read both surely, do not answer either."""
    swapped = REPORT.replace("43.10", "46.90")
    async with setup(says(EMPTY, 0.6), answer("no json")) as (_, _, router):
        extraction = await ask(router, swapped)
        assert (extraction["status"], steps(extraction)[1]) == ("review", ("parser", "unsure"))
        assert "wrong order" in extraction["steps"][1]["why"]
        assert (await ask(router, REPORT, {"parser": "captions"}))["read_by"]["model"] == "captions"


SCALE = {
    "type": "object",
    "properties": {"kg": {"type": "number"}, "name": {"type": "string"}, "day": {"type": "string"}},
}


@pytest.mark.parametrize(
    ("values", "doubted"),
    [
        ({"kg": 71.5, "name": "Jane Doe", "day": "2026-03-14"}, set()),
        ({"kg": 71.6, "name": "Jane Doe", "day": "2026-03-14"}, {"/kg"}),
        ({"kg": 71.5, "name": "John Doe", "day": "2026-03-14"}, {"/name"}),
        ({"kg": 71.5, "name": "Jane", "day": "2026-03-15"}, {"/day"}),
    ],
)
def test_any_schema_s_values_need_a_place_in_the_document(values: dict[str, Any], doubted: set[str]) -> None:
    text = "Jane Doe weighs 71,50 kg (14.03.2026)"
    context = DraftContext(text, Schema("scale", SCALE))
    draft = draft_of_answer(json.loads(says(values, None).body), "external", context)
    judged = doubted_draft(draft, None, context)
    assert {pointer for pointer, field in judged.fields.items() if field.why} == doubted
    assert judged.confidence == pytest.approx(0.5 if doubted else 0.9)


def test_a_reading_of_nothing_is_doubted_in_any_schema() -> None:
    schema = {"type": "object", "properties": {"kg": {"type": ["number", "null"]}, "name": {"type": "string"}}}
    context = DraftContext("Jane Doe weighs 71,50 kg", Schema("scale", schema))
    draft = draft_of_answer(json.loads(says({"kg": None, "name": ""}, None).body), "external", context)
    judged = doubted_draft(draft, None, context)
    assert (judged.confidence, judged.why) == (0.5, ("2 of 2 values are empty",))


def test_a_calibration_does_not_excuse_a_value_that_is_nowhere() -> None:
    context = DraftContext(REPORT, shipped_schemas()["biometry"])
    draft = draft_of_answer(json.loads(says({**TRUTH, "id": "E999999"}).body), "local", context)
    judged = doubted_draft(replace(draft, calibrated=True, confidence=0.99), None, context)
    assert (judged.confidence, judged.fields["/id"].why) == (0.5, "not found in the document")

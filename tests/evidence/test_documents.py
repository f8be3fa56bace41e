"""The corpus of documents and its measures: deterministic, judged strictly, able to fail, and right in small."""

from __future__ import annotations

from dataclasses import replace

from evidence.documents.corpus import ARRANGEMENTS, CorpusDocument, document
from evidence.documents.foreign import LAYOUTS, foreign
from evidence.documents.kinds import certified, shares
from evidence.documents.reading import Outcome, counts, outcome_of
from evidence.documents.words import HELD_OUT, TUNING
from evidence.measures_documents import COVERAGE, FOREIGN, WRONG, judged_corpus, judged_foreign

from spillway_router.documents.captions.reading import read_captions
from spillway_router.documents.schemas import shipped_schemas

BIOMETRY = shipped_schemas()["biometry"]


def read_by_captions(page: CorpusDocument) -> Outcome:
    reading = read_captions(page.text, BIOMETRY.json_schema, BIOMETRY.captions())
    answered = reading.right_kind and reading.confidence >= 0.8
    return Outcome(page, answered, "captions", answered and reading.values != page.truth)


def test_documents_are_the_same_for_a_seed_and_of_every_arrangement() -> None:
    pages = [document(seed, HELD_OUT) for seed in range(300)]
    assert pages == [document(seed, HELD_OUT) for seed in range(300)]
    assert {page.arrangement for page in pages} == {name for name, _ in ARRANGEMENTS} | {"form"}
    clean = [page for page in pages if page.truth is not None and not page.damaged]
    for page in clean:
        assert page.truth is not None
        assert str(page.truth["id"]) in page.text
        assert all(
            f"{value:.2f}".rstrip("0").replace(".", "") in page.text.replace(",", "").replace(".", "")
            for value in page.truth.values()
            if isinstance(value, float)
        )


def test_what_is_held_out_is_not_for_tuning() -> None:
    houses = [{house for language in part.languages for house in language.houses} for part in (TUNING, HELD_OUT)]
    assert len(houses[1] - houses[0]) >= 19
    assert {"pt", "pl", "sv", "es", "it"} <= {language.code for language in HELD_OUT.languages}
    assert not {prefix for prefix in HELD_OUT.prefixes if prefix in ("P", "E", "MX")}  # those of the demo model
    forms = [{form for forms in part.kinds.values() for form in forms} for part in (TUNING, HELD_OUT)]
    assert not forms[0] & forms[1]


def test_captions_alone_are_seldom_wrong_on_held_out_documents() -> None:
    """A small version of the measure, without the engine."""
    results = [read_by_captions(document(seed, HELD_OUT)) for seed in range(400)]
    assert sum(one.answered for one in results) >= 200
    assert sum(one.wrong for one in results if not one.document.damaged) == 0
    assert not any(one.answered for one in results if one.document.kind != "biometry")


def test_foreign_reports_are_answered_without_a_mistake() -> None:
    results = [read_by_captions(foreign(seed)) for seed in range(120)]
    assert {one.document.arrangement for one in results} == set(LAYOUTS)
    assert sum(one.answered for one in results) >= 0.6 * 120
    assert not any(one.wrong for one in results)


def test_wrong_answers_break_the_promises() -> None:
    results = [replace(read_by_captions(document(seed, HELD_OUT)), answered=True, wrong=False) for seed in range(300)]
    assert judged_corpus(results)[WRONG].value == 0.01222
    assert judged_corpus(results)[COVERAGE].value == 1
    spoilt = [replace(one, wrong=number < 9) for number, one in enumerate(results)]
    assert (judged_corpus(spoilt)[WRONG].value or 0) > 0.03
    assert judged_foreign(results, results)[FOREIGN].value == 1
    assert judged_foreign(spoilt, results)[FOREIGN].value == 0


def test_an_answer_to_a_page_without_a_truth_is_wrong() -> None:
    page = CorpusDocument("Invoice 1", None, kind="invoice", arrangement="form", language="", damaged=False)
    reply = {"status": "answered", "step": "local", "read_by": {"model": "demo"}, "values": {"id": "1"}}
    assert outcome_of(page, reply) == Outcome(page, answered=True, by="local: demo", wrong=True)
    assert not outcome_of(page, {**reply, "status": "unsure"}).wrong
    assert counts([outcome_of(page, reply)])["kind: invoice"] == {
        "n": 1, "answered": 1, "wrong": 1, "by": {"local: demo": 1},
    }  # fmt: skip


def test_a_share_that_other_kinds_reach_is_not_certified() -> None:
    assert certified([0.125] * 1999 + [0.5], 8) == certified([0.125] * 1999 + [0.25], 8)
    assert certified([0.5] * 100, 8) is None
    reached = shares(HELD_OUT, 200)
    assert max(reached) < BIOMETRY.captions().certified  # type: ignore[operator]

"""The places of values in a text."""

from __future__ import annotations

from tests.documents.papers import CLEAN, STRANGE

from spillway_router.documents.highlight import Segment, TextSpan, pointers, segments, spans_of_values
from spillway_server.demo_model.documents import HELD_OUT_SEEDS, generate


def shown(text: str, values: dict[str, object]) -> dict[str, str]:
    spans = spans_of_values(text, dict(pointers(values)))
    return {pointer: text[place.start : place.end] for pointer, place in spans.items()}


def test_a_number_is_found_however_it_is_written() -> None:
    assert shown("AL 23,40 mm", {"AL": 23.4}) == {"/AL": "23,40"}
    assert shown("AL 23.400", {"AL": 23.4}) == {"/AL": "23.400"}
    assert shown("123.4 and 23.41 and 3.4", {"AL": 23.4}) == {}
    assert shown("shift -0.5", {"S": -0.5}) == {"/S": "-0.5"}
    assert shown("n 7", {"n": 7}) == {"/n": "7"}


def test_a_number_is_found_with_its_thousands_apart() -> None:
    for printed in ("1.234,50", "1,234.50", "1'234.5", "1 234,5", "1\u202f234,5"):
        assert shown(f"Total {printed} EUR", {"total": 1234.5}) == {"/total": printed}
    assert shown("1,234", {"a": 1234}) == shown("1,234", {"a": 1.234}) == {"/a": "1,234"}
    assert spans_of_values("1,234", {"/a": 1.234})["/a"].sure
    assert shown("1.234.567", {"a": 1234567, "b": 234.567}) == {"/a": "1.234.567"}


def test_texts_are_found_as_words_in_any_case_and_spacing() -> None:
    assert shown("Eye: od", {"eye": "OD"}) == {"/eye": "od"}
    assert shown("period", {"eye": "OD"}) == {}
    assert shown("Ann\n  Lee", {"name": "Ann Lee"}) == {"/name": "Ann\n  Lee"}
    assert shown("x", {"a": None, "b": True, "c": ""}) == {}


def test_equal_values_get_different_places_and_are_not_sure() -> None:
    spans = spans_of_values("1.5 then 1.5", {"/a": 1.5, "/b": 1.5, "/c": 1.5})
    assert spans == {"/a": TextSpan(0, 3, False), "/b": TextSpan(9, 12, False), "/c": TextSpan(0, 3, False)}


def test_nested_values_have_json_pointers() -> None:
    assert dict(pointers({"a": [1, {"b/c": "x"}], "d~": None})) == {"/a/0": 1, "/a/1/b~1c": "x", "/d~0": None}


def test_segments_cover_the_whole_text_even_if_places_overlap() -> None:
    spans = {"/a": TextSpan(3, 8), "/b": TextSpan(5, 9), "/c": TextSpan(10, 12)}
    cut = segments("0123456789abcdef", spans)
    assert "".join(segment.text for segment in cut) == "0123456789abcdef"
    assert [s for s in cut if s.field] == [Segment("34567", "/a"), Segment("ab", "/c")]
    assert segments("", {}) == []


def test_every_value_of_the_generators_clean_documents_is_found() -> None:
    for document in (CLEAN, STRANGE, *(generate(seed) for seed in HELD_OUT_SEEDS[:100])):
        # Some layouts name the eye only in words.
        values = {key: value for key, value in document.truth.items() if value is not None and key != "eye"}
        assert set(shown(document.text, values)) == {f"/{key}" for key in values}

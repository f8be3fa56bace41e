"""Parsers on the generator's documents, whose truth is known, and on texts crafted to stall them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.documents.papers import SCALE_PARSER

from spillway_router.documents.parser_files import Parser, ParserError, load_parsers, read_parser, shipped_parsers
from spillway_router.documents.parsers import LEFT_OUT, applies, parse, surest_reading
from spillway_router.documents.schemas import shipped_schemas, without_hints
from spillway_server.demo_model.documents import HELD_OUT_SEEDS, generate, json_schema
from spillway_server.demo_model.layouts import LAYOUTS

PARSERS = {parser.name: parser for parser in shipped_parsers()}
DOCUMENTS = 150
THRESHOLD = 0.8


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_reads_its_own_examples(name: str) -> None:
    parser = PARSERS[name]
    assert len(parser.examples) >= 2
    for example in parser.examples:
        reading = surest_reading(shipped_parsers(), example.text)
        assert reading is not None
        assert (reading.parser, reading.values) == (name, dict(example.values))
        assert reading.confidence >= 0.9
        for field in reading.fields.values():
            assert field.value is None or field.span is not None


@pytest.mark.parametrize("name", PARSERS)
def test_clean_documents_of_a_layout_are_read_exactly(name: str) -> None:
    for seed in HELD_OUT_SEEDS[:DOCUMENTS]:
        document = generate(seed, "clean", name)
        reading = surest_reading(shipped_parsers(), document.text)
        assert reading is not None
        assert reading.values == document.truth, document.text
        assert reading.confidence >= 0.9, reading.why


NOISES = ("clean", "light", "heavy", "truncated")


def test_what_is_accepted_of_damaged_documents_is_mostly_right(capsys: pytest.CaptureFixture[str]) -> None:
    """Print, per layout and noise, the share read exactly, and how many of those accepted at 0.8 are right."""
    accepted: Counter[str] = Counter()
    right: Counter[str] = Counter()
    lines = [f"exact, right/accepted of {DOCUMENTS}".ljust(32) + "".join(noise.ljust(18) for noise in NOISES)]
    for name in PARSERS:
        line = name.ljust(32)
        for noise in NOISES:
            exact, taken, good = read_all(name, noise)
            line += f"{exact / DOCUMENTS:.3f} {good}/{taken}".ljust(18)
            accepted[noise] += taken
            right[noise] += good
        lines.append(line.rstrip())
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert right["clean"] == accepted["clean"] == DOCUMENTS * len(PARSERS)
    assert right["truncated"] == accepted["truncated"] > 0
    assert right["light"] >= 0.88 * accepted["light"] > 0
    assert accepted["heavy"] <= 0.02 * DOCUMENTS * len(PARSERS)


def read_all(layout: str, noise: str) -> tuple[int, int, int]:
    """Count, of a layout's documents, those that were read exactly, were accepted, and were accepted and right."""
    exact = taken = good = 0
    for seed in HELD_OUT_SEEDS[:DOCUMENTS]:
        document = generate(seed, noise, layout)
        reading = surest_reading(shipped_parsers(), document.text)
        same = reading is not None and reading.values == document.truth
        sure = reading is not None and reading.confidence >= THRESHOLD
        exact, taken, good = exact + same, taken + sure, good + (same and sure)
    return exact, taken, good


def test_no_parser_applies_to_a_layout_without_one() -> None:
    for name in LAYOUTS.keys() - PARSERS.keys():
        assert not any(applies(parser, generate(10_000_003, "clean", name).text) for parser in PARSERS.values())


def test_the_schema_is_the_one_that_the_demo_model_was_trained_for() -> None:
    schema = shipped_schemas()["biometry"]
    assert without_hints(schema.json_schema) == json_schema()
    assert list(schema.json_schema["properties"]) == list(json_schema()["properties"])  # type: ignore[arg-type]


def small() -> Parser:
    return read_parser(SCALE_PARSER, "scale.yaml")


def test_a_value_outside_its_range_is_doubted() -> None:
    reading = parse(small(), "Scale 1\nWeight: 371.5 kg\nThank you")
    assert reading.values["kg"] == 371.5
    assert reading.confidence == pytest.approx(0.3)
    assert reading.why == ("kg: 371.5 is outside 0 to 300 kg",)


def test_two_different_values_are_a_conflict_and_equal_ones_are_not() -> None:
    assert parse(small(), "Scale 1\nWeight: 71.5 kg\nWeight: 71,5 kg\nThank you").confidence > 0.9
    reading = parse(small(), "Scale 1\nWeight: 71.5 kg\nWeight: 71.6 kg\nThank you")
    assert reading.confidence == pytest.approx(0.2)
    assert reading.why == ("kg: two different values",)


def test_values_in_the_wrong_order_are_doubted() -> None:
    reading = parse(small(), "Scale 1\nWeight: 71.5 kg\nLow: 80.0 kg\nThank you")
    assert reading.confidence == pytest.approx(0.3)
    assert "kg: in the wrong order with low" in reading.why


def test_a_missing_field_was_left_out_on_an_intact_page_and_is_unknown_on_a_damaged_one() -> None:
    whole = parse(small(), "Scale 1\nThank you")
    assert (whole.fields["kg"].value, whole.fields["kg"].confidence) == (None, LEFT_OUT)
    cut = parse(small(), "Scale 1\nWeight: 71.5 k")
    assert cut.confidence < 0.25
    assert cut.unknown_lines == 1
    assert "the last line of the layout is missing" in cut.why


def test_a_mark_of_no_value_is_a_value() -> None:
    reading = parse(small(), "Scale 1\r\n  Weight:   --- kg  \r\nThank you\r\n")
    assert reading.values == {"kg": None, "low": None}
    assert reading.fields["kg"].span is not None
    assert reading.confidence > 0.9


@pytest.mark.timeout(60)
def test_a_crafted_text_takes_linear_time() -> None:
    """The classic pattern of exponential time is linear in RE2; a backtracking matcher would never finish."""
    parser = read_parser(SCALE_PARSER.replace("Weight: {value} kg", "(?:(?:a+)+)+{value} kg"), "evil.yaml")
    reading = parse(parser, "Scale 1\n" + "a" * 50_000 + "!")
    assert reading.values["kg"] is None


BAD = {
    "not valid YAML": "fields: [",
    "Field required": "name: x",
    "missing )": SCALE_PARSER.replace("Scale .*", "Scale ("),
    "no look-around": SCALE_PARSER.replace("Scale .*", "(?=Scale)"),
    "add it to macros": SCALE_PARSER.replace("Weight:", "{nonsense}"),
    "needs {value}": SCALE_PARSER.replace("Weight: {value}", "Weight: {any}"),
    "is not a field": SCALE_PARSER.replace("[[low, kg]]", "[[low, gram]]"),
    "range is [least, most]": SCALE_PARSER.replace("[0, 300]", "[300, 0]"),
    "Extra inputs": SCALE_PARSER + "colour: red\n",
    "larger than 64 KiB": SCALE_PARSER + "#" * 70_000,
}


@pytest.mark.parametrize("reason", BAD)
def test_an_invalid_file_is_rejected_with_its_name_and_the_reason(reason: str) -> None:
    with pytest.raises(ParserError) as raised:
        read_parser(BAD[reason], "mine.yaml")
    assert str(raised.value).startswith("mine.yaml: ")
    assert reason in str(raised.value)


def test_own_parsers_add_to_the_shipped_ones_or_replace_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SCALE_PARSER)
    (tmp_path / "b.yaml").write_text(SCALE_PARSER.replace("name: scale", "name: argos_en"))
    names = [parser.name for parser in load_parsers(tmp_path)]
    assert sorted(names) == sorted({*PARSERS, "scale"})
    assert {p.schema for p in load_parsers(tmp_path) if p.name == "argos_en"} == {"weight"}
    (tmp_path / "c.yaml").write_text(SCALE_PARSER)
    with pytest.raises(ParserError, match="two parsers have the name scale"):
        load_parsers(tmp_path)
    with pytest.raises(ParserError, match="has no"):
        load_parsers(tmp_path / "nowhere")

"""Values of JSON answers: their places, their tokens, and what is wrong with them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.confidence import validators
from spillway_router.core.confidence.json_values import Value, is_required, required_pointers, scalars, tokens_by_value
from spillway_router.core.confidence.scores import Token
from spillway_router.core.confidence.validators import PromptSource, ValueRule, broken_rules, matches_schema

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 999) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def leaves(value: Any, pointer: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        items = [(key.replace("~", "~0").replace("/", "~1"), member) for key, member in value.items()]
    elif isinstance(value, list):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return [(pointer, value)]
    return [leaf for key, member in items for leaf in leaves(member, f"{pointer}/{key}")]


@given(JSON, st.sampled_from([None, 2]), st.booleans())
def test_every_scalar_of_any_json_is_found_where_it_stands(value: Any, indent: int | None, plain: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    values, end = scalars(text, 0)
    assert end == len(text)
    assert [(v.pointer, v.value) for v in values] == leaves(value)
    assert all(json.loads(text[v.start : v.end]) == v.value for v in values)


@given(JSON, st.lists(st.integers(1, 7), min_size=1, max_size=8))
def test_tokens_of_a_value_are_those_that_reach_into_it(value: Any, cuts: list[int]) -> None:
    text = json.dumps(value)
    tokens, at, turn = [], 0, 0
    while at < len(text):
        size = cuts[turn % len(cuts)]
        tokens.append(Token(text[at : at + size], -0.1 - turn))
        at, turn = at + size, turn + 1
    values, _ = scalars(text, 0)
    starts = [sum(len(t.text) for t in tokens[:i]) for i in range(len(tokens))]
    for one, owned in zip(values, tokens_by_value(values, tokens), strict=True):
        overlapping = [t for t, b in zip(tokens, starts, strict=True) if b < one.end and b + len(t.text) > one.start]
        assert owned == overlapping


@pytest.mark.parametrize(
    "text", ["", "{", '{"a"', '{"a":}', '{"a":1', "[1,", "[1 2]", '{"a":1 "b":2}', "{a:1}", "nope"]
)
def test_broken_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        scalars(text, 0)


def test_a_deep_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="deeper"):
        scalars("[" * 100 + "]" * 100, 0)


def test_required_fields_hold_what_is_below_them() -> None:
    required = required_pointers({"required": ["a/b", "c"]})
    assert is_required("/a~1b", required)
    assert is_required("/c/0/d", required)
    assert not is_required("/e", required)
    assert is_required("/e", required_pointers(None))


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    {"anyOf": [{"type": "number", "minimum": 2, "exclusiveMaximum": 9}, {"type": "null"}]},
    {"type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 1, "$defs": {"x": {"enum": [1, "a", None, True]}}},
    {"oneOf": [{"type": "string", "maxLength": 2}, {"const": "abc"}, {"type": "boolean"}]},
    {"allOf": [{"type": ["object", "array"]}, {"not": {}}], "maxProperties": 2} | {"allOf": [{"type": "object"}]},
    {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}},
]
VALUES: list[Any] = [
    *({}, {"a": 1}, {"a": 1.0}, {"a": True}, {"a": "x"}, {"a": ""}, {"b": 1}, {"a": 1, "b": 2}, {"a": None}),
    *(None, True, 1, 2, 8.5, 9, "a", "ab", "abc", [], [1], [True], ["a", None], [2], {"a": "x", "b": "y", "c": "z"}),
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_the_schema_check_agrees_with_the_reference(schema: dict[str, Any]) -> None:
    reference = jsonschema.Draft202012Validator(schema)
    assert [matches_schema(value, schema) for value in VALUES] == [reference.is_valid(value) for value in VALUES]


def test_a_schema_that_points_at_itself_ends() -> None:
    assert matches_schema({"a": 1}, {"$ref": "#"})
    assert not matches_schema(1, False)


def doubling(levels: int, leaf: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that asks for its leaf 2^levels times."""
    definitions: dict[str, Any] = {f"x{levels}": leaf}
    for level in range(levels):
        below = {"$ref": f"#/$defs/x{level + 1}"}
        definitions[f"x{level}"] = {"allOf": [below, below]}
    return {"$defs": definitions, "$ref": "#/$defs/x0"}


def test_a_schema_of_few_levels_is_checked_to_its_leaf() -> None:
    assert matches_schema(1, doubling(8, {"type": "integer"}))
    assert not matches_schema("a", doubling(8, {"type": "integer"}))


@pytest.mark.parametrize(
    "schema",
    [
        doubling(40, {}),
        {"anyOf": [doubling(40, {"type": "string"})], **doubling(40, {"type": "string"})},
        {
            "$defs": {"x": {"oneOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}]}},
            "oneOf": [{"$ref": "#/$defs/x"}] * 2,
        },
        {"items": {"enum": [*["a"] * 5000, 1]}},
        {"items": {"required": ["a"] * 5000}},
    ],
)
def test_a_check_that_would_take_too_long_says_nothing_against_the_answer(schema: dict[str, Any]) -> None:
    assert matches_schema([1] * 5000, schema)
    check = validators._SchemaCheck(schema)
    check.matches([1] * 5000, schema, 0)
    assert validators.MOST_STEPS < check.steps < 2 * validators.MOST_STEPS


def test_a_type_that_is_no_name_is_ignored() -> None:
    assert matches_schema(1, {"type": [["integer"], "string"]})


def test_the_source_is_searched_for_so_many_texts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validators, "MOST_SEARCHED", 35)
    source = PromptSource("ten chars.")
    assert [source.contains(text) for text in ("ten", "eleven", "chars", "ten", "eleven")] == [
        True,
        False,
        True,
        None,
        None,
    ]
    assert source.contains(12.5) is False


def test_a_value_stands_in_the_source_in_any_writing() -> None:
    source = PromptSource("Achslänge: 23,40 mm  ID  P12345\nAuge: rechts (OD)")
    assert source.contains(23.4) is True
    assert source.contains(23.41) is False
    assert source.contains("p12345") is True
    assert source.contains("rechts (OD)") is True
    assert source.contains(None) is None
    assert source.contains(True) is None


def test_rules_name_the_values_that_break_them() -> None:
    values = [Value("/AL", 40.0, 0, 0), Value("/id", "X1", 0, 0), Value("/K1", None, 0, 0), Value("/q", "9", 0, 0)]
    rules = [
        ValueRule("/AL", least=20.0, most=33.0),
        ValueRule("/id", pattern=r"[A-Z]\d"),
        ValueRule("/K1", least=1.0),
        ValueRule("/gone", in_source=True),
        ValueRule("/q", in_source=True),
    ]
    assert broken_rules(rules, values, PromptSource("nothing")) == ["/AL", "/q"]

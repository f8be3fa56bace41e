"""When two answers count as saying the same."""

from __future__ import annotations

import pytest

from spillway_router.core.confidence.agreement import agree, words_in_common


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"a": 1, "b": [1, 2]}', '{"b": [1.0, 2], "a": 1}', True),
        ('{"a": "x "}', '```json\n{"a": "x"}\n```', True),
        ('{"a": 1}', '{"a": 2}', False),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": 1}', '{"a": 1, "b": null}', False),
        ("[1, 2]", "[1, 2, 3]", False),
        ('{"a": {"b": null}}', '{"a": {"b": null}}', True),
        ('{"a": 1}', "a is 1", False),
        ('{"a": 1', '{"a": 1', True),  # broken documents are text
        ("The capital is Paris.", "the capital is PARIS", True),
        ("Paris", "It is Rome, of course.", False),
        ("23.45 mm", "23.54 mm", False),
        ("", "", True),
        ("", "something", False),
    ],
)
def test_what_agrees(one: str, other: str, same: bool) -> None:
    assert agree(one, other) == same
    assert agree(other, one) == same


def test_words_in_common_is_the_f1_of_both() -> None:
    assert words_in_common("a b c d", "a b x") == pytest.approx(2 * 2 / 7)

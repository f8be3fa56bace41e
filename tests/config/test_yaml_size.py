"""Aliases that stand for millions of values are refused before anything expands them."""

from __future__ import annotations

import pytest
import yaml

from spillway_router.config.load import ConfigError, parse
from spillway_router.config.yaml_size import is_too_large


def bomb(levels: int, width: int = 9) -> str:
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize("text", [bomb(6), bomb(30), "a: &a [*a]", "a: &a {b: *a}", "a: &a {b: &b [*a, *b]}"])
def test_a_bomb_is_refused_at_once(text: str) -> None:
    assert is_too_large(yaml.compose(text, Loader=yaml.SafeLoader))
    with pytest.raises(ConfigError) as refused:
        parse(text, {})
    assert "aliases stand for more than" in str(refused.value)


@pytest.mark.parametrize("text", ["", "a: 1", bomb(3), "a: &a [1]\nb: *a\nc: [*a, *a]", "x: [" + "1, " * 5000 + "1]"])
def test_an_ordinary_text_is_not(text: str) -> None:
    assert not is_too_large(yaml.compose(text, Loader=yaml.SafeLoader))

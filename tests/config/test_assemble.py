"""A backend derived from its settings, its provider's catalogue entry and the price list."""

from __future__ import annotations

from datetime import date

import pytest

from spillway_router.config import load
from spillway_router.config.assemble import assembly_of
from spillway_router.config.load import Loaded


@pytest.mark.parametrize(
    ("model", "vision"),
    [("openai/gpt-oss-20b", False), ("qwen/qwen3.8-27b", True)],
)
def test_the_price_list_says_which_models_see_images(model: str, vision: bool) -> None:
    environment = {"GROQ_API_KEY": "k"}
    text = f"backends: [{{name: groq, provider: groq, model: {model}}}]\n"
    assembly = assembly_of(Loaded(load.parse(text, environment), None, text, environment), date(2026, 11, 20))
    assert ("vision" in assembly.policy.backends["groq"].capabilities) == vision

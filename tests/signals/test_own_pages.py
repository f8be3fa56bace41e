"""What engines say of themselves on their own pages, as recorded, and that no odd page raises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.routing.backlog import EngineLoad
from spillway_router.signals.engines import ENGINE_METRICS, LLAMACPP
from spillway_router.signals.exposition import ExpositionReader
from spillway_router.signals.own_pages import (
    EngineAbilities,
    busy_slots,
    llamacpp_props,
    ollama_loaded,
    tei_info,
)

DATA = Path(__file__).parent / "data"
PROPS = json.loads((DATA / "llamacpp_b11549_props.json").read_text())
SLOTS = json.loads((DATA / "llamacpp_b11549_slots.json").read_text())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("default_generation_settings", "chat_template_caps", "total_slots", "models", "max_input_length")


def test_llamacpp_says_its_slots_and_a_template_without_tools() -> None:
    assert llamacpp_props(PROPS, "demo") == EngineAbilities(1024, frozenset({"tools"}), 2)
    with_tools = {**PROPS, "chat_template_caps": {**PROPS["chat_template_caps"], "supports_tools": True}}
    assert llamacpp_props(with_tools, "demo").lacks == frozenset()
    older = {name: value for name, value in PROPS.items() if name != "chat_template_caps"}
    assert llamacpp_props(older, "demo") == EngineAbilities(1024, frozenset(), 2)


def test_the_recorded_page_of_llamacpp_lacks_nothing() -> None:
    sample = ExpositionReader(LLAMACPP).read((DATA / "llamacpp_b11549.txt").read_text())
    assert (sample.load, sample.missing) == (EngineLoad(0, 0, 0), ())


def test_busy_slots_are_counted() -> None:
    assert busy_slots(SLOTS) == 0
    assert busy_slots([{**SLOTS[0], "is_processing": True}, SLOTS[1]]) == 1
    assert busy_slots({"error": "no"}) is None
    assert busy_slots([1]) is None


@pytest.mark.parametrize(
    ("model", "listed", "context"),
    [
        ("llama3.2", "llama3.2:latest", 4096),
        ("llama3.2:3b", "llama3.2:3b", 4096),
        ("hf.co/a/b:Q4_K_M", "hf.co/a/b:Q4_K_M", 4096),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest", 4096),
        ("llama3.2:3b", "llama3.2:1b", None),
    ],
)
def test_ollama_says_the_context_of_what_is_in_memory(model: str, listed: str, context: int | None) -> None:
    page = {"models": [{"name": listed, "model": listed, "context_length": 4096}]}
    assert ollama_loaded(page, model) == EngineAbilities(context)


def test_tei_says_its_longest_input_unless_it_truncates() -> None:
    page = {"max_input_length": 512, "max_concurrent_requests": 64, "auto_truncate": False}
    assert tei_info(page, "m") == EngineAbilities(512, sequences=64)
    assert tei_info({**page, "auto_truncate": True}, "m") == EngineAbilities(sequences=64)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5))
def test_odd_pages_say_nothing_and_raise_nothing(page: dict[str, Any]) -> None:
    for metrics in ENGINE_METRICS.values():
        if metrics.own_page is not None:
            abilities = metrics.own_page(page, "m")
            assert abilities.context_tokens is None or abilities.context_tokens > 0
            assert abilities.sequences is None or abilities.sequences > 0
    assert busy_slots(page) is None

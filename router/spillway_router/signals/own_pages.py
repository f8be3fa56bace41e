"""What engines other than vLLM say of themselves on pages of their own: context length, slots, what a template lacks.

Each reader takes the JSON object of one page and the name of the model, and returns an `EngineAbilities`. Nothing in a
page raises: what is missing or odd is not known. The sources are:

- llama.cpp, `GET /props`: its server's README, and pages of build b11549, whose recorded form is in
  tests/signals/data. `total_slots` answers run at once, each with `n_ctx` tokens. A chat template that has no place for
  tools drops them without a word: `chat_template_caps` says so.
- Ollama, `GET /api/ps`: docs/api.md. It lists the models in memory, with the context that each was loaded with. A
  prompt that is longer is cut without a word, so the length matters more here than anywhere.
- text-embeddings-inference, `GET /info`: router/src/lib.rs. An input that is too long gets a 413, unless the server
  truncates by itself (`auto_truncate`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from spillway_router.core.routing.model import Capability

LARGEST: Final = 2**31


@dataclass(frozen=True, slots=True)
class EngineAbilities:
    """What an engine said of itself. None, or nothing lacking, where it did not say."""

    context_tokens: int | None = None
    lacks: frozenset[Capability] = frozenset()
    sequences: int | None = None
    """How many requests it runs at once; further ones wait there."""


def busy_slots(page: object) -> int | None:
    """Return how many slots of llama.cpp's `/slots` work on a request; None for anything else than its list."""
    if not isinstance(page, list) or not all(isinstance(slot, dict) for slot in page):
        return None
    return sum(slot.get("is_processing") is True for slot in page)


OwnPage = Callable[[Mapping[str, Any], str], EngineAbilities]
"""Reads a page: its JSON object and the name of the model."""


def llamacpp_props(page: Mapping[str, Any], _model: str) -> EngineAbilities:
    """Read `/props` of llama.cpp's server."""
    settings, caps = page.get("default_generation_settings"), page.get("chat_template_caps")
    lacks: set[Capability] = set()
    if isinstance(caps, dict) and caps.get("supports_tools") is False:
        lacks.add("tools")
    return EngineAbilities(
        positive(settings.get("n_ctx")) if isinstance(settings, dict) else None,
        frozenset(lacks),
        positive(page.get("total_slots")),
    )


def ollama_loaded(page: Mapping[str, Any], model: str) -> EngineAbilities:
    """Read `/api/ps` of Ollama. A model that is not in memory is not listed."""
    listed = page.get("models")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and _full_name(model) in (entry.get("name"), entry.get("model")):
            return EngineAbilities(positive(entry.get("context_length")))
    return EngineAbilities()


def tei_info(page: Mapping[str, Any], _model: str) -> EngineAbilities:
    """Read `/info` of text-embeddings-inference. Where it truncates by itself, no input is too long."""
    if page.get("auto_truncate") is True:
        return EngineAbilities(sequences=positive(page.get("max_concurrent_requests")))
    return EngineAbilities(
        positive(page.get("max_input_length")), sequences=positive(page.get("max_concurrent_requests"))
    )


def positive(value: object) -> int | None:
    """Return a whole number above 0 and below 2^31; None for anything else."""
    return value if type(value) is int and 0 < value < LARGEST else None


def _full_name(model: str) -> str:
    """Return a model's name with its tag, which Ollama adds where it is left out."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"

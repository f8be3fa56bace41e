"""The two shapes of the list of models: OpenAI's, and Anthropic's for clients that say `anthropic-version`.

The clients of both protocols ask the same paths. Anthropic's own libraries send the header with every request, and read
dates and names that OpenAI's shape lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_ANTHROPIC_HEADER = "anthropic-version"


def speaks_anthropic(headers: Mapping[str, str]) -> bool:
    """Return whether the client expects Anthropic's shapes on a path that both protocols have."""
    return _ANTHROPIC_HEADER in headers


def model_entry(name: str, created_s: int, anthropic: bool) -> dict[str, Any]:
    """Describe one model. `created_s` counts seconds since 1970."""
    if not anthropic:
        return {"id": name, "object": "model", "created": created_s, "owned_by": "spillway"}
    created_at = datetime.fromtimestamp(created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": name, "display_name": name, "created_at": created_at, "lifecycle": "active"}


def model_list(entries: Sequence[Mapping[str, Any]], anthropic: bool) -> dict[str, Any]:
    """Return the list of all models, in Anthropic's shape as its only page."""
    if not anthropic:
        return {"object": "list", "data": entries}
    names = [str(entry["id"]) for entry in entries]
    ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
    return {"data": entries, **ends, "has_more": False}

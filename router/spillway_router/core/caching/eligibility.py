"""Which requests may be answered with a stored answer: those that a model would answer alike, and that do nothing else.

A reason token says why another one may not:

    sampled     its temperature is above 0, or absent, which stands for the default of 1: every answer is another one
    tools       a tool of the provider looks something up, runs code or acts, so that an old answer is a wrong one
    context     it goes on from what its provider stored, such as an earlier response, which its body doesn't show
    stored      its provider stores the answer, under an id that the client may read, go on from and delete
    audio       its answer has a recording, whose id expires at the provider
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from spillway_router.core.routing.model import Endpoint

Ineligible = Literal["", "sampled", "tools", "context", "stored", "audio"]

_CLIENTS_TOOLS = ("function", "custom")
"""Types of tools that the client itself runs. Anthropic's have no type or `custom`."""
_PROVIDERS_TOOLS = ("web_search_options", "plugins", "mcp_servers", "container", "search_parameters")
"""Fields that have a provider search, run or ask something."""
_STORED_CONTEXT = ("previous_response_id", "conversation", "prompt")
"""Fields of /v1/responses that name what the provider has stored."""


def why_ineligible(endpoint: Endpoint, body: Mapping[str, Any], *, sampled: bool) -> Ineligible:
    """Return why a request may not be answered from the cache, "" if it may. `sampled`: its temperature may be any."""
    if endpoint == "embeddings":
        return ""
    if _has_providers_tools(body):
        return "tools"
    if endpoint == "responses":
        if any(body.get(name) for name in _STORED_CONTEXT) or _refers_to_items(body.get("input")):
            return "context"
        if body.get("store") is not False:  # its default is to store
            return "stored"
    elif body.get("store"):
        return "stored"
    modalities = body.get("modalities")
    if body.get("audio") or (isinstance(modalities, list) and "audio" in modalities):
        return "audio"
    return "" if sampled or _is_greedy(body.get("temperature")) else "sampled"


def _is_greedy(temperature: object) -> bool:
    return type(temperature) in (int, float) and temperature == 0


def _has_providers_tools(body: Mapping[str, Any]) -> bool:
    if any(body.get(name) for name in _PROVIDERS_TOOLS):
        return True
    tools = body.get("tools")
    if not tools:
        return False
    return not isinstance(tools, list) or any(
        not isinstance(tool, dict) or tool.get("type", "custom") not in _CLIENTS_TOOLS for tool in tools
    )


def _refers_to_items(items: object) -> bool:
    return isinstance(items, list) and any(
        isinstance(item, dict) and item.get("type") == "item_reference" for item in items
    )

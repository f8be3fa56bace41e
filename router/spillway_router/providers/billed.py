"""What an answer says about its bill besides tokens: how often the provider's own tools were used, and the cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

_REQUESTS = "_requests"
_COUNTED_USES = (
    "num_sources_used", "num_search_queries", "num_server_side_tools_used", "search_units", "classifications"
)  # fmt: skip
_SEARCH_CONTEXT = "search_context"
_SIZES = ("low", "medium", "high")
_CALL = "_call"
_CONTAINER = "code_interpreter"
_MOST_USES = 10**6
_LONGEST_COUNT = 16
_MOST_USD = 10**6
"""A cost above this is nonsense."""
_HOSTED = frozenset(
    {"web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "mcp_call"}
)


def uses_in_usage(usage: Mapping[str, Any]) -> tuple[tuple[str, int], ...]:
    """Return the uses of the provider's tools that the usage counts, by the names of their fees.

    Anthropic's `server_tool_use` holds `web_search_requests` and its kin; xAI, Perplexity and Cohere count beside the
    tokens. Perplexity's fee of a request is by the size of the context that was searched: `search_context_low`.
    """
    uses = usage.get("server_tool_use")
    counted = [
        (name.removesuffix(_REQUESTS), count)
        for name, value in (uses.items() if isinstance(uses, dict) else ())
        if name.endswith(_REQUESTS) and (count := _uses(value))
    ]
    counted += [(name, count) for name in _COUNTED_USES if (count := _uses(usage.get(name)))]
    if usage.get(f"{_SEARCH_CONTEXT}_size") in _SIZES:
        counted.append((f"{_SEARCH_CONTEXT}_{usage[f'{_SEARCH_CONTEXT}_size']}", 1))
    return tuple(counted)


def _uses(value: object) -> int:
    """Return how often a tool was used, at most _MOST_USES; 0 for what is no count. Some gateways write counts as
    floats or as text."""
    if type(value) is str and value.isascii() and value.isdecimal():
        value = int(value[:_LONGEST_COUNT])
    if type(value) is float and 0 < value <= _MOST_USES:
        value = math.ceil(value)
    return min(value, _MOST_USES) if type(value) is int and value > 0 else 0


def uses_in_output(output: object) -> tuple[tuple[str, int], ...]:
    """Return the uses of OpenAI's tools in the `output` of a response, by the kind of their items.

    Of a web search only the searches are billed, not the pages it opened; all calls of a container share its fee.
    """
    uses: dict[str, int] = {}
    containers: set[str] = set()
    for item in output if isinstance(output, list) else ():
        kind = item.get("type") if isinstance(item, dict) else None
        if not isinstance(kind, str) or kind not in _HOSTED:
            continue
        action = item.get("action")
        if isinstance(action, dict) and action.get("type") not in (None, "search"):
            continue
        name = kind.removesuffix(_CALL)
        if name == _CONTAINER:
            containers.add(str(item.get("container_id")))
            uses[name] = len(containers)
        else:
            uses[name] = uses.get(name, 0) + 1
    return tuple(uses.items())


def told_cost_nano(usage: Mapping[str, Any]) -> int | None:
    """Return the cost that OpenRouter tells, in nano-dollars; None if it tells none that makes sense.

    With an own key of the account at the provider behind it, that provider's bill comes on top.
    """
    cost = _dollars(usage.get("cost"))
    if cost is None:
        return None
    details = usage.get("cost_details")
    if usage.get("is_byok") is True and isinstance(details, dict):
        cost += _dollars(details.get("upstream_inference_cost")) or Decimal(0)
    return int(cost.scaleb(9).quantize(Decimal(1), ROUND_HALF_UP))


def _dollars(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value) or not 0 <= value <= _MOST_USD:
        return None
    return Decimal(str(value))

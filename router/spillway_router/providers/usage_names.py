"""Usage in the names of other APIs, put into those that usage.py reads.

Gateways in front of other APIs hand their usage through as it is. Each family of names below says which counts stand
beside each other and which within:

    Bedrock    inputTokens leaves out cacheReadInputTokens and cacheWriteInputTokens, as Anthropic's names do
               (docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html); some replies end the two in Count
    AI SDK     inputTokens or promptTokens includes cachedInputTokens, outputTokens includes reasoningTokens
               (ai-sdk.dev/docs/reference/ai-sdk-core/generate-text)
    Gemini     thoughtsTokenCount stands beside candidatesTokenCount, toolUsePromptTokenCount beside promptTokenCount,
               and cachedContentTokenCount within it (ai.google.dev/api/generate-content#UsageMetadata)
    Cohere     billed_units is what is charged, tokens what the model saw (docs.cohere.com/reference/chat)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OURS = frozenset({"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"})
_SAME = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "promptTokens": "prompt_tokens",
    "completionTokens": "completion_tokens",
    "totalTokens": "total_tokens",
    "reasoningTokens": "reasoning_tokens",
    "cachedInputTokens": "cached_tokens",
    "cacheReadInputTokens": "cache_read_input_tokens",
    "cacheReadInputTokenCount": "cache_read_input_tokens",
    "cacheWriteInputTokens": "cache_creation_input_tokens",
    "cacheWriteInputTokenCount": "cache_creation_input_tokens",
    "totalTokenCount": "total_tokens",
    "thoughtsTokenCount": "reasoning_tokens",
    "cachedContentTokenCount": "cached_tokens",
}
_GEMINI_PROMPT = ("promptTokenCount", "toolUsePromptTokenCount")
_GEMINI_OUTPUT = ("candidatesTokenCount", "thoughtsTokenCount")
_UNITS = "billed_units"
_TOKENS = "tokens"


def in_known_names(usage: dict[str, Any]) -> dict[str, Any]:
    """Return a usage object in the names that are read. One that has such a name already, or none of another API's, is
    returned as it is."""
    if not usage.keys().isdisjoint(_OURS):
        return usage
    units = usage.get(_UNITS)
    if type(units) is dict or type(usage.get(_TOKENS)) is dict:
        return _of_cohere(usage, units)
    named = {_SAME[name]: value for name, value in usage.items() if name in _SAME}
    prompt, output = _sum(usage, _GEMINI_PROMPT), _sum(usage, _GEMINI_OUTPUT)
    if prompt is not None:
        named["prompt_tokens"] = prompt
    if output is not None:
        named["completion_tokens"] = output
    return {**usage, **named} if named else usage


def _of_cohere(usage: dict[str, Any], units: object) -> dict[str, Any]:
    """Return the counts that Cohere bills; those that the model saw where it bills none."""
    counts = units if type(units) is dict and "input_tokens" in units else usage.get(_TOKENS)
    counted = dict(usage)
    if type(counts) is dict:
        counted |= {name: counts.get(name) for name in ("input_tokens", "output_tokens")}
    if type(units) is dict:
        counted |= {name: units[name] for name in ("search_units", "classifications") if name in units}
    return counted


def _sum(usage: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """Return the sum of these counts; None if there is none."""
    counts = [usage[name] for name in names if type(usage.get(name)) is int]
    return sum(counts) if counts else None

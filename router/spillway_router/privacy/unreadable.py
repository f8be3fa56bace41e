"""Content in which nothing can be searched: pictures, recordings, files, token ids and stored input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_READABLE = frozenset(
    {
        "text",
        "input_text",
        "output_text",
        "refusal",
        "message",
        "thinking",
        "reasoning",
        "reasoning_text",
        "summary_text",
    }
    | {"tool_use", "tool_result", "function", "function_call", "function_call_output", "custom_tool_call"}
    | {"custom_tool_call_output", "search_result", "document", "local_shell_call", "local_shell_call_output"}
    | {"mcp_call", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "web_search_call"}
    | {"server_tool_use", "web_search_tool_result", "tool_reference"}
)
"""Types of content parts and items that are text. Every other one is taken for unreadable."""
_ELSEWHERE = frozenset(
    {"file_id", "file_data", "file_url", "encrypted_content", "image_url", "audio", "input_audio", "video_url"}
)
"""Members of a part or message that hold a medium, or name one that is stored elsewhere."""
_STORED = ("previous_response_id", "conversation", "prompt_embeds", "image", "images", "audio_data")
"""Fields of a body that stand for input of which it shows no text."""
_BELOW = ("content", "output", "summary")


def holds_unreadable(body: Mapping[str, Any]) -> bool:
    """Return whether a body has content that no detector can read. Types that nobody knows count as such."""
    if any(body.get(name) for name in _STORED) or isinstance(body.get("prompt"), dict):
        return True
    if _has_token_ids(body.get("prompt")) or _has_token_ids(body.get("input")):
        return True
    nodes: list[object] = [body.get("messages"), body.get("system"), body.get("input"), body.get("instructions")]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            if not _is_readable(node):
                return True
            nodes += [node[name] for name in _BELOW if name in node]
            source = node.get("source")
            if isinstance(source, dict):
                nodes.append(source.get("content"))
    return False


def _is_readable(node: Mapping[str, Any]) -> bool:
    kind = node.get("type")
    if isinstance(kind, str) and kind not in _READABLE:
        return False
    source = node.get("source")
    if kind == "document" and not (isinstance(source, dict) and source.get("type") in ("text", "content")):
        return False
    return _ELSEWHERE.isdisjoint(node) or not any(node.get(name) for name in _ELSEWHERE)


def _has_token_ids(value: object) -> bool:
    """Return whether a prompt is given as the ids of its tokens, which are numbers."""
    if not isinstance(value, list):
        return False
    return any(isinstance(inner, (int, float)) or _has_number(inner) for inner in value)


def _has_number(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(inner, (int, float)) for inner in value)

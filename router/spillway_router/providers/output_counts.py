"""Counts the output in the events of paid streams and in whole answers, per protocol, for estimates.

Everything counts that a provider bills as output: text, reasoning, refusals, and the names and arguments of tool calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spillway_router.core.money.estimates import OutputCount

_REASONING = ("reasoning_content", "reasoning")
_TEXT = ("content", "refusal")
_SERVER_TOOL_USE = "server_tool_use"
_CALL = "_call"
_HOSTED = frozenset({"web_search_call", "file_search_call", "code_interpreter_call"})


def count_choices(count: OutputCount, choices: list[Any]) -> None:
    """Count an event of a chat or completions stream, or the choices of a whole answer."""
    for choice in choices:
        text = _choice_text(count, choice) if isinstance(choice, dict) else ""
        if text:
            count.add(text)


def _choice_text(count: OutputCount, choice: Mapping[str, Any]) -> str:
    text = choice.get("text")
    if isinstance(text, str):
        return text
    delta = choice.get("delta", choice.get("message"))
    if not isinstance(delta, dict):
        return ""
    parts = []
    for name in _TEXT:
        value = delta.get(name)
        if isinstance(value, str):
            parts.append(value)
    for name in _REASONING:
        value = delta.get(name)
        if isinstance(value, str) and value:
            count.has_reasoning = True
            parts.append(value)
            break  # some servers send the same text under both names
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        parts.extend([_function_text(call.get("function")) for call in calls if isinstance(call, dict)])
    if "function_call" in delta:
        parts.append(_function_text(delta["function_call"]))
    return parts[0] if len(parts) == 1 else "".join(parts)


def _function_text(function: object) -> str:
    if not isinstance(function, dict):
        return ""
    name, arguments = function.get("name"), function.get("arguments")
    return (name if isinstance(name, str) else "") + (arguments if isinstance(arguments, str) else "")


def count_messages_event(count: OutputCount, kind: str, body: Mapping[str, Any]) -> None:
    """Count an event of the Messages API."""
    if kind == "content_block_delta":
        delta = body.get("delta")
        if isinstance(delta, dict):
            _count_block(count, delta)
    elif kind == "content_block_start":
        block = body.get("content_block")
        if isinstance(block, dict):
            _count_block(count, block)


def _count_block(count: OutputCount, block: Mapping[str, Any]) -> None:
    """Count a content block, or a part of one. The signature of a thought is no output."""
    for name in ("text", "thinking", "partial_json", "name"):
        value = block.get(name)
        if isinstance(value, str) and value:
            count.add(value)
            count.has_reasoning = count.has_reasoning or name == "thinking"
    if block.get("type") == _SERVER_TOOL_USE:
        count.add_call(str(block.get("name"))[:64])


def count_responses_event(count: OutputCount, kind: str, body: Mapping[str, Any]) -> None:
    """Count an event of the Responses API. Only its deltas: other events repeat what they brought.

    The summary of a thought is no output: the thought itself is billed, and hidden.
    """
    if kind.endswith(".delta"):
        delta = body.get("delta")
        if isinstance(delta, str) and delta and "summary" not in kind:
            count.add(delta)
            count.has_reasoning = count.has_reasoning or "reasoning" in kind
    elif kind == "response.output_item.added":
        item = body.get("item")
        if isinstance(item, dict) and item.get("type") in _HOSTED:
            count.add_call(str(item["type"]).removesuffix(_CALL))


def count_answer(answer: Mapping[str, Any]) -> OutputCount:
    """Count the output of a whole answer, whatever its protocol. An answer without a stream counts no events."""
    count = OutputCount()
    choices, content, output = answer.get("choices"), answer.get("content"), answer.get("output")
    if isinstance(choices, list):
        count_choices(count, choices)
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict):
            _count_block(count, block)
    for item in output if isinstance(output, list) else ():
        if isinstance(item, dict):
            _count_item(count, item)
    count.events = 0
    return count


def _count_item(count: OutputCount, item: Mapping[str, Any]) -> None:
    """Count an item in the output of a response."""
    if item.get("type") in _HOSTED:
        count.add_call(str(item["type"]).removesuffix(_CALL))
    count.add(_function_text(item))
    parts = item.get("content")
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict):
            _count_block(count, part)

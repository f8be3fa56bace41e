"""The question of a request that may get the answer to a similar one, and the frame that both must share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spillway_router.core.caching.marks import Marks, marks_of, scripts_of
from spillway_router.core.routing.model import Endpoint

MOST_BYTES = 512
"""Of a question. Embedding models cut off what is longer than their window, often 256 tokens, and see no difference
behind it."""
_TOOLS = ("tools", "functions", "tool_choice", "function_call")
_INSTRUCTIONS = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Question:
    """The text of the only turn of a user, its marks, and the body without it."""

    text: str
    marks: Marks
    frame: Mapping[str, Any]


def question_of(endpoint: Endpoint, body: Mapping[str, Any], scripts: frozenset[str]) -> Question | None:
    """Return the question of a body; None if it has no or several turns, tools, anything but text, or a text that is
    too long or in another script than these."""
    if any(body.get(name) for name in _TOOLS):
        return None
    frame: Mapping[str, Any]
    if endpoint == "responses":
        text, frame = body.get("input"), {**body, "input": ""}
    elif endpoint in ("chat", "messages"):
        text, frame = _only_turn(body)
    else:
        return None
    if not isinstance(text, str) or not text.strip() or len(text.encode("utf-8", "replace")) > MOST_BYTES:
        return None
    if not scripts_of(text) <= scripts:
        return None
    return Question(text, marks_of(text), frame)


def _only_turn(body: Mapping[str, Any]) -> tuple[object, Mapping[str, Any]]:
    """Return the content of the last message and the body without it, if instructions alone stand before it."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages) or not messages:
        return None, body
    *before, last = messages
    if last.get("role") != "user" or any(message.get("role") not in _INSTRUCTIONS for message in before):
        return None, body
    text = last.get("content")
    if isinstance(text, list) and len(text) == 1 and isinstance(text[0], dict) and text[0].keys() == {"type", "text"}:
        text = text[0]["text"]
    rest = {name: value for name, value in last.items() if name != "content"}
    return text, {**body, "messages": [*before, rest]}

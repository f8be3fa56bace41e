"""Reads from a body what routing judges: the user's last message, and the shape of the conversation around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spillway_router.core.routing.model import RequestFacts
from spillway_router.core.routing.traits.conversation import Conversation, excerpt

_MARKS = frozenset({"header", "metadata", "key", "default", "session", "unreadable"})
"""Reasons for privacy that say nothing of what the text holds."""
_INPUT = {"completions": "prompt", "embeddings": "input", "responses": "input"}


def conversation(facts: RequestFacts, body: Mapping[str, Any]) -> Conversation:
    """Return what is judged of a request. `facts` are those of the same body."""
    field = _INPUT.get(facts.endpoint, "messages")
    content = body.get(field)
    messages = _user_messages(content)
    last = messages[-1] if messages else ""
    return Conversation(
        asked=excerpt(last),
        words=last.count(" ") + 1 if last else 0,
        user_messages=len(messages),
        is_embedding=facts.endpoint == "embeddings",
        has_pictures="vision" in facts.needs or bool(facts.pictures),
        wants_json="json_schema" in facts.needs,
        wants_reasoning=bool(body.get("reasoning_effort") or body.get("reasoning") or body.get("thinking")),
        has_personal_data=any(reason not in _MARKS for reason in facts.privacy.reasons),
    )


def _user_messages(content: object) -> list[str]:
    """Return the texts of the user's messages. A text, and a list of texts, is one message."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return []
    if all(isinstance(part, str) for part in content):
        return [" ".join(content)] if content else []
    return [
        _text(message.get("content"))
        for message in content
        if isinstance(message, dict) and message.get("role") == "user"
    ]


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return " ".join([text for text in texts if isinstance(text, str)])

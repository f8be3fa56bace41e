"""The text of a chat's stream, put together from its events."""

from __future__ import annotations

import orjson

from spillway_router.providers.sse import SseDecoder, SseError


def stream_text(stream: bytes) -> str:
    """Return the text of the first choice in the events of a stream; empty if they can't be read or have none."""
    parts: list[str] = []
    try:
        for event in SseDecoder().feed(stream):
            if event.data and event.data != b"[DONE]":
                parts.append(_text_of(orjson.loads(event.data)))
    except (SseError, ValueError):
        return ""
    return "".join(parts)


def _text_of(chunk: object) -> str:
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict) or choices[0].get("index"):
        return ""
    delta = choices[0].get("delta")
    content = delta.get("content") if isinstance(delta, dict) else None
    return content if isinstance(content, str) else ""

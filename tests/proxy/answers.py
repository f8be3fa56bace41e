"""Whole answers of a weak local and a strong cloud model, for tests."""

from __future__ import annotations

import httpx

from spillway_router.testing import Answer

RULE = "confidence: {threshold: 0.0, escalate_to: [cloud]}\n"
KEPT = RULE + "retention: {minutes: 10}\n"


def answer(text: str) -> Answer:
    """Return a whole chat completion with this text."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Answer.json({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


WEAK, STRONG = answer("weak"), answer("strong")


def said(reply: httpx.Response) -> str:
    """Return the text of a whole answer."""
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text

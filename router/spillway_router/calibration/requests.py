"""Labelled requests, one JSON object a line: what `spillway calibrate-complexity` reads.

    {"text": "Compare both contracts.", "escalated": true}

`text` is the user's last message. One of these labels is needed; of several the first in this order counts:

    hard        true if the local answer was not good enough
    agrees      an audit: whether the local and the dear answer said the same
    rating      feedback on the local answer, 1 to 5; 1 and 2 say that it was not good enough
    escalated   whether the local answer was escalated

Optional:

    group           rows that belong together, such as one user or document, and are never divided by a split
    user_messages   messages of the user in the conversation (1)
    json            whether a JSON schema was demanded (false)
    dear_quality    how good the dear answer is, 0 to 1 (1)
    dear_usd        what the dear answer costs, in US dollars (0)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spillway_router.core.routing.traits.conversation import Conversation, excerpt

LOW_RATING = 2


class RequestLabelError(Exception):
    """A line is no labelled request; the message says which line and why."""


@dataclass(frozen=True, slots=True)
class LabelledRequest:
    """A request, and whether the local answer was too bad for it (`hard`). `dear_quality` lies in [0, 1]."""

    conversation: Conversation
    hard: bool
    group: str
    dear_quality: float = 1.0
    dear_usd: float = 0.0


def read_requests(lines: Iterable[str]) -> Iterator[LabelledRequest]:
    """Yield the labelled requests of these lines. Raises RequestLabelError."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _row(json.loads(line), number)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            wrong = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            example = 'write {"text": "...", "hard": true}, or escalated, agrees or rating'
            raise RequestLabelError(f"line {number}: {wrong}; {example}") from error


def _row(data: Mapping[str, Any], number: int) -> LabelledRequest:
    text = data["text"]
    if not isinstance(text, str):
        raise TypeError("`text` is no text")
    conversation = Conversation(
        asked=excerpt(text),
        words=text.count(" ") + 1 if text else 0,
        user_messages=int(data.get("user_messages", 1)),
        wants_json=_truth("json", data.get("json", False)),
    )
    quality, usd = float(data.get("dear_quality", 1.0)), float(data.get("dear_usd", 0.0))
    if not 0.0 <= quality <= 1.0 or not 0.0 <= usd < float("inf"):
        raise ValueError(f"dear_quality {quality:g} must lie in 0 to 1, and dear_usd {usd:g} must not be negative")
    return LabelledRequest(
        conversation=conversation,
        hard=_hard(data),
        group=str(data.get("group", f"line {number}")),
        dear_quality=quality,
        dear_usd=usd,
    )


def _hard(data: Mapping[str, Any]) -> bool:
    if "hard" in data:
        return _truth("hard", data["hard"])
    if "agrees" in data:
        return not _truth("agrees", data["agrees"])
    if "rating" in data:
        rating = float(data["rating"])
        if not 1 <= rating <= 5:
            raise ValueError(f"rating {rating:g} must lie in 1 to 5")
        return rating <= LOW_RATING
    return _truth("escalated", data["escalated"])


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` is {value!r}, not true or false")
    return value

"""What a client may see of the error with which a backend refused its request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

MAX_ERROR_BYTES = 1024 * 1024
"""Most bytes of an error that are read."""
MOST_BYTES = 16 * 1024
"""Most bytes of an error's further members; where there are more, only its type, code and param are passed on."""
_NAMED = ("type", "code", "param")


def shown_error(body: bytes) -> Mapping[str, Any] | None:
    """Return the error object of a refusal: its `message`, `type`, `code`, `param` and whatever else it holds.

    None if the body has none. Of a flat error (Cerebras, vLLM before 0.11) only the named members count, as others
    describe the reply and not the error. A `type`, `code` or `param` that is no string is left out: clients' libraries
    take them for strings.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(parsed, dict):
        return None
    error = parsed.get("error")
    if not isinstance(error, dict):
        error = {name: parsed.get(name) for name in ("message", *_NAMED)}
    shown = {name: value for name, value in error.items() if name not in _NAMED or isinstance(value, str)}
    if len(orjson.dumps(shown)) > MOST_BYTES:
        shown = {name: value[:200] for name, value in shown.items() if name in _NAMED}
    return shown if any(name != "message" and value is not None for name, value in shown.items()) else None

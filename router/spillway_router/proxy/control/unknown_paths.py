"""What is wrong with a path that is no route, in words that say what to change."""

from __future__ import annotations

from collections.abc import Callable

_OF_OLLAMA = frozenset({"chat", "generate", "tags", "embed", "embeddings", "show", "ps", "version"})
_BASE = "The base URL of a client of OpenAI's API ends with /v1."


def cure_of(path: str, is_route: Callable[[str], bool]) -> str:
    """Return a sentence with the cure for a path that is no route; "" without a guess.

    Most such paths come from a wrong base URL: it lacks `/v1`, or has parts of another API before or behind it.
    """
    parts = path.strip("/").split("/")
    if parts == ["v1"]:
        return "Name a route below it, such as /v1/models."
    if len(parts) == 2 and parts[0] == "api" and parts[1] in _OF_OLLAMA:
        return f"That is a route of Ollama's API. {_BASE}"
    for start in range(len(parts)):
        rest = "/".join(parts[start:])
        for meant in (f"/{rest}", f"/v1/{rest}"):
            if meant != path and is_route(meant):
                return f"Did you mean {meant}? {_BASE if meant.startswith('/v1/') else ''}".rstrip()
    return ""

"""OpenAI's text completions, embeddings and list of models."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from conformance.upstream.chat import CREATED, USAGE
from conformance.upstream.script import PROMPT_TOKENS, TEXT, pieces

_VECTOR = (0.125, -0.5, 0.25, 0.75)


def completion(body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a request for text completions, one choice for each prompt and each of `n`."""
    choices = [_choice(index, TEXT, "stop") for index in range(_choices(body))]
    return {**_head(body), "choices": choices, "usage": USAGE}


def completion_stream(body: Mapping[str, Any]) -> Iterator[str]:
    """Answer a request for text completions as server-sent events."""
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    for index in range(_choices(body)):
        for piece in pieces(TEXT):
            yield _event({**_head(body), "choices": [_choice(index, piece, None)]})
        yield _event({**_head(body), "choices": [_choice(index, "", "stop")]})
    if wants_usage:
        yield _event({**_head(body), "choices": [], "usage": USAGE})
    yield "data: [DONE]\n\n"


def _choices(body: Mapping[str, Any]) -> int:
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    return (body.get("n") or 1) * (len(prompt) if several and prompt else 1)


def _head(body: Mapping[str, Any]) -> dict[str, Any]:
    head = {"id": "cmpl-scripted", "object": "text_completion", "created": CREATED}
    return {**head, "model": body.get("model", ""), "system_fingerprint": "fp_scripted"}


def _choice(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}


def _event(document: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(document)}\n\n"


def embeddings(body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a request for embeddings."""
    given = body.get("input")
    count = len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1
    vector: Any = _vector(body.get("dimensions"))
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
    usage = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS}
    return {"object": "list", "data": data, "model": body.get("model", ""), "usage": usage}


def _vector(dimensions: object) -> list[float]:
    """Return a vector of as many numbers as were asked for, of four if none were."""
    if not isinstance(dimensions, int):
        return list(_VECTOR)
    return [_VECTOR[place % len(_VECTOR)] for place in range(dimensions)]


def model(name: str) -> dict[str, Any]:
    """Return a model as OpenAI describes it."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "scripted"}


def anthropic_model(name: str) -> dict[str, Any]:
    """Return a model as Anthropic describes it."""
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2026-09-21T00:00:00Z",
        "lifecycle": "active",
    }

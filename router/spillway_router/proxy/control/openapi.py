"""The OpenAPI document: FastAPI's for the control API, with the inference routes, which bypass FastAPI, and errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from spillway_router.core.routing.model import Endpoint
from spillway_router.providers.interface import PATHS

_SUMMARIES: dict[Endpoint, tuple[str, tuple[str, ...]]] = {
    "chat": ("Answer a chat, as OpenAI's API does", ("messages",)),
    "completions": ("Complete a text, as OpenAI's API does", ()),
    "embeddings": ("Embed texts, as OpenAI's API does", ("input",)),
    "responses": ("Make a response, as OpenAI's API does", ()),
    "messages": ("Answer messages, as Anthropic's API does", ("messages",)),
}
"""What each route does, and the members that its body must have."""
_OPENAI_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": "string", "nullable": True},
                "code": {"type": "string", "nullable": True},
            },
        }
    },
}
_ANTHROPIC_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"type": "string", "enum": ["error"]},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
_SCHEMAS = {"Error": _OPENAI_ERROR, "AnthropicError": _ANTHROPIC_ERROR}


def describe_inference(api: FastAPI) -> None:
    """Add the inference routes and the shapes of errors to the document of `api`."""
    generate = api.openapi

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            document = generate()
            document.setdefault("components", {}).setdefault("schemas", {}).update(_SCHEMAS)
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    operation["responses"].setdefault("default", _error(path))
            for endpoint, path in PATHS.items():
                document["paths"][f"/v1{path}"] = {"post": _operation(f"/v1{path}", endpoint)}
            api.openapi_schema = document
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _operation(path: str, endpoint: Endpoint) -> dict[str, Any]:
    summary, required = _SUMMARIES[endpoint]
    body: dict[str, Any] = {
        "type": "object",
        "properties": {"model": {"type": "string", "default": "auto"}, "stream": {"type": "boolean"}},
        "additionalProperties": True,
    }
    if endpoint == "embeddings":
        del body["properties"]["stream"]
    if required:
        body["required"] = list(required)
    answers: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if endpoint != "embeddings":
        answers["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "summary": summary,
        "operationId": f"post_{endpoint}",
        "tags": ["inference"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "The answer of a backend, or a stream of its events", "content": answers},
            "default": _error(path),
        },
    }


def _error(path: str) -> dict[str, Any]:
    """Return the response that stands for every error on a path."""
    name = "AnthropicError" if path.startswith("/v1/messages") else "Error"
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"description": "What was wrong and what to do", "content": {"application/json": {"schema": schema}}}

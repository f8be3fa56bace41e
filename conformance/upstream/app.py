"""The routes of the scripted upstream, with those that the providers have and the router does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from conformance.upstream import chat, messages, responses, texts
from conformance.upstream.script import PROMPT_TOKENS

Whole = Callable[[Mapping[str, Any]], dict[str, Any]]
Stream = Callable[[Mapping[str, Any]], Iterator[str]]
_INFERENCE: tuple[tuple[str, Whole, Stream | None, frozenset[str]], ...] = (
    ("/v1/chat/completions", chat.whole, chat.stream, frozenset({"messages"})),
    ("/v1/completions", texts.completion, texts.completion_stream, frozenset()),
    ("/v1/embeddings", texts.embeddings, None, frozenset({"input"})),
    ("/v1/responses", responses.whole, responses.stream, frozenset()),
    ("/v1/messages", messages.whole, messages.stream, frozenset({"messages"})),
)
"""Each route with its whole and its streamed answer, and the fields without which it refuses a body."""


def build(models: tuple[str, ...]) -> FastAPI:
    """Return the application, which lists these models and answers for every model."""
    app = FastAPI(title="scripted upstream")
    for path, whole, stream, required in _INFERENCE:
        for spelling in (path, path.removeprefix("/v1")):  # llama.cpp has both
            app.add_api_route(spelling, _answering(whole, stream, required), methods=["POST"])
    _add_models(app, models)
    _add_stored_chats(app)
    _add_stored_responses(app)

    @app.get("/")
    async def index() -> dict[str, str]:
        return {"name": "scripted upstream"}

    @app.post("/v1/messages/count_tokens")
    async def count_tokens() -> dict[str, int]:
        return {"input_tokens": PROMPT_TOKENS}

    return app


def _answering(whole: Whole, stream: Stream | None, required: frozenset[str]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        path, body = request.url.path, await _object(request)
        if body is None or not all(body.get(name) for name in required):
            return _refused(path)
        try:
            if stream is not None and body.get("stream"):
                return StreamingResponse(list(stream(body)), media_type="text/event-stream")
            return JSONResponse(whole(body), headers={"request-id": "req_scripted", "x-request-id": "req_scripted"})
        except (AttributeError, KeyError, TypeError, ValueError):  # a body that no provider would take
            return _refused(path)

    return endpoint


async def _object(request: Request) -> Mapping[str, Any] | None:
    try:
        body = await request.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _refused(path: str) -> JSONResponse:
    message = "The scripted upstream cannot read this body."
    error = {"type": "invalid_request_error", "message": message}
    if path.endswith("/messages"):
        return JSONResponse({"type": "error", "error": error, "request_id": "req_scripted"}, 400)
    return JSONResponse({"error": {**error, "param": None, "code": None}}, 400)


def _add_models(app: FastAPI, models: tuple[str, ...]) -> None:
    @app.get("/v1/models")
    async def list_models(request: Request) -> dict[str, Any]:
        if "anthropic-version" in request.headers:
            data = [texts.anthropic_model(name) for name in models]
            return {"data": data, "first_id": models[0], "last_id": models[-1], "has_more": False}
        return {"object": "list", "data": [texts.model(name) for name in models]}

    @app.get("/v1/models/{name:path}")
    async def get_model(name: str, request: Request) -> dict[str, Any]:
        return texts.anthropic_model(name) if "anthropic-version" in request.headers else texts.model(name)

    @app.delete("/v1/models/{name:path}")
    async def delete_model(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "deleted": True}


def _add_stored_chats(app: FastAPI) -> None:
    def page(item: dict[str, Any]) -> dict[str, Any]:
        return {"object": "list", "data": [item], "first_id": item["id"], "last_id": item["id"], "has_more": False}

    @app.get("/v1/chat/completions")
    async def list_chats() -> dict[str, Any]:
        return page(chat.stored("chatcmpl-stored"))

    @app.get("/v1/chat/completions/{chat_id}")
    @app.post("/v1/chat/completions/{chat_id}")
    async def get_or_update_chat(chat_id: str) -> dict[str, Any]:
        return chat.stored(chat_id)

    @app.delete("/v1/chat/completions/{chat_id}")
    async def delete_chat(chat_id: str) -> dict[str, Any]:
        return {"id": chat_id, "object": "chat.completion.deleted", "deleted": True}

    @app.get("/v1/chat/completions/{chat_id}/messages")
    async def list_messages(chat_id: str) -> dict[str, Any]:
        return page(chat.stored_message(chat_id))


def _add_stored_responses(app: FastAPI) -> None:
    @app.post("/v1/responses/compact")
    async def compact(request: Request) -> Response:
        body = await _object(request)
        return _refused(request.url.path) if not body or "model" not in body else JSONResponse(responses.compacted())

    @app.post("/v1/responses/input_tokens")
    async def count_input() -> dict[str, Any]:
        return {"object": "response.input_tokens", "input_tokens": PROMPT_TOKENS}

    @app.get("/v1/responses/{response_id}")
    async def get_response(response_id: str, stream: bool = False) -> Response:
        if stream:
            return StreamingResponse(list(responses.stream({"input": "Hello"})), media_type="text/event-stream")
        return JSONResponse(responses.stored(response_id))

    @app.delete("/v1/responses/{response_id}")
    async def delete_response(response_id: str) -> dict[str, Any]:
        return {"id": response_id, "object": "response", "deleted": True}

    @app.post("/v1/responses/{response_id}/cancel")
    async def cancel(response_id: str) -> dict[str, Any]:
        return responses.stored(response_id, "cancelled")

    @app.get("/v1/responses/{response_id}/input_items")
    async def list_input(response_id: str) -> dict[str, Any]:
        return responses.input_items(response_id)

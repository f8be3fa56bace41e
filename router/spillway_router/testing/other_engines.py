"""ASGI applications that look like engines which are not installed here: Ollama, text-embeddings-inference, SGLang.

Each plays the habits that routing depends on. Where the shapes come from:

- Ollama: docs/api.md and docs/context-length.mdx (`/api/ps`, the context by memory), server/sched.go (a full queue),
  issues 4967 and 17889 and pull request 17944 (a prompt beyond the context is cut, with a 200).
- text-embeddings-inference: router/src/http/server.rs and types.rs (`/info`, the OpenAI route, its flat errors).
- SGLang: srt/metrics/collector.py (the series), and reports of its full queue: a 503, and in a stream a 200 whose first
  event is the error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spillway_router.testing import openai_wire as wire
from spillway_router.testing.asgi import Message, Receive, Send, read_body, send_answer, send_part, start_event_stream
from spillway_router.testing.engine import FakeEngine

WORD_TOKENS = 1
"""Every word of a prompt counts as one token here."""


class PlayedOllama:
    """An Ollama with one model and a context of `context_tokens`. The model is in memory from its first request on.

    `prompts` has the words that each request's prompt kept; with `is_full` its queue takes no more.
    """

    def __init__(self, model: str, context_tokens: int) -> None:
        self.model, self.context_tokens = model, context_tokens
        self.is_loaded = self.is_full = False
        self.prompts: list[int] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["method"] == "GET":
            page = self._page(scope["path"])
            await send_answer(send, 404 if page is None else 200, wire.dump(page))
            return
        body = json.loads(await read_body(receive))
        if self.is_full:
            refusal = wire.error("server busy, please try again.  maximum pending requests exceeded", type="api_error")
            await send_answer(send, 503, wire.dump(refusal))
            return
        self.is_loaded = True
        words = sum(len(str(message["content"]).split()) for message in body["messages"])
        kept = words if words < self.context_tokens else self.context_tokens // 2
        self.prompts.append(kept)
        completion = wire.Completion("chatcmpl-1", self.model, 1_700_000_000)
        choice = wire.message_choice({"content": f"read {kept} of {words} words"})
        await send_answer(send, 200, wire.dump(completion.whole([choice], wire.usage(kept, 5))))

    def _page(self, path: str) -> Mapping[str, Any] | None:
        loaded = {
            "name": self.model,
            "model": self.model,
            "size": 5137025024,
            "size_vram": 5137025024,
            "context_length": self.context_tokens,
        }
        pages: Mapping[str, Mapping[str, Any]] = {
            "/api/version": {"version": "0.33.3"},
            "/api/ps": {"models": [loaded] if self.is_loaded else []},
            "/v1/models": wire.model_list([wire.model_card(self.model, owned_by="library")]),
        }
        return pages.get(path)


class PlayedTextEmbeddings:
    """A text-embeddings-inference server, with vectors of two numbers.

    `batches` has the size of each batch that it took; with `is_full` it takes no more.
    """

    def __init__(self, most_tokens: int = 512, most_inputs: int = 32) -> None:
        self.most_tokens, self.most_inputs = most_tokens, most_inputs
        self.is_full = False
        self.batches: list[int] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["method"] == "GET":
            pages: Mapping[str, Mapping[str, Any]] = {"/health": {}, "/info": self._info()}
            page = pages.get(scope["path"])
            await send_answer(send, 404 if page is None else 200, wire.dump(page))
            return
        wanted = json.loads(await read_body(receive))["input"]
        inputs = [wanted] if isinstance(wanted, str) else wanted
        status, answer = self._answer(inputs)
        await send_answer(send, status, wire.dump(answer))

    def _answer(self, inputs: list[str]) -> tuple[int, Mapping[str, Any]]:
        longest = max(len(text.split()) for text in inputs)
        if self.is_full:
            return 429, {"message": "Model is overloaded", "code": 429, "type": "Overloaded"}
        if len(inputs) > self.most_inputs:
            text = f"batch size {len(inputs)} > maximum allowed batch size {self.most_inputs}"
            return 413, {"message": text, "code": 413, "type": "Validation"}
        if longest > self.most_tokens:
            text = f"`inputs` must have less than {self.most_tokens} tokens. Given: {longest}"
            return 413, {"message": text, "code": 413, "type": "Validation"}
        self.batches.append(len(inputs))
        tokens = sum(len(text.split()) for text in inputs)
        return 200, wire.embeddings("BAAI/bge-m3", [[float(len(text)), 1.0] for text in inputs], tokens)

    def _info(self) -> Mapping[str, Any]:
        return {
            "model_id": "BAAI/bge-m3",
            "model_dtype": "float16",
            "max_concurrent_requests": 512,
            "max_input_length": self.most_tokens,
            "max_batch_tokens": 16384,
            "max_client_batch_size": self.most_inputs,
            "auto_truncate": False,
        }


class PlayedSglang(FakeEngine):
    """A FakeEngine under SGLang's names. With `is_full` its queue takes no more, which a stream says inside a 200."""

    is_full = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if not self.is_full or scope["method"] == "GET":
            await super().__call__(scope, receive, send)
            return
        body = json.loads(await read_body(receive))
        message = "The request queue is full."
        if body.get("stream"):
            await start_event_stream(send)
            refusal = {"error": {"message": message, "type": "Service Unavailable", "code": 503}}
            await send_part(send, wire.event(refusal) + wire.DONE, last=True)
            return
        flat = {"object": "error", "message": message, "type": "Service Unavailable", "code": 503}
        await send_answer(send, 503, wire.dump(flat))

    def _metrics(self) -> str:
        series = {
            "num_running_reqs": self.running,
            "num_queue_reqs": self.waiting,
            "token_usage": 0.1,
            "max_total_num_tokens": 40_000,
        }
        return "".join(f'sglang:{name}{{tp_rank="0"}} {value}\n' for name, value in series.items())

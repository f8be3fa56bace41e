"""The bytes the stub upstream answers with: one whole reply, streams as ready HTTP chunks, vLLM-like metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from loadtests.bench.directive import event_text
from loadtests.bench.stub_board import Board

REPLY_TEXT = "The stub's whole answer. " * 24
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_JSON = b"application/json"
_PROMPT_TOKENS = 250


def _scores(text: str, number: int, alternatives: int) -> dict[str, Any]:
    """Log-probabilities of one token as vLLM writes them, with so many alternatives."""
    chosen = -0.001 * (1 + number % 97)
    ranks = [{"token": text, "logprob": chosen - rank * 4.3, "bytes": [*text.encode()]} for rank in range(alternatives)]
    return {"content": [{"token": text, "logprob": chosen, "bytes": [*text.encode()], "top_logprobs": ranks}]}


def _chunk_body(
    model: str, delta: dict[str, str], finish: str | None, scores: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "id": "chatcmpl-stub",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "logprobs": scores, "finish_reason": finish}],
    }


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(body: dict[str, Any]) -> bytes:
    return _http_chunk(b"data: " + orjson.dumps(body) + b"\n\n")


def _usage(completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": _PROMPT_TOKENS,
        "completion_tokens": completion_tokens,
        "total_tokens": _PROMPT_TOKENS + completion_tokens,
    }


@dataclass(frozen=True, slots=True)
class Shape:
    """What makes two streams byte for byte the same, so that their frames are built once. `alternatives`: per token,
    with its log-probability; None where none were asked for."""

    events: int
    event_bytes: int
    include_usage: bool
    alternatives: int | None = None


class Frames:
    """Builds and keeps the HTTP chunks of streams and the one whole answer."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._streams: dict[Shape, list[bytes]] = {}
        body = orjson.dumps(
            {
                "id": "chatcmpl-stub",
                "object": "chat.completion",
                "created": 1_790_000_000,
                "model": model,
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": REPLY_TEXT},
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                "usage": _usage(150),
            }
        ).ljust(1024)
        self.whole = answer(200, body)

    def stream(self, shape: Shape) -> list[bytes]:
        """Role chunk, `events` content chunks, finish chunk, usage chunk if asked, [DONE] with the end."""
        known = self._streams.get(shape)
        if known is not None:
            return known
        frames = [_event(_chunk_body(self._model, {"role": "assistant", "content": ""}, None))]
        texts = [event_text(number, shape.event_bytes) for number in range(shape.events)]
        for number, text in enumerate(texts):
            scores = None if shape.alternatives is None else _scores(text, number, shape.alternatives)
            frames.append(_event(_chunk_body(self._model, {"content": text}, None, scores)))
        frames.append(_event(_chunk_body(self._model, {}, "stop")))
        if shape.include_usage:
            usage = _chunk_body(self._model, {}, None) | {"choices": [], "usage": _usage(shape.events)}
            frames.append(_event(usage))
        frames.append(_http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        if len(self._streams) < 16:
            self._streams[shape] = frames
        return frames


def answer(status: int, body: bytes, content_type: bytes = _JSON) -> bytes:
    return b"HTTP/1.1 %d OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        content_type,
        len(body),
        body,
    )


def metrics(board: Board) -> bytes:
    """Prometheus text with the names of current vLLM."""
    labels = f'{{model_name="{board.model}",engine="0"}}'
    values = {
        "num_requests_running": ("gauge", board.open),
        "num_requests_waiting": ("gauge", 0),
        "kv_cache_usage_perc": ("gauge", 0.0),
        "prompt_tokens_total": ("counter", board.requests * _PROMPT_TOKENS),
        "generation_tokens_total": ("counter", board.completed * 150),
        "num_preemptions_total": ("counter", 0),
    }
    lines = []
    for name, (kind, value) in values.items():
        lines += [f"# TYPE vllm:{name} {kind}", f"vllm:{name}{labels} {value}"]
    lines.append('vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="100000"} 1.0')
    return ("\n".join(lines) + "\n").encode()

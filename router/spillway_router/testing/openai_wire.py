"""The OpenAI wire format as upstreams write it, shared by every fake upstream: bodies, stream events, errors, metrics.

Functions return JSON values (`dict`) or finished bytes and do no I/O. A fake upstream keeps only its own behaviour:
when it answers, what it says, how it fails, and the fields that its provider adds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


def dump(value: object) -> bytes:
    """Encode a value as compact JSON in ASCII."""
    return json.dumps(value, separators=(",", ":")).encode()


# Server-sent events


def sse(data: bytes, name: str = "") -> bytes:
    """Return one server-sent event that carries `data` (one line), named where `name` is not empty."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + data + b"\n\n"


def event(value: object, name: str = "") -> bytes:
    """Return one server-sent event that carries `value` as JSON."""
    return sse(dump(value), name)


DONE = sse(b"[DONE]")
"""The event that ends a stream of chat completions or text completions."""


# Answers

PROBE_HEADER = "x-spillway-probe"
"""Marks the requests by which a router finds out what an engine can do."""


def delta_choice(
    delta: Mapping[str, Any], finish: str | None = None, logprobs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the choice of one event of a streamed chat completion."""
    return {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def message_choice(
    message: Mapping[str, Any], finish: str | None = "stop", logprobs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the choice of a whole chat completion. `message` holds what is said beside the role."""
    return {
        "index": 0,
        "message": {"role": "assistant", **message},
        "logprobs": logprobs,
        "finish_reason": finish,
    }


def text_choice(text: str, finish: str | None = None, logprobs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the choice of a text completion, whole or of one event."""
    return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}


@dataclass(frozen=True, slots=True)
class Completion:
    """The fields that all bodies and events of one completion share. `created` is epoch seconds."""

    id: str
    model: str
    created: int
    chat: bool = True
    """False: a text completion (`/v1/completions`)."""

    def whole(self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any], **more: object) -> dict[str, Any]:
        """Return the body of a whole answer; `more` are fields that the provider adds."""
        return {**self._head("chat.completion"), "choices": choices, "usage": usage, **more}

    def chunk(self, choices: Sequence[Mapping[str, Any]], **more: object) -> dict[str, Any]:
        """Return the body of one stream event; `more` are further fields, such as `usage`."""
        return {**self._head("chat.completion.chunk"), "choices": choices, **more}

    def opening(self) -> dict[str, Any]:
        """Return the body of the event that begins a chat stream with the role."""
        return self.chunk([delta_choice({"role": "assistant", "content": ""})])

    def said(self, text: str, finish: str | None = None, logprobs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the body of a stream event with this text."""
        if self.chat:
            return self.chunk([delta_choice({"content": text}, finish, logprobs)])
        return self.chunk([text_choice(text, finish, logprobs)])

    def usage_chunk(self, usage: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of the event that carries only the usage."""
        return self.chunk([], usage=usage)

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind if self.chat else "text_completion",
            "created": self.created,
            "model": self.model,
        }


def usage(
    prompt_tokens: int, completion_tokens: int, *, cached_tokens: int | None = None, reasoning_tokens: int | None = None
) -> dict[str, Any]:
    """Return a usage object. The details are left out where they are None."""
    counts: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    if cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    if reasoning_tokens is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}
    return counts


def token_logprob(
    token: str,
    logprob: float,
    utf8: Sequence[int] | None = None,
    alternatives: Sequence[Mapping[str, Any]] | None = (),
) -> dict[str, Any]:
    """Return the log-probability (natural logarithm) of one token. `alternatives` None: the field is left out."""
    scored: dict[str, Any] = {"token": token, "logprob": logprob, "bytes": utf8}
    return scored if alternatives is None else {**scored, "top_logprobs": alternatives}


def logprobs(tokens: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the `logprobs` object of a choice."""
    return {"content": list(tokens)}


def embeddings(model: str, vectors: Iterable[Sequence[float]], prompt_tokens: int) -> dict[str, Any]:
    """Return the body of an answer with one vector per input."""
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    used = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return {"object": "list", "model": model, "data": data, "usage": used}


def model_card(model: str, **more: object) -> dict[str, Any]:
    """Return one entry of `/v1/models`."""
    return {"id": model, "object": "model", **more}


def model_list(cards: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the body of `/v1/models`."""
    return {"object": "list", "data": list(cards)}


def error(message: str, **fields: object) -> dict[str, Any]:
    """Return an error body. `fields` are `type`, `param` and `code`, as far as the upstream sends them."""
    return {"error": {"message": message, **fields}}


# HTTP/1.1, for fakes that write to the socket themselves

LAST_CHUNK = b"0\r\n\r\n"


def http_chunk(data: bytes) -> bytes:
    """Frame data as one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def http_answer(status: int, body: bytes, content_type: str = JSON, reason: str = "OK") -> bytes:
    """Return a whole HTTP answer with a `content-length`."""
    head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


def http_stream_head(content_type: str = EVENT_STREAM, *headers: str) -> bytes:
    """Return the head of a chunked event stream; `headers` are further lines."""
    lines = ("HTTP/1.1 200 OK", f"content-type: {content_type}", *headers, "transfer-encoding: chunked")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


# vLLM's metrics page


def metric(name: str, value: float, labels: Mapping[str, str]) -> str:
    """Return one sample line of vLLM's metrics page, without the line's end."""
    named = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"vllm:{name}{{{named}}} {value}"


def metrics_page(
    series: Mapping[str, float], model: str, *, kv_blocks: int | None = None, block_tokens: int = 16
) -> str:
    """Return a page in Prometheus' text format under vLLM's names.

    `series` maps names without `vllm:` to values; a name that ends in `_total`, `_count` or `_sum` is a counter.
    `kv_blocks` is the size of the KV cache in blocks of `block_tokens` tokens (None: the page doesn't say).
    """
    labels = {"engine": "0", "model_name": model}
    lines: list[str] = []
    for name, value in series.items():
        kind = "counter" if name.endswith(("_total", "_count", "_sum")) else "gauge"
        lines += [f"# TYPE vllm:{name} {kind}", metric(name, value, labels)]
    if kv_blocks is not None:
        cache = {"block_size": str(block_tokens), "engine": "0", "num_gpu_blocks": str(kv_blocks)}
        lines += ["# TYPE vllm:cache_config_info gauge", metric("cache_config_info", 1.0, cache)]
    return "\n".join(lines) + "\n"


IDLE_METRICS = metrics_page(
    {
        "num_requests_running": 0.0,
        "num_requests_waiting": 0.0,
        "kv_cache_usage_perc": 0.0,
        "generation_tokens_total": 0.0,
        "prompt_tokens_total": 0.0,
    },
    model="m",
).encode()
"""The metrics page of an idle engine that serves the model `m`."""


def is_probe(body: bytes) -> bool:
    """Return whether a body is a router's question what an engine can do, for fakes that read no headers."""
    return b'"noop"' in body and b'"max_tokens":1' in body


PROBED: Mapping[str, Any] = {
    "choices": [message_choice({"content": "a"}, "length", {"content": [{"token": "a", "logprob": -0.1}]})]
}
"""The answer of an engine that lacks nothing to a probing request."""

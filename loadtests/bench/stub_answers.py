"""The bytes that the stub upstream answers with: one whole reply, streams as prepared HTTP chunks, vLLM's metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from loadtests.bench.directive import event_text
from loadtests.bench.stub_board import StubBoard
from spillway_router.testing import openai_wire as wire

REPLY_TEXT = "The stub's whole answer. " * 24
STREAM_HEAD = wire.http_stream_head("text/event-stream; charset=utf-8", "cache-control: no-cache")
_PROMPT_TOKENS = 250
_WHOLE_TOKENS = 150


def _logprobs(text: str, number: int, alternatives: int) -> dict[str, Any]:
    """Return the log-probabilities of event `number`'s token as vLLM writes them, with so many alternatives."""
    chosen = -0.001 * (1 + number % 97)
    utf8 = [*text.encode()]
    ranked = [wire.token_logprob(text, chosen - rank * 4.3, utf8, None) for rank in range(alternatives)]
    return wire.logprobs([wire.token_logprob(text, chosen, utf8, ranked)])


def _event(body: dict[str, Any]) -> bytes:
    return wire.http_chunk(wire.sse(orjson.dumps(body)))


@dataclass(frozen=True, slots=True)
class StreamShape:
    """What a stream's bytes depend on, so that the frames of equal streams are built only once.

    `alternatives` is their number per token, beside its log-probability; None: the request asks for none.
    """

    events: int
    event_bytes: int
    include_usage: bool
    alternatives: int | None = None


class Frames:
    """The one whole answer and the HTTP chunks of streams, which are built once and kept."""

    def __init__(self, model: str) -> None:
        self._completion = wire.Completion("chatcmpl-stub", model, 1_790_000_000)
        self._streams: dict[StreamShape, list[bytes]] = {}
        choice = wire.message_choice({"content": REPLY_TEXT})
        body = orjson.dumps(self._completion.whole([choice], wire.usage(_PROMPT_TOKENS, _WHOLE_TOKENS)))
        self.whole = wire.http_answer(200, body.ljust(1024))

    def stream(self, shape: StreamShape) -> list[bytes]:
        """Return the frames: role, `events` times content, finish, usage if requested, and [DONE] with the HTTP end."""
        frames = self._streams.get(shape)
        if frames is None:
            frames = self._build(shape)
            if len(self._streams) < 16:
                self._streams[shape] = frames
        return frames

    def _build(self, shape: StreamShape) -> list[bytes]:
        completion = self._completion
        frames = [_event(completion.opening())]
        texts = [event_text(number, shape.event_bytes) for number in range(shape.events)]
        for number, text in enumerate(texts):
            logprobs = None if shape.alternatives is None else _logprobs(text, number, shape.alternatives)
            frames.append(_event(completion.said(text, logprobs=logprobs)))
        frames.append(_event(completion.chunk([wire.delta_choice({}, "stop")])))
        if shape.include_usage:
            frames.append(_event(completion.usage_chunk(wire.usage(_PROMPT_TOKENS, shape.events))))
        frames.append(wire.http_chunk(wire.DONE) + wire.LAST_CHUNK)
        return frames


def metrics(board: StubBoard) -> bytes:
    """Return the metrics page, under current vLLM's names."""
    series = {
        "num_requests_running": board.open,
        "num_requests_waiting": 0,
        "kv_cache_usage_perc": 0.0,
        "prompt_tokens_total": board.requests * _PROMPT_TOKENS,
        "generation_tokens_total": board.completed * _WHOLE_TOKENS,
        "num_preemptions_total": 0,
    }
    return wire.metrics_page(series, board.model, kv_blocks=100_000).encode()

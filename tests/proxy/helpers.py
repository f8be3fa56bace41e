"""What several tests of the proxy need: a client that reads and leaves, scored answers, and a calibration file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from spillway_router.testing import Answer
from spillway_router.testing.harness import MESSAGES, Router
from spillway_router.testing.streams import DONE, data

STAGE: dict[str, Any] = {
    "features": ["min"],
    "fill": [-1.0],
    "centre": [0.0],
    "scale": [1.0],
    "weights": [1.0],
    "bias": 0.0,
    "curve": {"x": [-2.0, 0.0], "y": [0.0, 1.0]},
}
"""P(right) falls from 1 where the least sure token is certain to 0 where its log-probability is -2."""
CALIBRATION: dict[str, Any] = {
    "format": "spillway-calibration/1",
    "key": {"model": "m", "quantisation": "*", "template": "*", "task": "*"},
    "certificate": {"threshold": 0.6, "alpha": 0.05, "delta": 0.1, "n": 100, "coverage": 0.5, "errors": 1},
    "answer": STAGE,
    "stages": [{**STAGE, "tokens": 1}],
    "value": None,
}


def choice(text: str, logprob: float) -> dict[str, Any]:
    """Return a choice of one token with its log-probability."""
    score = {"content": [{"token": text, "logprob": logprob, "top_logprobs": []}]}
    return {"index": 0, "logprobs": score, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}


def whole(text: str, logprob: float) -> Answer:
    """Return a whole answer of one scored token."""
    return Answer.json({"choices": [choice(text, logprob)], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})


def streamed(text: str, logprob: float) -> Answer:
    """Return a stream of one scored token."""
    event = {"choices": [{**choice(text, logprob), "delta": {"content": text}}]}
    return Answer.stream(data(event) + DONE)


def rule(folder: Path, calibration: dict[str, Any] | str, more: str = "") -> str:
    """Write a calibration file, and return the `confidence:` line of spillway.yaml that uses it."""
    file = folder / "calibration.json"
    file.write_text(calibration if isinstance(calibration, str) else json.dumps(calibration))
    return f"confidence: {{escalate_to: [cloud], calibration: '{file}'{more}}}\n"


@asynccontextmanager
async def asking(
    router: Router, fields: dict[str, Any], path: str = "/v1/chat/completions"
) -> AsyncIterator[asyncio.StreamReader]:
    """Send a chat request, or that of another path, as a client that reads; leaving the block closes its socket."""
    host, _, port = router.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    content = {"messages": MESSAGES} if path == "/v1/chat/completions" else {}
    body = json.dumps({"model": "auto", **content, **fields}).encode()
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" % path.encode()
    writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
    try:
        yield reader
    finally:
        writer.close()

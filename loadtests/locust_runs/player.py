"""Sends one request of a plan, follows it event by event and reports it to locust. Runs in locust's environment
(gevent).

For each kind of request locust gets the request itself (ms), and as further rows its time to the first token (ms), the
pause between two events (ms), output tokens/s and the cost in millionths of a dollar.
"""

from __future__ import annotations

import ctypes
import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from geventhttpclient import HTTPClient

from loadtests.locust_runs.samples import Sample

TIMEOUT_S = 120.0
_MOST_CONNECTIONS = 4096
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Let the kernel kill this process when the process that started it ends.

    An interrupted parent can't end it any more, and a plan whose samples can't be written would start again for ever.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True)
class ReadyRequest:
    """A line of a plan, ready to send."""

    at_s: float
    name: str
    path: str
    body: bytes
    stream: bool
    headers: dict[str, str]
    answer_tokens: int = 0


def load(path: str) -> tuple[list[tuple[float, float]], list[ReadyRequest]]:
    """Read the shape's corners and the requests of a plan file."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    corners = [(float(t), float(rate)) for t, rate in json.loads(lines[0])["corners"]]
    asks = []
    for line in lines[1:]:
        row = json.loads(line)
        headers = {"content-type": "application/json", **row["headers"]}
        body = json.dumps(row["body"]).encode()
        asks.append(
            ReadyRequest(
                at_s=row["at_s"],
                name=row["name"],
                path=row["path"],
                body=body,
                stream=row["stream"],
                headers=headers,
                answer_tokens=row.get("answer_tokens", 0),
            )
        )
    return corners, asks


@dataclass
class _Seen:
    first: float = 0.0
    last: float = 0.0
    events: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    cost_usd: float = 0.0
    status: int = 0
    fault: str = ""


class Player:
    """Sends requests to one base address and stores a sample of each."""

    def __init__(self, host: str, environment: Any) -> None:
        parts = urlsplit(host)
        self._client = HTTPClient(
            parts.hostname or "127.0.0.1",
            parts.port,
            ssl=parts.scheme == "https",
            connection_timeout=10.0,
            network_timeout=TIMEOUT_S,
            concurrency=_MOST_CONNECTIONS,
        )
        self._prefix = parts.path.rstrip("/").removesuffix("/v1")
        self._environment = environment
        self.samples: list[Sample] = []

    def send(self, ask: ReadyRequest, start: float, due: float) -> None:
        """Send a request now. `start` and `due` are moments of the monotonic clock, and times count from `due`."""
        sent = time.monotonic()
        seen = _Seen()
        headers: Any = {}
        try:
            response = self._client.request("POST", self._prefix + ask.path, ask.body, ask.headers)
            try:
                seen.status, headers = response.status_code, response
                if seen.status != 200:
                    seen.fault = f"{seen.status} {bytes(response.read())[:100]!r}"
                elif ask.stream:
                    _read_stream(response, seen)
                else:
                    _read_whole(bytes(response.read()), seen)
            finally:
                response.release()
        except Exception as error:  # whatever the transport raises: this request failed, the run continues
            seen.fault = seen.fault or f"{type(error).__name__}: {error}"
        done = time.monotonic()
        sample = _sample(ask, seen, headers, (start, due, sent, done))
        self.samples.append(sample)
        self._tell(sample)

    def _tell(self, sample: Sample) -> None:
        fire = self._environment.events.request.fire
        error = RuntimeError(sample.fault) if sample.fault else None
        row = {"response_length": sample.output_tokens, "context": {}, "exception": error}
        fire(request_type="POST", name=sample.name, response_time=1000 * sample.done_s, **row)
        if error is not None:
            return
        cost = ("COST", f"{sample.name} cost (millionths of USD)", 1e6 * sample.cost_usd)
        rows = [cost]
        if sample.stream:
            rows.append(("TTFT", f"{sample.name} first token (ms)", 1000 * sample.ttft_s))
            rows.append(("ITL", f"{sample.name} pause between events (ms)", 1000 * sample.itl_s))
            rate = 1 / sample.tpot_s if sample.tpot_s else 0.0
            rows.append(("RATE", f"{sample.name} output tokens/s", rate))
        for kind, name, value in rows:
            fire(request_type=kind, name=name, response_time=value, **row)


def _sample(ask: ReadyRequest, seen: _Seen, headers: Any, moments: tuple[float, float, float, float]) -> Sample:
    start, due, sent, done = moments
    first = seen.first or done
    pace = (seen.last - seen.first) / (seen.output_tokens - 1) if seen.first and seen.output_tokens > 1 else 0.0
    pause = (seen.last - seen.first) / (seen.events - 1) if seen.events > 1 else 0.0

    def header(name: str) -> str:
        return str(headers.get(name) or "") if headers else ""

    return Sample(
        name=ask.name,
        due_s=round(due - start, 5),
        lag_s=round(max(0.0, sent - due), 5),
        ttft_s=round(first - due, 5),
        done_s=round(done - due, 5),
        itl_s=round(pause, 6),
        tpot_s=round(pace, 6),
        output_tokens=seen.output_tokens or ask.answer_tokens,
        prompt_tokens=seen.prompt_tokens,
        status=seen.status,
        fault=seen.fault,
        backend=header("x-spillway-backend"),
        decision=header("x-spillway-decision"),
        reason=header("x-spillway-reason"),
        cost_usd=seen.cost_usd or float(header("x-spillway-cost-usd") or 0),
        stream=ask.stream,
    )


def _read_stream(response: Any, seen: _Seen) -> None:
    finished = False
    while True:
        line = bytes(response.readline(b"\n"))
        if not line:
            seen.fault = "the stream ended without [DONE]"
            return
        if not line.startswith(b"data: "):
            continue
        if line.startswith(b"data: [DONE]"):
            seen.fault = "" if finished else "[DONE] without finish_reason"
            return
        if _plain(line):
            _note(seen)
            continue
        event = json.loads(line[6:])
        if "error" in event:
            seen.fault = f"broken off: {event['error'].get('code')}"
            return
        finished = _take_event(event, seen) or finished


def _plain(line: bytes) -> bool:
    """Return whether an event holds content and nothing else that matters.

    Most events do, and parsing each of them would make the generator slower than what it measures.
    """
    return (
        b'"finish_reason":null' in line
        and b'"usage"' not in line
        and b'"error"' not in line
        and b'"delta":{"content":"' in line
        and b'"content":""' not in line
    )


def _note(seen: _Seen) -> None:
    seen.last = time.monotonic()
    seen.first = seen.first or seen.last
    seen.events += 1


def _take_event(event: dict[str, Any], seen: _Seen) -> bool:
    """Record one event; return whether it carries a finish_reason."""
    finished = False
    for choice in event["choices"]:
        delta = choice.get("delta") or {}
        if delta.get("content") or delta.get("reasoning") or choice.get("text"):
            _note(seen)
        finished = finished or choice.get("finish_reason") is not None
    if event.get("usage"):
        _take_usage(event["usage"], seen)
    return finished


def _read_whole(raw: bytes, seen: _Seen) -> None:
    body = json.loads(raw)
    if not any(body.get(name) for name in ("choices", "data", "fields")):
        seen.fault = f"no answer in {raw[:80]!r}"
    if body.get("usage"):
        _take_usage(body["usage"], seen)


def _take_usage(usage: dict[str, Any], seen: _Seen) -> None:
    seen.output_tokens = int(usage.get("completion_tokens") or 0)
    seen.prompt_tokens = int(usage.get("prompt_tokens") or 0)
    seen.cost_usd = float(usage.get("cost") or 0)

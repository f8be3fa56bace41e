"""Sends one document through the router, as a careful client would, and records what came back and when."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from demo.workload import DocumentJob
from spillway_server.demo_model.documents import exact, prompt

MAX_ANSWER_TOKENS = 200
REQUEST_TIMEOUT_S = 60.0
_PRIVATE_PATIENCE_S = 30.0
_LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class DocumentResult:
    """The result of one document. Times are seconds from the moment at which it was due.

    `served_s` is the time to the first text of a stream, or to the response headers of a whole answer (which come with
    all of it). `tokens` are the completion tokens of a whole answer by its usage, 0 for streams. `overhead_s` is the
    router's own time before the first upstream call, by its header. `fault` is empty when a complete answer arrived.
    """

    job: DocumentJob
    status: int
    fault: str
    decision: str
    reasons: tuple[str, ...]
    backend: str
    confidence: float | None
    served_s: float
    done_s: float
    tokens: int
    overhead_s: float | None
    refusals: int
    right: bool
    request_id: str

    @property
    def answered(self) -> bool:
        """Return whether a complete answer arrived."""
        return not self.fault


@dataclass(slots=True)
class _Reply:
    """One HTTP exchange."""

    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    fault: str = ""
    text: str = ""
    tokens: int = 0
    served_s: float = 0.0
    said: dict[str, Any] = field(default_factory=dict)
    """The `spillway` member at a stream's end: it names the backend where the headers left before it was known."""


async def send(client: httpx.AsyncClient, job: DocumentJob, due: float) -> DocumentResult:
    """Ask for the document's JSON. A refused private document is sent again after the pause that
    the router requests.
    """
    clock = asyncio.get_running_loop().time
    refusals = 0
    while True:
        reply = await _exchange(client, job, due)
        waited = clock() - due
        if reply.status != 503 or not job.private or waited > _PRIVATE_PATIENCE_S:
            break
        refusals += 1
        await asyncio.sleep(min(_LONGEST_PAUSE_S, _retry_after(reply.headers)))
    return _result(job, reply, clock() - due, refusals)


def _retry_after(headers: httpx.Headers) -> float:
    try:
        return max(0.1, float(headers.get("retry-after", "1")))
    except ValueError:
        return 1.0


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _result(job: DocumentJob, reply: _Reply, done_s: float, refusals: int) -> DocumentResult:
    seen = reply.headers
    overhead_ms = _number(seen.get("x-spillway-overhead-ms"))
    return DocumentResult(
        job=job,
        status=reply.status,
        fault=reply.fault,
        decision=seen.get("x-spillway-decision") or str(reply.said.get("decision", "")),
        reasons=tuple(filter(None, seen.get("x-spillway-reason", "").split(","))),
        backend=seen.get("x-spillway-backend") or str(reply.said.get("backend", "")),
        confidence=_number(seen.get("x-spillway-confidence")),
        served_s=reply.served_s or done_s,
        done_s=done_s,
        tokens=reply.tokens,
        overhead_s=None if overhead_ms is None else overhead_ms / 1000,
        refusals=refusals,
        right=not reply.fault and exact(reply.text, job.truth),
        request_id=seen.get("x-request-id", ""),
    )


def _body(job: DocumentJob) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": job.model,
        "messages": prompt(job.text),
        "temperature": 0,
        "max_tokens": MAX_ANSWER_TOKENS,
    }
    if job.stream:
        body["stream"] = True
    return body


async def _exchange(client: httpx.AsyncClient, job: DocumentJob, due: float) -> _Reply:
    reply = _Reply()
    clock = asyncio.get_running_loop().time
    headers = {"x-spillway-privacy": "local-only"} if job.private else {}
    if job.model != "auto":
        headers["x-spillway-min-confidence"] = "0"  # a pinned document is for this model's own answer
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            async with client.stream("POST", "/v1/chat/completions", json=_body(job), headers=headers) as answer:
                reply.status, reply.headers = answer.status_code, answer.headers
                if answer.status_code != 200:
                    reply.fault = f"{answer.status_code} {_error_code(await answer.aread())}"
                elif job.stream:
                    await _read_stream(answer, reply, due)
                else:
                    reply.served_s = clock() - due
                    reply.text, reply.tokens = _whole(await answer.aread())
    except (httpx.HTTPError, TimeoutError, _MalformedError) as error:
        reply.fault = f"{type(error).__name__}: {error}"
    return reply


class _MalformedError(Exception):
    """The answer is no complete chat completion; the message says why."""


def _error_code(raw: bytes) -> str:
    try:
        return str(json.loads(raw)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return repr(raw[:80])


def _whole(raw: bytes) -> tuple[str, int]:
    try:
        body = json.loads(raw)
        return body["choices"][0]["message"]["content"] or "", int(body["usage"]["completion_tokens"])
    except (ValueError, LookupError, TypeError) as error:
        raise _MalformedError(f"no chat completion in {raw[:80]!r}") from error


async def _read_stream(answer: httpx.Response, reply: _Reply, due: float) -> None:
    clock = asyncio.get_running_loop().time
    finished = done = False
    async for line in answer.aiter_lines():
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            done = True
            continue
        try:
            event = json.loads(line[6:])
            if "error" in event:
                raise _MalformedError(f"stream broke off: {event['error'].get('code')}")
            reply.said = event.get("spillway") or reply.said
            for choice in event["choices"]:
                text = choice["delta"].get("content") or ""
                if text and not reply.served_s:
                    reply.served_s = clock() - due
                reply.text += text
                finished = finished or choice.get("finish_reason") is not None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _MalformedError(f"bad event {line[:80]!r}") from error
    if not (finished and done):
        raise _MalformedError("stream ended without finish_reason and [DONE]")

"""The adapter for every server that speaks the OpenAI API over HTTP; differences come from the catalogue entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from spillway_router.core.money.estimates import OutputCount
from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import Endpoint, Outcome, OutcomeKind
from spillway_router.core.routing.rate_limits import text_wait_s, wait_s
from spillway_router.http_client.types import Reply
from spillway_router.providers.blame import KINDS, ErrorText, load_blame
from spillway_router.providers.errors import MAX_ERROR_BYTES, shown_error
from spillway_router.providers.interface import PATHS, CatalogueEntry, StreamMonitor
from spillway_router.providers.streams import (
    BAD_FINISH,
    ChatMonitor,
    MessagesMonitor,
    ResponsesMonitor,
    error_text,
)
from spillway_router.providers.usage import doubted, read_usage, usage_elsewhere

OK = Outcome("ok", 200)
OVERLOADED = frozenset({498, 529})
"""Statuses of their own for overload: Groq's flex tier, and Anthropic."""
NO_ANSWER = "a choice of the answer has no message"
UNAVAILABLE = 503
"""The status of a server that does not accept the call, so that it can't have worked on it."""
FAILED_DEPENDENCY = 424
"""The status of a front end whose model's worker failed (Hugging Face): no fault of the request."""
GATEWAY_TIMEOUTS = frozenset({504, 524})
"""Statuses of a gateway that gave up waiting for the provider, which may have processed the call and may bill it."""


class OpenAICompatible:
    """A `Provider` for the OpenAI API and for what its catalogue entry says."""

    def __init__(self, entry: CatalogueEntry) -> None:
        self.entry = entry
        self._blame = load_blame()

    def path(self, endpoint: Endpoint) -> str:
        """Return the endpoint's path below the base URL."""
        return PATHS[endpoint]

    def stream_monitor(self, endpoint: Endpoint, choices: int, count: OutputCount | None = None) -> StreamMonitor:
        """Return a new monitor for one stream; `count` counts its output."""
        if endpoint == "responses":
            return ResponsesMonitor(self.entry.usage, count)
        if endpoint == "messages":
            return MessagesMonitor(self.entry.usage, count)
        return ChatMonitor(choices, self.entry.usage, count)

    def outcome(self, reply: Reply, wall_s: float) -> Outcome:
        """Return what an HTTP status and its body mean. `wall_s`: epoch seconds now, for Retry-After dates."""
        status = reply.status
        if 200 <= status < 300:
            if status == 200:
                return OK
            return Outcome("failed", status, f"HTTP {status} is not an answer", billed=True)
        body = reply.body if len(reply.body) <= MAX_ERROR_BYTES else reply.body[:200]
        error = _error(body, reply.headers)
        kind, fault = self._kind_and_fault(status, error)
        wait = wait_s(reply.headers, wall_s)
        if wait is None and kind == "rate_limited":
            wait = text_wait_s(error.message)
        return Outcome(
            kind,
            status,
            f"HTTP {status}, {fault}" if fault else f"HTTP {status}",
            said=error.message,
            retry_after_s=wait,
            billed=status in GATEWAY_TIMEOUTS,
            doubtful=kind == "failed" and status != UNAVAILABLE,
            fault=fault,
            error=shown_error(body) if kind in ("rejected", "unserved") else None,
        )

    def _kind_and_fault(self, status: int, error: ErrorText) -> tuple[OutcomeKind, str]:
        """Return what an error means, and whose fault it is; the fault is empty if no row of the table knows it."""
        kind = self.kind(status)
        if kind == "overloaded":
            return kind, "capacity"
        fault = self._blame.fault(self.entry.name, status, error)
        if fault is None:
            return kind, ""
        return KINDS.get(fault, kind), fault

    def kind(self, status: int) -> OutcomeKind:
        """Return the outcome kind of an error status."""
        if status == 429:
            return "rate_limited"
        if status in OVERLOADED:
            return "overloaded"
        if status in self.entry.request_fault:
            return "rejected"
        if status in (401, 402, 403):
            return "unauthorized"
        if status in (408, 504):
            return "timeout"
        if status in (404, 405):
            return "unserved"
        if status == FAILED_DEPENDENCY:
            return "failed"
        if 400 <= status < 500:
            return "rejected"
        return "failed"

    def usage(self, endpoint: Endpoint, body: Mapping[str, Any]) -> Usage | None:
        """Return the usage of a whole answer; None if it is missing or malformed."""
        dialect = self.entry.usage
        reported = body.get("usage")
        if reported is None and dialect.elsewhere:
            reported = usage_elsewhere(body, dialect)
        generates = endpoint != "embeddings"
        usage = read_usage(reported, body, dialect, generates=generates)
        if usage is not None and not usage.completion_tokens and generates and _has_output(body):
            return doubted(usage)
        return usage

    def flaw(self, endpoint: Endpoint, body: Mapping[str, Any]) -> str | None:
        """Return what is wrong with a 200's body; None if it is an answer."""
        error = error_text(body)
        if error is not None:
            return error
        if endpoint in ("chat", "completions"):
            choices = body.get("choices")
            if not isinstance(choices, list) or not choices:
                return "the answer has no choices"
            for choice in choices:
                if not isinstance(choice, dict) or choice.get("finish_reason") in BAD_FINISH:
                    return "the engine aborted the answer"
                if not isinstance(choice.get("message"), dict) and choice.get("text") is None:
                    return NO_ANSWER
        elif endpoint == "embeddings" and not isinstance(body.get("data"), list):
            return "the answer has no data"
        elif endpoint == "responses" and body.get("status") == "failed":
            return "the response failed"
        return None


def _has_output(body: Mapping[str, Any]) -> bool:
    """Return whether an answer has content that must have cost output tokens. The text of a completion may repeat the
    prompt, and costs none then."""
    choices = body.get("choices")
    if isinstance(choices, list):
        messages = [choice.get("message") for choice in choices if isinstance(choice, dict)]
        return any(_says(message) for message in messages if isinstance(message, dict))
    return bool(body.get("content") or body.get("output"))


def _says(message: Mapping[str, Any]) -> bool:
    return any(value for name, value in message.items() if name != "role")


def _error(body: bytes, headers: Mapping[str, str]) -> ErrorText:
    """Return what an error says. Its body is nested, flat (Cerebras) or a plain string (Hugging Face)."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ErrorText(message=body[:200].decode("utf-8", "replace"), headers=headers)
    if not isinstance(parsed, dict):
        return ErrorText(headers=headers)
    nested = parsed.get("error")
    members = nested if isinstance(nested, dict) else parsed
    code, kind = members.get("code"), members.get("type")
    return ErrorText(
        code=code if isinstance(code, str) else "",
        type=kind if isinstance(kind, str) else "",
        message=error_text(parsed) or str(parsed.get("message") or parsed.get("detail") or "")[:500],
        headers=headers,
    )

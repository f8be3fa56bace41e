"""Judges: what the events of an answer stream mean, per protocol, without I/O.

The stream promise (docs/stream-promise.md) rests on them. A chat or completions stream is whole only if every choice
got a finish_reason that is not `error` or `abort`; a responses stream only with `response.completed` (or `incomplete`);
a messages stream only with a stop_reason and `message_stop`. `[DONE]` alone proves nothing, and an empty finish_reason
is none. Some providers put a finish_reason on every chunk, so content may follow one; `open_end` says that it may.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.estimates import OutputCount
from spillway_router.core.money.tariff import Usage
from spillway_router.providers.output_counts import count_choices, count_messages_event, count_responses_event
from spillway_router.providers.usage import PLAIN, UsageDialect, UsagePlace, UsageTally, doubted, usage_at

BAD_FINISH = ("error", "abort")
"""A tuple: the reason of a broken provider need not be hashable."""
DONE = b"[DONE]"


def error_text(body: Mapping[str, Any]) -> str | None:
    """Return the message of an `error` member, None if there is none."""
    error = body.get("error")
    if not error:
        return None
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("code") or error
    return valid_text(str(error)[:500])


def _error_of_groq(body: Mapping[str, Any]) -> str | None:
    """Return why Groq stopped a stream early, which it says in a member of its own; None if it didn't."""
    extra = body.get("x_groq")
    return error_text(extra) if type(extra) is dict else None


@fast_frozen(frozen=True, slots=True)
class MalformedObject:
    """Bytes that are no JSON object; `flaw` says what is wrong with them."""

    flaw: str


def parse_object(data: bytes) -> dict[str, Any] | MalformedObject:
    """Parse a JSON object. Bad UTF-8 counts as bad JSON; an escaped half of a character does not.

    Engines that cut an emoji between two events send a lone surrogate in each, which clients accept.
    """
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        body = _with_lone_surrogates(data)
        if body is None:
            if data.startswith((b"data:", b"event:")):
                return MalformedObject("a stream of events came instead of JSON")
            return MalformedObject(f"bad JSON: {error}")
    return body if isinstance(body, dict) else MalformedObject("an event is not a JSON object")


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def _with_lone_surrogates(data: bytes) -> object:
    """Parse JSON that orjson rejects if lone surrogates may be the reason; None if it is no JSON all the same."""
    if _SURROGATE.search(data) is None:
        return None
    try:
        body: object = json.loads(data.decode(), parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        return None
    return body


def _reject_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_LONG_NUMBER = re.compile(rb"\d{19}")


def exact(data: bytes, parsed: dict[str, Any]) -> dict[str, Any]:
    """Return what `data` holds with whole numbers of any length; `parsed` if it has none that orjson rounds."""
    if _LONG_NUMBER.search(data) is None:
        return parsed
    body: dict[str, Any] = json.loads(data)
    return body


def json_bytes(value: object) -> bytes:
    """Serialise to JSON, with escapes where the text has lone surrogates."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a lone surrogate, or a whole number above 64 bits
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def valid_text(text: str) -> str:
    """Return text that UTF-8 can hold: halves of a character are joined, and one without its other half replaced."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _message(body: Mapping[str, Any]) -> str:
    """Return what an event named `error` says without a member `error`."""
    message = body.get("message")
    return message if isinstance(message, str) and message else "error event"


class ChatMonitor:
    """The monitor of chat and completions streams with one or more choices.

    `count` counts the output of a paid stream, in this and the other monitors; None: nobody needs it.
    """

    __slots__ = (
        "_choices",
        "_finishes",
        "_has_output",
        "_in_choice",
        "_places",
        "_tally",
        "count",
        "finished",
        "open_end",
        "overloaded",
        "reported",
        "started",
    )

    def __init__(self, choices: int = 1, dialect: UsageDialect = PLAIN, count: OutputCount | None = None) -> None:
        self._choices = choices
        self.count = count
        self._tally = UsageTally(dialect)
        self._places: tuple[UsagePlace, ...] = tuple([place for place in dialect.elsewhere if place != "choices"])
        """Other members of an event than `usage` that may hold usage."""
        self._in_choice = "choices" in dialect.elsewhere
        self._finishes: set[int] = set()
        self._has_output = False
        """Whether content came that must have cost output tokens. The text of a completion may repeat the prompt."""
        self.started = False
        self.finished = False
        self.open_end = False
        self.overloaded = self.reported = False

    @property
    def usage(self) -> Usage | None:
        """The usage told until now."""
        usage = self._tally.usage()
        return doubted(usage) if self._has_output else usage

    @property
    def usage_is_latest(self) -> bool:
        """Whether usage was told, and no content since."""
        return self._tally.is_latest

    def check(self, name: bytes, data: bytes, parsed: dict[str, Any] | None = None) -> str | None:
        """Return what is wrong with this event, None if nothing is. `parsed`: its JSON if the caller has it already."""
        if data == DONE:
            self.open_end = False
            return None if self.finished else "[DONE] came without a finish_reason on every choice"
        body = parse_object(data) if parsed is None else parsed
        if isinstance(body, MalformedObject):
            return body.flaw
        if "error" in body or name == b"error":
            error = error_text(body)
            if error is not None or name == b"error":
                self._note_overload(body)
                self.reported = True
                return error or _message(body)
        usage = body.get("usage")
        for place in self._places:
            if place in body:
                stopped = _error_of_groq(body)
                if stopped is not None:
                    self.reported = True
                    return stopped
                self._tally.add(usage_at(place, body), body)
        if usage is not None:
            self._tally.add(usage, body)
        elif self._tally.is_latest:
            self._tally.is_latest = not _any_content(body.get("choices"))
        choices = body.get("choices")
        if not isinstance(choices, list):
            # A flat error ({"message", "code"}) has no choices, and neither has a bare usage event.
            self.open_end = False
            return None if usage is not None or not self._flat_error(body) else "error event without choices"
        if self.count is not None:
            count_choices(self.count, choices)
        for choice in choices:
            flaw = self._check_choice(choice)
            if flaw is not None:
                return flaw
        if self.finished:
            self.open_end = _any_content(choices)
        return None

    def missing(self) -> str | None:
        """Return what a stream that ends now lacks; None if the answer is whole."""
        return None if self.finished else "the stream ended without a finish_reason on every choice"

    def _check_choice(self, choice: object) -> str | None:
        if not isinstance(choice, dict):
            return "a choice is not a JSON object"
        reason = choice.get("finish_reason")
        if reason:  # "" is what some providers send on every chunk but the last
            if reason in BAD_FINISH:
                self.overloaded = reason == "abort" and not self.started
                return f"finish_reason {reason}"
            index = choice.get("index", 0)
            self._finishes.add(index if isinstance(index, int) else 0)
            self.started = True
            self.finished = len(self._finishes) >= self._choices
            if not self._has_output:
                self._has_output = _has_content(choice) and "text" not in choice
            if self._in_choice:
                self._tally.add(choice.get("usage"), choice)
        elif not self.started:
            self.started = _has_content(choice)
            self._has_output = self.started and "text" not in choice
        return None

    def _note_overload(self, body: Mapping[str, Any]) -> None:
        self.overloaded = not self.started and says_overloaded(body)

    @staticmethod
    def _flat_error(body: Mapping[str, Any]) -> bool:
        return body.get("object") == "error" or ("message" in body and "code" in body)


def _any_content(choices: object) -> bool:
    return isinstance(choices, list) and any(_has_content(choice) for choice in choices if isinstance(choice, dict))


def _has_content(choice: Mapping[str, Any]) -> bool:
    if choice.get("text"):
        return True
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return False
    return any(value for key, value in delta.items() if key != "role")


_OVERLOADED = frozenset(
    {
        "429", "498", "503", "529", "capacity_exceeded", "engine_overloaded", "overloaded", "overloaded_error",
        "rate_limit_error", "rate_limit_exceeded", "server_overloaded", "service_unavailable",
    }
)  # fmt: skip
"""Codes and types of errors within an answer of 200 that mean a full backend, as their statuses would."""


def says_overloaded(body: Mapping[str, Any]) -> bool:
    """Return whether the error in this JSON object means that the backend has no room, not that it failed."""
    nested = body.get("error")
    error: Mapping[str, Any] = nested if isinstance(nested, Mapping) else body
    return any(str(error.get(name)) in _OVERLOADED for name in ("code", "type"))


_BEFORE_OUTPUT = frozenset({"response.created", "response.queued", "response.in_progress"})
"""Events of the Responses API that say nothing but that the request was accepted; all others belong to an output."""


class ResponsesMonitor:
    """The monitor of the OpenAI Responses API: typed events, the last of them `response.completed` or `.incomplete`."""

    __slots__ = (
        "_has_output", "_tally", "count", "finished", "open_end", "overloaded", "reported", "response_id", "started",
    )  # fmt: skip

    def __init__(self, dialect: UsageDialect = PLAIN, count: OutputCount | None = None) -> None:
        self.count = count
        self._tally = UsageTally(dialect)
        self._has_output = False
        self.response_id = ""
        self.started = False
        self.finished = False
        self.open_end = False
        self.overloaded = self.reported = False

    @property
    def usage(self) -> Usage | None:
        """The usage told until now."""
        usage = self._tally.usage()
        return doubted(usage) if self._has_output else usage

    @property
    def usage_is_latest(self) -> bool:
        """Whether usage was told, and no content since."""
        return self._tally.is_latest

    def check(self, name: bytes, data: bytes) -> str | None:
        """Return what is wrong with this event, None if nothing is."""
        if data == DONE:
            return self.missing()
        body = parse_object(data)
        if isinstance(body, MalformedObject):
            return body.flaw
        kind = str(body.get("type") or name.decode("latin-1"))
        if kind in ("error", "response.failed") or body.get("error"):
            response = body.get("response")
            failed = response if isinstance(response, Mapping) and kind == "response.failed" else body
            self.overloaded = not self.started and says_overloaded(failed)
            if isinstance(response, Mapping):
                self._tally.add(response.get("usage"), response)
            nested = error_text(response) if isinstance(response, Mapping) else None
            self.reported = True
            return error_text(body) or nested or valid_text(str(body.get("message") or kind)[:500])
        if self.count is not None:
            count_responses_event(self.count, kind, body)
        if kind in ("response.completed", "response.incomplete"):
            self.started = self.finished = True
            response = body.get("response")
            if isinstance(response, Mapping):
                self._tally.add(response.get("usage"), response)
            self._note_id(response)
        elif kind in _BEFORE_OUTPUT:
            self._note_id(body.get("response"))
        else:
            self._tally.is_latest = False
            if not self._has_output:
                self.started = self.started or kind.startswith("response.")
                self._has_output = kind.endswith(".delta")
        return None

    def _note_id(self, response: object) -> None:
        value = response.get("id") if isinstance(response, dict) else None
        if isinstance(value, str):
            self.response_id = value

    def missing(self) -> str | None:
        """Return what a stream that ends now lacks; None if the answer is whole."""
        return None if self.finished else "the stream ended without response.completed"


class MessagesMonitor:
    """The monitor of the Anthropic Messages API: it ends with `message_stop`, and usage is spread over two events."""

    __slots__ = (
        "_has_output", "_stopped", "_tally", "_tells_output", "count", "finished", "open_end", "overloaded", "reported",
        "started",
    )  # fmt: skip

    def __init__(self, dialect: UsageDialect = PLAIN, count: OutputCount | None = None) -> None:
        self.count = count
        self._tally = UsageTally(dialect)
        self._has_output = False
        self._tells_output = False
        """Whether a count of the output came after the first one, which only begins to count."""
        self.started = False
        self.finished = False
        self.open_end = False
        self.overloaded = self.reported = False
        self._stopped = False

    @property
    def usage(self) -> Usage | None:
        """The usage told until now."""
        usage = self._tally.usage()
        if usage is not None and usage.certain and not self._tells_output:
            return replace(usage, certain=False)
        return doubted(usage) if self._has_output else usage

    @property
    def usage_is_latest(self) -> bool:
        """Whether usage was told, and no content since."""
        return self._tally.is_latest

    def check(self, name: bytes, data: bytes) -> str | None:
        """Return what is wrong with this event, None if nothing is."""
        if data == DONE:
            return self.missing()
        body = parse_object(data)
        if isinstance(body, MalformedObject):
            return body.flaw
        kind = str(body.get("type") or name.decode("latin-1"))
        if kind == "error" or body.get("error"):
            self.overloaded = not self.started and says_overloaded(body)
            self.reported = True
            return error_text(body) or "error event"
        if self.count is not None:
            count_messages_event(self.count, kind, body)
        if kind == "message_start":
            message = body.get("message")
            if isinstance(message, Mapping):
                self._tally.add(message.get("usage"), message)
        elif kind == "content_block_delta":
            self.started = self._has_output = True
            self._take_usage(body)
        elif kind == "content_block_start":
            # Text and thinking begin empty; a tool call, or the result of a server's tool, begins with content.
            block = body.get("content_block")
            if isinstance(block, Mapping) and block.get("type") not in ("text", "thinking"):
                self.started = True
        elif kind == "message_delta":
            delta = body.get("delta")
            self._stopped = self._stopped or (isinstance(delta, Mapping) and bool(delta.get("stop_reason")))
            self._take_usage(body)
        elif kind == "message_stop":
            if not self._stopped:
                return "message_stop came without a stop_reason"
            self.started = self.finished = True
        return None

    def _take_usage(self, body: Mapping[str, Any]) -> None:
        usage = body.get("usage")
        if isinstance(usage, dict):
            self._tally.add(usage, body)
            self._tells_output = self._tells_output or usage.get("output_tokens") is not None
        else:
            self._tally.is_latest = False

    def missing(self) -> str | None:
        """Return what a stream that ends now lacks; None if the answer is whole."""
        return None if self.finished else "the stream ended without message_stop"

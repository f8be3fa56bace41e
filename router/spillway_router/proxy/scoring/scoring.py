"""How sure an answer is: what is asked of the engine for it, and the verdicts on whole answers and on streams.

A stream's judge (`ScoredMonitor`) hears the log-probabilities in the events and takes them out again if only we asked
for them; events without any pass untouched. While the stream is held back it keeps tokens and text, so that an answer
that ends before it is let go, a JSON document or a tool call can be judged whole. Once it is let go only the running
score of each choice stays: no memory per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from spillway_router.core.confidence.calibration import Calibration
from spillway_router.core.confidence.judge import AnswerContext, ConfidenceVerdict, PrefixScore, judge
from spillway_router.core.confidence.scores import Token
from spillway_router.core.confidence.validators import ValueRule
from spillway_router.core.frozen import dataclass
from spillway_router.core.routing.model import Backend, RequestFacts
from spillway_router.core.routing.policy import ConfidenceRule
from spillway_router.providers.logprobs import answer_text, tokens_of_choice
from spillway_router.providers.sse import Event
from spillway_router.providers.streams import DONE, ChatMonitor, MalformedObject, parse_object

SCORED = frozenset({"chat", "completions"})
DOCUMENT_FORMATS = frozenset({"json_schema", "json_object"})


def scores(rule: ConfidenceRule, facts: RequestFacts, backend: Backend) -> bool:
    """True if log-probabilities are to be asked of this backend: only where a low confidence could change anything."""
    if not (rule.escalate_to or facts.hints.min_confidence is not None):
        return False
    return backend.local and "logprobs" in backend.capabilities and facts.endpoint in SCORED


def is_document(body: Mapping[str, Any]) -> bool:
    """True if the answer is to be JSON: judged whole, as single values decide over it."""
    wanted = body.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in DOCUMENT_FORMATS


@dataclass(frozen=True, slots=True)
class ConfidenceCriteria:
    """What an answer is measured by: the calibration for its model and task, and the user's rules for its values."""

    task: str
    calibration: Calibration | None
    rules: tuple[ValueRule, ...] = ()


def asked_of(body: Mapping[str, Any], yardstick: ConfidenceCriteria, *, tools: bool = False) -> AnswerContext:
    """What scoring may know of a request; `tools`: the answer is tool calls."""
    wanted = body.get("response_format")
    schema = None
    if isinstance(wanted, dict) and isinstance(wanted.get("json_schema"), dict):
        schema = wanted["json_schema"].get("schema")
    document = is_document(body)
    kind = yardstick.task or ("json" if document or tools else "chat")
    # Only JSON answers are compared with their source, asked for or not; a call's arguments need not stand there.
    source = "" if tools else _text_of(body)
    return AnswerContext(schema if isinstance(schema, dict) else None, source, kind, tools, yardstick.rules)


def _text_of(body: Mapping[str, Any]) -> str:
    """The text of the prompt: contents of the messages, or the prompt itself."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        prompt = body.get("prompt")
        return prompt if isinstance(prompt, str) else ""
    parts: list[str] = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            parts.append(content)
        elif isinstance(content, list):
            parts.extend(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
    return "\n".join(parts)


def answer_verdict(
    answer: Mapping[str, Any], body: Mapping[str, Any], yardstick: ConfidenceCriteria
) -> ConfidenceVerdict | None:
    """The verdict on a whole answer: that of its least sure choice; None if it has no choices."""
    verdicts = []
    for choice in answer.get("choices") or ():
        message = choice.get("message")
        tools = isinstance(message, dict) and bool(message.get("tool_calls"))
        asked = asked_of(body, yardstick, tools=tools)
        verdicts.append(judge(tokens_of_choice(choice), answer_text(choice), asked, yardstick.calibration))
    return least_sure(verdicts)


def least_sure(verdicts: Sequence[ConfidenceVerdict]) -> ConfidenceVerdict | None:
    """The verdict that speaks for all choices: one with a flaw, else one without a signal, else the lowest."""
    return min(verdicts, key=_rank, default=None)


def _rank(verdict: ConfidenceVerdict) -> tuple[int, float]:
    if verdict.flaws and verdict.confidence is not None:
        return 0, verdict.confidence
    return (1, 0.0) if verdict.confidence is None else (2, verdict.confidence)


@dataclass(slots=True)
class _Heard:
    """One choice of a stream. `tokens` and `parts` are kept while it is held back."""

    prefix: PrefixScore
    tokens: list[Token]
    parts: list[str]
    calls: dict[int, list[str]]

    def text(self) -> str:
        """The answer so far; for tool calls their arguments, one a line."""
        if self.calls:
            return "\n".join("".join(parts) for parts in self.calls.values())
        return "".join(self.parts)


class ScoredMonitor(ChatMonitor):
    """See the module docstring. `strip`: take the log-probabilities out of the events."""

    __slots__ = ("_body", "_choices_heard", "_keep", "_strip", "frame", "tools")

    def __init__(self, choices: int, *, strip: bool) -> None:
        super().__init__(choices)
        self._strip = strip
        self._body: dict[str, Any] | None = None
        self._choices_heard: dict[int, _Heard] = {}
        self._keep = True
        self.tools = False
        """A tool call has begun: it is judged whole."""
        self.frame: dict[str, Any] = {}
        """What names the answer in each of its events."""

    def check(self, name: bytes, data: bytes, parsed: dict[str, Any] | None = None) -> str | None:
        """None, or what is wrong with this event."""
        self._body = None
        if data == DONE:
            return super().check(name, data)
        found = parse_object(data) if parsed is None else parsed
        if isinstance(found, MalformedObject):
            return found.flaw
        flaw = super().check(name, data, found)
        if flaw is None:
            self._hear(found)
        return flaw

    def _hear(self, body: dict[str, Any]) -> None:
        for choice in body.get("choices") or ():
            if choice.get("logprobs") is not None:
                self._body = body
            index = choice.get("index", 0)
            heard = self._choices_heard.get(index)
            if heard is None:
                heard = self._choices_heard[index] = _Heard(PrefixScore(), [], [], {})
                self.frame = {k: body[k] for k in ("id", "object", "created", "model") if k in body}
            found = tokens_of_choice(choice)
            add = heard.prefix.add
            for token in found:
                add(token)
            if self._keep:
                heard.tokens.extend(found)
                self._note_text(choice, heard)

    def _note_text(self, choice: Mapping[str, Any], heard: _Heard) -> None:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            heard.parts.append(choice.get("text") or "")
            return
        content = delta.get("content")
        if isinstance(content, str):
            heard.parts.append(content)
        for call in delta.get("tool_calls") or ():
            self.tools = True
            function = call.get("function") if isinstance(call, dict) else None
            arguments = function.get("arguments") if isinstance(function, dict) else None
            if isinstance(arguments, str):
                heard.calls.setdefault(call.get("index", 0), []).append(arguments)

    def stripped(self, event: Event) -> Event:
        """The event that was just seen, as the client gets it."""
        body = self._body
        if body is None or not self._strip:
            return event
        for choice in body["choices"]:
            choice["logprobs"] = None
        data = orjson.dumps(body)
        name = b"event: " + event.name + b"\n" if event.name else b""
        return Event(name + b"data: " + data + b"\n\n", event.name, data)

    def heard(self, tokens: int) -> bool:
        """True once every choice has so many tokens."""
        known = self._choices_heard
        return len(known) >= self._choices and all(h.prefix.tokens >= tokens for h in known.values())

    def confidence(self, calibration: Calibration | None) -> float | None:
        """Of the tokens so far: that of the least sure choice; None if one has no signal."""
        found = [h.prefix.confidence(calibration) for h in self._choices_heard.values()]
        known = [c for c in found if c is not None]
        return min(known) if known and len(known) == len(found) else None

    def verdict(self, body: Mapping[str, Any], yardstick: ConfidenceCriteria) -> ConfidenceVerdict | None:
        """On the whole answer, which must have been held back to its end."""
        return least_sure(
            [
                judge(h.tokens, h.text(), asked_of(body, yardstick, tools=bool(h.calls)), yardstick.calibration)
                for h in self._choices_heard.values()
            ]
        )

    def text(self) -> str:
        """The first choice's answer, if its text was kept."""
        first = next(iter(self._choices_heard.values()), None)
        return "" if first is None else first.text()

    def release_held(self, *, keep_text: bool) -> None:
        """The stream goes on to the client: forget tokens, and the text unless somebody wants it in the end."""
        self._keep = keep_text
        for heard in self._choices_heard.values():
            heard.tokens = []
            if not keep_text:
                heard.parts, heard.calls = [], {}

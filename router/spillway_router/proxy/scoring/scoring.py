"""How sure an answer is: which answers are scored, and the verdicts on whole answers and on streams.

A stream's monitor (`ScoredMonitor`) reads the log-probabilities in the events and removes them again if only the router
asked for them; events without any pass untouched. While the stream is held back it keeps tokens and text, so that an
answer that ends before it is released, a JSON document or a tool call can be judged whole. Once the stream is released
only the running score of each choice stays: no memory per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spillway_router.core.confidence.calibration import Calibration
from spillway_router.core.confidence.judge import AnswerContext, ConfidenceVerdict, PrefixScore, judge
from spillway_router.core.confidence.scores import Token
from spillway_router.core.confidence.validators import ValueRule
from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.estimates import OutputCount
from spillway_router.core.routing.model import Backend, RequestFacts
from spillway_router.core.routing.policy import ConfidenceRule
from spillway_router.providers.logprobs import answer_text, tokens_of_choice
from spillway_router.providers.sse import Event
from spillway_router.providers.streams import (
    DONE,
    ChatMonitor,
    MalformedObject,
    exact,
    json_bytes,
    parse_object,
    valid_text,
)
from spillway_router.providers.usage import PLAIN, UsageDialect
from spillway_router.proxy.request.large_body import cut_strings

SCORED_ENDPOINTS = frozenset({"chat", "completions"})
DOCUMENT_FORMATS = frozenset({"json_schema", "json_object"})


def is_scored(rule: ConfidenceRule, facts: RequestFacts, backend: Backend, *, escalated: bool = False) -> bool:
    """True if this backend is asked for log-probabilities: only where a low confidence could change anything.

    `escalated`: it is asked as a step of escalation.
    """
    if not (rule.escalate_to or facts.hints.min_confidence is not None):
        return False
    if not backend.local and not (escalated and rule.step_threshold(backend.name) is not None):
        return False
    return "logprobs" in backend.capabilities and facts.endpoint in SCORED_ENDPOINTS


def is_document(body: Mapping[str, Any]) -> bool:
    """True if the answer is to be JSON. It is judged whole, as one wrong value makes all of it wrong."""
    response_format = body.get("response_format")
    return isinstance(response_format, dict) and response_format.get("type") in DOCUMENT_FORMATS


@fast_frozen(frozen=True, slots=True)
class ConfidenceCriteria:
    """What an answer is judged by: its task, the calibration for its model, and the user's rules for its values."""

    task: str
    calibration: Calibration | None
    rules: tuple[ValueRule, ...] = ()


def answer_context(body: Mapping[str, Any], criteria: ConfidenceCriteria, *, tools: bool = False) -> AnswerContext:
    """What scoring may know of a request; `tools`: the answer consists of tool calls."""
    response_format = body.get("response_format")
    schema = None
    if isinstance(response_format, dict) and isinstance(response_format.get("json_schema"), dict):
        schema = response_format["json_schema"].get("schema")
    kind = criteria.task or ("json" if is_document(body) or tools else "chat")
    # Only JSON answers are compared with their source, requested or not; the arguments of a call need not be in it.
    source = "" if tools else _prompt_text(body)
    return AnswerContext(
        schema=schema if isinstance(schema, dict) else None, source=source, task=kind, tools=tools, rules=criteria.rules
    )


def _prompt_text(body: Mapping[str, Any]) -> str:
    """Return the contents of the messages, or the prompt itself; "" if a part of it was too long to be kept."""
    parts = _prompt_parts(body)
    cut = cut_strings(body)
    return "" if cut and not cut.keys().isdisjoint(parts) else "\n".join(parts)


def _prompt_parts(body: Mapping[str, Any]) -> list[str]:
    messages = body.get("messages")
    if not isinstance(messages, list):
        prompt = body.get("prompt")
        return [prompt] if isinstance(prompt, str) else []
    parts: list[str] = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            parts.append(content)
        elif isinstance(content, list):
            parts.extend(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
    return parts


def answer_verdict(
    answer: Mapping[str, Any], body: Mapping[str, Any], criteria: ConfidenceCriteria
) -> ConfidenceVerdict | None:
    """The verdict on a whole answer: that of its least sure choice; None if it has no choices."""
    verdicts = []
    for choice in answer.get("choices") or ():
        message = choice.get("message")
        tools = isinstance(message, dict) and bool(message.get("tool_calls"))
        context = answer_context(body, criteria, tools=tools)
        verdicts.append(judge(tokens_of_choice(choice), answer_text(choice), context, criteria.calibration))
    return least_sure(verdicts)


def least_sure(verdicts: Sequence[ConfidenceVerdict]) -> ConfidenceVerdict | None:
    """The verdict that stands for all choices: one with a flaw, else one without a confidence, else the lowest."""
    return min(verdicts, key=_rank, default=None)


def _rank(verdict: ConfidenceVerdict) -> tuple[int, float]:
    if verdict.flaws and verdict.confidence is not None:
        return 0, verdict.confidence
    return (1, 0.0) if verdict.confidence is None else (2, verdict.confidence)


@dataclass(slots=True)
class _StreamedChoice:
    """One choice of a stream so far. Its tokens and text are kept while the stream is held back."""

    prefix: PrefixScore
    tokens: list[Token]
    parts: list[str]
    calls: dict[int, list[str]]

    def text(self) -> str:
        """The answer so far; for tool calls their arguments, one call per line."""
        if self.calls:
            return valid_text("\n".join(["".join(parts) for parts in self.calls.values()]))
        return valid_text("".join(self.parts))


class ScoredMonitor(ChatMonitor):
    """Judges a chat stream and scores its tokens. `strip`: remove the log-probabilities from the events."""

    __slots__ = ("_body", "_keep_text", "_streamed_choices", "_strip", "frame", "tools")

    def __init__(
        self, choices: int, dialect: UsageDialect = PLAIN, *, strip: bool, count: OutputCount | None = None
    ) -> None:
        super().__init__(choices, dialect, count)
        self._strip = strip
        self._body: dict[str, Any] | None = None
        """The event that was just seen, if it holds log-probabilities."""
        self._streamed_choices: dict[int, _StreamedChoice] = {}
        self._keep_text = True
        self.tools = False
        """A tool call has started: it is judged whole."""
        self.frame: dict[str, Any] = {}
        """Members that name the answer in each of its events."""

    def check(self, name: bytes, data: bytes, parsed: dict[str, Any] | None = None) -> str | None:
        """Take an event in. Returns what is wrong with it, None if nothing is."""
        self._body = None
        if data == DONE:
            return super().check(name, data)
        body = parse_object(data) if parsed is None else parsed
        if isinstance(body, MalformedObject):
            return body.flaw
        flaw = super().check(name, data, body)
        if flaw is None:
            self._score(body)
        return flaw

    def _score(self, body: dict[str, Any]) -> None:
        choices = body.get("choices")
        if not isinstance(choices, list):
            return
        for choice in choices:
            if choice.get("logprobs") is not None:
                self._body = body
            index = choice.get("index", 0)
            if not isinstance(index, int):
                index = 0
            streamed = self._streamed_choices.get(index)
            if streamed is None:
                streamed = self._streamed_choices[index] = _StreamedChoice(PrefixScore(), [], [], {})
                self.frame = {k: body[k] for k in ("id", "object", "created", "model") if k in body}
            tokens = tokens_of_choice(choice)
            add = streamed.prefix.add
            for token in tokens:
                add(token)
            if self._keep_text:
                streamed.tokens.extend(tokens)
                self._add_text(choice, streamed)

    def _add_text(self, choice: Mapping[str, Any], streamed: _StreamedChoice) -> None:
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            text = choice.get("text")
            streamed.parts.append(text if isinstance(text, str) else "")
            return
        content = delta.get("content")
        if isinstance(content, str):
            streamed.parts.append(content)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            self.tools = True
            function = call.get("function") if isinstance(call, dict) else None
            arguments = function.get("arguments") if isinstance(function, dict) else None
            if isinstance(arguments, str):
                index = call.get("index", 0)
                streamed.calls.setdefault(index if isinstance(index, int) else 0, []).append(arguments)

    def stripped(self, event: Event) -> Event:
        """The event that was just seen, as the client gets it."""
        body = self._body
        if body is None or not self._strip or event.data is None:
            return event
        body = exact(event.data, body)
        for choice in body["choices"]:
            choice["logprobs"] = None
        data = json_bytes(body)
        name = b"event: " + event.name + b"\n" if event.name else b""
        return Event(name + b"data: " + data + b"\n\n", event.name, data)

    def has_tokens(self, count: int) -> bool:
        """True once every choice has at least `count` tokens."""
        choices = self._streamed_choices
        return len(choices) >= self._choices and all(c.prefix.tokens >= count for c in choices.values())

    def confidence(self, calibration: Calibration | None) -> float | None:
        """The confidence of the tokens so far, that of the least sure choice; None if any choice has none."""
        of_choices = [choice.prefix.confidence(calibration) for choice in self._streamed_choices.values()]
        numbers = [confidence for confidence in of_choices if confidence is not None]
        return min(numbers) if numbers and len(numbers) == len(of_choices) else None

    def verdict(self, body: Mapping[str, Any], criteria: ConfidenceCriteria) -> ConfidenceVerdict | None:
        """The verdict on the whole answer, which must have been held back to its end. `body` is the request's."""
        verdicts: list[ConfidenceVerdict] = []
        for choice in self._streamed_choices.values():
            context = answer_context(body, criteria, tools=bool(choice.calls))
            verdicts.append(judge(choice.tokens, choice.text(), context, criteria.calibration))
        return least_sure(verdicts)

    def text(self) -> str:
        """The first choice's answer, if its text was kept."""
        first = next(iter(self._streamed_choices.values()), None)
        return "" if first is None else first.text()

    def release_held(self, *, keep_text: bool) -> None:
        """Forget the tokens, as the stream goes on to the client; and its text unless `keep_text`."""
        self._keep_text = keep_text
        for choice in self._streamed_choices.values():
            choice.tokens = []
            if not keep_text:
                choice.parts, choice.calls = [], {}

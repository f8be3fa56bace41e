"""Estimates: what an answer has cost whose usage nobody told, because its stream was stopped, cut or broke.

The prompt counts as the stream told it, else as it was expected. The output is what arrived, turned into tokens by what
the backend's whole answers taught (`OutputHabit`), and what their streams never show: hidden reasoning. An answer that
goes on without us, or that nobody saw, counts as long as the usual one. No estimate is below what was told, or above
the output that the request permits.
"""

from __future__ import annotations

import math
from dataclasses import replace

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.tariff import STANDARD, Usage

_LEAST_WEIGHT = 0.05
"""Weight of a new sample in the long run, which gives a memory of about twenty samples."""
_PRIOR_SAMPLES = 2
"""How many samples the start values count as."""
_LEAST_TOKENS = 16
"""A shorter answer says little about how many tokens are in a byte or in an event."""


class OutputCount:
    """What has arrived of one answer's output: events with content, bytes of text in them (reasoning included), and the
    uses of the provider's own tools."""

    __slots__ = ("calls", "events", "has_reasoning", "text_bytes")

    def __init__(self) -> None:
        self.events = 0
        self.text_bytes = 0
        self.has_reasoning = False
        self.calls: dict[str, int] = {}

    def add(self, text: str) -> None:
        """Count one event with its text."""
        self.events += 1
        self.text_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))

    def add_call(self, name: str) -> None:
        """Count one use of a tool that the provider runs."""
        self.calls[name] = self.calls.get(name, 0) + 1


NO_OUTPUT = OutputCount()
"""Stands for the output of an answer that nobody counted. Never add to it."""


@fast_frozen(frozen=True, slots=True)
class UntoldCall:
    """A call whose usage nobody told.

    `told` is what its stream said of its usage so far, `count` what arrived of its output; both may be None.
    `usual_first_s` is the backend's usual time to the first token, `waited_s` how long the call took. `goes_on`: the
    provider completes the answer without us. `unseen`: the answer comes all at once, so nobody knows how far it is.
    """

    prompt_tokens: int
    most_output_tokens: int
    told: Usage | None = None
    count: OutputCount | None = None
    waited_s: float = 0.0
    usual_first_s: float = 0.0
    goes_on: bool = False
    unseen: bool = False
    service: str = STANDARD


class OutputHabit:
    """What the whole answers of one backend teach about the output of those that are cut off. No I/O, a few floats."""

    __slots__ = (
        "_by_bytes_miss",
        "_by_events_miss",
        "_bytes",
        "_events",
        "_samples",
        "_tokens",
        "hidden_tokens",
        "usual_tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        # One token in four bytes, and in each event.
        self._tokens, self._bytes, self._events = 100.0, 400.0, 100.0
        self._by_bytes_miss = self._by_events_miss = 0.0
        self._samples = 0
        self.usual_tokens = 300.0
        """Output tokens of an answer."""
        self.hidden_tokens = 0.0
        """Output tokens of an answer that its stream does not show."""

    def learn(self, count: OutputCount, usage: Usage) -> None:
        """Learn from a whole answer and its usage. `count` has no events where the answer was not streamed."""
        total = usage.completion_tokens
        hidden = 0 if count.has_reasoning else min(usage.reasoning_tokens, total)
        shown = total - hidden
        self._samples += 1
        weight = max(_LEAST_WEIGHT, 1 / (_PRIOR_SAMPLES + self._samples))
        self.usual_tokens += weight * (total - self.usual_tokens)
        self.hidden_tokens += weight * (hidden - self.hidden_tokens)
        if shown < _LEAST_TOKENS or not count.text_bytes:
            return
        by_bytes = abs(count.text_bytes * self._tokens / self._bytes - shown) / shown
        self._by_bytes_miss += weight * (by_bytes - self._by_bytes_miss)
        self._tokens += weight * (shown - self._tokens)
        self._bytes += weight * (count.text_bytes - self._bytes)
        if count.events > 1:
            by_events = abs(count.events * self._tokens / self._events - shown) / shown
            self._by_events_miss += weight * (by_events - self._by_events_miss)
            self._events += weight * (count.events - self._events)

    def shown_tokens(self, count: OutputCount) -> float:
        """Return the tokens of what arrived, by the measure that was the better one so far."""
        by_bytes = count.text_bytes * self._tokens / self._bytes
        if not count.events:
            return by_bytes
        by_events = count.events * self._tokens / self._events
        if self._by_events_miss == self._by_bytes_miss:
            return max(by_bytes, by_events)
        return by_events if self._by_events_miss < self._by_bytes_miss else by_bytes


def estimated_usage(call: UntoldCall, habit: OutputHabit) -> Usage:
    """Return the usage that is most likely; it is never below what was told."""
    output, hidden = _output_tokens(call, habit)
    so_far = call.told
    calls = () if call.count is None else tuple(call.count.calls.items())
    if so_far is None:
        readings = 1 + sum([uses for _, uses in calls])  # each use of a tool reads the prompt again
        return Usage(
            prompt_tokens=call.prompt_tokens * readings,
            completion_tokens=output,
            reasoning_tokens=hidden,
            service=call.service,
            calls=calls,
        )
    return replace(
        so_far,
        prompt_tokens=so_far.prompt_tokens or call.prompt_tokens,
        completion_tokens=max(so_far.completion_tokens, output),
        reasoning_tokens=max(so_far.reasoning_tokens, hidden),
        service=so_far.service or call.service,
        calls=so_far.calls or calls,
    )


def _output_tokens(call: UntoldCall, habit: OutputHabit) -> tuple[int, int]:
    """Return the tokens of the whole output, and those among them that were hidden."""
    count = call.count
    shown = 0.0 if count is None else habit.shown_tokens(count)
    begun = shown > 0
    hidden = 0.0 if count is not None and count.has_reasoning else habit.hidden_tokens
    if not begun and not call.unseen and call.usual_first_s > 0:
        hidden *= min(1.0, call.waited_s / call.usual_first_s)
    output = shown + hidden
    if call.goes_on or call.unseen:
        output = max(output, habit.usual_tokens)
    tokens = min(math.ceil(output), call.most_output_tokens)
    return tokens, min(int(hidden), tokens)

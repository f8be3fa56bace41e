"""What the fake providers charged: exact, append-only, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

_NANO_PER_USD = 10**9
_MILLION = 10**6


@dataclass(frozen=True, slots=True)
class ProviderPrice:
    """USD as decimal text: per million tokens of each kind, and per request."""

    input: str
    output: str
    cached: str
    reasoning: str
    request: str = "0"

    def nano(self, tokens: CallTokens) -> int:
        """Return the nano-dollars of one call: computed exactly, then rounded half up once."""
        exact = (
            (tokens.prompt - tokens.cached) * Fraction(self.input)
            + tokens.cached * Fraction(self.cached)
            + (tokens.out - tokens.reasoning) * Fraction(self.output)
            + tokens.reasoning * Fraction(self.reasoning)
        ) * Fraction(_NANO_PER_USD, _MILLION) + Fraction(self.request) * _NANO_PER_USD
        return (2 * exact.numerator + exact.denominator) // (2 * exact.denominator)


@dataclass(frozen=True, slots=True)
class CallTokens:
    """Token counts of one call. `cached` is part of `prompt`, `reasoning` of `out`."""

    prompt: int
    cached: int
    out: int
    reasoning: int

    def first(self, out: int) -> CallTokens:
        """Return the counts of the same call, stopped after `out` tokens of output."""
        return CallTokens(prompt=self.prompt, cached=self.cached, out=out, reasoning=min(self.reasoning, out))


@dataclass(frozen=True, slots=True)
class FakeProvider:
    """One provider: its price, what a cancelled call costs, and its longest answer in tokens.

    `on_cancel`: `stops` bills what was produced until the caller left, `continues` the whole answer.
    """

    price: ProviderPrice
    on_cancel: str
    most_out: int


@dataclass(slots=True)
class ProviderBill:
    """Lines of (provider, the caller's id of the call, nano-dollars)."""

    lines: list[tuple[str, str, int]] = field(default_factory=list)

    def charge(self, provider: str, caller_id: str, nano: int) -> None:
        """Add a line."""
        self.lines.append((provider, caller_id, nano))

"""What the tills charged: exact, append-only, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

_NANO_PER_USD = 10**9
_MILLION = 10**6


@dataclass(frozen=True, slots=True)
class Price:
    """USD as decimal text: per million tokens, and per request."""

    input: str
    output: str
    cached: str
    reasoning: str
    request: str = "0"

    def nano(self, tokens: Tokens) -> int:
        """Nano-dollars of one call: exact, rounded half up once."""
        exact = (
            (tokens.prompt - tokens.cached) * Fraction(self.input)
            + tokens.cached * Fraction(self.cached)
            + (tokens.out - tokens.reasoning) * Fraction(self.output)
            + tokens.reasoning * Fraction(self.reasoning)
        ) * Fraction(_NANO_PER_USD, _MILLION) + Fraction(self.request) * _NANO_PER_USD
        return (2 * exact.numerator + exact.denominator) // (2 * exact.denominator)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one call. `cached` is part of `prompt`, `reasoning` of `out`."""

    prompt: int
    cached: int
    out: int
    reasoning: int

    def first(self, out: int) -> Tokens:
        """The same call, stopped after so many tokens of output."""
        return Tokens(self.prompt, self.cached, out, min(self.reasoning, out))


@dataclass(frozen=True, slots=True)
class Till:
    """One provider: its price, what a cancelled call costs, and its longest answer in tokens.

    `on_cancel`: `stops` bills what was produced until the caller left, `continues` the whole answer.
    """

    price: Price
    on_cancel: str
    most_out: int


@dataclass(slots=True)
class Bill:
    """Lines of (till, the caller's id of the call, nano-dollars)."""

    lines: list[tuple[str, str, int]] = field(default_factory=list)

    def charge(self, till: str, caller_id: str, nano: int) -> None:
        """Add a line."""
        self.lines.append((till, caller_id, nano))

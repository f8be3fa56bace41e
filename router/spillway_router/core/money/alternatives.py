"""What the same answers would have cost at another model, and which of them that model could have given.

Sums don't show which prompts were long, but prices and contexts depend on it. So answers are summed by the length class
of their prompts. A price step or a context that begins at one of LENGTHS is counted exactly; one between two of them
counts from the next one on.

Only alternatives are compared: a model for embeddings can't chat, and the other way round; a prompt above a model's
context needs another model; and a price per second says nothing about answers whose time was never measured there.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from spillway_router.core.money.tariff import Tariff, price_sums

LENGTHS = (4096, 8192, 16384, 32768, 65536, 100_000, 128_000, 131_072, 200_000, 256_000, 272_000, 524_288, 1_000_000)
"""Prompt lengths in tokens at which contexts end and prices change; a prompt is in the class of those that it
exceeds."""

AnswerKind = Literal["text", "embedding"]


def length_class(prompt_tokens: int) -> int:
    """Return the number of LENGTHS that a prompt exceeds."""
    return bisect_left(LENGTHS, prompt_tokens)


def longer_than(length: int) -> int:
    """Return the number of tokens that every prompt of a length class exceeds."""
    return LENGTHS[length - 1] if length else 0


class Sizes(NamedTuple):
    """The summed tokens of some answers."""

    answers: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Offer:
    """A priced model as an alternative: its prices with the ISO dates from which they hold, oldest first, and the
    context in tokens that prompts must fit, None if it is unknown."""

    prices: tuple[tuple[str, Tariff], ...]
    context_tokens: int | None = None

    @classmethod
    def of(cls, tariff: Tariff, context_tokens: int | None = None) -> Offer:
        """Return an offer whose price never changed."""
        return cls(((tariff.valid_from, tariff),), context_tokens)

    @property
    def newest(self) -> Tariff:
        """The newest price."""
        return self.prices[-1][1]

    @property
    def kind(self) -> AnswerKind:
        """What the model gives: one that bills its input and not its output is for embeddings."""
        price = self.newest
        bills_input_only = price.input_per_million > 0 and not price.output_per_million and not price.per_request
        return "embedding" if bills_input_only else "text"

    @property
    def comparable(self) -> bool:
        """Whether answers of other models can be priced here."""
        return not self.newest.per_second

    def on(self, day: str) -> Tariff:
        """Return the price of a day (ISO); before the first known price that one applies."""
        started = [tariff for start, tariff in self.prices if start <= day]
        return started[-1] if started else self.prices[0][1]

    def could_give(self, kind: AnswerKind, length: int) -> bool:
        """Return whether the model could have given answers of a kind to prompts of a length class."""
        return kind == self.kind and (self.context_tokens is None or longer_than(length) < self.context_tokens)


def part_cost(offer: Offer, day: str, length: int, sizes: Sizes) -> Fraction:
    """Return the unrounded nano-dollars of a day's answers to prompts of one length class."""
    return price_sums(
        offer.on(day),
        longer_than=longer_than(length),
        prompt_tokens=sizes.prompt_tokens,
        completion_tokens=sizes.completion_tokens,
        requests=sizes.answers,
    )

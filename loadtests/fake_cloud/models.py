"""The models that the fake cloud offers, with their prices and speeds.

Prices as of 2026-11-20 from LiteLLM's public price map (MIT licence); speeds roughly as Groq publishes them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from fractions import Fraction

_MILLION = 10**6
_NANO = 10**9
_CACHE_BLOCK = 128


@dataclass(frozen=True, slots=True)
class CloudTokens:
    """Token counts of one request. `cached` is part of `prompt`, `reasoning` part of `completion`."""

    prompt: int
    cached: int
    completion: int
    reasoning: int


@dataclass(frozen=True, slots=True)
class Model:
    """One model: USD per million tokens as decimal text, context and output limits in tokens, output tokens/s."""

    id: str
    owner: str
    input_per_million: str
    cached_per_million: str
    output_per_million: str
    context: int
    max_output: int
    tokens_per_s: float

    def nano_usd(self, tokens: CloudTokens) -> int:
        """Return what one request costs in nano-dollars: computed exactly, then rounded half up once."""
        exact = (
            (tokens.prompt - tokens.cached) * Fraction(self.input_per_million)
            + tokens.cached * Fraction(self.cached_per_million)
            + tokens.completion * Fraction(self.output_per_million)
        ) * Fraction(_NANO, _MILLION)
        return (2 * exact.numerator + exact.denominator) // (2 * exact.denominator)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long one request takes, in seconds. `network` comes on top of what the provider reports."""

    network: float
    queue: float
    prompt: float
    completion: float

    @property
    def first_token(self) -> float:
        """Return the seconds until the first token can leave."""
        return self.network + self.queue + self.prompt

    @property
    def total(self) -> float:
        """Return the seconds that the provider reports as `total_time`: without network and queue."""
        return self.prompt + self.completion


def draw_latency(model: Model, tokens: CloudTokens, rng: random.Random, scale: float) -> Latency:
    """Draw the latency of one request: typically 0.15 to 0.4 s in all, times `scale` (0: no waiting)."""
    return Latency(
        network=scale * rng.uniform(0.05, 0.14),
        queue=scale * min(0.005 + rng.expovariate(40), 0.08),
        prompt=scale * (0.01 + (tokens.prompt - tokens.cached) / 20_000),
        completion=scale * tokens.completion / (model.tokens_per_s * rng.uniform(0.85, 1.15)),
    )


def cacheable(prompt_tokens: int) -> int:
    """Return how many tokens of a repeated prompt are cached: whole blocks, and never the whole prompt."""
    return max(0, (prompt_tokens - 1) // _CACHE_BLOCK * _CACHE_BLOCK)


MODELS = {
    model.id: model
    for model in (
        Model(
            id="openai/gpt-oss-20b",
            owner="OpenAI",
            input_per_million="0.075",
            cached_per_million="0.0375",
            output_per_million="0.30",
            context=131_072,
            max_output=65_536,
            tokens_per_s=1000.0,
        ),
        Model(
            id="openai/gpt-oss-120b",
            owner="OpenAI",
            input_per_million="0.15",
            cached_per_million="0.075",
            output_per_million="0.60",
            context=131_072,
            max_output=65_536,
            tokens_per_s=500.0,
        ),
    )
}

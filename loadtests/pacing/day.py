"""Days of offers, drawn from a seed: when low-confidence answers come, what escalating them gains and costs.

Sizes are those of the conversation trace in loadtests/traces. Its hour is too short for the shape of a day, so the
shape is drawn: night, morning and afternoon peaks, with noise per half hour that differs from day to day.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache

from loadtests.simulator import trace

INPUT_USD, OUTPUT_USD = 0.40e-6, 1.60e-6
"""USD per token of the model to escalate to: the price of a mid-size hosted model."""
SLOTS = 48
SHAPE_NOISE = 0.25
"""Standard deviation of the log of a half hour's traffic, drawn anew for each day."""


@dataclass(frozen=True, slots=True)
class Chance:
    """One doubtful answer: its time (0 to 1), its gain (0 to 1), and the expected and actual USD of escalating it."""

    at: float
    gain: float
    expected_usd: float
    actual_usd: float


def draw(seed: int, mean_count: int, cost_noise: float = 0.0) -> list[Chance]:
    """Draw one day's chances in their order. The same seed gives the same day.

    `cost_noise` is the standard deviation of the log of actual over expected cost (the better answer's length differs
    from the draft's). With 0 the cost is known when the answer is escalated.
    """
    dice = random.Random(seed)
    sizes = _sizes()
    chances: list[Chance] = []
    for slot, expected in enumerate(_traffic(dice, mean_count)):
        for _ in range(_poisson(dice, expected)):
            prompt, output = dice.choice(sizes)
            cost = prompt * INPUT_USD + output * OUTPUT_USD
            actual = cost * math.exp(dice.gauss(-(cost_noise**2) / 2, cost_noise))
            chances.append(
                Chance(
                    at=(slot + dice.random()) / SLOTS, gain=dice.betavariate(2, 5), expected_usd=cost, actual_usd=actual
                )
            )
    chances.sort(key=lambda c: c.at)
    return chances


def _traffic(dice: random.Random, mean_count: int) -> list[float]:
    """Return the expected chances per half hour."""
    shape = []
    for slot in range(SLOTS):
        hour = slot * 24 / SLOTS
        morning = math.exp(-(((hour - 10.5) / 2.5) ** 2))
        afternoon = math.exp(-(((hour - 15.5) / 3.0) ** 2))
        shape.append((0.15 + morning + 1.1 * afternoon) * math.exp(dice.gauss(0, SHAPE_NOISE)))
    return [mean_count * part / sum(shape) for part in shape]


def _poisson(dice: random.Random, mean: float) -> int:
    # Normal approximation: means are in the hundreds.
    return max(0, round(dice.gauss(mean, math.sqrt(mean))))


@cache
def _sizes() -> tuple[tuple[int, int], ...]:
    return tuple((r.prompt_tokens, r.output_tokens) for r in trace.load("conv"))

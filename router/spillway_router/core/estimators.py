"""What the backlog learns from finished work: output lengths, tokens per byte, how far predictions miss.

Each class is a small bounded state with no clock and no I/O: a few floats, O(1) per call. All three err on
the side of too much work: in the simulator an over-estimate of every prompt's length by 30% holds the
promise, an under-estimate by 30% breaks it.
"""

from __future__ import annotations

import math

EWMA_WEIGHT = 0.05
"""Weight of one new sample: a memory of about twenty samples."""


class OutputLength:
    """Running mean of output tokens per request, for requests that don't say how much they will write."""

    __slots__ = ("_mean",)

    def __init__(self, start_tokens: float = 300.0) -> None:
        if not start_tokens > 0:
            raise ValueError(f"start_tokens must be above 0, got {start_tokens}")
        self._mean = start_tokens

    def observe(self, output_tokens: int) -> None:
        """Takes the output tokens of one finished request; a negative count is ignored."""
        if output_tokens >= 0:
            self._mean += EWMA_WEIGHT * (output_tokens - self._mean)

    def expect(self, max_tokens: int | None = None) -> int:
        """Expected output tokens, never above the request's own `max_tokens` (None: no cap)."""
        mean = math.ceil(self._mean)
        return mean if max_tokens is None else max(0, min(mean, max_tokens))


class TokenEstimator:
    """Prompt bytes -> prompt tokens, biased high, learned from the usage that engines report.

    estimate = bytes x (mean tokens / mean bytes) x (1 + relative mean deviation) + template tokens

    The ratio is one of means, not a mean of ratios, so that a two-word prompt under a long chat template
    cannot throw it. The deviation term is the idea of TCP's retransmission timer: the less regular the
    past, the wider the allowance. Starts at one token per three bytes. The ratio stays within [1/20, 2]
    tokens per byte.
    """

    __slots__ = ("_bytes", "_deviation", "_template", "_tokens")

    def __init__(self, tokens_per_byte: float = 1 / 3, template_tokens: int = 16) -> None:
        if not tokens_per_byte > 0 or template_tokens < 0:
            raise ValueError("tokens_per_byte must be above 0 and template_tokens at least 0")
        self._bytes = 3000.0
        self._tokens = 3000.0 * tokens_per_byte
        self._deviation = 0.0
        self._template = template_tokens

    @property
    def tokens_per_byte(self) -> float:
        """The ratio in use, deviation allowance included."""
        allowance = 1.0 + min(1.0, self._deviation / self._tokens)
        return min(2.0, max(0.05, self._tokens / self._bytes * allowance))

    def estimate(self, prompt_bytes: int) -> int:
        """Expected prompt tokens for `prompt_bytes` of text (UTF-8 length; images and audio left out)."""
        return self._template + math.ceil(max(0, prompt_bytes) * self.tokens_per_byte)

    def observe(self, prompt_bytes: int, prompt_tokens: int) -> None:
        """Takes one pair of text length and the engine's `usage.prompt_tokens`; empty pairs are ignored."""
        if prompt_bytes <= 0 or prompt_tokens <= 0:
            return
        miss = abs(prompt_tokens - prompt_bytes * self._tokens / self._bytes)
        self._deviation += EWMA_WEIGHT * (miss - self._deviation)
        self._tokens += EWMA_WEIGHT * (prompt_tokens - self._tokens)
        self._bytes += EWMA_WEIGHT * (prompt_bytes - self._bytes)


class MarginLearner:
    """Learns m of the rule `predicted > m x SLO` so that at most a share alpha of local requests miss.

    q is the (1 - alpha) quantile of observed/predicted TTFT, so predicted x q is met by a share 1 - alpha,
    and the rule keeps local what has predicted x q <= SLO: m = 1/q. The quantile is followed by stochastic
    gradient on the pinball loss (Robbins-Monro) in log space: log q += rate x ((1 - alpha) - [ratio <= q]);
    its fixed point is P(ratio <= q) = 1 - alpha whatever the distribution, in one float of state. m stays
    within `bounds`.

    A request predicted to take less than half the SLO is far from the edge where the rule decides, and its
    ratio is mostly the fixed cost of one engine step. It counts as met, so that the share is one of all
    local requests and a light load moves m up, towards keeping more.
    """

    __slots__ = ("_alpha", "_high", "_log_q", "_low", "_rate")

    EDGE = 0.5
    """Share of the SLO below which a prediction counts as met."""

    def __init__(
        self,
        start: float = 0.85,
        alpha: float = 0.01,
        bounds: tuple[float, float] = (0.5, 1.0),
        rate: float = 0.02,
    ) -> None:
        low, high = bounds
        if not (0 < alpha < 1 and 0 < low <= start <= high and rate > 0):
            raise ValueError(
                f"need 0 < alpha < 1, 0 < low <= start <= high and rate > 0; got {alpha=} {bounds=} {start=} {rate=}"
            )
        self._log_q = -math.log(start)
        self._alpha = alpha
        # The state stays inside the bounds, so that a long drought or flood is unlearned as fast as it came.
        self._low, self._high = -math.log(high), -math.log(low)
        self._rate = rate

    @property
    def margin(self) -> float:
        """m, a pure number."""
        return math.exp(-self._log_q)

    def observe(self, predicted_s: float, observed_s: float, slo_s: float) -> None:
        """Takes predicted and observed TTFT of one local request, and its SLO (all in seconds, above 0)."""
        if not (0 < predicted_s < math.inf and 0 < observed_s < math.inf):
            return
        met = predicted_s < self.EDGE * slo_s or observed_s <= predicted_s * math.exp(self._log_q)
        moved = self._log_q + self._rate * ((1 - self._alpha) - met)
        self._log_q = min(self._high, max(self._low, moved))

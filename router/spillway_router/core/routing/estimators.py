"""What the backlog learns from finished work: lengths, speeds, tokens per byte, how far predictions miss.

Each class is a small bounded state with no clock and no I/O: a few floats, O(1) per call. All of them err on
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


class PrefillRate:
    """Prompt tokens an engine reads per second, averaged as seconds per token: the mean without bias for times.

    `prior_samples`: how many samples the start is worth. A sample counts if its work is at least `min_sample_tokens`,
    or if it took long: `long_sample_s`, or half of that by the present belief.
    """

    __slots__ = ("_long_s", "_min_tokens", "_prior", "_samples", "_weight", "sampled_at", "tokens_per_s")

    def __init__(
        self, start: float, *, weight: float, prior_samples: int, min_sample_tokens: int, long_sample_s: float
    ) -> None:
        self.tokens_per_s = start
        self.sampled_at = -math.inf
        self._weight, self._prior = weight, prior_samples
        self._min_tokens, self._long_s = min_sample_tokens, long_sample_s
        self._samples = 0

    def learn(self, work: int, ttft_s: float, now: float) -> bool:
        """Takes a time to first token and the tokens ahead of it, its own included; False: they say too little."""
        if work <= 0 or ttft_s <= 0:
            return False
        believed = 1 / self.tokens_per_s
        # Long work by count, by belief or by outcome. The belief's own threshold is half the outcome's, so that an
        # engine found slow goes on being sampled until the belief is right.
        if work < self._min_tokens and work * believed < self._long_s / 2 and ttft_s < self._long_s:
            return False
        # One stalled or cached request moves the belief by a bounded step only.
        seconds_per_token = min(4 * believed, max(believed / 4, ttft_s / work))
        self.tokens_per_s = 1 / (believed + self._sample_weight() * (seconds_per_token - believed))
        self.sampled_at = now
        return True

    def take(self, tokens_per_s: float, now: float) -> None:
        """Takes a rate measured elsewhere, in tokens/s above 0."""
        self.tokens_per_s += self._sample_weight() * (tokens_per_s - self.tokens_per_s)
        self.sampled_at = now

    def _sample_weight(self) -> float:
        """1/(prior + n) until that falls to the EWMA's weight: a plain mean first, then a moving one."""
        self._samples += 1
        return max(self._weight, 1 / (self._prior + self._samples))


class StepScale:
    """How many times longer an engine's decode steps are than configured, learned from whole answers."""

    __slots__ = ("_weight", "sampled_at", "scale")

    LEAST_SHARE = 0.2
    """Of an answer's time, at least this was its own steps: a prefill rate believed too slow can't explain it away."""

    def __init__(self, weight: float) -> None:
        self.scale = 1.0
        self.sampled_at = -math.inf
        self._weight = weight

    def learn(self, expected_s: float, took_s: float, reading_s: float, now: float) -> bool:
        """Takes an answer's time from its first token to its last, expected and real, and how much of it went into
        reading other prompts, all in seconds; False: it says nothing."""
        if took_s <= 0 or expected_s <= 0:
            return False
        ratio = max(self.LEAST_SHARE * took_s, took_s - reading_s) / expected_s
        # One stalled answer moves the belief by a bounded step only.
        self.scale += self._weight * (min(20.0, max(0.05, ratio)) - self.scale)
        self.sampled_at = now
        return True


class RecentWork:
    """Tokens taken in lately: a sum that forgets exponentially. `window_s` is the time constant of each call."""

    __slots__ = ("_at", "_tokens")

    def __init__(self) -> None:
        self._tokens = 0.0
        self._at = 0.0

    def add(self, tokens: int, now: float, window_s: float) -> None:
        """Takes in `tokens` at `now`."""
        self._tokens = self.tokens(now, window_s) + tokens
        self._at = now

    def tokens(self, now: float, window_s: float) -> float:
        """What is left of them at `now`; a moment before the last one counts as that one."""
        return self._tokens * math.exp(min(0.0, self._at - now) / window_s) if self._tokens else 0.0


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

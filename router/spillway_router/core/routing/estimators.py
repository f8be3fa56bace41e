"""What is learned from finished work: lengths, speeds, tokens per byte, and how far predictions miss.

Each class is a small bounded state without clock or I/O: a few floats, O(1) per call. All of them err on the side of
too much work: in the simulator, overestimating every prompt's length by 30% keeps the latency promise, and
underestimating it by 30% breaks the promise.
"""

from __future__ import annotations

import math

EWMA_WEIGHT = 0.05
"""Weight of a new sample, which gives a memory of about twenty samples."""


class OutputLength:
    """The running mean of output tokens per request, for requests that set no bound."""

    __slots__ = ("_mean",)

    def __init__(self, start_tokens: float = 300.0) -> None:
        if not start_tokens > 0:
            raise ValueError(f"start_tokens must be above 0, got {start_tokens}")
        self._mean = start_tokens

    def observe(self, output_tokens: int) -> None:
        """Take the output tokens of one finished request; a negative count is ignored."""
        if output_tokens >= 0:
            self._mean += EWMA_WEIGHT * (output_tokens - self._mean)

    def expect(self, max_tokens: int | None = None) -> int:
        """Return the expected output tokens, at most the request's own `max_tokens` (None: no bound)."""
        mean = math.ceil(self._mean)
        return mean if max_tokens is None else max(0, min(mean, max_tokens))


class PrefillRate:
    """Prompt tokens that an engine reads per second, averaged as seconds per token: the mean without bias for times.

    `prior_samples`: how many samples the start value counts as. A sample counts if its work is at least
    `min_sample_tokens`, or if it took long: `long_sample_s`, or half of that by the present belief.
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

    def learn(self, work: int, ttft_s: float, monotonic_s: float, abandoned: int = 0) -> bool:
        """Learn from a time to first token and the tokens ahead of it, its own included; return False if it is no
        sample.

        `abandoned`: how many of those tokens were given up meanwhile. The engine read all of them, none or some, so
        that a belief that fits any of these is kept: clients that leave can make it neither better nor worse.
        """
        if work <= 0 or ttft_s <= 0 or work < abandoned:
            return False
        believed = 1 / self.tokens_per_s
        # The work is long by count, by belief or by outcome. The threshold for the belief is half of that for the
        # outcome, so that a slow engine continues to be sampled until the belief is right.
        if work < self._min_tokens and work * believed < self._long_s / 2 and ttft_s < self._long_s:
            return False
        seconds_per_token = ttft_s / work
        if abandoned and seconds_per_token < believed:
            slowest = ttft_s / (work - abandoned) if work > abandoned else math.inf
            if slowest >= believed:
                return False
            seconds_per_token = slowest
        # A single stalled or cached request moves the belief by a bounded step only.
        seconds_per_token = min(4 * believed, max(believed / 4, seconds_per_token))
        self.tokens_per_s = 1 / (believed + self._sample_weight() * (seconds_per_token - believed))
        self.sampled_at = monotonic_s
        return True

    def _sample_weight(self) -> float:
        """Return 1/(prior + n) until that falls to the EWMA's weight: first a plain mean, then a moving one."""
        self._samples += 1
        return max(self._weight, 1 / (self._prior + self._samples))


class StepScale:
    """The factor by which an engine's decode steps last longer than configured, learned from whole answers."""

    __slots__ = ("_weight", "sampled_at", "scale")

    LEAST_SHARE = 0.2
    """At least this share of an answer's time is its own steps: too slow a prefill rate can't explain all of it
    away."""

    def __init__(self, weight: float) -> None:
        self.scale = 1.0
        self.sampled_at = -math.inf
        self._weight = weight

    def learn(self, expected_s: float, took_s: float, reading_s: float, monotonic_s: float) -> bool:
        """Learn from one answer; return False if it says nothing. All times are in seconds.

        `expected_s` and `took_s` are the expected and real time from the first token to the last; `reading_s` is the
        part of `took_s` that went into reading other prompts.
        """
        if took_s <= 0 or expected_s <= 0:
            return False
        ratio = max(self.LEAST_SHARE * took_s, took_s - reading_s) / expected_s
        # A single stalled answer moves the belief by a bounded step only.
        self.scale += self._weight * (min(20.0, max(0.05, ratio)) - self.scale)
        self.sampled_at = monotonic_s
        return True


class RecentWork:
    """The tokens admitted lately: a sum that decays exponentially, with the time constant `window_s` of each call."""

    __slots__ = ("_tokens", "_updated_at_s")

    def __init__(self) -> None:
        self._tokens = 0.0
        self._updated_at_s = 0.0

    def add(self, tokens: int, monotonic_s: float, window_s: float) -> None:
        """Add `tokens`."""
        self._tokens = self.tokens(monotonic_s, window_s) + tokens
        self._updated_at_s = monotonic_s

    def take_back(self, tokens: float, added_at_s: float, monotonic_s: float, window_s: float) -> None:
        """Take back what is left of `tokens` that were added at `added_at_s`, as they are not read after all."""
        left = tokens * math.exp(min(0.0, added_at_s - monotonic_s) / window_s)
        self._tokens = max(0.0, self.tokens(monotonic_s, window_s) - left)
        self._updated_at_s = monotonic_s

    def tokens(self, monotonic_s: float, window_s: float) -> float:
        """Return the decayed sum; a time before the last call counts as the time of that call."""
        return self._tokens * math.exp(min(0.0, self._updated_at_s - monotonic_s) / window_s) if self._tokens else 0.0


class TokenEstimator:
    """Prompt bytes -> prompt tokens, biased high, learned from the usage that engines report.

    estimate = bytes x (mean tokens / mean bytes) x (1 + relative mean deviation) + template tokens

    The ratio is one of means, not a mean of ratios, so that a two-word prompt under a long chat template can't distort
    it. The deviation term follows TCP's retransmission timer: the less regular the past, the wider the allowance. The
    estimator starts at one token per three bytes, and the ratio stays within [1/20, 2] tokens per byte.
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
        """The ratio in use, including the allowance for deviations."""
        allowance = 1.0 + min(1.0, self._deviation / self._tokens)
        return min(2.0, max(0.05, self._tokens / self._bytes * allowance))

    def estimate(self, prompt_bytes: int) -> int:
        """Return the expected prompt tokens of `prompt_bytes` of text (UTF-8 length, without images and audio)."""
        return self._template + math.ceil(max(0, prompt_bytes) * self.tokens_per_byte)

    def observe(self, prompt_bytes: int, prompt_tokens: int) -> None:
        """Take a text length and the engine's `usage.prompt_tokens` for it; a pair with a 0 is ignored."""
        if prompt_bytes <= 0 or prompt_tokens <= 0:
            return
        miss = abs(prompt_tokens - prompt_bytes * self._tokens / self._bytes)
        self._deviation += EWMA_WEIGHT * (miss - self._deviation)
        self._tokens += EWMA_WEIGHT * (prompt_tokens - self._tokens)
        self._bytes += EWMA_WEIGHT * (prompt_bytes - self._bytes)


class MarginLearner:
    """Learns m of the rule `predicted > m x SLO` so that at most a share alpha of local requests miss.

    q is the (1 - alpha) quantile of observed/predicted TTFT, so a share 1 - alpha of requests takes at most
    predicted x q. The rule keeps a request local if predicted x q <= SLO, so m = 1/q. The quantile is followed by
    stochastic gradient descent on the pinball loss (Robbins-Monro) in log space: log q += rate x ((1 - alpha) - [ratio
    <= q]). Its fixed point is P(ratio <= q) = 1 - alpha for any distribution, with one float of state. m stays within
    `bounds`.

    A request that is predicted to take less than half the SLO is far from the edge at which the rule decides, and its
    ratio is mostly the fixed cost of one engine step. It counts as met, so that the share refers to all local requests
    and a light load moves m up, towards keeping more.
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
        # The state stays inside the bounds, so that what a long lull or surge taught is unlearned as fast.
        self._low, self._high = -math.log(high), -math.log(low)
        self._rate = rate

    @property
    def margin(self) -> float:
        """m, a pure number."""
        return math.exp(-self._log_q)

    def observe(self, predicted_s: float, observed_s: float, slo_s: float) -> None:
        """Take the predicted and the observed TTFT of one local request, and its SLO (all in seconds and above 0)."""
        if not (0 < predicted_s < math.inf and 0 < observed_s < math.inf):
            return
        met = predicted_s < self.EDGE * slo_s or observed_s <= predicted_s * math.exp(self._log_q)
        log_q = self._log_q + self._rate * ((1 - self._alpha) - met)
        self._log_q = min(self._high, max(self._low, log_q))

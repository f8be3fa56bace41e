"""The backlog: how much work a local engine still has to do, and what that means for the next request.

Theory. An engine with continuous batching serves prefill (reading prompts) first come, first served, at a
rate that hardly depends on who asks: R_p tokens per second. So the time to the first token (TTFT) of a new
request is the work ahead of it over that rate:

    TTFT = (prompt tokens not yet prefilled + this prompt) / R_p + one step of now + wait for a free sequence

A request counts as "not yet prefilled" until its first token was seen. Half-read prompts are counted whole:
too much, the safe side, and R_p is learned with the same count, so the two errors cancel. The wait for a
free sequence is zero until the engine holds `max_sequences`; from there departures set the pace (Little's
law): n requests too many leave after n x (output tokens x time per token) / max_sequences.

Time per output token (TPOT) is one decode step, which grows with the sequences that share it, stretched by the
prompts that are read in between. With chunked prefill a step that reads a chunk of somebody's prompt gives every
running answer one token all the same, and lasts as long as the chunk (on an A100 150 ms instead of 12 ms):

    TPOT = (step_time + step_time_per_sequence x min(sequences, max_sequences)) / (1 - share)
    share = prompt tokens taken in lately, this one included / (window x R_p)

since the answers move on in what the reading leaves of each second. The window is short, 2 s or two dozen mean
prompts: an average over whole answers breaks the promise for half of them. A prompt alone delays nobody.

KV memory is taken by prompt plus output for as long as the request runs: share = tokens wanted / capacity.

The router needs no poll for any of it: it sees every request go in, give its first token and end. A poll of
the engine's gauges is late by half its period and sees queues only when they are there; utilisation says
busy, not full. Gauges serve to see load that comes from elsewhere: only what exceeds the router's own count
is added (`EngineLoad`), and an old sample is dropped.

What is learned, and why it errs on the safe side:

- R_p from the router's own TTFTs: work ahead at admission over the time it took. Averaged as seconds per
  token, the mean that predicts time without bias, and in which a prefix-cache hit (almost no seconds)
  cannot do much harm. Network and step time stay in the sample and make the engine look slower, never
  faster. Only samples with enough work count; work that left the queue unserved is taken off.
- Time per token from whole answers, as a scale on the configured step time, less the reading of other prompts
  meanwhile (tokens / R_p): the prediction adds that of the moment.
- A belief that has become too gloomy would send everything away and never be corrected. So an idle engine
  without a sample for `relearn_after_s` shows its configured rates again, to one request: the next sees the
  learned rates.

Pure: no I/O and no clock; `now` is seconds of any one monotonic clock. Every call is O(1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing.estimators import EWMA_WEIGHT, OutputLength, PrefillRate, RecentWork, StepScale
from spillway_router.core.routing.ticket import Ticket

KV_SHARE_LIMIT = 0.9
"""Share of the KV capacity above which a request overflows; vLLM starts to preempt near 1."""
MOST_PREFILL_SHARE = 0.99
"""However much was taken in, a decode step gets a hundredth of the engine: predictions stay finite."""

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "queue": "work ahead at the local engine makes the first token too late",
        "slo": "even without a queue the local engine would miss the promise (first token or per token)",
        "kv": "the KV cache of the local engine would be too full",
    }
)


@fast_frozen(frozen=True, slots=True)
class Slo:
    """The latency promise: seconds to the first token, seconds per output token after it."""

    ttft_s: float
    tpot_s: float


@fast_frozen(frozen=True, slots=True)
class EngineRates:
    """What is believed of one local engine. ValueError where a figure makes no sense."""

    prefill_tokens_per_s: float = 12_000.0
    """Prompt tokens the engine reads per second while it has enough of them to fill its batches."""
    step_time_s: float = 0.010
    """One decode step for a lone sequence: the floor of the time per output token."""
    step_time_s_per_sequence: float = 0.00006
    """What each further sequence adds to a decode step."""
    kv_capacity_tokens: int = 200_000
    """Tokens the KV cache holds (`vllm:cache_config_info`: blocks x block size)."""
    max_sequences: int = 256
    """Requests the engine runs at once (`--max-num-seqs`); the others wait."""

    def __post_init__(self) -> None:
        if not (
            0 < self.prefill_tokens_per_s < math.inf
            and 0 < self.kv_capacity_tokens < math.inf
            and 0 < self.max_sequences < math.inf
        ):
            raise ValueError(f"rates and capacities must be above 0 and finite: {self}")
        if not (0 <= self.step_time_s < math.inf and 0 <= self.step_time_s_per_sequence < math.inf):
            raise ValueError(f"step times must be 0 or more and finite: {self}")


class _Believed(EngineRates):
    """Rates learned from checked ones in bounded steps: made anew with nearly every sample, and not checked again."""

    __slots__ = ()

    def __post_init__(self) -> None: ...


@fast_frozen(frozen=True, slots=True)
class BacklogView:
    """The work in flight at one local engine; requests and tokens, load from elsewhere included."""

    in_flight: int = 0
    waiting_first_token: int = 0
    prefill_tokens: int = 0
    """Prompt tokens of the requests that have no first token yet."""
    decoding: int = 0
    kv_tokens: int = 0
    """KV tokens the requests in flight will hold at their end: prompt plus expected output."""
    recent_prefill_tokens: float = 0.0
    """Prompt tokens taken in lately, read or not: a sum that forgets with the time constant `window_s`."""
    window_s: float = 2.0


@fast_frozen(frozen=True, slots=True)
class Prediction:
    """What a request would see at one local engine."""

    ttft_s: float
    tpot_s: float
    kv_share: float
    """KV tokens wanted over capacity, this request included; may exceed 1."""
    alone_ttft_s: float
    """TTFT of the same request at the same engine with nothing ahead: tells a queue from a long prompt."""


@fast_frozen(frozen=True, slots=True)
class EngineLoad:
    """The engine's own gauges at one scrape, summed over its replicas."""

    waiting: float
    running: float
    kv_usage: float
    """Share of the KV cache in use, 0 to 1."""


@fast_frozen(frozen=True, slots=True)
class BacklogTuning:
    """How a backlog learns and what bounds it. The defaults suit an engine behind a router."""

    ewma_weight: float = EWMA_WEIGHT
    prior_samples: int = 1
    """How many samples the configured rate is worth: 1 learns fast, 20 or more is a plain EWMA."""
    min_sample_tokens: int = 1024
    """Less work than this says little of the rate: the fixed cost of a step dominates..."""
    long_sample_s: float = 0.25
    """...unless it took this long, or half of this was expected: then the engine is a slow one."""
    stale_after_s: float = 5.0
    relearn_after_s: float = 30.0
    max_tickets: int = 16_384
    window_s: float = 2.0
    """Seconds over which the prompts taken in are averaged for the time per token..."""
    window_prompts: float = 24.0
    """...unless so many prompts of mean length take longer: on a slow engine each of them is a large share."""


def predict(view: BacklogView, rates: EngineRates, prompt_tokens: int, expected_output_tokens: int) -> Prediction:
    """What a request of `prompt_tokens` (not in the prefix cache) would see if it were admitted now."""
    step = rates.step_time_s
    sequences = min(view.in_flight + 1, rates.max_sequences)
    # A prompt with nobody beside it is read before its own answer begins.
    lately = view.recent_prefill_tokens + (prompt_tokens if view.in_flight else 0)
    share = min(MOST_PREFILL_SHARE, lately / (view.window_s * rates.prefill_tokens_per_s))
    tpot = (step + rates.step_time_s_per_sequence * sequences) / (1 - share)
    alone = prompt_tokens / rates.prefill_tokens_per_s + step
    ttft = (view.prefill_tokens + prompt_tokens) / rates.prefill_tokens_per_s + tpot
    too_many = view.in_flight + 1 - rates.max_sequences
    if too_many > 0:
        ttft += too_many * expected_output_tokens * tpot / rates.max_sequences
    kv_share = (view.kv_tokens + prompt_tokens + expected_output_tokens) / rates.kv_capacity_tokens
    return Prediction(ttft, tpot, kv_share, alone)


def overflow_reasons(prediction: Prediction, slo: Slo, margin: float) -> tuple[str, ...]:
    """Why this request should not stay local, as keys of `REASONS`; () keeps it. `margin` is m, near .85."""
    latest = margin * slo.ttft_s
    late = prediction.ttft_s > latest
    hopeless = (late and prediction.alone_ttft_s > latest) or prediction.tpot_s > slo.tpot_s
    full = prediction.kv_share > KV_SHARE_LIMIT
    if not (late or hopeless or full):
        return ()
    found = (("queue", late and prediction.alone_ttft_s <= latest), ("slo", hopeless), ("kv", full))
    return tuple(name for name, holds in found if holds)


class Backlog:
    """The account of one local backend: what went in, gave its first token, ended. Not safe across threads.

    Holds at most `tuning.max_tickets` requests; when full, `admit` answers False and counts nothing (the
    caller should refuse the request or send it elsewhere). `first_token` and `finish` of an unknown ticket
    do nothing, so that a cleanup may run twice.
    """

    __slots__ = (
        "_abandoned", "_decoding", "_foreign", "_foreign_at", "_initial", "_kv", "_output", "_peak_in_flight",
        "_peak_kv", "_peak_waiting", "_prefill", "_prefill_rate", "_prefilled", "_prompt_mean", "_rates", "_recent",
        "_step_scale", "_tickets", "_tuning",
    )  # fmt: skip

    def __init__(self, rates: EngineRates, tuning: BacklogTuning | None = None) -> None:
        self._initial = rates
        self._rates: EngineRates | None = rates
        self._tuning = tuning or BacklogTuning()
        self._prefill_rate = PrefillRate(
            rates.prefill_tokens_per_s,
            weight=self._tuning.ewma_weight,
            prior_samples=self._tuning.prior_samples,
            min_sample_tokens=self._tuning.min_sample_tokens,
            long_sample_s=self._tuning.long_sample_s,
        )
        self._tickets: dict[int, Ticket] = {}
        self._prefill = self._decoding = self._kv = 0
        self._abandoned = self._prefilled = 0
        self._recent = RecentWork()
        self._foreign = BacklogView()
        self._foreign_at = -math.inf
        self._peak_in_flight = self._peak_waiting = self._peak_kv = 0
        self._prompt_mean = 1024.0
        self._output = OutputLength()
        self._step_scale = StepScale(self._tuning.ewma_weight)

    def admit(self, ticket: int, prompt_tokens: int, expected_output_tokens: int, now: float) -> bool:
        """Counts a request that is about to be sent. False: full, not counted. ValueError: bad input."""
        if ticket in self._tickets or prompt_tokens < 0 or expected_output_tokens < 0:
            raise ValueError(f"ticket {ticket} is already in flight or its token counts are negative")
        if len(self._tickets) >= self._tuning.max_tickets:
            return False
        self._prefill += prompt_tokens
        kv = prompt_tokens + expected_output_tokens
        self._kv += kv
        self._tickets[ticket] = Ticket(prompt_tokens, kv, self._prefill, self._abandoned, now)
        self._recent.add(prompt_tokens, now, self._window_s())
        self._prompt_mean += EWMA_WEIGHT * (prompt_tokens - self._prompt_mean)
        in_flight = len(self._tickets)
        if in_flight > self._peak_in_flight:
            self._peak_in_flight = in_flight
        if in_flight - self._decoding > self._peak_waiting:
            self._peak_waiting = in_flight - self._decoding
        if self._kv > self._peak_kv:
            self._peak_kv = self._kv
        return True

    def first_token(self, ticket: int, now: float) -> float | None:
        """The first token of `ticket` was seen: its TTFT in seconds; None if unknown or not the first."""
        entry = self._tickets.get(ticket)
        if entry is None or entry.first_token_at is not None:
            return None
        entry.first_token_at = now
        self._prefill -= entry.prompt
        self._decoding += 1
        self._prefilled += entry.prompt
        entry.prefilled_before = self._prefilled
        entry.expected_tpot_s = self._decode_step_s()
        ttft = max(0.0, now - entry.admitted_at)
        # Work abandoned since admission was never done. Some of it came later than this request: the
        # difference makes the engine look slower, the safe side.
        if self._prefill_rate.learn(entry.work - (self._abandoned - entry.abandoned_before), ttft, now):
            self._rates = None
        return ttft

    def finish(self, ticket: int, now: float, output_tokens: int | None) -> None:
        """`ticket` ended, well or not. `output_tokens` teaches lengths and speed; None: not known."""
        entry = self._tickets.pop(ticket, None)
        if entry is None:
            return
        self._kv -= entry.kv
        if entry.first_token_at is None:
            self._prefill -= entry.prompt
            self._abandoned += entry.prompt
        else:
            self._decoding -= 1
            if output_tokens is not None and output_tokens > 1:
                # A prompt half read at either end is counted where its reading ends.
                reading_s = (self._prefilled - entry.prefilled_before) / self._prefill_rate.tokens_per_s
                expected_s = (output_tokens - 1) * entry.expected_tpot_s
                if self._step_scale.learn(expected_s, now - entry.first_token_at, reading_s, now):
                    self._rates = None
        if output_tokens is not None:
            self._output.observe(output_tokens)

    def view(self, now: float) -> BacklogView:
        """The work in flight at `now`, load from elsewhere included while its sample is fresh."""
        in_flight = len(self._tickets)
        waiting = in_flight - self._decoding
        recent = self._recent.tokens(now, window := self._window_s())
        if now - self._foreign_at > self._tuning.stale_after_s:
            return BacklogView(in_flight, waiting, self._prefill, self._decoding, self._kv, recent, window)
        other = self._foreign
        return BacklogView(
            in_flight + other.in_flight,
            waiting + other.waiting_first_token,
            self._prefill + other.prefill_tokens,
            self._decoding + other.decoding,
            self._kv + other.kv_tokens,
            recent + other.prefill_tokens,
            window,
        )

    def rates(self, now: float) -> EngineRates:
        """The rates believed at `now`; the configured ones for an idle engine without a recent sample."""
        if self._tickets:
            return self._believed()
        rates, initial, oldest = self._believed(), self._initial, now - self._tuning.relearn_after_s
        if self._prefill_rate.sampled_at < oldest and rates.prefill_tokens_per_s < initial.prefill_tokens_per_s:
            rates = replace(rates, prefill_tokens_per_s=initial.prefill_tokens_per_s)
        if self._step_scale.sampled_at < oldest and self._step_scale.scale > 1:
            rates = replace(
                rates,
                step_time_s=initial.step_time_s,
                step_time_s_per_sequence=initial.step_time_s_per_sequence,
            )
        return rates

    @property
    def step_time_s(self) -> float:
        """A decode step of a lone sequence as learned so far, in seconds."""
        return self._initial.step_time_s * self._step_scale.scale

    def expected_output(self, max_tokens: int | None = None) -> int:
        """Output tokens to expect of a request that allows `max_tokens` (None: no cap)."""
        return self._output.expect(max_tokens)

    def observe_engine(self, load: EngineLoad | None, now: float) -> None:
        """Takes a scrape of the engine's gauges; None, NaN or infinite: no sample, the last one is dropped.

        Load from elsewhere is what exceeds the peak of the router's own count since the scrape before:
        gauges lag, and a request that just ended must not come back as somebody else's. Its prompts are
        taken to be as long as ours on average.
        """
        peak_in_flight, peak_waiting, peak_kv = self._peak_in_flight, self._peak_waiting, self._peak_kv
        self._peak_in_flight = len(self._tickets)
        self._peak_waiting = self._peak_in_flight - self._decoding
        self._peak_kv = self._kv
        if load is None or not all(map(math.isfinite, (load.waiting, load.running, load.kv_usage))):
            self._foreign_at = -math.inf
            return
        total = max(0, round(load.waiting + load.running) - peak_in_flight)
        waiting = min(total, max(0, round(load.waiting) - peak_waiting))
        kv = max(0, round(load.kv_usage * self._initial.kv_capacity_tokens) - peak_kv)
        self._foreign = BacklogView(total, waiting, round(waiting * self._prompt_mean), total - waiting, kv)
        self._foreign_at = now

    def observe_prefill_rate(self, tokens_per_s: float, now: float) -> None:
        """Takes a rate measured elsewhere (engine counters, a simulator's iterations), in tokens/s."""
        if not 0 < tokens_per_s < math.inf:
            return
        self._prefill_rate.take(tokens_per_s, now)
        self._rates = None

    def observe_capacity(self, kv_capacity_tokens: int, max_sequences: int) -> None:
        """Takes capacities the engine reports of itself once it is up; they replace the configured ones."""
        self._initial = replace(self._initial, kv_capacity_tokens=kv_capacity_tokens, max_sequences=max_sequences)
        self._rates = None

    def _decode_step_s(self) -> float:
        rates = self._initial
        sequences = min(self._decoding, rates.max_sequences)
        return rates.step_time_s + rates.step_time_s_per_sequence * sequences

    def _window_s(self) -> float:
        tuning = self._tuning
        return max(tuning.window_s, tuning.window_prompts * self._prompt_mean / self._prefill_rate.tokens_per_s)

    def _believed(self) -> EngineRates:
        """The rates learned so far, made when somebody asks: several samples may come in between."""
        if self._rates is not None:
            return self._rates
        initial, scale = self._initial, self._step_scale.scale
        self._rates = _Believed(
            self._prefill_rate.tokens_per_s,
            initial.step_time_s * scale,
            initial.step_time_s_per_sequence * scale,
            initial.kv_capacity_tokens,
            initial.max_sequences,
        )
        return self._rates

"""The backlog: how much work a local engine still has to do, and what that means for the next request.

Theory. An engine with continuous batching serves prefill (reading prompts) first come, first served, at a rate that
hardly depends on who asks: R_p tokens per second. So the time to the first token (TTFT) of a new request is the work
ahead of it over that rate:

    TTFT = (prompt tokens not yet prefilled + this prompt) / R_p + one decode step now + wait for a free sequence

A request counts as "not yet prefilled" until its first token is seen. Half-read prompts are counted whole, which is
too much and therefore safe; R_p is learned with the same count, so the two errors cancel. The wait for a free sequence
is zero until the engine holds `max_sequences`. From there on departures set the pace (Little's law): n requests too
many leave after n x (output tokens x time per token) / max_sequences.

Time per output token (TPOT) is one decode step. It grows with the sequences that share the step, and is stretched by
the prompts that are read in between. With chunked prefill, a step that reads a chunk of another request's prompt still
gives every running answer one token, but lasts as long as the chunk (on an A100 150 ms instead of 12 ms):

    TPOT = (step_time + step_time_per_sequence x min(sequences, max_sequences)) / (1 - share)
    share = prompt tokens admitted lately, this prompt included / (window x R_p)

because answers advance only in the part of each second that reading leaves. The window is short, 2 s or two dozen mean
prompts: an average over whole answers would break the promise for half of them. A prompt without company delays
nobody.

A request occupies KV memory for its prompt plus its output as long as it runs: share = tokens needed / capacity.

The router needs no polling for any of this: it sees every request start, give its first token and end. A poll of the
engine's gauges is late by half its period and sees queues only once they exist, and utilisation says that the engine is
busy, not that it is full. The gauges only serve to see load from elsewhere: what exceeds the router's own count is
added (`EngineLoad`), and an old sample is dropped.

What is learned, and why it errs on the safe side:

- R_p, from the router's own TTFTs: the work ahead at admission over the time it took. It is averaged as seconds per
  token, the mean that predicts times without bias, and in which a prefix-cache hit (almost no seconds) can't do much
  harm. Network and step time stay in the sample and make the engine look slower, never faster. Only samples with enough
  work count, and work that left the queue unserved is subtracted, as is the wait for a free sequence.
- Time per token, from whole answers, as a scale on the configured step time, after subtracting the time spent reading
  other prompts meanwhile (tokens / R_p). The prediction adds the reading of its own moment.
- A belief that has become too pessimistic would send everything away and never be corrected. So an idle engine without
  a sample for `relearn_after_s` shows its configured rates again, to one request: the next request sees the learned
  rates.

Pure: no I/O and no clock. `monotonic_s` is the time in seconds of any one monotonic clock. Every call is O(1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing.estimators import EWMA_WEIGHT, OutputLength, PrefillRate, RecentWork, StepScale

KV_SHARE_LIMIT = 0.9
"""Share of the KV capacity above which a request overflows; vLLM starts to preempt near 1."""
MOST_SEQUENCE_WAIT = 0.5
"""The share of a time to first token above which the wait for a free sequence hides how fast prompts are read."""
MOST_PREFILL_SHARE: Final = 0.99
"""Decoding keeps a hundredth of the engine, however much prefill was admitted, so that predictions stay finite."""

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "queue": "work ahead at the local engine makes the first token too late",
        "slo": "even without a queue the local engine would miss the latency promise (first token or per token)",
        "kv": "the KV cache of the local engine would be too full",
    }
)


@fast_frozen(frozen=True, slots=True)
class Slo:
    """The latency promise: seconds to the first token, and seconds per output token after it."""

    ttft_s: float
    tpot_s: float


@fast_frozen(frozen=True, slots=True)
class EngineRates:
    """What is believed of one local engine. Raises ValueError for impossible figures."""

    prefill_tokens_per_s: float = 12_000.0
    """Prompt tokens that the engine reads per second while it has enough of them to fill its batches."""
    step_time_s: float = 0.010
    """One decode step with a single sequence: the floor of the time per output token."""
    step_time_s_per_sequence: float = 0.00006
    """What each further sequence adds to a decode step."""
    kv_capacity_tokens: int = 200_000
    """Tokens that fit into the KV cache (`vllm:cache_config_info`: blocks x block size)."""
    max_sequences: int = 256
    """Requests that the engine runs at once (`--max-num-seqs`); further ones wait."""

    def __post_init__(self) -> None:
        if not (
            0 < self.prefill_tokens_per_s < math.inf
            and 0 < self.kv_capacity_tokens < math.inf
            and 0 < self.max_sequences < math.inf
        ):
            raise ValueError(f"rates and capacities must be above 0 and finite: {self}")
        if not (0 <= self.step_time_s < math.inf and 0 <= self.step_time_s_per_sequence < math.inf):
            raise ValueError(f"step times must be 0 or more and finite: {self}")


class _LearnedRates(EngineRates):
    """Rates learned in bounded steps from checked ones. They change with nearly every sample and need no new check."""

    __slots__ = ()

    def __post_init__(self) -> None: ...


@fast_frozen(frozen=True, slots=True)
class BacklogView:
    """The work in flight at one local engine in requests and tokens, including load from elsewhere."""

    in_flight: int = 0
    waiting_first_token: int = 0
    prefill_tokens: int = 0
    """Prompt tokens of the requests that have no first token yet."""
    decoding: int = 0
    kv_tokens: int = 0
    """KV tokens that the requests in flight will hold at their end: prompt plus expected output."""
    recent_prefill_tokens: float = 0.0
    """Prompt tokens admitted lately, read or not: a sum that decays with the time constant `window_s`."""
    window_s: float = 2.0


@fast_frozen(frozen=True, slots=True)
class Prediction:
    """What a request would experience at one local engine."""

    ttft_s: float
    tpot_s: float
    kv_share: float
    """KV tokens needed over capacity, this request included; it may exceed 1."""
    alone_ttft_s: float
    """TTFT of the same request at the same engine without a queue; it distinguishes a queue from a long prompt."""


@fast_frozen(frozen=True, slots=True)
class EngineLoad:
    """The engine's own gauges at one scrape, summed over its replicas."""

    waiting: float
    running: float
    kv_usage: float
    """Share of the KV cache in use, 0 to 1."""


@fast_frozen(frozen=True, slots=True)
class BacklogTuning:
    """How a backlog learns, and its bounds. The defaults suit an engine behind a router."""

    ewma_weight: float = EWMA_WEIGHT
    prior_samples: int = 1
    """How many samples the configured rate counts as: 1 learns fast, 20 or more is a plain EWMA."""
    min_sample_tokens: int = 1024
    """A sample with less work than this says little about the rate, as the fixed cost of a step dominates..."""
    long_sample_s: float = 0.25
    """...unless it took this long, or half of this was expected: then the engine is slow."""
    stale_after_s: float = 5.0
    relearn_after_s: float = 30.0
    max_tickets: int = 16_384
    window_s: float = 2.0
    """Seconds over which the admitted prompts are averaged for the time per token..."""
    window_prompts: float = 24.0
    """...unless this many prompts of mean length take longer: on a slow engine each prompt is a large share."""


def predict(view: BacklogView, rates: EngineRates, prompt_tokens: int, expected_output_tokens: int) -> Prediction:
    """Predict what a request of `prompt_tokens` (none in the prefix cache) would experience if it were admitted now."""
    step = rates.step_time_s
    sequences = min(view.in_flight + 1, rates.max_sequences)
    # A prompt without company is read before its own answer begins, so it delays no token.
    recent = view.recent_prefill_tokens + (prompt_tokens if view.in_flight else 0)
    share = min(MOST_PREFILL_SHARE, recent / (view.window_s * rates.prefill_tokens_per_s))
    tpot = (step + rates.step_time_s_per_sequence * sequences) / (1 - share)
    alone = prompt_tokens / rates.prefill_tokens_per_s + step
    ttft = (view.prefill_tokens + prompt_tokens) / rates.prefill_tokens_per_s + tpot
    excess = view.in_flight + 1 - rates.max_sequences
    if excess > 0:
        ttft += excess * expected_output_tokens * tpot / rates.max_sequences
    kv_share = (view.kv_tokens + prompt_tokens + expected_output_tokens) / rates.kv_capacity_tokens
    return Prediction(ttft_s=ttft, tpot_s=tpot, kv_share=kv_share, alone_ttft_s=alone)


def overflow_reasons(prediction: Prediction, slo: Slo, margin: float, *, generates: bool = True) -> tuple[str, ...]:
    """Return why this request should not stay local, as keys of `REASONS`; () if it should. `margin` is m, near .85.

    `generates`: whether its answer is generated, token by token. Embeddings are not, so that neither the time per token
    nor the KV cache says anything of them: engines of encoder models report a cache of one block.
    """
    latest = margin * slo.ttft_s
    late = prediction.ttft_s > latest
    hopeless = (late and prediction.alone_ttft_s > latest) or (generates and prediction.tpot_s > slo.tpot_s)
    full = generates and prediction.kv_share > KV_SHARE_LIMIT
    if not (late or hopeless or full):
        return ()
    checks = (("queue", late and prediction.alone_ttft_s <= latest), ("slo", hopeless), ("kv", full))
    return tuple(reason for reason, applies in checks if applies)


class _Ticket:
    """What the backlog keeps of one request in flight.

    `prompt_tokens` and `kv_tokens` are its own; `work_tokens` is the prefill work ahead of it at its admission, its own
    prompt included, and `sequence_wait_s` the time that it was expected to wait for a free sequence then. The
    `..._before` are the backlog's running sums at its admission and at its first token. `admission` counts the requests
    until it, and `mean_step` is by how much it moved the mean length of prompts.
    """

    __slots__ = (
        "abandoned_before",
        "admission",
        "admitted_at_s",
        "expected_tpot_s",
        "first_token_at_s",
        "kv_tokens",
        "mean_step",
        "prefilled_before",
        "prompt_tokens",
        "sequence_wait_s",
        "work_tokens",
    )

    def __init__(
        self,
        prompt_tokens: int,
        kv_tokens: int,
        work_tokens: int,
        abandoned_before: int,
        admitted_at_s: float,
        sequence_wait_s: float,
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.kv_tokens = kv_tokens
        self.work_tokens = work_tokens
        self.abandoned_before = abandoned_before
        self.admitted_at_s = admitted_at_s
        self.sequence_wait_s = sequence_wait_s
        self.first_token_at_s: float | None = None
        self.expected_tpot_s = 0.0
        self.prefilled_before = 0
        self.admission = 0
        self.mean_step = 0.0


class Backlog:
    """The account of one local backend: requests admitted, with a first token, and finished. Not thread-safe.

    It holds at most `tuning.max_tickets` requests. When it is full, `admit` returns False and counts nothing; the
    caller should refuse the request or send it elsewhere. `first_token` and `finish` ignore an unknown ticket, so that
    a cleanup may run twice.
    """

    __slots__ = (
        "_abandoned", "_admissions", "_decoding", "_external", "_external_at_s", "_initial", "_kv", "_output",
        "_peak_in_flight", "_peak_kv", "_peak_waiting", "_prefill", "_prefill_rate", "_prefilled", "_prompt_mean",
        "_rates", "_recent", "_sequences", "_step_scale", "_tickets", "_tuning",
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
        self._sequences = rates.max_sequences
        self._tickets: dict[int, _Ticket] = {}
        self._prefill = self._decoding = self._kv = 0
        self._abandoned = self._admissions = self._prefilled = 0
        self._recent = RecentWork()
        self._external = BacklogView()
        self._external_at_s = -math.inf
        self._peak_in_flight = self._peak_waiting = self._peak_kv = 0
        self._prompt_mean = 1024.0
        self._output = OutputLength()
        self._step_scale = StepScale(self._tuning.ewma_weight)

    def admit(self, ticket: int, prompt_tokens: int, expected_output_tokens: int, monotonic_s: float) -> bool:
        """Count a request that is about to be sent; return False, without counting it, if the backlog is full.

        Raises ValueError for a ticket that is already in flight and for negative token counts.
        """
        if ticket in self._tickets or prompt_tokens < 0 or expected_output_tokens < 0:
            raise ValueError(f"ticket {ticket} is already in flight or its token counts are negative")
        if len(self._tickets) >= self._tuning.max_tickets:
            return False
        self._prefill += prompt_tokens
        kv_tokens = prompt_tokens + expected_output_tokens
        self._kv += kv_tokens
        excess = len(self._tickets) + 1 - self._sequences
        entry = self._tickets[ticket] = _Ticket(
            prompt_tokens=prompt_tokens,
            kv_tokens=kv_tokens,
            work_tokens=self._prefill,
            abandoned_before=self._abandoned,
            admitted_at_s=monotonic_s,
            sequence_wait_s=self._sequence_wait_s(excess, expected_output_tokens) if excess > 0 else 0.0,
        )
        self._recent.add(prompt_tokens, monotonic_s, self._window_s())
        self._admissions += 1
        mean_step = EWMA_WEIGHT * (prompt_tokens - self._prompt_mean)
        self._prompt_mean += mean_step
        entry.admission, entry.mean_step = self._admissions, mean_step
        in_flight = len(self._tickets)
        if in_flight > self._peak_in_flight:
            self._peak_in_flight = in_flight
        if in_flight - self._decoding > self._peak_waiting:
            self._peak_waiting = in_flight - self._decoding
        if self._kv > self._peak_kv:
            self._peak_kv = self._kv
        return True

    def first_token(self, ticket: int, monotonic_s: float) -> float | None:
        """Note the first token of `ticket`; return its TTFT in seconds, None for an unknown ticket or a later token."""
        entry = self._tickets.get(ticket)
        if entry is None or entry.first_token_at_s is not None:
            return None
        entry.first_token_at_s = monotonic_s
        self._prefill -= entry.prompt_tokens
        self._decoding += 1
        self._prefilled += entry.prompt_tokens
        entry.prefilled_before = self._prefilled
        entry.expected_tpot_s = self._decode_step_s()
        ttft = max(0.0, monotonic_s - entry.admitted_at_s)
        # Of a request that waited for a free sequence for most of its time, nothing is learned: a flood of short
        # prompts would make the engine look as if it read slowly, and send away those who need not wait.
        reading_s = ttft - entry.sequence_wait_s
        # Work abandoned since the admission may have been done or not, and some of it arrived after this request.
        abandoned = min(self._abandoned - entry.abandoned_before, entry.work_tokens - entry.prompt_tokens)
        if reading_s > MOST_SEQUENCE_WAIT * ttft and self._prefill_rate.learn(
            entry.work_tokens, reading_s, monotonic_s, abandoned
        ):
            self._rates = None
        return ttft

    def finish(
        self,
        ticket: int,
        monotonic_s: float,
        output_tokens: int | None,
        *,
        timed: bool = True,
        refused: bool = False,
    ) -> None:
        """Note that `ticket` ended, well or not. Lengths and speed are learned from `output_tokens`; None: unknown.

        `timed`: whether the engine alone determined how long it took; no speed is learned from others. `refused`: the
        engine answered with an error, so that it read nothing of a prompt whose first token has not come.
        """
        waiting = len(self._tickets) - self._decoding
        entry = self._tickets.pop(ticket, None)
        if entry is None:
            return
        self._kv -= entry.kv_tokens
        if entry.first_token_at_s is None:
            self._prefill -= entry.prompt_tokens
            self._abandoned += entry.prompt_tokens
            self._take_back_prompt(entry, monotonic_s, waiting, refused=refused)
        else:
            self._decoding -= 1
            if timed and output_tokens is not None and output_tokens > 1:
                # A prompt that was half read at either end counts where its reading ends.
                reading_s = (self._prefilled - entry.prefilled_before) / self._prefill_rate.tokens_per_s
                expected_s = (output_tokens - 1) * entry.expected_tpot_s
                if self._step_scale.learn(expected_s, monotonic_s - entry.first_token_at_s, reading_s, monotonic_s):
                    self._rates = None
        if output_tokens is not None:
            self._output.observe(output_tokens)

    def _take_back_prompt(self, entry: _Ticket, monotonic_s: float, waiting: int, *, refused: bool) -> None:
        """Take a prompt that was given up out of the recent work, except for what the engine may have read of it: its
        share of the time that it waited, among `waiting` requests."""
        waited_s = max(0.0, monotonic_s - entry.admitted_at_s)
        read = 0.0 if refused else waited_s * self._prefill_rate.tokens_per_s / max(1, waiting)
        unread = entry.prompt_tokens - read
        if unread > 0:
            # What is left of its step in the mean length: as if it had been as long as the mean.
            left = (1 - EWMA_WEIGHT) ** (self._admissions - entry.admission)
            self._prompt_mean -= entry.mean_step * left * unread / max(1, entry.prompt_tokens)
            self._recent.take_back(unread, entry.admitted_at_s, monotonic_s, self._window_s())

    def set_aside(self, ticket: int, monotonic_s: float) -> bool:
        """Stop counting an answer that nobody reads on, once the engine is expected to have finished it; return whether
        it is counted no more.

        An engine goes on whether or not its answer is read. If it works on this one for longer than expected, its own
        gauges show that as load from elsewhere.
        """
        entry = self._tickets.get(ticket)
        if entry is None:
            return True
        if entry.first_token_at_s is None:
            return False
        output_tokens = entry.kv_tokens - entry.prompt_tokens
        expected_s = output_tokens * max(entry.expected_tpot_s, self._decode_step_s()) * self._step_scale.scale
        if monotonic_s - entry.first_token_at_s < expected_s:
            return False
        self.finish(ticket, monotonic_s, None)
        return True

    def own_view(self, monotonic_s: float) -> BacklogView:
        """Return the router's own work in flight now."""
        window = self._window_s()
        return BacklogView(
            in_flight=len(self._tickets),
            waiting_first_token=len(self._tickets) - self._decoding,
            prefill_tokens=self._prefill,
            decoding=self._decoding,
            kv_tokens=self._kv,
            recent_prefill_tokens=self._recent.tokens(monotonic_s, window),
            window_s=window,
        )

    def view(self, monotonic_s: float) -> BacklogView:
        """Return the work in flight now, including load from elsewhere while its sample is fresh."""
        in_flight = len(self._tickets)
        waiting = in_flight - self._decoding
        if monotonic_s - self._external_at_s > self._tuning.stale_after_s:
            return self.own_view(monotonic_s)
        recent = self._recent.tokens(monotonic_s, window := self._window_s())
        other = self._external
        return BacklogView(
            in_flight=in_flight + other.in_flight,
            waiting_first_token=waiting + other.waiting_first_token,
            prefill_tokens=self._prefill + other.prefill_tokens,
            decoding=self._decoding + other.decoding,
            kv_tokens=self._kv + other.kv_tokens,
            recent_prefill_tokens=recent + other.prefill_tokens,
            window_s=window,
        )

    def rates(self, monotonic_s: float) -> EngineRates:
        """Return the rates believed now: the learned ones, or the configured ones for a long idle engine."""
        if self._tickets:
            return self._believed()
        rates, initial, oldest = self._believed(), self._initial, monotonic_s - self._tuning.relearn_after_s
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
    def configured_sequences(self) -> int:
        """The number of requests that the engine runs at once, as configured or reported."""
        return self._initial.max_sequences

    @property
    def step_time_s(self) -> float:
        """The learned duration of a decode step with a single sequence, in seconds."""
        return self._initial.step_time_s * self._step_scale.scale

    def expected_output(self, max_tokens: int | None = None) -> int:
        """Return the output tokens to expect from a request that allows `max_tokens` (None: no limit)."""
        return self._output.expect(max_tokens)

    def observe_engine(self, load: EngineLoad | None, monotonic_s: float) -> None:
        """Take a scrape of the engine's gauges. None, NaN and infinity mean no sample, and the last one is dropped.

        Load from elsewhere is what exceeds the peak of the router's own count since the previous scrape: gauges lag,
        and a request that just ended must not reappear as load from elsewhere. Its prompts are assumed to have the mean
        length of ours.
        """
        peak_in_flight, peak_waiting, peak_kv = self._peak_in_flight, self._peak_waiting, self._peak_kv
        self._peak_in_flight = len(self._tickets)
        self._peak_waiting = self._peak_in_flight - self._decoding
        self._peak_kv = self._kv
        if load is None or not all(map(math.isfinite, (load.waiting, load.running, load.kv_usage))):
            self._external_at_s = -math.inf
            return
        self._learn_sequences(load)
        total = max(0, round(load.waiting + load.running) - peak_in_flight)
        waiting = min(total, max(0, round(load.waiting) - peak_waiting))
        kv = max(0, round(load.kv_usage * self._initial.kv_capacity_tokens) - peak_kv)
        self._external = BacklogView(
            in_flight=total,
            waiting_first_token=waiting,
            prefill_tokens=round(waiting * self._prompt_mean),
            decoding=total - waiting,
            kv_tokens=kv,
        )
        self._external_at_s = monotonic_s

    def _learn_sequences(self, load: EngineLoad) -> None:
        """Learn how many requests the engine runs at once: the most that run while others wait there.

        A scrape may come between two of them, so that a lower figure counts only if it lasts. Once none wait, what runs
        is the least that it can, and the belief grows from scrape to scrape.
        """
        configured, believed = self._initial.max_sequences, self._sequences
        running, step = max(1, round(load.running)), 1 + believed // 10
        if load.waiting < 1:
            believed += step
        elif believed < configured:
            believed -= step
        believed = min(configured, running if load.waiting >= 1 and believed == configured else max(running, believed))
        if believed != self._sequences:
            self._sequences = believed
            self._rates = None

    def observe_capacity(self, kv_capacity_tokens: int, max_sequences: int) -> None:
        """Take the capacities that the engine reports once it is up; they replace the configured ones."""
        self._initial = replace(self._initial, kv_capacity_tokens=kv_capacity_tokens, max_sequences=max_sequences)
        self._sequences = max_sequences
        self._rates = None

    def _decode_step_s(self) -> float:
        rates = self._initial
        sequences = min(self._decoding, rates.max_sequences)
        return rates.step_time_s + rates.step_time_s_per_sequence * sequences

    def _sequence_wait_s(self, excess: int, output_tokens: int) -> float:
        """Return for how long a request waits until so many others have left, by what was learned of the steps."""
        step_s = self._decode_step_s() * self._step_scale.scale
        return excess * output_tokens * step_s / self._sequences

    def _window_s(self) -> float:
        tuning = self._tuning
        return max(tuning.window_s, tuning.window_prompts * self._prompt_mean / self._prefill_rate.tokens_per_s)

    def _believed(self) -> EngineRates:
        """Return the rates learned so far, computed on demand because several samples may arrive in between."""
        if self._rates is not None:
            return self._rates
        initial, scale = self._initial, self._step_scale.scale
        self._rates = _LearnedRates(
            prefill_tokens_per_s=self._prefill_rate.tokens_per_s,
            step_time_s=initial.step_time_s * scale,
            step_time_s_per_sequence=initial.step_time_s_per_sequence * scale,
            kv_capacity_tokens=initial.kv_capacity_tokens,
            max_sequences=self._sequences,
        )
        return self._rates

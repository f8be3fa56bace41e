"""From timings to the rates that Spillway computes with.

An engine's step over n batched decode tokens with K tokens of KV cache in use takes about

    step(n, K) = step_time + per_sequence * n + kv * K                                   [seconds]

and reads prompts at `prefill` tokens/s while its batches are full. The attribution shares GPU time by

    b_p = 1 / prefill          per prompt token
    b_d = (step_time + per_sequence * n) / n    per output token, at the n of the highest output rate measured
    b_kv = kv                  per token of context that one decode step reads
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from spillway_server.planning.measurements import MeasuredRates


class FitError(ValueError):
    """The timings don't give the rates; the message says which measurement is missing or implausible."""


@dataclass(frozen=True, slots=True)
class Decode:
    """Steady decoding of `sequences` at once with `kv_tokens` in the cache on average: the seconds of one step."""

    sequences: int
    kv_tokens: float
    step_s: float


def rates(prefill_tokens_per_s: float, decodes: Sequence[Decode]) -> MeasuredRates:
    """Return the rates that fit best (least squares over all steady decodings, coefficients 0 or more).

    Raises:
        FitError: there are no two different loads, or no two different contexts at one load.
    """
    if not (math.isfinite(prefill_tokens_per_s) and prefill_tokens_per_s > 0):
        raise FitError(f"the prefill rate is {prefill_tokens_per_s}: no prompt was read")
    if len({d.sequences for d in decodes}) < 2:
        raise FitError("decoding was measured at fewer than two loads: give more --concurrency")
    kv = _kv(decodes)
    flat = [(d.sequences, d.step_s - kv * d.kv_tokens) for d in decodes]
    intercept, slope = _line(flat)
    if slope < 0:
        slope, intercept = 0.0, fmean(y for _, y in flat)
    intercept = max(0.0, intercept)
    best = max(decodes, key=lambda d: d.sequences / d.step_s).sequences
    # Taken at the best load itself instead of on the line, since real curves bend.
    at_best = [y for n, y in flat if n == best]
    decode_us = 1e6 * max(0.0, fmean(at_best)) / best
    return MeasuredRates(
        prefill_tokens_per_s=round(prefill_tokens_per_s, 1),
        step_time_s=round(intercept, 7),
        step_time_s_per_sequence=round(slope, 8),
        kv_s_per_token=kv,
        best_sequences=best,
        prefill_us=round(1e6 / prefill_tokens_per_s, 3),
        decode_us=round(decode_us, 3),
        kv_us=round(1e6 * kv, 5),
    )


def _kv(decodes: Sequence[Decode]) -> float:
    """Return the seconds per token of context: the slope of the step over the KV cache, within each load, 0 or more."""
    loads = {d.sequences for d in decodes}
    above = below = 0.0
    for load in loads:
        group = [d for d in decodes if d.sequences == load]
        mean_kv, mean_step = fmean(d.kv_tokens for d in group), fmean(d.step_s for d in group)
        above += sum((d.kv_tokens - mean_kv) * (d.step_s - mean_step) for d in group)
        below += sum((d.kv_tokens - mean_kv) ** 2 for d in group)
    if below == 0:
        raise FitError("no load was measured with two contexts: the longest context is too short to tell them apart")
    return max(0.0, above / below)


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return (intercept, slope) of the least-squares line."""
    mean_x, mean_y = fmean(x for x, _ in points), fmean(y for _, y in points)
    below = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / below
    return mean_y - slope * mean_x, slope


def steady_step(events: Sequence[Sequence[float]], least_tokens: int = 16) -> tuple[float, float] | None:
    """Return the seconds of one step while all requests decode, and the share of their output done by the window's
    middle.

    `events` has, per request, the moments of its tokens. The window lies between the last first token and the first
    last token, so that no step in it has prefill; the result is None when fewer than `least_tokens` tokens per request
    are in it.
    """
    begin, end = max(each[0] for each in events), min(each[-1] for each in events)
    inside = [[moment for moment in each if begin <= moment <= end] for each in events]
    if end <= begin or min(map(len, inside)) <= least_tokens:
        return None
    steps = [(each[-1] - each[0]) / (len(each) - 1) for each in inside]
    before = fmean(sum(moment < begin for moment in each) for each in events)
    middle = fmean(len(each) / 2 for each in inside) + before
    return fmean(steps), middle

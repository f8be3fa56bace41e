"""Detect an engine that hangs: its health page may still answer, but its counters stand still. Pure.

An engine is stalled when it has requests and has counted neither a generated token nor a prompt token for
`stall_after_s` seconds, and when its metrics have been silent for that long. An engine that hangs idle shows neither,
so the supervisor requests a token of one that has counted none for a while.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_RUNNING, _WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
_TOKENS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")


@dataclass(frozen=True, slots=True)
class EngineActivity:
    """One reading of vLLM's metrics, summed over engines: requests running and waiting, tokens counted so far."""

    running: int
    waiting: int
    tokens: float


@dataclass(frozen=True, slots=True)
class ProgressWatch:
    """The last token count that differed from the one before, and when it was read, in seconds of the caller's
    clock."""

    tokens: float = -1.0
    since_s: float = 0.0


def read_activity(text: str) -> EngineActivity:
    """Read a page of Prometheus metrics.

    Raises `ValueError` when the page can't be parsed or lacks vLLM's gauges.
    """
    sums = dict.fromkeys((_RUNNING, _WAITING, *_TOKENS), 0.0)
    seen = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in sums:
                sums[sample.name] += sample.value
                seen.add(sample.name)
    if not {_RUNNING, _WAITING} <= seen:
        raise ValueError("the page has no vLLM gauges of running and waiting requests")
    return EngineActivity(int(sums[_RUNNING]), int(sums[_WAITING]), sum(sums[name] for name in _TOKENS))


def observe(
    watch: ProgressWatch, activity: EngineActivity, now_s: float, stall_after_s: float
) -> tuple[ProgressWatch, bool]:
    """Take one reading into account; return the new watch and whether the engine is stalled."""
    if activity.running + activity.waiting == 0 or activity.tokens != watch.tokens:
        return ProgressWatch(activity.tokens, now_s), False
    return watch, now_s - watch.since_s >= stall_after_s

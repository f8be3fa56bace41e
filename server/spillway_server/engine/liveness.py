"""Does the engine still move? Its health page can say yes while it hangs; its counters can't. Pure.

An engine is stalled when it has requests running and neither a generated token nor a prompt token was counted for
`stall_after` seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

_RUNNING, _WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
_TOKENS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """One look at vLLM's metrics, summed over engines: requests running and waiting, tokens counted so far."""

    running: int
    waiting: int
    tokens: float


@dataclass(frozen=True, slots=True)
class ProgressWatch:
    """The token count last seen to change, and when (seconds)."""

    tokens: float = -1.0
    since: float = 0.0


def read_load(text: str) -> EngineLoad:
    """Read a Prometheus page.

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
    return EngineLoad(int(sums[_RUNNING]), int(sums[_WAITING]), sum(sums[name] for name in _TOKENS))


def observe(watch: ProgressWatch, load: EngineLoad, now: float, stall_after: float) -> tuple[ProgressWatch, bool]:
    """Take one look into account; answers the new watch and whether the engine is stalled."""
    if load.running == 0 or load.tokens != watch.tokens:
        return ProgressWatch(load.tokens, now), False
    return watch, now - watch.since >= stall_after

"""Reads the few series that routing needs from an engine's metrics page (Prometheus text format 0.0.4).

A page of vLLM has a thousand lines, nearly all of them histogram buckets, and is read every second. One compiled
pattern with the needed names skips the rest at the speed of the regex engine (`tests/signals` compares it with the
parser of prometheus_client).

This module is pure: it turns text into an `EngineSample`. Bad text never raises an error: a series that can't be read
is reported as missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spillway_router.core.routing.backlog import EngineLoad
from spillway_router.signals.engines import EngineMetrics, Names

_LABELS = r'\{((?:[^"}\n]|"(?:[^"\\\n]|\\.)*")*)\}'
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"')
_ABSURD = 2.0**53
"""Above it a float holds no count exactly, and sums with it would overflow."""
_ESCAPE = re.compile(r'\\([\\n"])')

_ALARMED = (
    "running", "waiting", "kv_usage", "generation_tokens", "prompt_tokens", "prefix_queries", "preemptions", "steps",
    "kv_capacity", "cache_info",
)  # fmt: skip

Replicas = dict[str, float]
"""The values of one quantity by replica."""


@dataclass(frozen=True, slots=True)
class ReplicaProgress:
    """The gauges and counters of one replica. While it steps, at least one of the marks moves."""

    replica: str
    """Value of the engine's replica label; empty if there is only one replica."""
    unfinished: float
    """Requests that run or wait."""
    marks: tuple[float, ...]
    fresh: bool = False
    """Whether the replica counts tokens and has hardly read or generated any since it started."""


@dataclass(frozen=True, slots=True)
class EngineSample:
    """One scrape of one engine, summed over its replicas. A value is None if the engine has no such series."""

    load: EngineLoad | None
    """None if one of its three gauges is missing. `kv_usage` is the mean over the replicas (which have equal sizes),
    and 0 for engines that do not report it."""
    missing: tuple[str, ...] = ()
    """Names of required series that are missing or hold no number. They are a reason for an alarm."""
    kv_capacity_tokens: int | None = None
    progress: tuple[ReplicaProgress, ...] = ()

    @property
    def unfinished(self) -> float:
        """Requests that run or wait in the engine."""
        return sum(replica.unfinished for replica in self.progress)


class ExpositionReader:
    """Reads pages of one engine family. It holds the compiled pattern and no state."""

    __slots__ = ("_metrics", "_pattern")

    def __init__(self, metrics: EngineMetrics) -> None:
        self._metrics = metrics
        names = {name for field in _ALARMED for name in _names(metrics, field)}
        alternatives = "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or r"(?!)"
        # A pattern that begins with a newline is looked for as fast as that one character; `^` is tried everywhere.
        self._pattern = re.compile(rf"\n[ \t]*({alternatives})[ \t]*(?:{_LABELS})?[ \t]+(\S+)")

    def read(self, text: str) -> EngineSample:
        """Return the sample of a page. An empty or unrelated page has `load=None` and all required names missing."""
        metrics = self._metrics
        series, infos = self._collect(text)
        quantities = {field: _first(series, _names(metrics, field)) for field in _ALARMED if field != "steps"}
        steps = [series[name] for name in metrics.steps if name in series]
        capacity = _total(quantities["kv_capacity"])
        present = {field for field, by_replica in quantities.items() if by_replica}
        present |= {name for name, there in (("steps", steps), ("cache_info", infos)) if there}
        return EngineSample(
            load=_load(quantities, metrics),
            missing=_missing(metrics, present),
            kv_capacity_tokens=_capacity(infos) if capacity is None else int(capacity),
            progress=_progress(quantities, steps),
        )

    def _collect(self, text: str) -> tuple[dict[str, Replicas], list[Mapping[str, str]]]:
        """Return the values by name and replica, and the label sets of the info series."""
        metrics = self._metrics
        series: dict[str, dict[tuple[str, str], float]] = {}
        infos: list[Mapping[str, str]] = []
        for name, raw_labels, raw_value in self._pattern.findall("\n" + text):
            labels = _labels(raw_labels)
            if name in metrics.cache_info:
                infos.append(labels)
                continue
            value = _number(raw_value)
            if value is None:
                continue
            # Ranks of one group report the same requests: series that differ only in the rank are copies.
            rest = ",".join(f"{k}={v}" for k, v in labels.items() if k not in metrics.copy_labels)
            key = (labels.get(metrics.replica_label, ""), rest)
            values = series.setdefault(name, {})
            values[key] = max(value, values[key]) if key in values else value
        return {name: _by_replica(values) for name, values in series.items()}, infos


def _names(metrics: EngineMetrics, field: str) -> Names:
    names: Names = getattr(metrics, field)
    return names


def _labels(raw: str) -> dict[str, str]:
    return {
        name: _ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], value) if "\\" in value else value
        for name, value in _LABEL.findall(raw)
    }


def _number(raw: str) -> float | None:
    """Return a count or a share; None for NaN, infinities, negative and absurd values, and text that is no number."""
    try:
        value = float(raw)
    except ValueError:
        return None
    # Python reads underscores and the digits of every script, which no engine writes.
    return value if 0 <= value < _ABSURD and raw.isascii() and "_" not in raw else None


def _by_replica(values: Mapping[tuple[str, str], float]) -> Replicas:
    sums: Replicas = {}
    for (replica, _), value in values.items():
        sums[replica] = sums.get(replica, 0.0) + value
    return sums


def _first(series: Mapping[str, Replicas], names: Names) -> Replicas:
    """Return the values of the first name on the page: an old and a new name of a quantity must not be added."""
    return next((series[name] for name in names if name in series), {})


def _total(by_replica: Replicas) -> float | None:
    return sum(by_replica.values()) if by_replica else None


def _load(quantities: Mapping[str, Replicas], metrics: EngineMetrics) -> EngineLoad | None:
    running, waiting = _total(quantities["running"]), _total(quantities["waiting"])
    shares = quantities["kv_usage"]
    if running is None or waiting is None or not (shares or "kv_usage" in metrics.optional):
        return None
    return EngineLoad(waiting, running, sum(shares.values()) / len(shares) if shares else 0.0)


def _capacity(infos: Sequence[Mapping[str, str]]) -> int | None:
    """Return the tokens of all replicas; None if they are not reported (vLLM writes `None` before it has profiled).

    According to vLLM's `core_client.py`, `kv_cache_size_tokens` is per replica, and right also for hybrid models, whose
    layer groups share the blocks. Older versions only have `num_gpu_blocks`, which is the sum over all replicas and is
    repeated on each line.
    """
    sizes = [_whole(labels, "kv_cache_size_tokens") for labels in infos]
    if sizes and None not in sizes:
        return sum(size for size in sizes if size is not None) or None
    blocks = [(_whole(labels, "num_gpu_blocks"), _whole(labels, "block_size")) for labels in infos]
    return max((n * size for n, size in blocks if n is not None and size is not None), default=0) or None


def _whole(labels: Mapping[str, str], name: str) -> int | None:
    """Return the label as a whole number of at most 15 digits, so that `int` stays cheap; None if it is not one."""
    text = labels.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else None


def _missing(metrics: EngineMetrics, present: set[str]) -> tuple[str, ...]:
    required = (f for f in _ALARMED if f not in metrics.optional and f not in present)
    return tuple(_names(metrics, field)[0] for field in required if _names(metrics, field))


def _progress(quantities: Mapping[str, Replicas], steps: list[Replicas]) -> tuple[ReplicaProgress, ...]:
    """Return the marks of each replica.

    Gauges count as marks too: the engine's steps write them, and KV use grows while a long prompt is read. vLLM's count
    of rejections is no mark, because the front end counts them and continues to do so in front of a hung engine.
    """
    fields = ("running", "waiting", "kv_usage", "generation_tokens", "prompt_tokens", "prefix_queries", "preemptions")
    marks = [quantities[field] for field in fields] + steps
    replicas = sorted({replica for field in ("running", "waiting") for replica in quantities[field]})
    counters = ((quantities["generation_tokens"], 32), (quantities["prompt_tokens"], 256))
    return tuple(
        ReplicaProgress(
            replica,
            quantities["running"].get(replica, 0.0) + quantities["waiting"].get(replica, 0.0),
            tuple(by_replica.get(replica, 0.0) for by_replica in marks),
            fresh=all(by_replica.get(replica, math.inf) <= limit for by_replica, limit in counters),
        )
        for replica in replicas
    )

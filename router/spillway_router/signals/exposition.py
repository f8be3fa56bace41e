"""Reads the few series routing needs out of an engine's metrics page (Prometheus text format 0.0.4).

A page of vLLM has a thousand lines, nearly all of them histogram buckets, and is read every second. One compiled
pattern that knows the wanted names skips the rest at the speed of the regex engine (see `tests/signals` for what
prometheus_client's parser costs instead).

Pure: text in, an `EngineSample` out. Bad text never raises: what cannot be read is missing, and missing is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from spillway_router.core.frozen import dataclass
from spillway_router.core.routing.backlog import EngineLoad
from spillway_router.signals.engines import EngineMetrics, Names

_LABELS = r'\{((?:[^"}\n]|"(?:[^"\\\n]|\\.)*")*)\}'
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"')
_ESCAPE = re.compile(r'\\([\\n"])')

_ALARMED = (
    "running", "waiting", "kv_usage", "generation_tokens", "prompt_tokens", "prefix_queries", "preemptions", "steps",
    "kv_capacity", "cache_info",
)  # fmt: skip

Replicas = dict[str, float]
"""One quantity, by replica."""


@dataclass(frozen=True, slots=True)
class ReplicaProgress:
    """What one replica's gauges and counters stood at. While it steps, at least one of the marks moves."""

    replica: str
    """Value of the engine's replica label; empty where there is one engine only."""
    unfinished: float
    """Requests it runs or holds waiting."""
    marks: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class EngineSample:
    """One scrape of one engine, summed over its replicas. None where the engine has no such series."""

    load: EngineLoad | None
    """None where one of its three gauges is missing. `kv_usage` is the mean over replicas (of equal size), and 0
    for engines that do not tell it."""
    missing: tuple[str, ...] = ()
    """Names of series that should be there and are not, or hold no number: reason for an alarm."""
    kv_capacity_tokens: int | None = None
    progress: tuple[ReplicaProgress, ...] = ()

    @property
    def unfinished(self) -> float:
        """Requests the engine runs or holds waiting."""
        return sum(replica.unfinished for replica in self.progress)


class ExpositionReader:
    """Reads pages of one engine family. Holds the compiled pattern, no state."""

    __slots__ = ("_metrics", "_pattern")

    def __init__(self, metrics: EngineMetrics) -> None:
        self._metrics = metrics
        names = {name for field in _ALARMED for name in _names(metrics, field)}
        alternatives = "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or r"(?!)"
        self._pattern = re.compile(rf"^[ \t]*({alternatives})[ \t]*(?:{_LABELS})?[ \t]+(\S+)", re.MULTILINE)

    def read(self, text: str) -> EngineSample:
        """The sample of one page. An empty or foreign page gives `load=None` and all required names as missing."""
        metrics = self._metrics
        series, infos = self._collect(text)
        found = {field: _first(series, _names(metrics, field)) for field in _ALARMED if field != "steps"}
        steps = [series[name] for name in metrics.steps if name in series]
        capacity = _total(found["kv_capacity"])
        present = {field for field, by_replica in found.items() if by_replica}
        present |= {name for name, there in (("steps", steps), ("cache_info", infos)) if there}
        return EngineSample(
            load=_load(found, metrics),
            missing=_missing(metrics, present),
            kv_capacity_tokens=_capacity(infos) if capacity is None else int(capacity),
            progress=_progress(found, steps),
        )

    def _collect(self, text: str) -> tuple[dict[str, Replicas], list[Mapping[str, str]]]:
        """Values by name and replica, and the label sets of the info series."""
        metrics = self._metrics
        series: dict[str, dict[tuple[str, str], float]] = {}
        infos: list[Mapping[str, str]] = []
        for name, raw_labels, raw_value in self._pattern.findall(text):
            labels = _labels(raw_labels)
            if name in metrics.cache_info:
                infos.append(labels)
                continue
            value = _number(raw_value)
            if value is None:
                continue
            # Ranks of one group report the same requests: equal keys but for the rank are copies of each other.
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
    """A value that can be a count or a share; None for NaN, infinities, negatives and what is no number."""
    try:
        value = float(raw)
    except ValueError:
        return None
    return value if 0 <= value < math.inf and "_" not in raw else None


def _by_replica(values: Mapping[tuple[str, str], float]) -> Replicas:
    sums: Replicas = {}
    for (replica, _), value in values.items():
        sums[replica] = sums.get(replica, 0.0) + value
    return sums


def _first(series: Mapping[str, Replicas], names: Names) -> Replicas:
    """Old and new name of one quantity may stand side by side: they must not add up."""
    return next((series[name] for name in names if name in series), {})


def _total(by_replica: Replicas) -> float | None:
    return sum(by_replica.values()) if by_replica else None


def _load(found: Mapping[str, Replicas], metrics: EngineMetrics) -> EngineLoad | None:
    running, waiting = _total(found["running"]), _total(found["waiting"])
    shares = found["kv_usage"]
    if running is None or waiting is None or not (shares or "kv_usage" in metrics.optional):
        return None
    return EngineLoad(waiting, running, sum(shares.values()) / len(shares) if shares else 0.0)


def _capacity(infos: Sequence[Mapping[str, str]]) -> int | None:
    """Tokens over all replicas; None where they don't tell (vLLM writes `None` before it has profiled).

    vLLM's `core_client.py`: `kv_cache_size_tokens` is per replica, and right for hybrid models too, whose layer groups
    share the blocks. `num_gpu_blocks`, all there is before, is the sum over replicas already, written to each line.
    """
    sizes = [_whole(labels, "kv_cache_size_tokens") for labels in infos]
    if sizes and None not in sizes:
        return sum(size for size in sizes if size is not None) or None
    blocks = [(_whole(labels, "num_gpu_blocks"), _whole(labels, "block_size")) for labels in infos]
    return max((n * size for n, size in blocks if n is not None and size is not None), default=0) or None


def _whole(labels: Mapping[str, str], name: str) -> int | None:
    """At most 15 digits: a number, not an attack on `int`."""
    text = labels.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else None


def _missing(metrics: EngineMetrics, present: set[str]) -> tuple[str, ...]:
    required = (f for f in _ALARMED if f not in metrics.optional and f not in present)
    return tuple(_names(metrics, field)[0] for field in required if _names(metrics, field))


def _progress(found: Mapping[str, Replicas], steps: list[Replicas]) -> tuple[ReplicaProgress, ...]:
    """Gauges count as marks too: they are written by the engine's steps, and KV use grows while a long prompt is read.

    vLLM's count of rejections would be none: the front end counts them, and goes on doing so before a hung engine.
    """
    fields = ("running", "waiting", "kv_usage", "generation_tokens", "prompt_tokens", "prefix_queries", "preemptions")
    marks = [found[field] for field in fields] + steps
    replicas = sorted({replica for field in ("running", "waiting") for replica in found[field]})
    return tuple(
        ReplicaProgress(
            replica,
            found["running"].get(replica, 0.0) + found["waiting"].get(replica, 0.0),
            tuple(by_replica.get(replica, 0.0) for by_replica in marks),
        )
        for replica in replicas
    )

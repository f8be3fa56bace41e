"""Prometheus series of the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spillway_router.caching.cache import AnswerCache
from spillway_router.core.money.tariff import NANO

_LOOKUPS = ("hit", "semantic", "miss", "bypass", "refresh")
_STORING = ("stored", "dropped")


class CacheMetrics(Collector):
    """What became of look-ups and of answers that were to be stored, and what the answers given again had cost."""

    def __init__(self, cache: Callable[[], AnswerCache | None]) -> None:
        self._cache = cache

    def collect(self) -> Iterable[Metric]:
        """Yield the families; none while the cache is off."""
        cache = self._cache()
        if cache is None:
            return
        lookups = CounterMetricFamily("spillway_cache_lookups", "Requests that may use the cache", labels=["result"])
        storing = CounterMetricFamily("spillway_cache_answers", "Answers that were to be stored", labels=["result"])
        for result in _LOOKUPS:
            lookups.add_metric([result], cache.counts[result])
        for result in _STORING:
            storing.add_metric([result], cache.counts[result])
        yield lookups
        yield storing
        yield GaugeMetricFamily("spillway_cache_up", "1 if the cache answered last time", value=float(cache.is_up))
        yield CounterMetricFamily(
            "spillway_cache_saved_usd", "What answers from the cache had cost, in US dollars", cache.saved_nano / NANO
        )

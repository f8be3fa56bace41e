"""Counters of finished requests: dictionaries on the hot path, turned into Prometheus families at a scrape.

A counter object of the client library takes a lock and a call for every increment. A request has six increments, which
would cost more than deciding where the request goes. Everything here runs on the event loop, so dictionaries suffice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from spillway_router.core.money.tariff import NANO, Usage
from spillway_router.core.routing.experiments import title_of
from spillway_router.core.routing.model import Attempt, RequestFacts, RequestRecord

_TTFT_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_ANSWER_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0)
_MOST_NAMES = 100
_OTHER = "other"
"""Takes the place of the names of models and keys after the first hundred, which bounds the series."""
_OVERHEAD_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


class Histogram:
    """Counts per bucket and the sum of the values. `bounds` are upper bounds in seconds; an infinite one is added."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value. A value that equals a bound belongs to the bucket of that bound."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative counts in the form that Prometheus expects."""
        names = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class RequestMetrics(Collector):
    """Counts of finished requests, their attempts, tokens, costs and times. Not safe across threads."""

    def __init__(self) -> None:
        # Compiled code counts in a plain dictionary for half of what it takes in another kind.
        self._requests: dict[tuple[str, str, int], int] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._cost_nano: defaultdict[str, int] = defaultdict(int)
        self._charges_nano: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._key_cost_nano: defaultdict[str, int] = defaultdict(int)
        self._models: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._answers: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(_ANSWER_S))
        self._prompt_tokens: dict[str, int] = {}
        self._completion_tokens: dict[str, int] = {}
        self._ttft: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(_TTFT_S))
        self._overhead = Histogram(_OVERHEAD_S)
        self._documents: defaultdict[str, int] = defaultdict(int)
        self._arms: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self._arm_cost_nano: defaultdict[str, int] = defaultdict(int)
        self._arm_seconds: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(_TTFT_S))

    def on_request(self, record: RequestRecord) -> None:
        """Count a finished request. This is the hook that the exchange calls."""
        request = (record.decided, record.backend, record.status)
        self._requests[request] = self._requests.get(request, 0) + 1
        self._overhead.observe(record.overhead_s)
        if record.status == 200:
            self._answers[record.decided].observe(record.total_s)
        if record.cost_nano:
            self._key_cost_nano[_bounded(record.facts.caller.key_id, self._keys)] += record.cost_nano
        if record.facts.document:
            self._documents[_step(record)] += 1
        if record.facts.experiment:
            self._count_arm(record)
        for attempt in record.attempts:
            name, outcome = attempt.backend, attempt.outcome
            ended = (name, outcome.kind)
            self._attempts[ended] = self._attempts.get(ended, 0) + 1
            if attempt.charge_nano:
                self._cost_nano[name] += attempt.charge_nano
                self._charges_nano[_bounded(attempt.model, self._models), record.decided] += attempt.charge_nano
            if outcome.usage is not None:
                self._count_tokens(name, outcome.usage)
            if attempt.first_event_s is not None:
                self._ttft[name].observe(attempt.first_event_s)

    def _count_arm(self, record: RequestRecord) -> None:
        arm = title_of(record.facts.experiment)
        self._arms[arm, record.decided, record.status] += 1
        self._arm_cost_nano[arm] += record.cost_nano
        self._arm_seconds[arm].observe(record.total_s)

    def on_drained(self, facts: RequestFacts, attempt: Attempt) -> None:
        """Add the cost and the tokens of an attempt that `on_request` counted before they were known; `facts` are those
        of its request."""
        self._cost_nano[attempt.backend] += attempt.charge_nano
        self._key_cost_nano[_bounded(facts.caller.key_id, self._keys)] += attempt.charge_nano
        if facts.experiment:
            self._arm_cost_nano[title_of(facts.experiment)] += attempt.charge_nano
        self._charges_nano[_bounded(attempt.model, self._models), "drained"] += attempt.charge_nano
        if attempt.outcome.usage is not None:
            self._count_tokens(attempt.backend, attempt.outcome.usage)

    def _count_tokens(self, backend: str, usage: Usage) -> None:
        self._prompt_tokens[backend] = self._prompt_tokens.get(backend, 0) + usage.prompt_tokens
        self._completion_tokens[backend] = self._completion_tokens.get(backend, 0) + usage.completion_tokens

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        requests = CounterMetricFamily(
            "spillway_requests", "Requests by outcome", labels=["decision", "backend", "status"]
        )
        for (decided, backend, status), count in self._requests.items():
            requests.add_metric([decided, backend, str(status)], count)
        attempts = CounterMetricFamily("spillway_attempts", "Upstream calls", labels=["backend", "outcome"])
        for (backend, kind), count in self._attempts.items():
            attempts.add_metric([backend, kind], count)
        cost = CounterMetricFamily("spillway_cost_usd", "Cloud charges in US dollars", labels=["backend"])
        for backend, nano in self._cost_nano.items():
            cost.add_metric([backend], nano / NANO)
        tokens = CounterMetricFamily("spillway_tokens", "Tokens served", labels=["backend", "kind"])
        for kind, counts in (("prompt", self._prompt_tokens), ("completion", self._completion_tokens)):
            for backend, count in counts.items():
                tokens.add_metric([backend, kind], count)
        ttft = HistogramMetricFamily("spillway_ttft_seconds", "First content of streams", labels=["backend"])
        for backend, histogram in self._ttft.items():
            ttft.add_metric([backend], histogram.buckets(), histogram.total)
        overhead = HistogramMetricFamily("spillway_overhead_seconds", "From arrival to the first call")
        overhead.add_metric([], self._overhead.buckets(), self._overhead.total)
        documents = CounterMetricFamily("spillway_documents", "Documents by the step that answered", labels=["step"])
        for step, count in self._documents.items():
            documents.add_metric([step], count)
        return (requests, attempts, cost, tokens, ttft, overhead, documents, *self._of_costs(), *self._of_arms())

    def _of_costs(self) -> Iterable[Metric]:
        """Return the families of whole answers, and of charges by model and by key."""
        answers = HistogramMetricFamily(
            "spillway_answer_seconds", "From the arrival of a request to the end of its answer", labels=["decision"]
        )
        for decided, histogram in self._answers.items():
            answers.add_metric([decided], histogram.buckets(), histogram.total)
        charges = CounterMetricFamily(
            "spillway_model_cost_usd", "Cloud charges in US dollars by model", labels=["model", "decision"]
        )
        for (model, decided), nano in self._charges_nano.items():
            charges.add_metric([model, decided], nano / NANO)
        keys = CounterMetricFamily("spillway_key_cost_usd", "Cloud charges in US dollars by API key", labels=["key"])
        for key_id, nano in self._key_cost_nano.items():
            keys.add_metric([key_id], nano / NANO)
        return answers, charges, keys

    def _of_arms(self) -> Iterable[Metric]:
        """Yield the families of experiments; an arm is named as experiment/arm."""
        requests = CounterMetricFamily(
            "spillway_arm_requests", "Requests of experiments by outcome", labels=["arm", "decision", "status"]
        )
        for (arm, decided, status), count in self._arms.items():
            requests.add_metric([arm, decided, str(status)], count)
        cost = CounterMetricFamily("spillway_arm_cost_usd", "Cloud charges in US dollars by arm", labels=["arm"])
        for arm, nano in self._arm_cost_nano.items():
            cost.add_metric([arm], nano / NANO)
        seconds = HistogramMetricFamily(
            "spillway_arm_seconds", "From the arrival of a request to the end of its answer, by arm", labels=["arm"]
        )
        for arm, histogram in self._arm_seconds.items():
            seconds.add_metric([arm], histogram.buckets(), histogram.total)
        return requests, cost, seconds


def _bounded(name: str, names: dict[str, str]) -> str:
    """Return a name as a label: the first hundred as they are, any further one as `other`."""
    label = names.get(name)
    if label is None:
        label = name if len(names) < _MOST_NAMES else _OTHER
        if label == name:
            names[name] = name
    return label


def _step(record: RequestRecord) -> str:
    """Return which step of a document's extraction answered: local, parser, external, review (no step was sure) or
    failed."""
    if record.status != 200:
        return "failed"
    without_model = {"parsers": "parser", "review": "review"}.get(record.backend)
    return without_model or ("local" if record.decided == "local" else "external")

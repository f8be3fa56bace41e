"""What is stored of each request, and figures over it. Uses the standard library only, since locust's environment
writes it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. Seconds count from the moment at which it was due (closed loop: at which it was sent).

    `due_s` is that moment since the start of the run, `lag_s` how much later the generator really sent it. `ttft_s` is
    the time to the first content of a stream, or to the whole answer otherwise. `itl_s` is the mean pause between two
    events of a stream; `tpot_s` is (last - first content) / (output tokens - 1). `fault` is empty for a complete
    answer.
    """

    name: str
    due_s: float
    lag_s: float
    ttft_s: float
    done_s: float
    itl_s: float
    tpot_s: float
    output_tokens: int
    prompt_tokens: int
    status: int
    fault: str
    backend: str
    decision: str
    reason: str
    cost_usd: float
    stream: bool


@dataclass(frozen=True, slots=True)
class LatencyPromise:
    """The latency promise that samples are judged by, in seconds."""

    ttft_s: float
    tpot_s: float

    def late(self, sample: Sample) -> bool:
        """Return whether a stream's first token came too late."""
        return sample.stream and not sample.fault and sample.ttft_s > self.ttft_s

    def slow(self, sample: Sample) -> bool:
        """Return whether a stream's tokens came too slowly after the first."""
        return sample.stream and not sample.fault and sample.tpot_s > self.tpot_s

    def kept(self, sample: Sample) -> bool:
        """Return whether a request got its answer in time.

        A stream is judged by its first token and its pace, a whole answer by the moment at which a stream at the
        promised pace would have ended.
        """
        if sample.fault:
            return False
        if sample.stream:
            return not (self.late(sample) or self.slow(sample))
        return sample.done_s <= self.ttft_s + self.tpot_s * max(0, sample.output_tokens - 1)


@dataclass(frozen=True, slots=True)
class RunFigures:
    """One run in numbers: seconds, tokens/s, USD, shares from 0 to 1; percentiles are over the answered requests.

    TTFT and TPOT are those of streams. `late_share` (first token too late) and `slow_share` (tokens too slow) are the
    streams that broke the promise, as shares of all requests. `gpu_usd` is the price of the rented GPU for the run's
    time, used or idle.
    """

    requests: int
    failed: int
    seconds: float
    offered_per_s: float
    ttft_p50_s: float
    ttft_p95_s: float
    ttft_p99_s: float
    tpot_p50_s: float
    tpot_p95_s: float
    itl_p95_s: float
    done_p50_s: float
    done_p95_s: float
    output_tokens_per_s: float
    cloud_share: float
    slo_share: float
    late_share: float
    slow_share: float
    cloud_usd: float
    gpu_usd: float
    usd_per_1000: float
    lag_p99_s: float
    decisions: dict[str, int]
    reasons: dict[str, int]
    faults: dict[str, int]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value at this share of the sorted values (nearest rank); 0 for no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def figures(samples: Sequence[Sample], promise: LatencyPromise, gpu_usd_per_hour: float) -> RunFigures:
    """Compute the numbers of one run."""
    good = [s for s in samples if not s.fault]
    streams = [s for s in good if s.stream]
    seconds = max((s.due_s + s.done_s for s in samples), default=0.0)
    span = max((s.due_s for s in samples), default=0.0)
    cloud = sum(s.cost_usd for s in samples)
    gpu = gpu_usd_per_hour * seconds / 3600
    n = len(samples)
    return RunFigures(
        requests=n,
        failed=n - len(good),
        seconds=round(seconds, 2),
        offered_per_s=round(n / span, 3) if span else 0.0,
        ttft_p50_s=round(percentile([s.ttft_s for s in streams], 0.50), 4),
        ttft_p95_s=round(percentile([s.ttft_s for s in streams], 0.95), 4),
        ttft_p99_s=round(percentile([s.ttft_s for s in streams], 0.99), 4),
        tpot_p50_s=round(percentile([s.tpot_s for s in streams], 0.50), 5),
        tpot_p95_s=round(percentile([s.tpot_s for s in streams], 0.95), 5),
        itl_p95_s=round(percentile([s.itl_s for s in streams], 0.95), 5),
        done_p50_s=round(percentile([s.done_s for s in good], 0.50), 4),
        done_p95_s=round(percentile([s.done_s for s in good], 0.95), 4),
        output_tokens_per_s=round(sum(s.output_tokens for s in good) / seconds, 1) if seconds else 0.0,
        cloud_share=round(sum(s.backend == "cloud" for s in good) / len(good), 4) if good else 0.0,
        slo_share=round(sum(map(promise.kept, samples)) / n, 4) if n else 0.0,
        late_share=round(sum(map(promise.late, samples)) / n, 4) if n else 0.0,
        slow_share=round(sum(map(promise.slow, samples)) / n, 4) if n else 0.0,
        cloud_usd=round(cloud, 9),
        gpu_usd=round(gpu, 9),
        usd_per_1000=round(1000 * (cloud + gpu) / n, 6) if n else 0.0,
        lag_p99_s=round(percentile([s.lag_s for s in samples], 0.99), 4),
        decisions=dict(Counter(s.decision for s in good if s.decision)),
        reasons=dict(Counter(word for s in good for word in s.reason.split(",") if word)),
        faults=dict(Counter(s.fault[:120] for s in samples if s.fault)),
    )


def write(path: Path, samples: Iterable[Sample]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(asdict(sample)) + "\n" for sample in samples), encoding="utf-8")


def read(path: Path) -> list[Sample]:
    """Read the samples of a file that `write` wrote.

    Raises:
        ValueError, TypeError: it is another kind of file.
    """
    return [Sample(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]

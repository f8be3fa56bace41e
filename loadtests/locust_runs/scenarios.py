"""The named runs. Loads are shares of the engine's capacity, which is simulated from its service curve."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from loadtests.locust_runs import plan, shapes
from loadtests.locust_runs.plan import Chats, Documents, Embeddings, Maker, Mixed, RequestPlan
from loadtests.locust_runs.samples import LatencyPromise
from loadtests.simulator import trace
from loadtests.simulator.policies import AlwaysLocal
from loadtests.simulator.simulate import simulate
from loadtests.simulator.trace import TraceRequest

PROMISE = LatencyPromise(ttft_s=2.0, tpot_s=0.1)
SCALE = 2.0
"""The engine is half as fast as the A100 of the service curve, so that a laptop can keep up with it."""
MULTIPLES = (1.0, 2.0, 4.0)
KEYS = ("clinic", "research", "billing")
_PROBES = 1500
_LATE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class RunSize:
    """The size of a run: seconds of load, the engine's capacity in chats/s, the seed, and whether the extraction
    endpoint exists.
    """

    seconds: float
    capacity: float
    seed: int = 1
    extract: bool = False


@dataclass(frozen=True, slots=True)
class LocustScenario:
    """A named run: what it shows, and how its plan is made for a size."""

    about: str
    make: Callable[[RunSize], RequestPlan]


def _documents(scale: RunSize) -> RequestPlan:
    makers: list[tuple[Maker, float]] = [(Documents(scale.seed), 0.7), (Documents(scale.seed + 1, extract=True), 0.3)]
    kinds = makers if scale.extract else makers[:1]
    shape = shapes.burst(2 * scale.capacity, 6 * scale.capacity, scale.seconds)
    return plan.by_shape(shape, Mixed(kinds, ("load",), scale.seed), scale.seed)


def _mixed(scale: RunSize) -> RequestPlan:
    makers: list[tuple[Maker, float]] = [
        (Chats(scale.seed), 0.6),
        (Documents(scale.seed + 2), 0.25),
        (Embeddings(scale.seed), 0.15),
    ]
    shape = shapes.steady(1.5 * scale.capacity, scale.seconds)
    return plan.by_shape(shape, Mixed(makers, KEYS, scale.seed), scale.seed)


def _chats(shape: Callable[[float, float], shapes.LoadShape]) -> Callable[[RunSize], RequestPlan]:
    return lambda scale: plan.by_shape(shape(scale.capacity, scale.seconds), Chats(scale.seed), scale.seed)


def _embeddings(scale: RunSize) -> RequestPlan:
    return plan.by_shape(shapes.steady(4 * scale.capacity, scale.seconds), Embeddings(scale.seed), scale.seed)


@cache
def trace_rate() -> float:
    """Return the requests per second of the conversation trace."""
    requests = trace.load("conv", limit=4000)
    return len(requests) / requests[-1].arrival_s


SCENARIOS = MappingProxyType(
    {
        "steady": LocustScenario("chats at 0.8 x capacity", _chats(lambda c, s: shapes.steady(0.8 * c, s))),
        "ramp": LocustScenario("chats from 0.2 x to 3 x capacity", _chats(lambda c, s: shapes.ramp(0.2 * c, 3 * c, s))),
        "burst": LocustScenario("chats at 0.5 x, a burst of 4 x", _chats(lambda c, s: shapes.burst(0.5 * c, 4 * c, s))),
        "documents": LocustScenario("documents with a JSON schema, in a burst", _documents),
        "trace": LocustScenario(
            "the Azure conversation trace at 1.5 x capacity",
            lambda scale: plan.by_trace("conv", 1.5 * scale.capacity / trace_rate(), scale.seconds, scale.seed),
        ),
        "mixed": LocustScenario("chats, documents and embeddings under three keys", _mixed),
        "embeddings": LocustScenario("embeddings only", _embeddings),
        "soak": LocustScenario("chats at 0.8 x capacity for long", _chats(lambda c, s: shapes.steady(0.8 * c, 20 * s))),
    }
)
EVERY_DAY = ("steady", "ramp", "burst", "documents", "trace", "mixed")
"""The six scenarios that the evidence reports, and that run when none is named."""


@cache
def capacity(promise: LatencyPromise = PROMISE, scale: float = SCALE) -> float:
    """Return the chats per second that the engine alone holds with at most 1% of them late.

    Lengths are those of the conversation trace. The value is found by bisection through the simulator: Poisson
    arrivals, TTFT against the promise, times in the engine's own seconds.
    """
    low, high = 0.05, 64.0
    while high / low > 1.02:
        middle = math.sqrt(low * high)
        late = simulate(_poisson(middle * scale), AlwaysLocal()).missed(promise.ttft_s / scale)
        low, high = (middle, high) if late <= _LATE_SHARE * _PROBES else (low, middle)
    return low


def _poisson(rate: float) -> Sequence[TraceRequest]:
    rng = random.Random("capacity")
    rows = trace.load("conv", limit=4000)
    moment, requests = 0.0, []
    for number in range(_PROBES):
        moment += rng.expovariate(rate)
        row = rng.choice(rows)
        requests.append(
            TraceRequest(
                number=number,
                arrival_s=moment,
                prompt_tokens=row.prompt_tokens,
                output_tokens=max(1, row.output_tokens),
            )
        )
    return requests

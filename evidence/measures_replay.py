"""What a replay foretells and what happens: the live router before a fake engine and a fake cloud, on both traces."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from demo.processes import ChildError
from loadtests.locust_runs import plan, session
from loadtests.locust_runs.plan import RequestPlan
from loadtests.locust_runs.samples import LatencyPromise, Sample
from loadtests.locust_runs.session import LOCUST, NoLocustError
from loadtests.locust_runs.site import Site, site

from evidence.results import Measurement, not_measured
from spillway_router.core.money.tariff import Tariff
from spillway_router.core.replay.engine import EngineModel
from spillway_router.core.replay.past import PastRequest
from spillway_router.core.replay.replay import CloudModel, Replay, ReplayResult, ReplayTerms
from spillway_router.core.routing.backlog import EngineRates, Slo
from spillway_router.core.routing.model import Backend
from spillway_router.core.routing.policy import Policy

ERROR = "replay.error_vs_live"
SECONDS = 600.0
SCALE = 2.0
"""The fake engine is half as fast as the A100 of the service curve, so that this machine can keep up with it."""
PROMISE = LatencyPromise(ttft_s=2.0, tpot_s=0.2)
LOADS = (("conv", 1.0, 120.0), ("code", 0.5, 180.0))
"""Each trace with its speed, and where its part begins in its own seconds. At half of the engine's speed these are the
loads conv x2 and code x1 of `overflow.*`."""
CLOUD = CloudModel(ttft_s=0.2, tokens_per_s=1000.0)
"""The fake cloud's usual time to the first token, and its tokens per second."""
MOST_LAG_S = 0.5

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Figures:
    """What is compared: the share of requests that overflowed, and the 95th percentile of the first token of local
    answers in seconds."""

    overflow: float
    p95_s: float


def error_vs_live(
    say: Say, seconds: float = SECONDS, loads: Sequence[tuple[str, float, float]] = LOADS, modelled_scale: float = SCALE
) -> dict[str, Measurement]:
    """Measure the largest relative error of the replayed figures. A test gives the model an engine of another speed,
    which must fail."""
    errors: dict[str, float] = {}
    details: dict[str, object] = {"seconds": seconds, "scale": SCALE, "slo_s": PROMISE.ttft_s}
    count = 0
    for name, speed, begin_s in loads:
        planned = plan.by_trace(name, speed, seconds, seed=1, begin_s=begin_s)
        try:
            samples = _live(planned)
        except (ChildError, NoLocustError) as error:
            return {ERROR: not_measured(str(error))}
        live, foretold = _seen(samples), _figures(_replayed(planned, modelled_scale))
        lag_s = sorted(sample.lag_s for sample in samples)[int(0.99 * (len(samples) - 1))]
        if lag_s > MOST_LAG_S:
            return {ERROR: not_measured(f"the generator was {lag_s:.2f} s late: this machine is too busy")}
        count += len(samples)
        errors |= {
            f"{name}.overflow": abs(foretold.overflow / live.overflow - 1) if live.overflow else 1.0,
            f"{name}.p95": abs(foretold.p95_s / live.p95_s - 1),
        }
        details[name] = {
            "speed": speed,
            "requests": len(samples),
            "overflow_live": round(live.overflow, 4),
            "overflow_replayed": round(foretold.overflow, 4),
            "p95_s_live": round(live.p95_s, 4),
            "p95_s_replayed": round(foretold.p95_s, 4),
            "sent_late_p99_s": round(lag_s, 4),
        }
        say(f"  {name}: {details[name]}")
    details["errors"] = {name: round(error, 4) for name, error in errors.items()}
    return {ERROR: Measurement(round(max(errors.values()), 4), count, details)}


def _live(planned: RequestPlan) -> list[Sample]:
    """Play a plan against the running product. Raises ChildError if a request failed."""
    with _site(planned) as (here, folder):
        samples, status = session.send(planned, here.url, "auto", here.keys, "open", folder)
    faults = [sample.fault for sample in samples if sample.fault]
    if status or faults or len(samples) != len(planned.asks):
        raise ChildError(f"{len(faults)} of {len(planned.asks)} requests failed: {faults[:1]}, status {status}")
    return samples


@contextmanager
def _site(planned: RequestPlan) -> Iterator[tuple[Site, Path]]:
    if not LOCUST.exists():
        raise NoLocustError("locust is not installed: run `make loadtest`, or python3 requirements/install.py loadtest")
    with tempfile.TemporaryDirectory(prefix="spillway-replay-") as place:
        folder = Path(place)
        # Fewer events than tokens: the machine has two cores for the engine, the cloud, the router and the clients.
        options = ("--scale", str(SCALE), "--stream-interval", "8")
        with site(folder, [planned], PROMISE, options) as here:
            yield here, folder


def _seen(samples: Sequence[Sample]) -> Figures:
    local = sorted(sample.ttft_s for sample in samples if sample.backend == "local")
    away = sum(sample.decision == "overflow" for sample in samples)
    return Figures(away / len(samples), local[round(0.95 * (len(local) - 1))])


def _figures(result: ReplayResult) -> Figures:
    return Figures(result.share("overflow"), result.tally.waits.quantile(0.95))


def _replayed(planned: RequestPlan, scale: float) -> ReplayResult:
    """Replay the same requests by the configuration of the site."""
    local, cloud = (_backend(name, local=name == "local") for name in ("local", "cloud"))
    policy = Policy(
        "evidence",
        {"local": local, "cloud": cloud},
        {"auto": ("local", "cloud")},
        slo=Slo(PROMISE.ttft_s, PROMISE.tpot_s),
    )
    terms = ReplayTerms(
        policy, rates={"local": EngineRates()}, cloud=CLOUD, models={"local": EngineModel().slower(scale)}
    )
    replay = Replay(terms)
    for number, (at_s, prompt, output) in enumerate(plan.lengths(planned)):
        replay.arrive(PastRequest(number, at_s, prompt, output, max_tokens=output))
    return replay.end()


def _backend(name: str, *, local: bool) -> Backend:
    return Backend(
        name=name,
        provider="vllm" if local else "groq",
        model="m",
        local=local,
        endpoints=frozenset({"chat"}),
        capabilities=frozenset(),
        tariff=None if local else Tariff(Decimal("0.075"), Decimal("0.30")),
    )

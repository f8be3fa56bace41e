"""Four weeks of requests: an Azure trace, an hour long, laid over a weekday curve with its bursts kept.

Each second of the weeks runs through as much of the trace as the curve says, again and again. So the requests of a busy
hour are those of the trace, closer together, and bursts stay bursts. Days and hours differ by chance (a fixed seed),
and weekends are quiet, so that no week repeats another.

The GPU work of a request is the least that the modelled engine spends on it, over the speed that this engine reaches
when it is never short of work; both are of the clairvoyant bound (loadtests/simulator/clairvoyant.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loadtests.simulator.clairvoyant import least_work_s
from loadtests.simulator.gated import TokenPrice
from loadtests.simulator.trace import load
from spillway_router.core.fleet.demand import Demand
from spillway_router.core.replay.engine import EngineModel

HOURS = (0, 5, 7, 9, 10, 12, 13, 16, 18, 20, 22, 24)
SPEEDS = (0.5, 0.35, 0.7, 2.6, 4.0, 4.2, 3.9, 4.1, 2.6, 1.8, 1.0, 0.5)
"""How many times as fast as in the trace requests come at these hours of a working day."""
WEEKEND = 0.35
DAY_NOISE, HOUR_NOISE = 0.15, 0.1
"""Standard deviations of the logarithm of a day's and an hour's factor."""
ENGINE_SPEED = {"conv": 0.919, "code": 0.929}
"""Work done per second by the modelled engine, measured by `engine_speed` on each trace."""
SLOT_S = 5.0
"""Work of so many seconds may move within them: the promise is one second, so that this errs on the side of the GPUs.
"""
STEP_S = 300.0


@dataclass(frozen=True, slots=True)
class Weeks:
    """The demand by steps of `STEP_S`. `mean_load` is the mean of the work per second, in GPUs, and `peak_load` that of
    the busiest step."""

    demands: tuple[Demand, ...]
    mean_load: float
    peak_load: float
    requests: int


def weeks_of(trace: str, weeks: int = 4, most: int = 8, seed: int = 7, scale: float = 1.0) -> Weeks:
    """Return the demand of so many weeks, with 0 to `most` GPUs."""
    requests, price = load(trace), TokenPrice()
    arrivals = np.array([one.arrival_s for one in requests])
    work = np.array(least_work_s(requests, EngineModel())) / ENGINE_SPEED[trace]
    cost = np.array([price.of(one.prompt_tokens, one.output_tokens) for one in requests])
    length_s = arrivals[-1] + arrivals[-1] / len(arrivals)
    passed_s = np.concatenate([[0.0], np.cumsum(speeds_of(weeks, seed) * scale * SLOT_S)])

    def by_slot(amounts: np.ndarray) -> np.ndarray:
        sums = np.concatenate([[0.0], np.cumsum(amounts)])
        whole = np.floor(passed_s / length_s)
        return np.diff(whole * sums[-1] + sums[np.searchsorted(arrivals, passed_s - whole * length_s)])

    work_s, cloud_nano = by_slot(work), by_slot(cost)
    nano_per_s = np.divide(cloud_nano, work_s, out=np.zeros_like(work_s), where=work_s > 0)
    per_step = int(STEP_S / SLOT_S)
    overflow = np.stack(
        [
            (np.maximum(0.0, work_s - gpus * SLOT_S) * nano_per_s).reshape(-1, per_step).sum(axis=1)
            for gpus in range(most + 1)
        ],
        axis=1,
    )
    of_steps = work_s.reshape(-1, per_step).sum(axis=1) / STEP_S
    return Weeks(
        tuple(Demand(tuple(map(float, row))) for row in overflow),
        float(of_steps.mean()),
        float(of_steps.max()),
        round(passed_s[-1] / length_s * len(requests)),
    )


def speeds_of(weeks: int, seed: int = 7) -> np.ndarray:
    """Return how fast the trace runs in each slot of the weeks, which begin on a Monday."""
    chance = np.random.default_rng(seed)
    days = 7 * weeks
    seconds = np.arange(int(days * 86_400 / SLOT_S)) * SLOT_S
    day, hour = (seconds // 86_400).astype(int), (seconds // 3_600).astype(int)
    of_day = np.exp(chance.normal(0, DAY_NOISE, days)) * np.where(np.arange(days) % 7 >= 5, WEEKEND, 1.0)
    of_hour = np.exp(chance.normal(0, HOUR_NOISE, 24 * days))
    speeds: np.ndarray = np.interp(seconds % 86_400 / 3_600, HOURS, SPEEDS) * of_day[day] * of_hour[hour]
    return speeds

"""What a clairvoyant would have paid: a lower bound of the cloud dollars of any rule on a trace.

The clairvoyant knows every arrival and every answer's length. It may split requests, send away any part of one, and
interrupt work at no cost. What it can't do is work faster than the engine: a request's work (its iterations' share by
tokens, and its reads of the KV cache) must lie between its arrival and the end of the longest time that the answer can
take in this engine, whose iterations all give every running answer a token.

Sets of work that one machine can do between such bounds are the independent sets of a matroid (unit jobs on time slots
are a transversal matroid), so that taking work greedily, the dearest per second first, is optimal for this relaxation.
A set is feasible if and only if, for every span of time, the work that must lie inside it is no longer than it (Hall).
Bounds are rounded outwards to whole slots, which only lowers the result.

`speed` is how many seconds of work, so counted, the engine does per second. 1 is the strict bound: every token costs
what it costs in the engine's best batch, which no mixture of prompts and answers reaches. `engine_speed` measures what
this engine does when it is never short of work, has no deadline and runs these requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from loadtests.simulator.policies import AlwaysLocal
from loadtests.simulator.simulate import simulate
from loadtests.simulator.trace import TraceRequest
from spillway_router.core.replay.engine import EngineModel

SLOT_S = 4.0
FULL_SPEED = 1000.0
"""How much faster than in the trace requests arrive for the engine to be never short of work."""


def least_work_s(requests: Sequence[TraceRequest], model: EngineModel) -> list[float]:
    """Return the least seconds that the engine spends on each request: the best batch's time per token, KV reads."""
    steps = model.step_times_s()
    per_token = min((steps[n] + model.overhead_s) / n for n in range(1, len(steps)))
    per_read = model.kv_bytes_per_token / model.kv_bytes_per_s
    return [
        per_token * (one.prompt_tokens + one.output_tokens - 1)
        + per_read * (one.prompt_tokens * one.output_tokens + (one.output_tokens - 1) * one.output_tokens / 2)
        for one in requests
    ]


def engine_speed(requests: Sequence[TraceRequest], model: EngineModel) -> float:
    """Return the seconds of `least_work_s` that the engine does per second on these requests when it is never short of
    work.
    """
    if not requests:
        return 1.0
    first_s = requests[0].arrival_s
    packed = [
        TraceRequest(one.number, (one.arrival_s - first_s) / FULL_SPEED, one.prompt_tokens, one.output_tokens)
        for one in requests
    ]
    result = simulate(packed, AlwaysLocal(), model)
    return sum(least_work_s(requests, model)) / result.end_s


def least_cost(
    requests: Sequence[TraceRequest],
    cost: Callable[[TraceRequest], float],
    model: EngineModel,
    slo_s: float,
    speed: float = 1.0,
) -> tuple[float, list[float]]:
    """Return the least cost of what leaves, and the share of each request that stays."""
    longest_step_s = (
        model.step_times_s()[model.batched_tokens]
        + model.overhead_s
        + model.kv_capacity_tokens * model.kv_bytes_per_token / model.kv_bytes_per_s
    )
    work = np.array(least_work_s(requests, model)) / speed
    costs = np.array([cost(one) for one in requests])
    begins = np.array([int(one.arrival_s // SLOT_S) for one in requests])
    ends = np.array([int((one.arrival_s + slo_s + one.output_tokens * longest_step_s) // SLOT_S) for one in requests])
    slots = int(ends.max()) + 1
    # slack[s, t]: seconds still free in the slots s to t, for work that must lie inside them.
    slack = (np.arange(slots)[None, :] - np.arange(slots)[:, None] + 1.0) * SLOT_S
    slack[np.tril_indices(slots, -1)] = np.inf
    stays = np.zeros(len(requests))
    for place in np.argsort(-costs / work, kind="stable"):
        spans = slack[: begins[place] + 1, ends[place] :]
        done_s = min(work[place], float(spans.min()))
        if done_s > 0:
            spans -= done_s
            stays[place] = done_s / work[place]
    return float((costs * (1 - stays)).sum()), stays.tolist()

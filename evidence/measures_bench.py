"""CPU per request beside vLLM's Rust router and LiteLLM in the same run, and idle memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from loadtests.bench import cpu
from loadtests.bench.install import Unavailable
from loadtests.bench.processes import BenchError
from loadtests.bench.report import ratio
from loadtests.bench.run import BenchPlan, LoadProcess, measure
from loadtests.bench.scenarios import NS32, PACED200
from loadtests.bench.start import started
from loadtests.bench.systems import SYSTEMS

from evidence.results import Measurement, not_measured

RATIOS = ("bench.ns32_vs_vllm_router", "bench.ns32_vs_litellm", "bench.paced200_vs_vllm_router")
ROUNDS = 3
STARTS = 3
# Two release lines of LiteLLM, since its costs differ from release to release; the cheaper one counts.
LITELLMS = ("litellm", "litellm-1.80")


def ratios(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Measure all ratios in one interleaved run of three rounds. LiteLLM can't hold 200 streams and does ns32 only."""
    names = ("spillway", "vllm-router", *LITELLMS)
    streams_too_many = frozenset((name, PACED200.name) for name in LITELLMS)
    plan = BenchPlan(
        [SYSTEMS[name] for name in names], (NS32, PACED200), ROUNDS, quick=False, leave_out=streams_too_many
    )
    run = measure(plan, say).as_json()
    return {
        RATIOS[0]: _ratio(run, ("vllm-router",), NS32.name),
        RATIOS[1]: _ratio(run, LITELLMS, NS32.name),
        RATIOS[2]: _ratio(run, ("vllm-router",), PACED200.name),
    }


def _ratio(run: Mapping[str, Any], peers: tuple[str, ...], scenario: str) -> Measurement:
    """Return ours / the cheapest of `peers`; not measured when ours made an error. `n` counts our requests over all
    rounds.
    """
    ours = run["systems"].get("spillway", {}).get("scenarios", {}).get(scenario)
    if ours is None:
        return not_measured(f"spillway: {run['skipped'].get('spillway', 'not measured')}")
    if ours["errors"]:
        return not_measured(f"spillway answered wrongly or not at all: {ours['errors']}")
    ratios_by_peer = {peer: ratio(dict(run), "spillway", peer, scenario) for peer in peers}
    measured = [value for value in ratios_by_peer.values() if value is not None]
    shown = {"spillway", *peers}
    versions = {name: system["version"] for name, system in run["systems"].items() if name in shown}
    details = {
        "ratio_to": {peer: round(value, 4) for peer, value in ratios_by_peer.items() if value is not None},
        "cpu_us_per_request": {
            name: {"median": samples["cpu_us_per_request"], "rounds": samples["rounds"]}
            for name, system in run["systems"].items()
            if name in shown and (samples := system["scenarios"].get(scenario))
        },
        "spillway_decisions": ours["decisions"],
        "busy_cores_besides": ours["others_busy_cores"],
        "skipped": {name: reason for name, reason in run["skipped"].items() if name in shown},
    }
    if not measured:
        return Measurement(None, 0, {"reason": "no peer could be measured", **details}, versions)
    return Measurement(round(max(measured), 4), ours["requests"], details, versions)


def idle_rss(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Measure the largest of three starts, 5 s after the first answer; the details have the memory after a load."""
    idle: list[float] = []
    loaded: list[float] = []
    system = SYSTEMS["spillway"]
    try:
        system.prepare()
        for number in range(STARTS):
            with started(system) as running:
                time.sleep(5.0)
                idle.append(round(cpu.use(running.pid).rss_mib, 1))
                LoadProcess(running.port, running.key, running.cores.load, quick=True).run(NS32)
                time.sleep(2.0)
                loaded.append(round(cpu.use(running.pid).rss_mib, 1))
            say(f"  start {number + 1} of {STARTS}: {idle[-1]} MiB idle, {loaded[-1]} MiB after a load")
    except (BenchError, Unavailable, ProcessLookupError) as error:
        return {"bench.idle_rss": not_measured(str(error))}
    details = {"idle_mib": idle, "after_ns32_mib": loaded}
    return {"bench.idle_rss": Measurement(max(idle), len(idle), details)}

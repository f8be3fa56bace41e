"""CPU per request beside vLLM's Rust router and LiteLLM in the same run, and idle memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtests.bench import cpu
from loadtests.bench.install import Unavailable
from loadtests.bench.processes import BenchError
from loadtests.bench.report import paired_ratio
from loadtests.bench.run import BenchPlan, LoadProcess, measure
from loadtests.bench.scenarios import NS32, PACED200, Scenario
from loadtests.bench.start import started
from loadtests.bench.systems import SYSTEMS, hot_path

from evidence.results import Measurement, not_measured

RATIOS = ("bench.ns32_vs_vllm_router", "bench.ns32_vs_litellm", "bench.paced200_vs_vllm_router")
ROUNDS = 3
TURNS = 3
STARTS = 3
RUST = "vllm-router"
# Two release lines of LiteLLM, since its costs differ from release to release; the cheaper one counts.
LITELLMS = ("litellm", "litellm-1.80")


def ratios(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Measure all ratios, beside one peer after the other: both run at once and get their loads in turns. LiteLLM can't
    hold 200 streams and does ns32 only."""
    flaw = _not_compiled()
    if flaw:
        return dict.fromkeys(RATIOS, not_measured(flaw))
    runs = {peer: _beside(peer, (NS32, PACED200) if peer == RUST else (NS32,), say) for peer in (RUST, *LITELLMS)}
    return {
        RATIOS[0]: _ratio(runs, (RUST,), NS32.name),
        RATIOS[1]: _ratio(runs, LITELLMS, NS32.name),
        RATIOS[2]: _ratio(runs, (RUST,), PACED200.name),
    }


def _not_compiled() -> str:
    """Return why the router that would be measured is not the one that is promised; "" if it is."""
    state = hot_path(Path(sys.executable))
    return "" if state == "compiled" else f"the router that is installed is {state}"


def _beside(peer: str, scenarios: Sequence[Scenario], say: Callable[[str], None]) -> Mapping[str, Any]:
    systems = [SYSTEMS["spillway"], SYSTEMS[peer]]
    return measure(BenchPlan(systems, scenarios, ROUNDS, quick=False, turns=TURNS), say).as_json()


def _ratio(runs: Mapping[str, Mapping[str, Any]], peers: tuple[str, ...], scenario: str) -> Measurement:
    """Return ours / the cheapest of `peers`, the median over neighbouring loads; not measured when ours made an error.
    `n` counts our requests over all rounds.
    """
    versions: dict[str, str] = {}
    details: dict[str, Any] = {"ratio_to": {}, "beside": {}}
    requests = 0
    for peer in peers:
        run = runs[peer]
        if run["skipped"]:
            details["beside"][peer] = {"skipped": run["skipped"]}
            continue
        samples = {name: run["systems"][name]["scenarios"][scenario] for name in ("spillway", peer)}
        ours = samples["spillway"]
        if ours["errors"]:
            return not_measured(f"spillway answered wrongly or not at all: {ours['errors']}")
        versions |= {name: run["systems"][name]["version"] for name in samples}
        requests += ours["requests"]
        value = paired_ratio(dict(run), "spillway", peer, scenario)
        if value is not None:
            details["ratio_to"][peer] = round(value, 4)
        details["beside"][peer] = {
            "cpu_us_per_request": {
                name: {"median": one["cpu_us_per_request"], "loads": one["rounds"]} for name, one in samples.items()
            },
            "spillway_decisions": ours["decisions"],
            "busy_cores_besides": ours["others_busy_cores"],
        }
    if not details["ratio_to"]:
        return Measurement(None, 0, {"reason": "no peer could be measured", **details}, versions)
    return Measurement(max(details["ratio_to"].values()), requests, details, versions)


def idle_rss(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Measure the largest of three starts, 5 s after the first answer; the details have the memory after a load."""
    idle: list[float] = []
    loaded: list[float] = []
    system = SYSTEMS["spillway"]
    try:
        system.prepare()
        flaw = _not_compiled()
        if flaw:
            return {"bench.idle_rss": not_measured(flaw)}
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

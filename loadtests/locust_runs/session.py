"""Runs scenarios and the sweep against a running product, one after the other, and judges each run.

A run is green when locust ended well, every planned request was sent and answered completely, streams were counted by
usage, and the generator itself kept its schedule. Latency promises are reported without being judged, since they depend
on the machine.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import httpx
from demo.processes import ChildError

from loadtests.locust_runs import plan, samples, scenarios
from loadtests.locust_runs.plan import Chats, RequestPlan
from loadtests.locust_runs.rivals import litellm
from loadtests.locust_runs.samples import LatencyPromise, RunFigures, Sample
from loadtests.locust_runs.scenarios import MULTIPLES, PROMISE, SCALE, SCENARIOS, RunSize
from loadtests.locust_runs.shapes import steady
from loadtests.locust_runs.site import GPU_USD_PER_HOUR, Site, site
from loadtests.scaleout.sites import ROOT
from loadtests.simulator.simulate import simulate
from loadtests.simulator.table import CONTENDERS
from loadtests.simulator.trace import TraceRequest
from spillway_router.core.replay.engine import EngineModel
from spillway_router.core.routing.backlog import Slo

LOCUST = ROOT / ".venv-loadtest" / "bin" / "locust"
POLICIES = {"Spillway (auto)": "auto", "always local": "local/demo", "always cloud": "cloud/openai/gpt-oss-20b"}
RULES = ("nvml-90", "gauges-50ms", "gauges-5s", "cap-32", "aimd", "backlog-router")
"""Rules of the simulator that are shown beside the policies."""
MOST_LAG_S = 1.0
"""How late a generator may be at its 99th percentile; beyond that its figures describe it more than the server."""
_PATIENCE_S = 300.0
Loop = Literal["open", "closed"]
Say = Callable[[str], None]
_System = tuple[str, str, str, dict[str, str]]
"""Name, base URL, model to request, keys."""


class NoLocustError(Exception):
    """locust's environment is missing; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """`seconds` of load per run; `compare`: other systems as (name, base URL); `engine`: options of the fake engine."""

    names: tuple[str, ...] = scenarios.EVERY_DAY
    seconds: float = 20.0
    seed: int = 1
    loop: Loop = "open"
    sweep: bool = True
    compare: tuple[tuple[str, str], ...] = ()
    promise: LatencyPromise = PROMISE
    engine: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScenarioRun:
    """One run: what was planned, what came back, and the verdict. `wrong` is empty for a green run."""

    name: str
    about: str
    planned: int
    figures: RunFigures
    samples: tuple[Sample, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One run of the sweep: a policy or another system at a multiple of the engine's capacity."""

    system: str
    multiple: float
    figures: RunFigures
    simulated: bool = False


@dataclass(slots=True)
class Session:
    """All results, as far as the session has come. `capacity` is in chats/s; `failed` holds reasons by name."""

    capacity: float
    settings: SessionSettings
    runs: list[ScenarioRun] = field(default_factory=list)
    points: list[SweepPoint] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the names of requested runs without a result; empty for a complete session."""
        systems = (*POLICIES, *(name for name, _ in self.settings.compare))
        multiples = MULTIPLES if self.settings.sweep else ()
        requested = [*self.settings.names, *(label(m, system) for m in multiples for system in systems)]
        there = {run.name for run in self.runs} | {label(p.multiple, p.system) for p in self.points}
        return tuple(name for name in requested if name not in there)


def label(multiple: float, system: str) -> str:
    """Return the name of one run of the sweep."""
    return f"{multiple:g} x {system}"


def begin(settings: SessionSettings) -> Session:
    """Return a session without results.

    Raises:
        NoLocustError: locust is not installed.
    """
    if not LOCUST.exists():
        raise NoLocustError("locust is not installed: run `make loadtest`, or python3 requirements/install.py loadtest")
    return Session(scenarios.capacity(settings.promise), settings)


def run(settings: SessionSettings, say: Say) -> Session:
    """Run everything.

    Raises:
        ChildError: the product does not start.
        NoLocustError: locust is not installed.
    """
    session = begin(settings)
    play(session, say, lambda: None)
    return session


def play(session: Session, say: Say, after: Callable[[], object]) -> None:
    """Run what the session's settings request, and store each result at once; `after` is called after each.

    A single run that fails is recorded in `failed`, and the others continue. Results stay in the session, whatever ends
    it.

    Raises:
        ChildError: the product does not start.
    """
    settings, capacity = session.settings, session.capacity
    say(f"the engine holds {capacity:.2f} chats/s within the promise (simulated), which is the load 1 x")
    size = RunSize(settings.seconds, capacity, settings.seed)
    sweeps = {m: _chats(m * capacity, settings) for m in MULTIPLES} if settings.sweep else {}
    with tempfile.TemporaryDirectory(prefix="spillway-load-") as place:
        folder = Path(place)
        # Both kinds of documents have the same answers, so both fakes know them before the router reports its
        # endpoints.
        plans = [SCENARIOS[name].make(_with_extract(size)) for name in settings.names]
        everything = [*plans, *(SCENARIOS[name].make(size) for name in settings.names), *sweeps.values()]
        options = ("--scale", str(SCALE), *settings.engine)
        with site(folder, everything, settings.promise, options) as up:
            size = _with_extract(size) if up.extracts else size
            with ExitStack() as rivals:
                for name in settings.names:
                    with noted(session, name, say, after):
                        session.runs.append(_scenario(name, SCENARIOS[name].make(size), up, settings, folder))
                        _tell(session.runs[-1], say)
                systems = [(name, up.url, model, up.keys) for name, model in POLICIES.items()]
                systems += _others(session, up, folder, rivals, say) if sweeps else []
                for multiple, plan_ in sweeps.items():
                    for name, url, model, keys in systems:
                        with noted(session, label(multiple, name), say, after):
                            results, _ = send(plan_, url, model, keys, "open", folder)
                            session.points.append(_point(name, multiple, results, settings.promise))
                            _tell_point(session.points[-1], say)
                    session.points += simulated(multiple, plan_, settings.promise)
                    after()


@contextmanager
def noted(session: Session, name: str, say: Say, after: Callable[[], object]) -> Iterator[None]:
    """Report and record a run that fails; the session continues."""
    try:
        yield
    except ChildError as error:
        session.failed[name] = str(error)
        say(f"  {name}: RED: {error}")
    after()


def _others(session: Session, up: Site, folder: Path, rivals: ExitStack, say: Say) -> list[_System]:
    """Return the servers to compare with. `engine` and `litellm` are known by name; the latter is started here."""
    systems: list[_System] = []
    for name, url in session.settings.compare:
        try:
            if url == "litellm":
                url = rivals.enter_context(litellm(up.engine_url, folder))
            elif url == "engine":
                url = up.engine_url
            systems.append((name, url, first_model(url), {}))
        except ChildError as error:
            session.failed[name] = str(error)
            say(f"  {name}: RED: {error}")
    return systems


def _with_extract(size: RunSize) -> RunSize:
    return RunSize(size.seconds, size.capacity, size.seed, extract=True)


def _chats(rate: float, settings: SessionSettings) -> RequestPlan:
    return plan.by_shape(steady(rate, settings.seconds), Chats(settings.seed + 50), settings.seed + 50)


def _scenario(name: str, plan_: RequestPlan, up: Site, settings: SessionSettings, folder: Path) -> ScenarioRun:
    model = "local/demo" if name == "embeddings" else "auto"
    results, status = send(plan_, up.url, model, up.keys, settings.loop, folder)
    figures = samples.figures(results, settings.promise, float(GPU_USD_PER_HOUR))
    wrong = judge(plan_, results, figures, status, settings.loop)
    return ScenarioRun(
        name=name,
        about=SCENARIOS[name].about,
        planned=len(plan_.asks),
        figures=figures,
        samples=tuple(results),
        wrong=wrong,
    )


def judge(
    plan_: RequestPlan, results: Sequence[Sample], figures: RunFigures, status: int, loop: Loop
) -> tuple[str, ...]:
    """Return what is wrong with a run; empty for a green run."""
    wrong = []
    if status != 0:
        wrong.append(f"locust ended with status {status}")
    if not results:
        wrong.append("nothing was sent")
    if loop == "open" and len(results) != len(plan_.asks):
        wrong.append(f"{len(results)} of {len(plan_.asks)} requests have a result")
    if figures.failed:
        wrong.append(f"{figures.failed} requests failed: {next(iter(figures.faults))}")
    uncounted = sum(not s.fault and s.stream and s.output_tokens == 0 for s in results)
    if uncounted:
        wrong.append(f"{uncounted} streams came without usage")
    if loop == "open" and figures.lag_p99_s > MOST_LAG_S:
        wrong.append(
            f"the generator was {figures.lag_p99_s:.2f} s late: this machine is too slow or too busy for this load"
        )
    return tuple(wrong)


def send(
    plan_: RequestPlan, url: str, model: str, keys: dict[str, str], loop: Loop, folder: Path
) -> tuple[list[Sample], int]:
    """Play one plan through locust; return its samples and exit status."""
    planned, stored = folder / "plan.jsonl", folder / "samples.jsonl"
    plan.write(planned, plan_, model, keys)
    stored.unlink(missing_ok=True)
    command = [
        str(LOCUST),
        "-f",
        str(ROOT / "loadtests" / "locust_runs" / f"{loop}_loop.py"),
        "--headless",
        "--host",
        url,
    ]
    command += ["--plan", str(planned), "--samples", str(stored), "--only-summary", "--skip-log-setup"]
    log = folder / "locust.log"
    with log.open("wb") as out:
        try:
            ended = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(folder)},
                timeout=plan_.shape.seconds + _PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ChildError(f"locust did not end within {plan_.shape.seconds + _PATIENCE_S:.0f} s") from None
    if not stored.exists():
        raise ChildError(f"locust wrote no samples (status {ended.returncode}):\n{log.read_text()[-1500:]}")
    return samples.read(stored), ended.returncode


def _point(name: str, multiple: float, results: Sequence[Sample], promise: LatencyPromise) -> SweepPoint:
    rented = 0.0 if name == "always cloud" else float(GPU_USD_PER_HOUR)
    return SweepPoint(name, multiple, samples.figures(results, promise, rented))


def _tell_point(point: SweepPoint, say: Say) -> None:
    f = point.figures
    say(
        f"  {label(point.multiple, point.system)}: {f.requests} requests, {f.failed} failed, first token p50 "
        f"{f.ttft_p50_s:.2f} s, p99 {f.ttft_p99_s:.2f} s, in time {f.slo_share:.1%} (first token late "
        f"{f.late_share:.1%}, tokens slow {f.slow_share:.1%}), cloud {f.cloud_share:.1%}, "
        f"{f.usd_per_1000:.3f} USD per 1000"
    )


def first_model(url: str) -> str:
    """Return the first model that a server offers.

    Raises:
        ChildError: it lists none.
    """
    root = url.rstrip("/").removesuffix("/v1")
    try:
        listed = httpx.get(f"{root}/v1/models", timeout=30, trust_env=False).raise_for_status().json()
        return str(listed["data"][0]["id"])
    except (httpx.HTTPError, LookupError, ValueError) as error:
        raise ChildError(
            f"{url} lists no model ({error}); --compare takes NAME=URL of an OpenAI-compatible server"
        ) from None


def simulated(multiple: float, plan_: RequestPlan, promise: LatencyPromise) -> list[SweepPoint]:
    """Return what other overflow rules would do with these arrivals, by the simulator (no machine, no noise)."""
    requests = [
        TraceRequest(number=number, arrival_s=at / SCALE, prompt_tokens=prompt, output_tokens=output)
        for number, (at, prompt, output) in enumerate(plan.lengths(plan_))
    ]
    points = []
    for name in RULES:
        contender, model = CONTENDERS[name], EngineModel()
        slo = Slo(promise.ttft_s / SCALE, promise.tpot_s / SCALE)
        result = simulate(requests, contender.make(slo, model), model, contender.timing)
        late = result.missed_either(slo)
        share = 1 - late / len(requests) if requests else 0.0
        cloud = result.cloud / max(1, len(requests))
        figures = replace(samples.figures([], promise, 0.0), requests=len(requests), cloud_share=cloud, slo_share=share)
        points.append(SweepPoint(contender.label, multiple, figures, simulated=True))
    return points


def _tell(done: ScenarioRun, say: Say) -> None:
    f = done.figures
    verdict = "green" if not done.wrong else "RED: " + "; ".join(done.wrong)
    say(
        f"  {done.name}: {f.requests} requests, first token p50 {f.ttft_p50_s:.2f} s p99 {f.ttft_p99_s:.2f} s, "
        f"whole answer p50 {f.done_p50_s:.2f} s p95 {f.done_p95_s:.2f} s, "
        f"in time {f.slo_share:.1%} (first token late {f.late_share:.1%}, tokens slow {f.slow_share:.1%}), "
        f"cloud {f.cloud_share:.1%}, {f.usd_per_1000:.3f} USD per 1000: {verdict}"
    )


def stamp() -> str:
    """Return the current UTC time, for file names and titles."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

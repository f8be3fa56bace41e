"""A provider of rented machines that keeps its own bill, and the random life of one of its machines.

The bill knows nothing of the product: it lists the runs of a machine with the price of each moment, and adds them up in
exact fractions. What the product hears of the machine are the answers of the provider's interface, in the shapes that
RunPod, EC2 and Vast.ai document, which tell more or less of it:

    runpod   when it started and stopped, and one price per run
    aws      when it started and stopped, and the history of the spot price
    vast     whether it runs, and the price; never since when
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any, cast

from spillway_router.deploy.machines import AwsInspector, Inspector, RunPodInspector, VastInspector
from spillway_router.deploy.perform import NotThereError, Shell

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
KINDS = ("runpod", "aws", "vast")


@dataclass(frozen=True, slots=True)
class BillLine:
    """A time at one price: epoch milliseconds, and nano-dollars per hour of all GPUs."""

    start_ms: int
    end_ms: int
    nano_per_hour: int

    def until(self, at_ms: int) -> Fraction:
        """Return what was billed of the line up to a time."""
        return Fraction(max(0, min(at_ms, self.end_ms) - self.start_ms) * self.nano_per_hour, HOUR_MS)

    def nano(self, start_ms: int, end_ms: int) -> int:
        """Return the nano-dollars of the line in a range: providers round what they add up, not what they add."""
        return int(self.until(end_ms)) - int(self.until(start_ms))


@dataclass(frozen=True, slots=True)
class MachineLife:
    """The life of a machine: its runs as lines of the bill, one or more per run, in their order; and whether its
    provider forgets it a day after its end (Vast.ai at once)."""

    kind: str
    name: str
    gpus: int
    runs: tuple[tuple[BillLine, ...], ...]
    forgotten: bool

    @property
    def lines(self) -> tuple[BillLine, ...]:
        """The whole bill."""
        return tuple(line for run in self.runs for line in run)

    def billed(self, start_ms: int, end_ms: int) -> int:
        """Return the nano-dollars of a range."""
        return sum(line.nano(start_ms, end_ms) for line in self.lines)


def random_life(rng: Random, kind: str, name: str, day_ms: int) -> MachineLife:
    """Return a life of up to five days from a day on, with outages of 20 minutes to 30 hours between its runs."""
    at = day_ms + rng.randrange(DAY_MS // SECOND_MS) * SECOND_MS
    gpus = rng.choice((1, 1, 2, 3))
    runs = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        changes = rng.choice((0, 1, 3)) if kind != "runpod" else 0
        length_ms = rng.choice((rng.randrange(600, 3600), rng.randrange(3600, 100_000))) * SECOND_MS
        cuts = sorted(rng.sample(range(60, length_ms // SECOND_MS - 60), changes))
        edges = [at, *(at + cut * SECOND_MS for cut in cuts), at + length_ms]
        lines = []
        price = 0
        for start, end in pairwise(edges):
            price = rng.choice([nano for nano in _PRICES if nano != price])
            lines.append(BillLine(start, end, price))
        runs.append(tuple(lines))
        at += length_ms + rng.randrange(1200, 108_000) * SECOND_MS
    return MachineLife(kind=kind, name=name, gpus=gpus, runs=tuple(runs), forgotten=rng.random() < 0.3)


_PRICES = (211_000_000, 300_000_000, 640_000_100, 1_390_000_000, 1_890_000_007, 3_333_333_333)


@dataclass(slots=True)
class RentalProvider:
    """The interfaces of the providers at a moment, `now_ms`; `looks` are the times at which each machine was asked
    about."""

    lives: dict[str, MachineLife] = field(default_factory=dict)
    now_ms: int = 0
    looks: dict[str, list[int]] = field(default_factory=dict)

    def inspector(self, kind: str) -> Inspector:
        """Return the product's own inspector of a provider, which asks this one."""
        if kind == "runpod":
            return RunPodInspector(self)
        shell = cast("Shell", self)
        return AwsInspector(shell) if kind == "aws" else VastInspector(shell)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Answer as RunPod does."""
        del method, body
        life = self.lives[path.rpartition("/")[2]]
        self._note(life)
        run = self._run(life)
        if run is None:
            return None
        status = {"id": life.name, "startedAt": _iso(run[0].start_ms)}
        if run[-1].end_ms > self.now_ms:
            return {**status, "status": "RUNNING", "cost": run[0].nano_per_hour / 1e9}
        if life.forgotten and run is life.runs[-1] and self.now_ms >= run[-1].end_ms + DAY_MS:
            raise NotThereError("404")
        return {**status, "status": "EXITED", "cost": 0, "lastStatusChange": f"Exited: {_js(run[-1].end_ms)}"}

    def run(self, argv: tuple[str, ...], standard_input: str) -> str:
        """Answer as `aws` and `vastai` do."""
        del standard_input
        if argv[0] == "vastai":
            vast = [life for life in self.lives.values() if life.kind == "vast"]
            return json.dumps([row for life in vast if (row := self._instance(life)) is not None])
        if "describe-spot-price-history" in argv:
            return json.dumps({"SpotPriceHistory": self._spot_history(argv[argv.index("--instance-types") + 1])})
        return json.dumps(self._reservations(argv[-1].rpartition("=")[2]))

    def _instance(self, life: MachineLife) -> dict[str, Any] | None:
        self._note(life)
        run = self._run(life)
        if run is None:
            return None
        row: dict[str, Any] = {"id": life.name, "cur_state": "running", "intended_status": "running"}
        line = next((line for line in run if line.start_ms <= self.now_ms < line.end_ms), None)
        if line is not None:
            return {**row, "actual_status": "running", "dph_total": line.nano_per_hour / 1e9}
        if life.forgotten and run is life.runs[-1]:
            return None
        return {
            **row,
            "cur_state": "stopped",
            "intended_status": "stopped",
            "actual_status": "exited",
            "dph_total": 0.01,
        }

    def _reservations(self, stack: str) -> dict[str, Any]:
        life = self.lives[stack]
        self._note(life)
        run = self._run(life)
        if run is None or (life.forgotten and run is life.runs[-1] and self.now_ms >= run[-1].end_ms + DAY_MS):
            return {"Reservations": []}
        row: dict[str, Any] = {
            "InstanceLifecycle": "spot",
            "InstanceType": stack,  # one type per stack, so that each has prices of its own
            "LaunchTime": _iso(run[0].start_ms),
            "Placement": {"AvailabilityZone": "eu-central-1a"},
            "State": {"Name": "running"},
        }
        if run[-1].end_ms <= self.now_ms:
            ended = datetime.fromtimestamp(run[-1].end_ms / 1000, UTC)
            row |= {"State": {"Name": "terminated"}, "StateTransitionReason": f"Server.Spot ({ended:%F %T} GMT)"}
        return {"Reservations": [{"Instances": [row]}]}

    def _spot_history(self, stack: str) -> list[dict[str, str]]:
        run = self._run(self.lives[stack]) or ()
        return [
            {"SpotPrice": f"{line.nano_per_hour / 1e9:.9f}", "Timestamp": _iso(line.start_ms)}
            for line in reversed(run)
            if line.start_ms <= self.now_ms
        ]

    def _run(self, life: MachineLife) -> tuple[BillLine, ...] | None:
        """Return the last run that has begun."""
        begun = [run for run in life.runs if run[0].start_ms <= self.now_ms]
        return begun[-1] if begun else None

    def _note(self, life: MachineLife) -> None:
        self.looks.setdefault(life.name, []).append(self.now_ms)


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


def _js(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)")

"""A router looks at rented machines in the background; a provider that fails, or is not understood, ends nothing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from spillway_router.commands import rental_watch
from spillway_router.commands.rental_watch import RentalWatch
from spillway_router.config import load as config
from spillway_router.deploy.machines import (
    AwsInspector,
    KubernetesInspector,
    RunPodInspector,
    SkyInspector,
    VastInspector,
)
from spillway_router.deploy.order import DeployError
from spillway_router.deploy.perform import NotThereError, Shell
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.watch import PriceStep, Sighting
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

STARTED = 1_795_000_000_000


class Provider:
    """An inspector that says what a test tells it, and counts how often it is asked."""

    def __init__(self, sighting: Sighting | None) -> None:
        self.sighting = sighting
        self.asked = threading.Semaphore(0)
        self.times = 0

    def look(self, machines: Sequence[str]) -> Mapping[str, Sighting]:
        self.times += 1
        self.asked.release()
        if self.sighting is None:
            raise DeployError("no answer")
        return dict.fromkeys(machines, self.sighting)


@pytest.fixture
def watch(tmp_path: Path) -> RentalWatch:
    file = tmp_path / "spillway.yaml"
    file.write_text('gpu: {watch_minutes: 0.0005}\nledger: {url: "sqlite:///spillway.db"}\n')
    ledger = SqliteLedger.open(tmp_path / "spillway.db")
    for source, machine in (("vast", "777"), ("kubernetes", "llm/spillway")):
        ledger.rentals.add(
            RentalRecord(
                id=f"rent_{source}",
                gpu="a100-80",
                count=1,
                price_nano_per_hour=10**9,
                kind="interruptible",
                started_ms=STARTED,
                stopped_ms=None,
                source=source,
                machine=machine,
                seen_ms=STARTED + 60_000,
            )
        )
    ledger.close()
    return RentalWatch(config.read(str(file), {}))


def stopped(tmp_path: Path) -> dict[str, int | None]:
    ledger = SqliteLedger.open(tmp_path / "spillway.db")
    records = {record.source: record.stopped_ms for record in ledger.rentals.between(0, 2**62)}
    ledger.close()
    return records


def use(monkeypatch: pytest.MonkeyPatch, provider: Provider) -> None:
    monkeypatch.setattr(rental_watch, "inspector_of", lambda target, _: provider if target == "vast" else None)


async def test_the_router_ends_the_rental_of_a_machine_that_is_gone(
    tmp_path: Path, watch: RentalWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = Provider(Sighting("gone", "gone"))
    use(monkeypatch, provider)
    companion = asyncio.create_task(watch.run())
    for _ in range(2):  # at the second look, the first one is on the books
        assert await asyncio.to_thread(provider.asked.acquire, timeout=20)
    companion.cancel()
    await asyncio.gather(companion, return_exceptions=True)
    assert stopped(tmp_path) == {"vast": STARTED + 60_000, "kubernetes": None}
    assert not watch.wait(1000), "it ends with the router, without waiting"


def test_a_provider_that_does_not_answer_ends_nothing(
    tmp_path: Path, watch: RentalWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Provider(None))
    outcome = watch.look()
    assert (outcome.changes, outcome.errors) == ((), ("vast: no answer",))
    assert stopped(tmp_path) == {"vast": None, "kubernetes": None}


class Answers:
    """Answers as RunPod, or as a program that prints JSON."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def call(self, method: str, path: str, body: object = None) -> object:
        del method, path, body
        if self.answer is None:
            raise NotThereError("404")
        return self.answer


RUNNING = {"status": "RUNNING", "startedAt": "2026-11-28T01:00:00Z"}


@pytest.mark.parametrize(
    ("pod", "sighting"),
    [
        ({**RUNNING, "cost": 1.89}, Sighting("running", "RUNNING", 1_795_827_600_000, (PriceStep(1_890_000_000),))),
        (
            {**RUNNING, "costPerHr": 2.0, "adjustedCostPerHr": 1.5},
            Sighting("running", "RUNNING", 1_795_827_600_000, (PriceStep(1_500_000_000),)),
        ),
        ({"status": "PROVISIONING", "startedAt": None, "cost": 0}, Sighting("running", "PROVISIONING")),
        ({"status": "EXITED", "cost": 0}, Sighting("stopped", "EXITED")),
        (
            {
                "desiredStatus": "EXITED",
                "lastStatusChange": "Exited by user: Sat Nov 28 2026 03:00:00 GMT+0000 (Coordinated Universal Time)",
            },
            Sighting("stopped", "EXITED", 1_795_834_800_000),
        ),
        ({"status": "TERMINATED"}, Sighting("gone", "TERMINATED")),
        (None, Sighting("gone", "gone")),
    ],
)
def test_what_runpod_says_of_a_pod(pod: object, sighting: Sighting) -> None:
    assert RunPodInspector(Answers(pod)).look(["p"]) == {"p": sighting}


@pytest.mark.parametrize("pod", [{"status": "DANCING"}, [], {}])
def test_what_nobody_understands_ends_no_rental(pod: object) -> None:
    with pytest.raises(DeployError):
        RunPodInspector(Answers(pod)).look(["p"])


def program(folder: Path, name: str, output: str) -> Shell:
    """A shell in which a program of this name notes its arguments and prints this."""
    (folder / "output").write_text(output)
    (folder / name).write_text(f'#!/bin/sh\necho "$@" > {folder}/arguments\ncat {folder}/output\n')
    (folder / name).chmod(0o755)
    return Shell({"PATH": f"{folder}:/usr/bin:/bin"}, timeout_s=20)


def test_programs_that_print_something_else_end_no_rental(tmp_path: Path) -> None:
    inspectors = {"vastai": VastInspector, "aws": AwsInspector, "kubectl": KubernetesInspector, "sky": SkyInspector}
    for name, inspector in inspectors.items():
        machine = "spillway" if name == "sky" else "llm/x"
        with pytest.raises(DeployError):
            inspector(program(tmp_path, name, "sorry")).look([machine])


SET = {"kind": "StatefulSet", "metadata": {"name": "spillway", "creationTimestamp": "2026-11-28T01:00:00Z"}}
CLAIM = {"kind": "PersistentVolumeClaim", "metadata": {"name": "models-spillway-0"}}


def pod(phase: str, node: str = "gpu-1") -> dict[str, object]:
    """A pod in a phase of the API (core/v1, PodStatus), placed on a node unless the name is empty."""
    return {"kind": "Pod", "spec": {"nodeName": node} if node else {}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("items", "sighting"),
    [
        ([SET, pod("Running"), CLAIM], Sighting("running", "running", 1_795_827_600_000)),
        ([SET, pod("Failed"), pod("Pending"), CLAIM], Sighting("running", "running", 1_795_827_600_000)),
        ([SET, pod("Pending", node=""), CLAIM], Sighting("stopped", "no pod runs")),
        ([SET, pod("Succeeded"), CLAIM], Sighting("stopped", "no pod runs")),
        ([SET, CLAIM], Sighting("stopped", "no pod runs")),
        ([CLAIM], Sighting("gone", "no pod runs")),
    ],
)
def test_what_a_cluster_says_of_a_release(tmp_path: Path, items: list[object], sighting: Sighting) -> None:
    answer = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    inspector = KubernetesInspector(program(tmp_path, "kubectl", answer))
    assert inspector.look(["llm/spillway"]) == {"llm/spillway": sighting}
    arguments = (tmp_path / "arguments").read_text()
    assert "--namespace llm --selector app.kubernetes.io/instance=spillway" in arguments


def test_the_cluster_of_a_context_is_asked_by_its_context(tmp_path: Path) -> None:
    answer = json.dumps({"items": [SET, pod("Running")]})
    machine = "arn:aws:eks:eu-central-1:1:cluster/a:llm/spillway"
    sightings = KubernetesInspector(program(tmp_path, "kubectl", answer)).look([machine])
    assert sightings[machine].state == "running"
    arguments = (tmp_path / "arguments").read_text()
    assert arguments.startswith("--context arn:aws:eks:eu-central-1:1:cluster/a get ")
    assert "--namespace llm --selector app.kubernetes.io/instance=spillway" in arguments


def test_a_cluster_that_has_nothing_of_a_release_ends_no_rental(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="context"):
        KubernetesInspector(program(tmp_path, "kubectl", '{"items": []}')).look(["llm/spillway"])


def test_a_cluster_is_asked(tmp_path: Path) -> None:
    inspector = rental_watch.inspector_of("kubernetes", {"PATH": str(tmp_path)})
    assert isinstance(inspector, KubernetesInspector)


UP = {
    "name": "spillway",
    "status": "UP",
    "launched_at": 1_795_827_600,
    "duration": 1800,
    "total_cost": 0.695,
    "num_nodes": 1,
    "usage_intervals": [[1_795_827_600, None]],
}
"""A row of `sky cost-report --output json` (SkyPilot 0.14.1, core.cost_report), as far as it is read."""
BEFORE = {
    **UP,
    "status": "TERMINATED",
    "usage_intervals": [[1_795_800_000, 1_795_803_600]],
    "launched_at": 1_795_800_000,
}


@pytest.mark.parametrize(
    ("rows", "sighting"),
    [
        ([UP, BEFORE], Sighting("running", "UP", 1_795_827_600_000, (PriceStep(1_390_000_000),))),
        ([{**UP, "status": "INIT", "duration": 0, "total_cost": 0.0}], Sighting("running", "INIT", 1_795_827_600_000)),
        (
            [{**UP, "status": "STOPPED", "usage_intervals": [[1_795_827_600, 1_795_831_200]]}],
            Sighting("stopped", "STOPPED", 1_795_831_200_000),
        ),
        ([BEFORE], Sighting("gone", "TERMINATED", 1_795_803_600_000)),
    ],
    ids=["up", "starting", "stopped", "gone"],
)
def test_what_skypilot_says_of_a_cluster(rows: list[object], sighting: Sighting, tmp_path: Path) -> None:
    inspector = SkyInspector(program(tmp_path, "sky", json.dumps(rows)))
    assert inspector.look(["spillway", "service/other"]) == {"spillway": sighting}


@pytest.mark.parametrize("answer", [[], [{**UP, "name": "another"}]])
def test_a_cluster_that_this_skypilot_never_had_ends_no_rental(answer: list[object], tmp_path: Path) -> None:
    assert SkyInspector(program(tmp_path, "sky", json.dumps(answer))).look(["spillway"]) == {}


def test_a_state_of_a_cluster_that_nobody_knows_ends_no_rental(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="DANCING"):
        SkyInspector(program(tmp_path, "sky", json.dumps([{**UP, "status": "DANCING"}]))).look(["spillway"])


def test_skypilot_is_asked_about_its_clusters(tmp_path: Path) -> None:
    assert isinstance(rental_watch.inspector_of("sky", {"PATH": str(tmp_path)}), SkyInspector)

"""What providers say of the machines that they rent out: whether they are billed, since when, and at which price.

Each inspector asks its provider once for all machines, with a bound on the time that it takes. Times and prices are
taken where the provider tells them; what it doesn't tell stays None, and the books then go by when a machine was seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

from spillway_router.core.money.tariff import NANO
from spillway_router.deploy.order import DeployError
from spillway_router.deploy.perform import Api, NotThereError, Shell
from spillway_router.ledger.rentals.watch import PriceStep, Sighting

LOOK_TIMEOUT_S = 30.0
"""How long one question may take."""
_STATUS_CHANGE = re.compile(r"[A-Z][a-z]{2} ([A-Z][a-z]{2} \d{2} \d{4} \d{2}:\d{2}:\d{2}) GMT([+-]\d{4})")
_REASON_TIME = re.compile(r"\((\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}) (?:GMT|UTC)\)")
GONE = Sighting("gone", "gone")


class Inspector(Protocol):
    """Asks one provider. Methods raise `DeployError` where it doesn't answer; then nothing is known of any machine."""

    def look(self, machines: Sequence[str]) -> Mapping[str, Sighting]:
        """Return what the provider says of each machine; one that it doesn't know is gone."""


class RunPodInspector:
    """Asks RunPod for its pods."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def look(self, machines: Sequence[str]) -> Mapping[str, Sighting]:
        """Ask for each pod, as a list may leave out pods that are stopped."""
        return {machine: self._pod(machine) for machine in machines if not machine.startswith("serverless/")}

    def _pod(self, pod_id: str) -> Sighting:
        try:
            pod = self._api.call("GET", f"/v2/pods/{pod_id}")
        except NotThereError:
            return GONE
        if not isinstance(pod, dict):
            raise DeployError("RunPod's answer is no pod; has the API changed?")
        word = str(pod.get("status") or pod.get("desiredStatus") or "")
        if word in ("PROVISIONING", "STARTING", "RUNNING"):
            price = _nano(pod, "adjustedCostPerHr", "costPerHr", "cost")
            since_ms = _iso_ms(pod.get("startedAt") or pod.get("lastStartedAt"))
            return Sighting("running", word, since_ms, _steps(price))
        if word not in ("EXITED", "ERROR", "TERMINATED"):
            raise DeployError(f"RunPod says {word!r} of {pod_id}, which is no known state; has the API changed?")
        return Sighting("gone" if word == "TERMINATED" else "stopped", word, _changed_ms(pod.get("lastStatusChange")))


class VastInspector:
    """Asks Vast.ai for the instances of the account, through `vastai`."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def look(self, machines: Sequence[str]) -> Mapping[str, Sighting]:
        """List the instances. A stopped or outbid one keeps its disk and is not billed for its GPU."""
        rows = _json(self._shell, ("vastai", "show", "instances", "--raw"))
        if not isinstance(rows, list):
            raise DeployError("`vastai show instances` printed no list; has it changed?")
        instances = {str(row.get("id")): row for row in rows if isinstance(row, dict)}
        return {machine: self._instance(instances.get(machine)) for machine in machines}

    def _instance(self, row: Mapping[str, Any] | None) -> Sighting:
        if row is None:
            return GONE
        states = [str(row.get(name) or "") for name in ("cur_state", "intended_status", "actual_status")]
        word = next(filter(None, reversed(states)), "")
        if "stopped" in states[:2] or states[2] in ("exited", "offline"):
            return Sighting("stopped", word)  # `end_date` is that of the offer; nothing tells when it stopped
        return Sighting("running", word, None, _steps(_nano(row, "dph_total")))


class AwsInspector:
    """Asks EC2 for the instances of each stack and, for spot instances, for the prices of their type and zone."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def look(self, machines: Sequence[str]) -> Mapping[str, Sighting]:
        """Ask for the instances of each stack. A machine is named `REGION/STACK`, or `STACK` in the default region."""
        return {machine: self._stack(machine) for machine in machines}

    def _stack(self, machine: str) -> Sighting:
        place, _, stack = machine.rpartition("/")
        region = ("--region", place) if place else ()
        answer = _json(
            self._shell,
            (
                *("aws", "ec2", "describe-instances", "--output", "json", *region, "--filters"),
                f"Name=tag:aws:cloudformation:stack-name,Values={stack}",
            ),
        )
        rows = [row for group in _rows(answer, "Reservations") for row in _rows(group, "Instances")]
        states = [(str(_field(row, "State", "Name")), row) for row in rows]
        billed = [row for state, row in states if state in ("running", "stopping", "shutting-down")]
        if billed:
            newest = max(billed, key=lambda row: str(row.get("LaunchTime", "")))
            return Sighting("running", "running", _iso_ms(newest.get("LaunchTime")), self._spot_prices(newest, region))
        ends = [_reason_ms(row.get("StateTransitionReason")) for _, row in states]
        told_ends = [end for end in ends if end is not None]
        return Sighting("stopped" if rows else "gone", "no instance runs", max(told_ends, default=None))

    def _spot_prices(self, row: Mapping[str, Any], region: tuple[str, ...]) -> tuple[PriceStep, ...]:
        if row.get("InstanceLifecycle") != "spot":
            return ()
        answer = _json(
            self._shell,
            (
                *("aws", "ec2", "describe-spot-price-history", "--output", "json", *region),
                *("--instance-types", str(row.get("InstanceType"))),
                *("--availability-zone", str(_field(row, "Placement", "AvailabilityZone"))),
                *("--product-descriptions", "Linux/UNIX", "--start-time", str(row.get("LaunchTime"))),
            ),
        )
        steps = []
        for price in _rows(answer, "SpotPriceHistory"):
            nano, since_ms = _nano(price, "SpotPrice"), _iso_ms(price.get("Timestamp"))
            if nano is not None and since_ms is not None:
                steps.append(PriceStep(nano, since_ms))
        return tuple(sorted(steps, key=lambda step: step.since_ms or 0))


class KubernetesInspector:
    """Asks a cluster for what belongs to each release of the chart, through `kubectl`. A cluster tells no price.

    The volume claims of an uninstalled release are kept. Where there is nothing at all, kubectl's context may be that
    of another cluster, and then nothing is known.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def look(self, machines: Sequence[str]) -> Mapping[str, Sighting]:
        """Ask for each release. A machine is named `NAMESPACE/RELEASE`, after `CONTEXT:` where one was named."""
        return {machine: self._release(machine) for machine in machines}

    def _release(self, machine: str) -> Sighting:
        context, _, name = machine.rpartition(":")
        namespace, _, release = name.rpartition("/")
        answer = _json(
            self._shell,
            (
                *(
                    "kubectl",
                    *(("--context", context) if context else ()),
                    "get",
                    "statefulsets,pods,persistentvolumeclaims",
                    "--output",
                    "json",
                ),
                *("--namespace", namespace, "--selector", f"app.kubernetes.io/instance={release}"),
            ),
        )
        kinds: dict[str, list[Mapping[str, Any]]] = {}
        for row in _rows(answer, "items"):
            kinds.setdefault(str(row.get("kind")), []).append(row)
        if not kinds:
            raise DeployError(f"the cluster has nothing of the release {machine}; is kubectl's context another one?")
        if any(_holds_node(pod) for pod in kinds.get("Pod", ())):
            created_ms = [_iso_ms(_field(row, "metadata", "creationTimestamp")) for row in kinds.get("StatefulSet", ())]
            return Sighting("running", "running", min((at for at in created_ms if at is not None), default=None))
        return Sighting("stopped" if "StatefulSet" in kinds else "gone", "no pod runs")


class SkyInspector:
    """Asks SkyPilot for its clusters, through `sky`: their states anew from the clouds, and what they cost by its price
    lists. The machines of a service are its controller's, and `sky` tells nothing of their price."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def look(self, machines: Sequence[str]) -> Mapping[str, Sighting]:
        """Ask for all clusters. A machine is the name of a cluster. A service, `service/NAME`, is left out, and so is a
        cluster that SkyPilot has never had: then another API server was asked."""
        clusters = [machine for machine in machines if "/" not in machine]
        if not clusters:
            return {}
        _json(self._shell, ("sky", "status", "--refresh", "--output", "json"))
        report = _json(self._shell, ("sky", "cost-report", "--output", "json"))
        if not isinstance(report, list):
            raise DeployError("`sky cost-report` printed no list; has it changed?")
        rows = {name: [row for row in report if _field(row, "name") == name] for name in clusters}
        return {name: self._cluster(name, mine) for name, mine in rows.items() if mine}

    @staticmethod
    def _cluster(name: str, rows: Sequence[Mapping[str, Any]]) -> Sighting:
        row = max(rows, key=lambda row: (row.get("status") != "TERMINATED", _number(row.get("launched_at"))))
        word = str(row.get("status"))
        if word in ("INIT", "UP", "AUTOSTOPPING"):
            seconds, cost = _number(row.get("duration")), _number(row.get("total_cost"))
            price = price_nano(cost / seconds * 3600) if seconds > 0 else None
            return Sighting("running", word, round(_number(row.get("launched_at")) * 1000) or None, _steps(price))
        if word not in ("STOPPED", "TERMINATED"):
            raise DeployError(f"SkyPilot says {word!r} of {name}, which is no known state; has it changed?")
        ends = [_number(span[1]) for span in row.get("usage_intervals") or () if isinstance(span, list) and span[1:]]
        end_ms = round(max(ends, default=0.0) * 1000) or None
        return Sighting("stopped" if word == "STOPPED" else "gone", word, end_ms)


def _number(value: object) -> float:
    """Return a number; 0 for what is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _holds_node(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod has a node's GPU: it was placed, and has not ended."""
    return bool(_field(pod, "spec", "nodeName")) and _field(pod, "status", "phase") in ("Pending", "Running", "Unknown")


def _json(shell: Shell, argv: tuple[str, ...]) -> Any:
    text = shell.run(argv, "")
    try:
        return json.loads(text)
    except ValueError as error:
        raise DeployError(f"{' '.join(argv[:3])} printed something that is not JSON") from error


def _rows(value: Any, name: str) -> list[Mapping[str, Any]]:
    rows = value.get(name, []) if isinstance(value, dict) else []
    return [row for row in rows if isinstance(row, dict)]


def _field(row: Mapping[str, Any], *path: str) -> Any:
    value: Any = row
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _steps(nano_per_hour: int | None) -> tuple[PriceStep, ...]:
    return () if nano_per_hour is None else (PriceStep(nano_per_hour),)


def _nano(row: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of some fields that is a price above 0, in nano-dollars; a stopped machine tells 0."""
    for name in names:
        nano = price_nano(row.get(name))
        if nano is not None:
            return nano
    return None


def price_nano(value: object) -> int | None:
    """Return a price in USD, as a provider writes it, in nano-dollars; None if it is no price above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return round(amount * NANO) or None if amount.is_finite() and 0 < amount <= 10**6 else None


def _iso_ms(value: object) -> int | None:
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _changed_ms(value: object) -> int | None:
    """Read RunPod's `lastStatusChange`: "Exited by user: Sat Nov 28 2026 03:00:00 GMT+0000 (...)"."""
    match = _STATUS_CHANGE.search(str(value))
    if match is None:
        return None
    return int(datetime.strptime(f"{match[1]} {match[2]}", "%b %d %Y %H:%M:%S %z").timestamp() * 1000)


def _reason_ms(value: object) -> int | None:
    """Read EC2's `StateTransitionReason`: "User initiated (2026-11-28 03:00:00 GMT)"."""
    match = _REASON_TIME.search(str(value))
    return None if match is None else _iso_ms(f"{match[1]}+00:00")

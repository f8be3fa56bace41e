"""How the number of GPUs is set: by a command of the user's, kubectl, SkyPilot or Ray Serve.

    command      the user's own words, with the number in the place of {gpus}
    kubernetes   kubectl scale deployment/NAME --replicas=N
    sky          sky serve update SERVICE FILE, with N replicas in a copy of the service's YAML
    ray          Ray's API: the number of replicas of the engines' deployment

Each sets the number as a whole, so that to repeat it does no harm.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import yaml

from spillway_router.config.yaml_faults import yaml_problem

if TYPE_CHECKING:
    from spillway_router.config.fleet_part import FleetPart

LONGEST_RUN_S = 600
LONGEST_CALL_S = 30
PASSED_ON = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TMPDIR",
    "KUBECONFIG",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "SKYPILOT_API_SERVER_ENDPOINT",
)
"""The variables that a program gets. It reads its secrets from files of its own."""
_STANDARD_ERROR = 2


class FleetTargetError(Exception):
    """The number of GPUs could not be set; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Order:
    """What sets the number: a command line, with a YAML file that it reads in the place of {file}, or a call of an API.

    `words` are the arguments, or method, URL and body.
    """

    words: tuple[str, ...]
    file: str = ""
    is_call: bool = False

    def shown(self) -> str:
        """Return the order as a line."""
        return " ".join(self.words)


def order_for(fleet: FleetPart, gpus: int) -> Order:
    """Return what sets the number of GPUs. Raises FleetTargetError where the target lacks what it needs."""
    if fleet.target == "sky":
        return _sky(fleet, gpus)
    if fleet.target == "ray":
        if not fleet.application:
            raise FleetTargetError("The target ray scales an application of Ray Serve. Set fleet.application.")
        path = f"/api/v1/applications/{quote(fleet.application)}/deployments/{quote(fleet.ray_deployment)}/scale"
        body = json.dumps({"target_num_replicas": gpus})
        return Order(("POST", fleet.ray_api.rstrip("/") + path, body), is_call=True)
    words = fleet.arguments(gpus)
    if not words:
        raise FleetTargetError(
            "fleet.target has nothing to run. Set fleet.command, or fleet.deployment with the target kubernetes."
        )
    return Order(words)


def _sky(fleet: FleetPart, gpus: int) -> Order:
    if not fleet.service or fleet.service_file is None:
        raise FleetTargetError(
            "The target sky updates a SkyPilot service. Set fleet.service and fleet.service_file, the YAML that "
            "`spillway deploy sky` wrote."
        )
    try:
        content = yaml.safe_load(fleet.service_file.read_text(encoding="utf-8"))
        service = dict(content["service"])
    except OSError as error:
        raise FleetTargetError(f"fleet.service_file {fleet.service_file} is no SkyPilot service: {error}") from error
    except yaml.YAMLError as error:
        reason = yaml_problem(error)
        raise FleetTargetError(f"fleet.service_file {fleet.service_file} is no SkyPilot service: {reason}") from error
    except (KeyError, TypeError, ValueError) as error:
        message = f"fleet.service_file {fleet.service_file} is no SkyPilot service: it has no part `service`"
        raise FleetTargetError(message) from error
    # Only the service's part may change: SkyPilot then keeps the replicas that run.
    service.pop("replica_policy", None)
    service["replicas"] = gpus
    words = ("sky", "serve", "update", "--yes", fleet.service, "{file}")
    return Order(words, yaml.safe_dump({**content, "service": service}, sort_keys=False))


def set_number(order: Order, environment: Mapping[str, str], *, quiet: bool = False) -> None:
    """Carry an order out, without the router's keys. What the program prints goes to standard error, where standard
    output may hold JSON; `quiet`: it is only told if it fails.

    Raises FleetTargetError.
    """
    if order.is_call:
        _call(order)
        return
    with tempfile.TemporaryDirectory(prefix="spillway-fleet-") as folder:
        file = Path(folder) / "service.yaml"
        if order.file:
            file.write_text(order.file, encoding="utf-8")
        words = [word.replace("{file}", str(file)) if order.file else word for word in order.words]
        _run(words, {name: environment[name] for name in PASSED_ON if name in environment}, quiet=quiet)


def _run(words: list[str], environment: Mapping[str, str], *, quiet: bool) -> None:
    try:
        done = subprocess.run(
            words,
            timeout=LONGEST_RUN_S,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if quiet else _STANDARD_ERROR,
            stderr=subprocess.PIPE if quiet else None,
        )
    except OSError as error:
        raise FleetTargetError(f"{words[0]} can't be run: {error.strerror}. Install it, or correct fleet.") from error
    except subprocess.TimeoutExpired as error:
        raise FleetTargetError(f"{words[0]} took longer than {LONGEST_RUN_S} s and was ended.") from error
    if done.returncode:
        output = (done.stderr or b"").decode("utf-8", "replace").strip()[-300:]
        more = f" {output}" if output else ""
        raise FleetTargetError(
            f"{words[0]} ended with status {done.returncode}; the number of GPUs may be unchanged.{more}"
        )


def _call(order: Order) -> None:
    method, url, body = order.words
    request = urllib.request.Request(  # noqa: S310 - the settings allow http and https only
        url, method=method, data=body.encode(), headers={"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=LONGEST_CALL_S) as answer:  # noqa: S310
            answer.read()
    except urllib.error.HTTPError as error:
        output = error.read(500).decode("utf-8", "replace")
        raise FleetTargetError(f"{url} answers with {error.code}: {output}") from error
    except (OSError, ValueError) as error:
        raise FleetTargetError(f"{url} can't be reached: {error}. Check fleet.ray_api.") from error

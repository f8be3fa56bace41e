"""What Ray Serve is told to run engines: its declarative configuration, by the REST API of Ray's dashboard.

Ray replaces everything that it serves by what it is told, so that what others run there is read first and told again.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spillway_server.obstacle import Obstacle
from spillway_server.on_ray.replica import DEPLOYMENT

IMPORT_PATH = "spillway_server.on_ray.replica:build"
PATH = "/api/serve/applications/"
LIMIT_S = 60.0
MARGIN_S = 50.0
"""Beside the time for running answers: for the engine's own end."""


@dataclass(frozen=True, slots=True)
class RayOrder:
    """Engines on Ray: the name of the application, how many, the GPUs of each, and the command on a node, in which
    {host} and {port} stand. `ready_s` and `drain_s` are how long an engine may take to start, and to end its answers.
    """

    name: str
    replicas: int
    gpus: float
    command: tuple[str, ...]
    ready_s: float = 1800.0
    drain_s: float = 130.0
    cpus: float = 1.0
    log: str | None = None


def application(order: RayOrder) -> dict[str, Any]:
    """Return the application as `ServeApplicationSchema` has it."""
    return {
        "name": order.name,
        "route_prefix": f"/{order.name}",
        "import_path": IMPORT_PATH,
        "args": {
            "command": list(order.command),
            "ready_s": order.ready_s,
            "drain_s": order.drain_s,
            "log": order.log,
        },
        # The scale API of Ray, which `fleet.target: ray` calls, is only open to an application that says so.
        "external_scaler_enabled": True,
        "deployments": [
            {
                "name": DEPLOYMENT,
                "num_replicas": order.replicas,
                "graceful_shutdown_timeout_s": order.drain_s + MARGIN_S,
                "ray_actor_options": {"num_cpus": order.cpus, "num_gpus": order.gpus},
            }
        ],
    }


def with_application(details: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Ray Serve is told so that it runs this application beside those that it runs already.

    `details` is its answer to GET. Raises ValueError where an application there was not deployed by a configuration,
    because it would be deleted: this API can't tell it again.
    """
    others = []
    for name, running in sorted(details.get("applications", {}).items()):
        if name == one["name"]:
            continue
        config = running.get("deployed_app_config")
        if not config:
            raise ValueError(
                f"the application {name} was deployed from a program (serve.run), and Ray would delete it with this "
                "order; deploy it by `serve deploy`, or use another cluster"
            )
        others.append(config)
    whole: dict[str, Any] = {"applications": [*others, dict(one)]}
    for part in ("proxy_location", "http_options", "grpc_options"):
        if details.get(part):
            whole[part] = details[part]
    return whole


def deploy(address: str, order: RayOrder) -> Obstacle | None:
    """Have the Ray cluster whose dashboard is at `address` run the order; return what is in the way."""
    try:
        details = _call(address, "GET", None)
        _call(address, "PUT", with_application(details, application(order)))
    except (OSError, ValueError) as error:
        reason = str(error)
        if isinstance(error, urllib.error.HTTPError):
            reason = f"{error.code} {error.read(2000).decode('utf-8', 'replace')}"
        return Obstacle(
            f"Ray Serve at {address} did not take the order: {reason}",
            "Check --ray, that `ray status` shows the nodes, and that Ray Serve is installed on them (ray[serve]).",
        )
    return None


def _call(address: str, method: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"{address} is no http address; write the dashboard's, such as http://127.0.0.1:8265")
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        address.rstrip("/") + PATH,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json", "accept": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310
        content = answer.read()
    parsed: dict[str, Any] = json.loads(content) if content.strip() else {}
    return parsed

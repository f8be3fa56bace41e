"""SkyPilot: one task or service YAML for RunPod, Vast.ai, AWS, GCP, Azure, Lambda and Kubernetes, started by `sky`.

SkyPilot looks for the cheapest place that has the GPU, opens the port, and, as a service, replaces a machine that a
market took back. It writes its own start script into the container, so that the image's entrypoint is called by `run`.
"""

from __future__ import annotations

from typing import Any

import yaml

from spillway_hardware.gpus import GPUS
from spillway_router.deploy.container import environment
from spillway_router.deploy.order import (
    PORT,
    SWITCH,
    Accepted,
    Command,
    DeployError,
    DeploymentOrder,
    DeploymentPlan,
    Run,
    gpu_of,
)

ACCELERATORS = {name: gpu.targets.sky for name, gpu in GPUS.items() if gpu.targets.sky}
READY_WITHIN_S = 1800
"""How long a replica may take until it is ready: image, model and compiled kernels."""


class Sky:
    """Launch a cluster of one machine, or a service whose machines are replaced."""

    name = "sky"
    key_variable = ""
    serves_when_made = False
    log_command = "sky logs ID"
    accepted = Accepted(
        settings={"service": SWITCH, "replicas": "[1-9][0-9]{0,2}"},
        name="[a-z]([a-z0-9-]{0,39}[a-z0-9])?",
        place="(runpod|vast|aws|gcp|azure|lambda|k8s|kubernetes)(/[A-Za-z0-9._-]+){0,2}",
    )

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """Write the YAML, then launch it. A spot machine is a service, since only that is recovered."""
        accelerator = gpu_of(ACCELERATORS, order, self.name)
        service = order.options.get("service") == "1" or order.interruptible
        if order.options.get("replicas") and not service:
            raise DeployError("replicas are a service's: pass --set service=1 as well")
        file = f"{order.name}.sky.yaml"
        text = yaml.safe_dump(task(order, accelerator, service), sort_keys=False)
        secrets = tuple(word for name in order.secrets for word in ("--secret", name))
        launch = ("sky", "serve", "up", "--service-name") if service else ("sky", "launch", "--cluster")
        flags = () if service else ("--detach-run", "--retry-until-up")
        steps = (
            Command("write the task", ("tee", file), text),
            Command("launch it where it is cheapest", (*launch, order.name, *secrets, *flags, "--yes", file)),
        )
        return DeploymentPlan(
            self.name, steps, f"service/{order.name}" if service else order.name, _notes(order, service)
        )

    def address(self, handle: str, run: Run) -> str:
        """Return the address of a service's load balancer, or of the cluster's port; "" while there is none."""
        kind, _, name = handle.rpartition("/")
        of_cluster = ("sky", "status", "--endpoint", str(PORT), name)
        answer = run(("sky", "serve", "status", "--endpoint", name) if kind else of_cluster, "").strip().splitlines()
        last = answer[-1].strip() if answer else ""
        if last.startswith("http"):
            return last
        return f"http://{last}" if ":" in last and " " not in last else ""

    def destroy(self, handle: str, order: DeploymentOrder) -> DeploymentPlan:
        """Take the cluster or the service down."""
        del order
        kind, _, name = handle.rpartition("/")
        argv = ("sky", "serve", "down", "--yes", name) if kind else ("sky", "down", "--yes", name)
        notes = ("The service's controller goes on; `sky status` shows it and `sky down` ends it.",) if kind else ()
        return DeploymentPlan(self.name, (Command("release the machines", argv),), handle, notes)


def task(order: DeploymentOrder, accelerator: str, service: bool) -> dict[str, Any]:
    """Return the task as SkyPilot reads it, without the value of any secret."""
    resources: dict[str, Any] = {
        "accelerators": f"{accelerator}:{order.count}",
        "image_id": f"docker:{order.image}",
        "disk_size": order.disk_gb,
        "ports": PORT,
        "use_spot": order.interruptible,
        "max_hourly_cost": float(order.per_hour),
    }
    if order.place:
        resources["infra"] = order.place
    content: dict[str, Any] = {"name": order.name, "resources": resources}
    if service:
        content["service"] = {
            "readiness_probe": {"path": "/ready", "initial_delay_seconds": READY_WITHIN_S},
            "replicas": int(order.options.get("replicas", "1")),
        }
    content["envs"] = environment(order, encoded=True)
    if order.secrets:
        content["secrets"] = dict.fromkeys(order.secrets)
    content["run"] = "cd /data && exec /opt/spillway/bin/spillway-start spillway up\n"
    return content


def _notes(order: DeploymentOrder, service: bool) -> tuple[str, ...]:
    return (
        "SkyPilot takes a price of at most --price; `sky launch --dryrun` tells which, before it launches.",
        "It enters the container as root: push an image of two lines (FROM yours, USER 0).",
        *(f"Export {name}: sky takes its value from your environment as a secret." for name in order.secrets),
        *(
            ("A service also rents a small controller machine, for all services together.",)
            if service
            else ("Ledger and models are on the machine's disk, and are lost with it.",)
        ),
    )

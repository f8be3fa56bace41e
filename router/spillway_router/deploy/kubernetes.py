"""Kubernetes: the Helm chart deploy/kubernetes/spillway, installed through the `helm` command.

Values go to helm's standard input, so that none of them appears in an argument.
"""

from __future__ import annotations

from typing import Any

import yaml

from spillway_hardware.gpus import GPUS
from spillway_router.deploy.container import settings_text
from spillway_router.deploy.files import deploy_file
from spillway_router.deploy.order import Command, DeployError, DeploymentOrder, DeploymentPlan, gpu_of

PRODUCTS = {name: gpu.targets.kubernetes for name, gpu in GPUS.items() if gpu.targets.kubernetes}
SECRET = "spillway-provider-keys"  # noqa: S105 - a Secret's name
WAIT = "20m"


class _Dumper(yaml.SafeDumper):
    """A dumper that writes texts of several lines as blocks, so that people can read them."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


class Kubernetes:
    """Install a release in a namespace of the current cluster."""

    name = "kubernetes"
    key_variable = ""

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """Install or upgrade the release, and wait until it is ready."""
        gpu_of(PRODUCTS, order, self.name)
        if order.interruptible:
            raise DeployError("the cluster decides about spot nodes: label them and use the chart's nodeSelector")
        namespace = order.place or "spillway"
        values = chart_values(order)
        argv = (
            *("helm", "upgrade", "--install", order.name, str(deploy_file("kubernetes/spillway"))),
            *("--namespace", namespace, "--create-namespace", "--values", "-", "--wait", "--timeout", WAIT),
        )
        step = Command("install the release", argv, yaml.dump(values, Dumper=_Dumper, sort_keys=False))
        keys = ", ".join(order.secrets)
        notes = (
            f"kubectl -n {namespace} port-forward service/{order.name} 8080:80",
            *(
                (f"The release needs the Secret {SECRET} in the namespace, with the keys {keys}.",)
                if order.secrets
                else ()
            ),
            "Spillway cannot see what a node costs; its reports use the price that you gave.",
        )
        return DeploymentPlan(self.name, (step,), f"{namespace}/{order.name}", notes)

    def destroy(self, handle: str, order: DeploymentOrder) -> DeploymentPlan:
        """Uninstall the release; the chart's volume claims are kept."""
        namespace, _, release = handle.rpartition("/")
        argv = ("helm", "uninstall", release, "--namespace", namespace or order.place or "spillway", "--wait")
        return DeploymentPlan(
            self.name, (Command("uninstall the release", argv),), handle, ("Volume claims are kept.",)
        )


def chart_values(order: DeploymentOrder) -> dict[str, Any]:
    """Return the chart's values for an order."""
    values: dict[str, Any] = {
        "image": _image(order.image),
        "gpu": {"count": order.count, "products": list(PRODUCTS[order.gpu])},
        "config": settings_text(order),
        "models": {"size": f"{order.disk_gb}Gi"},
    }
    if order.secrets:
        values["providerKeys"] = {"existingSecret": SECRET}
    if order.access is not None:
        values["acceptKey"] = f"{order.access.id}:{order.access.sha256}"
    return values


def _image(name: str) -> dict[str, str]:
    """Split `host:5000/path:tag@sha256:...` into the chart's parts. A colon before the last slash belongs to a port."""
    rest, _, digest = name.partition("@")
    repository, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = rest, ""
    return {"repository": repository, "tag": tag, **({"digest": digest} if digest else {})}

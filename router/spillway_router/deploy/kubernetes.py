"""Kubernetes: the Helm chart deploy/kubernetes/spillway through the `helm` command. Values go in by standard input, so
that nothing of them stands in an argument.
"""

from __future__ import annotations

from typing import Any

import yaml

from spillway_router.deploy.container import settings_text
from spillway_router.deploy.files import deploy_file
from spillway_router.deploy.order import Command, DeployError, DeploymentOrder, DeploymentPlan, gpu_of

# The label that NVIDIA's GPU feature discovery puts on nodes.
PRODUCTS = {
    "t4": ("Tesla-T4",),
    "a10g": ("NVIDIA-A10G",),
    "l4": ("NVIDIA-L4",),
    "a100-40": ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB"),
    "a100-80": ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"),
    "h100": ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe", "NVIDIA-H100-NVL"),
}
SECRET = "spillway-provider-keys"  # noqa: S105 - a Secret's name
WAIT = "20m"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, so that a person can read them."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


class Kubernetes:
    """A release in a namespace of the current cluster."""

    name = "kubernetes"
    key_variable = ""

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """Install the release or bring it up to date, and wait for it."""
        gpu_of(PRODUCTS, order, self.name)
        if order.interruptible:
            raise DeployError("spot nodes are the cluster's business: label them and use the chart's nodeSelector")
        namespace = order.place or "spillway"
        values = chart_values(order)
        argv = (
            *("helm", "upgrade", "--install", order.name, str(deploy_file("kubernetes/spillway"))),
            *("--namespace", namespace, "--create-namespace", "--values", "-", "--wait", "--timeout", WAIT),
        )
        step = Command("install the release", argv, yaml.dump(values, Dumper=_Dumper, sort_keys=False))
        notes = (
            f"kubectl -n {namespace} port-forward service/{order.name} 8080:80",
            *(
                (f"Needs the Secret {SECRET} in the namespace, with the keys {', '.join(order.secrets)}.",)
                if order.secrets
                else ()
            ),
            "What a node costs is between you and the cluster; the price given is what Spillway's books count with.",
        )
        return DeploymentPlan(self.name, (step,), f"{namespace}/{order.name}", notes)

    def destroy(self, handle: str, order: DeploymentOrder) -> DeploymentPlan:
        """Uninstall the release; volumes that the chart keeps stay."""
        namespace, _, release = handle.rpartition("/")
        argv = ("helm", "uninstall", release, "--namespace", namespace or order.place or "spillway", "--wait")
        return DeploymentPlan(self.name, (Command("uninstall the release", argv),), handle, ("Volume claims stay.",))


def chart_values(order: DeploymentOrder) -> dict[str, Any]:
    """The chart's values for an order."""
    found: dict[str, Any] = {
        "image": _image(order.image),
        "gpu": {"count": order.count, "products": list(PRODUCTS[order.gpu])},
        "config": settings_text(order),
        "models": {"size": f"{order.disk_gb}Gi"},
    }
    if order.secrets:
        found["providerKeys"] = {"existingSecret": SECRET}
    if order.access is not None:
        found["acceptKey"] = f"{order.access.id}:{order.access.sha256}"
    return found


def _image(name: str) -> dict[str, str]:
    """`host:5000/path:tag@sha256:...` in the chart's parts. A colon before the last slash belongs to a port."""
    rest, _, digest = name.partition("@")
    repository, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = rest, ""
    return {"repository": repository, "tag": tag, **({"digest": digest} if digest else {})}

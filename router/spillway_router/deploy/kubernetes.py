"""Kubernetes: the Helm chart deploy/kubernetes/spillway, installed through the `helm` command.

Values go to helm's standard input, so that none of them appears in an argument.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from spillway_hardware.gpus import GPUS
from spillway_router.config.load import ConfigError, parse
from spillway_router.config.settings import LimitsPart
from spillway_router.deploy.container import settings_text, stop_s
from spillway_router.deploy.files import deploy_file
from spillway_router.deploy.order import Accepted, Command, DeployError, DeploymentOrder, DeploymentPlan, Run, gpu_of

PRODUCTS = {name: gpu.targets.kubernetes for name, gpu in GPUS.items() if gpu.targets.kubernetes}
SECRET = "spillway-provider-keys"  # noqa: S105 - a Secret's name
WAIT = "20m"
_DROPPED_S = 10
"""How long a pod sleeps before it stops, until its Service has dropped it."""
_GRACE_S = 190
"""The chart's own terminationGracePeriodSeconds."""


class _Dumper(yaml.SafeDumper):
    """A dumper that writes texts of several lines as blocks, so that people can read them, and quotes every other text
    that could be something else to another reader: helm takes the tags 1e3, 08 and y for numbers and a truth value,
    where PyYAML sees none to quote."""


_PLAIN = re.compile("[A-Za-z][A-Za-z]")


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None if _PLAIN.match(text) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


class Kubernetes:
    """Install a release in a namespace of the current cluster."""

    name = "kubernetes"
    key_variable = ""
    serves_when_made = True
    """helm waits until the pods are ready."""
    log_command = "kubectl logs --namespace NAMESPACE POD"
    accepted = Accepted(
        settings={"context": r"[A-Za-z0-9][A-Za-z0-9@:/._-]*", "pull_secret": "[a-z0-9]([a-z0-9.-]*[a-z0-9])?"},
        name="[a-z]([a-z0-9-]{0,51}[a-z0-9])?",  # helm takes 53 characters, and a Service begins with a letter
        place="[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        mounts_file=True,
    )

    def create(self, order: DeploymentOrder) -> DeploymentPlan:
        """Install or upgrade the release, and wait until it is ready."""
        gpu_of(PRODUCTS, order, self.name)
        if order.interruptible:
            raise DeployError("the cluster decides about spot nodes: label them and use the chart's nodeSelector")
        namespace = order.place or "spillway"
        context = order.options.get("context", "")
        values = chart_values(order)
        argv = (
            *("helm", "upgrade", "--install", order.name, str(deploy_file("kubernetes/spillway"))),
            *("--namespace", namespace, "--create-namespace", "--values", "-", "--wait", "--timeout", WAIT),
            *(("--kube-context", context) if context else ()),
        )
        step = Command("install the release", argv, yaml.dump(values, Dumper=_Dumper, sort_keys=False))
        keys = ", ".join(order.secrets)
        notes = (
            f"It is installed into {f'the context {context}' if context else 'the current context of kubectl'}.",
            f"kubectl -n {namespace} port-forward service/{_full_name(order.name)} 8080:80",
            "Kubernetes does not change the size of a volume: another --disk needs another --name.",
            *(
                (f"The release needs the Secret {SECRET} in the namespace, with the keys {keys}.",)
                if order.secrets
                else ()
            ),
            "Spillway cannot see what a node costs; its reports use the price that you gave.",
        )
        return DeploymentPlan(self.name, (step,), f"{namespace}/{order.name}", notes)

    def address(self, handle: str, run: Run) -> str:
        """Return "": the address of a Service is the cluster's."""
        del handle, run
        return ""

    def destroy(self, handle: str, order: DeploymentOrder) -> DeploymentPlan:
        """Uninstall the release; the chart's volume claims are kept."""
        namespace, _, release = handle.rpartition("/")
        argv = (
            *("helm", "uninstall", release, "--namespace", namespace or order.place or "spillway", "--wait"),
            *(("--kube-context", order.options["context"]) if order.options.get("context") else ()),
        )
        return DeploymentPlan(
            self.name, (Command("uninstall the release", argv),), handle, ("Volume claims are kept.",)
        )


def chart_values(order: DeploymentOrder) -> dict[str, Any]:
    """Return the chart's values for an order."""
    values: dict[str, Any] = {
        "image": _image(order.image),
        "gpu": {"count": order.count, "products": list(PRODUCTS[order.gpu]), "minDriver": _driver(order.cuda)},
        "config": settings_text(order),
        "models": {"size": f"{order.disk_gb}Gi"},
    }
    grace_s = _DROPPED_S + stop_s(_limits(order))
    if grace_s > _GRACE_S:
        values["terminationGracePeriodSeconds"] = grace_s
    if order.secrets:
        values["providerKeys"] = {"existingSecret": SECRET}
    if order.options.get("pull_secret"):
        values["imagePullSecrets"] = [{"name": order.options["pull_secret"]}]
    if order.access is not None:
        values["acceptKey"] = f"{order.access.id}:{order.access.sha256}"
    return values


def _limits(order: DeploymentOrder) -> LimitsPart:
    """Return the limits of the pod's configuration, which is valid."""
    try:
        return parse(settings_text(order), dict.fromkeys(order.secrets, "-")).limits
    except ConfigError:
        return LimitsPart()


def _driver(cuda: str) -> int:
    """Return the lowest major version of NVIDIA's driver that runs a CUDA version."""
    return 580 if cuda.startswith("13.") else 575 if cuda == "12.9" else 525


def _full_name(release: str) -> str:
    """Return the name of the chart's objects (`spillway.name` in its _helpers.tpl)."""
    name = release if "spillway" in release else f"{release}-spillway"
    return name[:52].removesuffix("-")


def _image(name: str) -> dict[str, str]:
    """Split `host:5000/path:tag@sha256:...` into the chart's parts. A colon before the last slash belongs to a port."""
    rest, _, digest = name.partition("@")
    repository, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = rest, ""
    return {"repository": repository, "tag": tag, **({"digest": digest} if digest else {})}

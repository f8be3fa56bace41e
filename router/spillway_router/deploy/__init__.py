"""Renting a GPU and starting Spillway on it: one file per target, and this registry.

To add a target: a class with `name`, `key_variable`, `create` and `destroy` (order.Target) in a file of its own, a line
here, its case in tests/deploy and a page in docs/deploy.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from spillway_router.deploy.aws import Aws
from spillway_router.deploy.kubernetes import Kubernetes
from spillway_router.deploy.order import DeploymentTarget
from spillway_router.deploy.runpod import RunPod
from spillway_router.deploy.vast import Vast

TARGETS: Mapping[str, DeploymentTarget] = MappingProxyType(
    {target.name: target for target in (RunPod(), Vast(), Aws(), Kubernetes())}
)

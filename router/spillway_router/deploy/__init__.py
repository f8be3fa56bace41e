"""Rent a GPU and start Spillway on it: one file per target, and the registry of the targets.

To add a target, write a class with `name`, `key_variable`, `create` and `destroy` (order.DeploymentTarget) in a file of
its own, and add a line to `TARGETS`, the target's names of the GPUs to gpus.yaml, a case to tests/deploy and a page to
docs/deploy.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from spillway_router.deploy.aws import Aws
from spillway_router.deploy.kubernetes import Kubernetes
from spillway_router.deploy.order import DeploymentTarget
from spillway_router.deploy.runpod import RunPod
from spillway_router.deploy.sky import Sky
from spillway_router.deploy.vast import Vast

TARGETS: Mapping[str, DeploymentTarget] = MappingProxyType(
    {target.name: target for target in (RunPod(), Vast(), Aws(), Kubernetes(), Sky())}
)
